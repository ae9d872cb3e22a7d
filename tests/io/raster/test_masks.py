"""Masks that a user gives: raster or polygons, on any grid; what is wrong with one is said in a line."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from odc.geo import Geometry
from odc.geo.geobox import GeoBox

from crosstie.errors import BadInputError, NoGeoreferenceError, UnreadableRasterError
from crosstie.io.raster import open_mask, open_source, read_plane
from crosstie.io.raster.masks import MAX_POLYGON_BYTES, MAX_VERTICES, GroundMask
from crosstie.types import Kind

GRID = GeoBox((120, 160), Affine(10, 0, 600_000, 0, -10, 5_300_000), "EPSG:32632")


def write_mask(path: Path, values: np.ndarray, grid: GeoBox, **profile: Any) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=grid.shape[0], width=grid.shape[1], count=1, dtype=values.dtype,
        crs=str(grid.crs), transform=grid.affine, **profile,
    ) as raster:  # fmt: skip
        raster.write(values, 1)
    return path


def covers(mask: GroundMask, grid: GeoBox = GRID) -> np.ndarray:
    return np.asarray(mask.covers(grid))


@pytest.fixture
def half(tmp_path: Path) -> np.ndarray:
    values = np.zeros(GRID.shape, np.uint8)
    values[:, 80:] = 1
    return values


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_pixels_that_are_not_zero_are_masked(dtype: str, half: np.ndarray, tmp_path: Path):
    path = write_mask(tmp_path / "mask.tif", (half * 3).astype(dtype), GRID)
    np.testing.assert_array_equal(covers(open_mask(path)), half > 0)


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 255), ("float32", np.nan), ("float32", -9999.0)])
def test_nodata_of_a_mask_masks_nothing(dtype: str, nodata: float, half: np.ndarray, tmp_path: Path):
    values = half.astype(dtype)
    values[:60] = nodata
    masked = covers(open_mask(write_mask(tmp_path / "mask.tif", values, GRID, nodata=nodata)))
    assert not masked[:60].any()
    np.testing.assert_array_equal(masked[60:], half[60:] > 0)


@pytest.mark.parametrize("name", ["SCL.tif", "T32UQD_20210809T102031_SCL_20m.tif", "scl-2021.tif"])
def test_of_a_scene_classification_clouds_and_shadows_are_masked(name: str, tmp_path: Path):
    classes = np.arange(120 * 160).reshape(120, 160).astype(np.uint8) // 20 % 12
    masked = covers(open_mask(write_mask(tmp_path / name, classes, GRID)))
    np.testing.assert_array_equal(masked, np.isin(classes, [0, 1, 3, 8, 9, 10]))


def test_outside_of_a_scene_classification_nothing_is_masked(tmp_path: Path):
    part = GRID[:60, :80]
    mask = open_mask(write_mask(tmp_path / "SCL.tif", np.full(part.shape, 9, np.uint8), part))
    expected = np.zeros(GRID.shape, bool)
    expected[:60, :80] = True
    np.testing.assert_array_equal(covers(mask), expected)
    assert not covers(mask, GRID[100:, 100:]).any()


def test_only_bytes_named_so_are_a_scene_classification(half: np.ndarray, tmp_path: Path):
    for name, dtype in (("sclera.tif", np.uint8), ("clouds.tif", np.uint8), ("SCL.tif", np.float32)):
        path = write_mask(tmp_path / name, (half * 4).astype(dtype), GRID)
        np.testing.assert_array_equal(covers(open_mask(path)), half > 0)


def test_a_mask_of_its_own_grid_and_crs_lies_where_it_lies(tmp_path: Path):
    """Coarser, finer, in degrees, and smaller than the image: the masked ground is the same."""
    ground = shapely.box(600_500, 5_299_200, 601_000, 5_299_700)
    expected = rasterio.features.rasterize([ground], GRID.shape, transform=GRID.affine) > 0
    for grid, edge_px in (
        (GeoBox.from_bbox((600_300, 5_299_000, 601_200, 5_299_900), crs="EPSG:32632", resolution=60), 6),
        (GeoBox.from_bbox((600_300, 5_299_000, 601_200, 5_299_900), crs="EPSG:32632", resolution=3), 1),
        (GRID.to_crs("EPSG:4326"), 2),
    ):
        there = Geometry(ground, "EPSG:32632").to_crs(grid.crs)
        values = rasterio.features.rasterize([there.geom], grid.shape, transform=grid.affine, dtype=np.uint8)
        masked = covers(open_mask(write_mask(tmp_path / "mask.tif", values, grid)))
        rows, cols = np.nonzero(masked ^ expected)
        x, y = GRID.affine @ (cols + 0.5, rows + 0.5)
        away = shapely.distance(ground.boundary, shapely.points(x, y))
        assert masked.any()
        assert (away <= 10 * edge_px).all()


def geojson(path: Path, *shapes: shapely.Geometry, wrap: str = "FeatureCollection") -> Path:
    parts = [json.loads(shapely.to_geojson(shape)) for shape in shapes]
    features = [{"type": "Feature", "properties": None, "geometry": part} for part in parts]
    body: Any = {"type": "FeatureCollection", "features": features}
    if wrap != "FeatureCollection":
        body = features[0] if wrap == "Feature" else parts[0]
    path.write_text(json.dumps(body))
    return path


@pytest.mark.parametrize("wrap", ["FeatureCollection", "Feature", "geometry"])
def test_polygons_mask_every_pixel_that_they_touch(wrap: str, tmp_path: Path):
    ground = shapely.box(600_505, 5_299_205, 600_995, 5_299_695)
    lonlat = Geometry(ground, "EPSG:32632").to_crs("EPSG:4326").geom
    masked = covers(open_mask(geojson(tmp_path / "clouds.geojson", lonlat, wrap=wrap)))
    expected = rasterio.features.rasterize(
        [ground], GRID.shape, transform=GRID.affine, all_touched=True, dtype=np.uint8
    )
    assert masked.sum() == pytest.approx(expected.sum(), rel=0.03)
    assert masked[expected > 0].mean() > 0.97


def test_polygons_beside_the_antimeridian_are_found_by_either_count(tmp_path: Path):
    grid = GeoBox((100, 100), Affine(10, 0, 808_000, 0, -10, 8_020_000), "EPSG:32760")
    middle = grid.extent.centroid.to_crs("EPSG:4326").geom
    assert middle.x > 179.8
    near = shapely.box(middle.x - 0.002, middle.y - 0.002, middle.x + 0.002, middle.y + 0.002)
    turned = shapely.transform(near, lambda xy: xy - [360.0, 0.0])
    masks = [covers(open_mask(geojson(tmp_path / "m.json", shape)), grid) for shape in (near, turned)]
    assert 0 < masks[0].mean() < 0.5
    np.testing.assert_array_equal(masks[0], masks[1])


def test_a_plane_is_invalid_under_its_mask_and_nowhere_else(half: np.ndarray, tmp_path: Path):
    image = write_mask(tmp_path / "s2.tif", np.full(GRID.shape, 1000, np.uint16), GRID)
    mask = open_mask(write_mask(tmp_path / "mask.tif", half, GRID))
    source = replace(open_source(image, kind=Kind.OPTICAL), mask=mask)
    np.testing.assert_array_equal(np.isnan(read_plane(source, GRID)), half > 0)
    part = GRID[30:70, 70:110]
    np.testing.assert_array_equal(np.isnan(read_plane(source, part)), half[30:70, 70:110] > 0)


def test_the_digest_follows_what_the_file_holds(half: np.ndarray, tmp_path: Path):
    raster = open_mask(write_mask(tmp_path / "mask.tif", half, GRID)).sha256
    assert open_mask(write_mask(tmp_path / "mask.tif", 1 - half, GRID)).sha256 != raster
    polygon = open_mask(geojson(tmp_path / "m.json", shapely.box(8, 47, 9, 48))).sha256
    assert open_mask(geojson(tmp_path / "m.json", shapely.box(8, 47, 9, 49))).sha256 != polygon


BAD_POLYGONS = {
    "no JSON": ("{", "no GeoJSON"),
    "a list": ("[1, 2]", "no GeoJSON"),
    "a number": ("7", "no GeoJSON"),
    "nothing in it": ('{"type": "FeatureCollection", "features": []}', "1 to 200,000 vertices"),
    "features of another kind": ('{"type": "FeatureCollection", "features": 3}', "no GeoJSON"),
    "a geometry without a type": ('{"type": "Feature", "geometry": {"coordinates": []}}', "no GeoJSON"),
    "a line": ('{"type": "LineString", "coordinates": [[8, 47], [9, 48]]}', "made of polygons"),
    "metres": (
        '{"type": "Polygon", "coordinates": [[[600000, 5300000], [600100, 5300000], [600000, 5300100],'
        " [600000, 5300000]]]}",
        "longitude and latitude",
    ),
    "deeply nested": ("[" * 100_000, "no GeoJSON"),
    "not finite": (
        '{"type": "Polygon", "coordinates": [[[NaN, 47], [9, 47], [9, 48], [NaN, 47]]]}',
        "GeoJSON",
    ),
}


@pytest.mark.parametrize(("text", "said"), BAD_POLYGONS.values(), ids=list(BAD_POLYGONS))
def test_what_is_no_polygon_is_said_in_a_line(text: str, said: str, tmp_path: Path):
    path = tmp_path / "mask.geojson"
    path.write_text(text)
    with pytest.raises(BadInputError, match=said) as caught:
        open_mask(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_limits_hold_before_anything_is_built(tmp_path: Path):
    path = tmp_path / "mask.geojson"
    path.write_bytes(b" " * (MAX_POLYGON_BYTES + 1))
    with pytest.raises(BadInputError, match="16 MiB"):
        open_mask(path)
    angle = np.linspace(0, 2 * np.pi, MAX_VERTICES + 2)
    ring = np.round(np.column_stack([8 + np.cos(angle), 47 + np.sin(angle)]), 5).tolist()
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    with pytest.raises(BadInputError, match="vertices"):
        open_mask(path)


def test_masks_that_lie_nowhere_or_are_not_there_are_refused(half: np.ndarray, tmp_path: Path):
    with pytest.raises(UnreadableRasterError, match=r"none\.tif"):
        open_mask(tmp_path / "none.tif")
    with pytest.raises(BadInputError, match=r"none\.geojson"):
        open_mask(tmp_path / "none.geojson")
    path = tmp_path / "bare.tif"
    with (
        warnings.catch_warnings(action="ignore"),
        rasterio.open(path, "w", driver="GTiff", height=120, width=160, count=1, dtype="uint8") as raster,
    ):
        raster.write(half, 1)
    with pytest.raises(NoGeoreferenceError, match=r"bare\.tif"):
        open_mask(path)
