"""A whole swath, whose geometry is known at every pixel, found again through its control points."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.transform import GCPTransformer
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import gaussian_filter
from swath import Swath

from crosstie.errors import NoGeoreferenceError
from crosstie.io.raster import open_source, read_plane
from crosstie.io.raster.control_points import GroundMap, ground_map
from crosstie.io.raster.georeference import Georeference, corrected, outline
from crosstie.io.raster.locate import locator
from crosstie.types import Kind

ASKED_PX = 0.15
"""What is asked for; where nothing but geometry is at work, a hundredth of a pixel is."""


def follow(points: np.ndarray, crs: str = "EPSG:4326") -> GroundMap:
    return ground_map(tuple(tuple(float(v) for v in point) for point in points), crs)


def worst_px(found: GroundMap, swath: Swath, n: int = 4000, margin: float = 0.0) -> float:
    """Largest error of the way back, over random places and the image's rim."""
    t = np.random.default_rng(7).uniform(-margin, 1 + margin, (n, 2))
    t[:400, 0], t[400:800, 1] = np.round(t[:400, 0]), np.round(t[400:800, 1])
    row, col = t.T * np.array([[swath.rows], [swath.cols]])
    found_row, found_col = found.locate(*swath.ground(row, col))
    return float(np.hypot(found_row - row, found_col - col).max())


def hills(seed: int) -> RegularGridInterpolator:
    """Heights from 0 to 835 m, linear between the control points."""
    h = gaussian_filter(np.random.default_rng(seed).normal(size=(10, 21)), (1.0, 2.0))
    at = np.linspace(0, 16_700, 10), np.linspace(0, 25_600, 21)
    linear = RegularGridInterpolator(at, (h - h.min()) / np.ptp(h) * 835, bounds_error=False, fill_value=None)
    return lambda row, col: linear(np.column_stack([np.ravel(row), np.ravel(col)])).reshape(np.shape(row))


PASSES = {
    **{f"at {lat}": Swath(lat) for lat in (0, 29.5, 61, 72, 78, 80)},
    "south": Swath(-33.0),
    "far south": Swath(-75.0),
    "descending": Swath(45.0, descending=True),
    "descending, south": Swath(-20.0, descending=True),
    "flipped": Swath(29.5, flipped=True),
    "flipped, descending": Swath(64.0, flipped=True, descending=True),
    "antimeridian": Swath(-17.0, lon=175.0),
    "antimeridian at 70": Swath(70.0, lon=168.0),
    "antimeridian, descending": Swath(62.0, lon=-171.0, descending=True),
}


@pytest.mark.parametrize("swath", PASSES.values(), ids=PASSES.keys())
def test_every_place_of_a_swath_is_found_to_a_hundredth_of_a_pixel(swath: Swath):
    found = follow(swath.points())
    assert worst_px(found, swath) < 0.01
    lon, lat = found.ground(np.array([100.0, 9000.0]), np.array([25_000.0, 3.0]))
    expected = swath.ground(np.array([100.0, 9000.0]), np.array([25_000.0, 3.0]))
    np.testing.assert_allclose(
        (lon, lat), (((expected[0] + 180) % 360) - 180, expected[1]), atol=1e-7
    )  # 1 cm
    assert not found.facts.left_out
    assert not found.facts.irregular
    assert found.facts.residual_m < 0.1


def test_the_antimeridian_cases_do_cross_it():
    for name, swath in PASSES.items():
        if name.startswith("antimeridian"):
            assert np.ptp(swath.points()[:, 2]) > 300, name


@pytest.mark.parametrize("lon", [-360.0, 360.0])
def test_longitudes_may_run_on_past_180(lon: float):
    swath = Swath(70.0, lon=168.0)
    points = swath.points()
    points[:, 2] = np.where(points[:, 2] < 0, points[:, 2] + 360, points[:, 2]) + lon
    assert worst_px(follow(points), swath) < 0.01


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("place", [Swath(29.5), Swath(70.0, descending=True), Swath(-45.0, flipped=True)])
def test_hills_are_followed_from_point_to_point(place: Swath, seed: int):
    swath = replace(place, height=hills(seed))
    found = follow(swath.points())
    assert worst_px(found, swath) < ASKED_PX
    assert not found.facts.left_out
    low, high = found.facts.height_m
    assert (round(low), round(high)) == (0, 835)
    assert "heights of 0 to 835 m" in found.facts.sentence


@pytest.mark.parametrize("lat", [29.5, 72.0])
@pytest.mark.parametrize("count", [40, 210, 1500])
def test_irregular_points_will_do(lat: float, count: int):
    swath = Swath(lat)
    rng = np.random.default_rng(3)
    row, col = rng.uniform(0, swath.rows, count), rng.uniform(0, swath.cols, count)
    found = follow(swath.points_at(row, col))
    assert found.facts.irregular
    assert worst_px(found, swath) < ASKED_PX


BLUNDERS = {
    "a third of a degree": (2, 0.3),
    "50 m": (3, 50 / 111_320),
    "other side of the Earth": (2, 180.0),
    "no number": (2, np.nan),
    "no latitude": (3, 90.0),
    "6 px down": (0, 6.0),
    "a swath beside": (1, 25_000.0),
    "a column of 4 million": (1, 4e6),
}


@pytest.mark.parametrize(("column", "by"), BLUNDERS.values(), ids=BLUNDERS.keys())
@pytest.mark.parametrize("number", [1, 78, 210])
def test_a_blunder_is_left_out_and_named(column: int, by: float, number: int):
    swath = Swath(55.0)
    points = swath.points()
    points[number - 1, column] += by
    found = follow(points)
    assert found.facts.left_out == (number,)
    assert found.facts.count == 209
    assert f"left out as plainly wrong: number {number}" in found.facts.sentence
    assert worst_px(found, swath) < 0.01


def test_blunders_among_hills_are_told_from_hills():
    swath = replace(Swath(29.5), height=hills(2))
    points = swath.points()
    points[[17, 99, 140], 2] += 0.02  # 2 km: more than any hill here
    found = follow(points)
    assert found.facts.left_out == (18, 100, 141)
    away = np.abs(np.subtract.outer(np.arange(210), [17, 99, 140])).min(axis=1) > 22
    row, col = found.locate(*points[away, 2:4].T)
    np.testing.assert_allclose(np.column_stack([row, col]), points[away, :2], rtol=0, atol=0.01)


def test_many_blunders_are_refused():
    points = Swath(29.5).points()
    points[::5, 3] += np.random.default_rng(0).normal(size=42)
    with pytest.raises(NoGeoreferenceError, match=r"its 210 ground control points contradict"):
        follow(points)
    points[:, 4] = Swath(29.5, height=hills(1)).points()[:, 4]
    with pytest.raises(NoGeoreferenceError, match=r"of its 210 ground control points contradict"):
        follow(points)


def test_a_range_of_hills_whose_heights_were_dropped_is_followed_all_the_same():
    def ridge(row: np.ndarray, col: np.ndarray) -> np.ndarray:
        return np.interp(col, [0, 12_800, 14_080, 16_640, 17_920, 25_600], [0, 0, 2000, 2000, 0, 0])

    swath = Swath(29.5, height=ridge)
    points = swath.points()
    points[:, 4] = 0
    found = follow(points)
    assert not found.facts.left_out
    assert found.facts.residual_m > 50  # and it says that the points do not agree
    row, col = found.locate(*points[:, 2:4].T)
    np.testing.assert_allclose(np.column_stack([row, col]), points[:, :2], rtol=0, atol=0.01)


def test_around_the_pole():
    turned = Affine.rotation(33) @ Affine.scale(40, -40) @ Affine.translation(-4000, -3000)
    to_degrees = Transformer.from_crs("EPSG:3413", "EPSG:4326", always_xy=True)
    row, col = (v.ravel() for v in np.meshgrid(np.linspace(0, 6000, 13), np.linspace(0, 8000, 17)))
    points = np.column_stack([row, col, *to_degrees.transform(*(turned @ (col, row))), row * 0])
    found = follow(points)
    px = np.random.default_rng(0).uniform(0, 6000, (2000, 2))
    back = found.locate(*to_degrees.transform(*(turned @ (px[:, 1], px[:, 0]))))
    np.testing.assert_allclose(np.column_stack(back), px, rtol=0, atol=0.01)


def test_metres_are_as_good_as_degrees_and_few_points_hold_an_affine():
    turned = Affine.translation(500_000, 4_200_000) @ Affine.rotation(-12) @ Affine.scale(10, -10)
    px = np.array([(0, 0), (500, 10), (20, 700), (480, 690)], float)
    points = np.column_stack([px[:, 1], px[:, 0], *(turned @ tuple(px.T)), px[:, 0] * 0])
    for count in (3, 4):
        found = follow(points[:count], "EPSG:32630")
        lon, lat = Transformer.from_crs("EPSG:32630", "EPSG:4326", always_xy=True).transform(
            *(turned @ (250.0, 350.0))
        )
        row, col = found.locate(np.array([lon]), np.array([lat]))
        np.testing.assert_allclose((row[0], col[0]), (350, 250), rtol=0, atol=0.01)


def test_beyond_the_points_the_map_goes_on():
    swath = Swath(61.0)
    points = swath.points()
    inner = points[(points[:, 0] < 15_000) & (points[:, 1] < 24_500)]  # a cell is missing on two sides
    assert worst_px(follow(inner), swath) < ASKED_PX
    lon, lat = swath.ground(np.array([8000.0]), np.array([80_000.0]))  # two swaths further
    _, col = follow(points).locate(lon, lat)
    assert col[0] > 60_000
    assert np.isnan(follow(points).locate(np.array([-170.0]), np.array([-61.0]))).all()


def line(n: int) -> np.ndarray:
    at = np.arange(n) * 40.0
    return np.column_stack([at, at, 10 + at * 1e-4, 45 - at * 1e-4, at * 0])


def two_rows() -> np.ndarray:
    points = Swath(29.5).points()
    return points[np.isin(points[:, 0], points[[0, 21], 0])]


REFUSED = {
    "two": (line(2), "2 ground control points do not fix its place"),
    "three on a line": (line(3), "lie on one line"),
    "twelve on a line": (line(12), "lie on one line"),
    "all the same": (np.tile(line(2)[1], (12, 1)), "do not fix its place"),
    "same ground": (Swath(29.5).points() * [1, 1, 0, 0, 1] + [0, 0, 10, 45, 0], "lie on one line"),
    "two rows": (two_rows(), "lie in two rows"),
    "two columns": (Swath(29.5).points(10, 2), "lie in two rows"),
    "no numbers": (Swath(29.5).points() * np.nan, "contradict|do not fix"),
    "corners of a swath": (Swath(72.0).points(2, 2), "miss an affine map"),
    "noise": (
        np.hstack([Swath(29.5).points()[:, :2], np.random.default_rng(0).uniform(0, 60, (210, 3))]),
        "contradict",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("points", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_points_that_fix_no_place_are_refused_in_one_line(points: np.ndarray, says: str):
    with pytest.raises(NoGeoreferenceError, match=says) as caught:
        follow(points)
    assert "\n" not in str(caught.value)


LOCAL = 'LOCAL_CS["site",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'


@pytest.mark.parametrize("crs", [LOCAL, "EPSG:4978", "EPSG:5773"])
def test_a_coordinate_system_that_is_nowhere_is_refused(crs: str):
    with pytest.raises(NoGeoreferenceError, match="coordinate system"):
        follow(Swath(29.5).points(), crs)


# -- as a file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crs", [LOCAL, "EPSG:4978", "EPSG:5773"])
def test_a_raster_whose_coordinate_system_is_nowhere_is_refused(tmp_path: Path, crs: str):
    path = tmp_path / "s1_vh.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=9, width=9, count=1, dtype="uint8", crs=crs,
        transform=Affine(10, 0, 500_000, 0, -10, 4_000_000),
    ):  # fmt: skip
        pass
    with pytest.raises(NoGeoreferenceError, match=r"s1_vh\.tif: its coordinate system") as caught:
        open_source(path)
    assert "\n" not in str(caught.value)


def crop(path: Path, swath: Swath, *, row: int, col: int, pixels: np.ndarray, points=None) -> Path:
    """A window of the swath as `gdal_translate -srcwin` cuts it: all points stay, counted from its corner."""
    gcps = [
        GroundControlPoint(row=r - row, col=c - col, x=x, y=y, z=z)
        for r, c, x, y, z in (swath.points() if points is None else points)
    ]
    with rasterio.open(
        path, "w", driver="GTiff", height=pixels.shape[0], width=pixels.shape[1], count=1,
        dtype=pixels.dtype, crs="EPSG:4326", gcps=gcps,
    ) as file:  # fmt: skip
        file.write(pixels, 1)
    return path


CROPS = {
    "mid": (Swath(29.5), 7700, 11_900),
    "corner at 72": (Swath(72.0), 100, 24_900),
    "antimeridian at 70": (Swath(70.0, lon=168.0), 7700, 10_600),
    "hills": (Swath(29.5, height=hills(1)), 3750, 19_300),
}


def utm_of(lon: float, lat: float) -> str:
    return f"EPSG:{(32600 if lat >= 0 else 32700) + int((lon + 180) % 360 // 6) + 1}"


@pytest.mark.parametrize(("swath", "row", "col"), CROPS.values(), ids=CROPS.keys())
def test_pixels_are_read_from_where_they_lie(tmp_path: Path, swath: Swath, row: int, col: int):
    lon, lat = swath.ground(row + 300.0, col + 300.0)
    crs = utm_of(float(lon), float(lat))
    to_map = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    x, y = to_map.transform(lon, lat)
    grid = GeoBox((120, 140), Affine(10, 0, x - 700, 0, -10, y + 600), crs)
    at_row, at_col = np.mgrid[0:600, 0:600].astype(np.float32) + 0.5
    asked_row, asked_col, corner = 40, 110, np.array([row, col])
    lon, lat = to_map.transform(*(grid.affine @ (asked_col + 0.5, asked_row + 0.5)), direction="INVERSE")
    for ramp, axis in ((at_row, 0), (at_col, 1)):
        path = crop(tmp_path / f"nir_{axis}.tif", swath, row=row, col=col, pixels=ramp)
        source = open_source(path)
        value = read_plane(replace(source, scale=1.0), grid)[asked_row, asked_col]
        px = np.array([300.0, 300.0])
        for _ in range(20):  # the swath's own geometry, turned round by itself
            here = np.array(to_map.transform(*swath.ground(*(px + corner))))
            by = [np.array(to_map.transform(*swath.ground(*(px + d + corner)))) - here for d in np.eye(2)]
            target = np.array(to_map.transform(lon, lat))
            px = px + np.linalg.solve(np.column_stack(by), target - here)
        assert abs(value - px[axis]) < (ASKED_PX if swath.height else 0.01)
    assert source.footprint.to_crs(crs).contains(grid.extent)


def test_what_is_wrong_is_said_once_with_the_name_of_the_file(tmp_path: Path, caplog):
    points = Swath(29.5).points()
    points[50, 2] += 1.0
    path = crop(
        tmp_path / "grd.tif", Swath(29.5), row=0, col=0, pixels=np.ones((50, 50), "u2"), points=points
    )
    with caplog.at_level(logging.INFO, "crosstie"):
        source = open_source(path, kind=Kind.SAR)
    (record,) = [r for r in caplog.records if "control points" in r.getMessage()]
    assert record.levelno == logging.WARNING
    assert "grd.tif: 209 ground control points followed" in record.getMessage()
    assert "number 51" in record.getMessage()
    assert source.control is not None
    assert source.control.facts.left_out == (51,)


# -- corrected ---------------------------------------------------------------------------------------------


def by_spline(place: Georeference, row: np.ndarray, col: np.ndarray) -> np.ndarray:
    """Where GDAL's thin-plate spline (`gdalwarp -tps`) puts pixels, (N, 2)."""
    with GCPTransformer(list(place.gcps), tps=True) as transformer:
        return np.column_stack(transformer.xy(row, col, offset="ul"))


SHIFT = Affine.translation(38.0, -21.0)


@pytest.mark.parametrize(("swath", "row", "col"), CROPS.values(), ids=CROPS.keys())
def test_a_corrected_swath_drawn_by_a_spline_is_never_worse(swath: Swath, row: int, col: int):
    lon, lat = swath.ground(row + 500.0, col + 500.0)
    crs = utm_of(float(lon), float(lat))
    to_map = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    points = swath.points()
    east, north = to_map.transform(*points[:, 2:4].T)
    points[:, 2:4] = np.column_stack(to_map.transform(*(~SHIFT @ (east, north)), direction="INVERSE"))
    gcps = tuple(GroundControlPoint(row=r, col=c, x=x, y=y, z=z) for r, c, x, y, z in points)
    off = Georeference((swath.rows, swath.cols), "EPSG:4326", None, gcps)
    mended = corrected(off, affine=SHIFT[:6], grid_crs=crs)
    assert [(g.row, g.col, g.z) for g in mended.gcps] == [(g.row, g.col, g.z) for g in gcps]
    at_row, at_col = (v.ravel() for v in np.mgrid[row : row + 1001 : 100.0, col : col + 1001 : 100.0])
    truth = np.column_stack(to_map.transform(*swath.ground(at_row, at_col)))
    before, after = (
        np.hypot(*(np.column_stack(to_map.transform(*by_spline(p, at_row, at_col).T)) - truth).T)
        for p in (off, mended)
    )
    assert after.max() <= before.max()
    assert np.ptp([g.x for g in mended.gcps]) < 40  # degrees: no jump, so that a surface can be drawn


def test_what_is_left_out_is_left_out_of_the_product_and_of_the_outline():
    points = Swath(29.5).points()
    points[50, 2] += 20.0
    gcps = tuple(GroundControlPoint(row=r, col=c, x=x, y=y, z=z) for r, c, x, y, z in points)
    place = Georeference((100, 100), "EPSG:4326", None, gcps, control=follow(points))
    mended = corrected(place, affine=SHIFT[:6], grid_crs="EPSG:32632")
    assert len(mended.gcps) == len(outline(place)) == 209


@pytest.mark.parametrize("swath", PASSES.values(), ids=PASSES.keys())
def test_pixels_are_moved_from_where_they_are_read(swath: Swath):
    """A polynomial through the points of such a swath misses by up to 19 px."""
    place = Georeference((swath.rows, swath.cols), "EPSG:4326", None, control=follow(swath.points()))
    row, col = np.array([100.0, 5_000.0, 9_000.0]), np.array([25_000.0, 40.0, 3.0])
    found_col, found_row = locator(place, "EPSG:4326")(*swath.ground(row, col))
    np.testing.assert_allclose((found_row, found_col), (row, col), rtol=0, atol=0.01)  # px


@pytest.mark.parametrize("value", [0.0, 5e-324, 1e-200, 1e-9, 1e7, 1e20, 1e300, -1e300, np.nan, np.inf])
@pytest.mark.parametrize("column", range(5), ids=["row", "col", "x", "y", "height"])
@pytest.mark.parametrize("which", [slice(4, 5), slice(0, 3), slice(None)], ids=["one", "three", "all"])
def test_numbers_that_damage_leaves_behind_end_in_a_map_or_a_refusal(column: int, value: float, which: slice):
    for points in (Swath(29.5).points().copy(), two_rows(), line(5)):
        points[which, column] = value
        try:
            found = follow(points)
        except NoGeoreferenceError as problem:
            assert str(problem)  # noqa: PT017
        else:
            assert np.isfinite(found.coefficients).all()
