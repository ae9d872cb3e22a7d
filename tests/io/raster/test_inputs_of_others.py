"""Rasters as other programs write them: units, names, parts, control points and places."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.control import GroundControlPoint

from crosstie.config import Settings
from crosstie.errors import BadInputError, UnreadableRasterError
from crosstie.flows.registration.plan import plan_pair
from crosstie.io.raster import open_pair, open_source, read_plane
from crosstie.types import Kind, Reason

SIDE = 256
RNG = np.random.default_rng(1)
FIELDS = RNG.random((16, 16)).repeat(16, axis=0).repeat(16, axis=1)
REFLECTANCE = 0.05 + 0.09 * FIELDS + RNG.normal(0, 0.003, (SIDE, SIDE))
POWER = 10 ** (-1.5 - FIELDS) * RNG.gamma(9, 1 / 9, FIELDS.shape)
DB = 10 * np.log10(POWER)
NORTH_UP = Affine(10, 0, 600_000, 0, -10, 5_300_000)
GRID = GeoBox((SIDE, SIDE), NORTH_UP, "EPSG:32632")


def write(path: Path, *bands: np.ndarray, **about: Any) -> Path:
    """A GeoTIFF; `labels`, `scales`, `offsets` and `gcps` beside what rasterio's profile takes."""
    labels, gcps = about.pop("labels", ()), about.pop("gcps", None)
    scaling = {name: about.pop(name) for name in ("scales", "offsets") if name in about}
    place = {"crs": "EPSG:32632"} | ({"gcps": gcps} if gcps else {"transform": NORTH_UP})
    shape = {
        "count": len(bands),
        "height": len(bands[0]),
        "width": bands[0].shape[1],
        "dtype": bands[0].dtype,
    }
    with rasterio.open(path, "w", driver="GTiff", **(place | shape | about)) as raster:
        raster.write(np.stack(bands))
        for n, label in enumerate(labels, start=1):
            raster.set_band_description(n, label)
        for name, values in scaling.items():
            setattr(raster, name, values)
    return path


def seen(path: Path, **about: Any) -> np.ndarray:
    source = open_source(path, **about)
    return read_plane(source, source.geobox)


# --- values that nobody declared


@pytest.mark.parametrize("fill", [-99.99, -99.0, -55.5, -60.0])
def test_a_number_far_below_all_db_is_no_backscatter(fill: float, tmp_path: Path):
    hidden = RNG.random(DB.shape) < 0.04
    found = seen(write(tmp_path / "s1.tif", np.where(hidden, fill, DB).astype(np.float32)))
    np.testing.assert_array_equal(np.isnan(found), hidden)


@pytest.mark.parametrize("floor", [-26.0, -22.0])
def test_db_that_are_clipped_from_below_stay(floor: float, tmp_path: Path):
    found = seen(write(tmp_path / "s1.tif", np.maximum(DB, floor).astype(np.float32)))
    assert np.isfinite(found).all()


# --- units


@pytest.mark.parametrize(
    ("stored", "white"),
    [
        ((100 * REFLECTANCE).astype(np.float32), 0.35),
        ((1e4 * REFLECTANCE).astype(np.float64), 0.35),
        (np.rint(REFLECTANCE / 0.35 * 255).astype(np.float32), 1.0),
    ],
    ids=["per cent", "ten-thousandths", "bytes as floats"],
)
def test_floats_of_each_unit_come_to_reflectance(stored: np.ndarray, white: float, tmp_path: Path):
    source = open_source(write(tmp_path / "s2.tif", stored))
    assert source.white == white
    found = read_plane(source, source.geobox) / source.white * 0.35
    np.testing.assert_allclose(found, REFLECTANCE, rtol=0, atol=0.35 / 255 / 2 + 1e-6)


def test_a_scale_in_per_cent_comes_to_reflectance(tmp_path: Path):
    found = seen(write(tmp_path / "s2.tif", np.rint(1e4 * REFLECTANCE).astype(np.uint16), scales=(0.01,)))
    np.testing.assert_allclose(found, REFLECTANCE, rtol=0, atol=6e-5)


@pytest.mark.parametrize("offset", [0.0, -0.1])
def test_a_scale_that_the_pixels_have_been_through_is_not_applied_again(
    offset: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = write(tmp_path / "s2.tif", REFLECTANCE.astype(np.float32), scales=(1e-4,), offsets=(offset,))
    np.testing.assert_allclose(seen(path), REFLECTANCE, rtol=0, atol=1e-6)
    assert any(
        record.levelno == logging.WARNING and "not applied" in record.message for record in caplog.records
    )


# --- names and bands


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sentinel1_asc_2020.tif", Kind.SAR),
        ("Sentinel-1A_20200101.tif", Kind.SAR),
        ("SENTINEL_1.tif", Kind.SAR),
        ("backscatter_mean.tif", Kind.SAR),
        ("Sentinel-2_2020.tif", Kind.OPTICAL),
        ("sentinel2b_clip.tif", Kind.OPTICAL),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_a_sensor_that_is_written_out_is_known(name: str, kind: Kind, count: int, tmp_path: Path):
    grey = np.rint(1000 * REFLECTANCE).astype(np.uint8)
    assert open_source(write(tmp_path / name, *[grey] * count)).kind is kind


def test_words_that_only_look_like_a_sensor_say_nothing(tmp_path: Path):
    grey = np.rint(1000 * REFLECTANCE).astype(np.uint8)
    with pytest.raises(BadInputError, match="nothing in it tells optical from SAR"):
        open_source(write(tmp_path / "sentinel_12.tif", grey))


def test_parts_of_complex_values_are_no_image(tmp_path: Path):
    parts = [RNG.normal(size=(SIDE, SIDE)).astype(np.float32) for _ in range(2)]
    with pytest.raises(UnreadableRasterError, match="parts of complex values"):
        open_source(write(tmp_path / "slc.tif", *parts, labels=("i_VV", "q_VV")), kind=Kind.SAR)
    image = POWER.astype(np.float32)
    path = write(tmp_path / "s1.tif", *parts, image, labels=("i_VV", "q_VV", "Intensity_VV"))
    source = open_source(path)
    assert (source.kind, source.bands) == (Kind.SAR, (3,))


# --- control points


def points(rows_cols: list[tuple[float, float]], *, mirrored: bool = False) -> list[GroundControlPoint]:
    found = []
    for row, col in rows_cols:
        x, y = NORTH_UP @ (col, row)
        found.append(GroundControlPoint(row=row, col=SIDE - col if mirrored else col, x=x, y=y, z=0.0))
    return found


REGULAR = [(float(row), float(col)) for row in np.linspace(0, SIDE, 5) for col in np.linspace(0, SIDE, 5)]


@pytest.mark.parametrize(
    ("image", "gcps"),
    [
        (POWER, points(REGULAR + REGULAR[5:10])),
        (POWER, points(REGULAR[:7] + REGULAR[8:])),
        (POWER, points([(0, 0), (0, SIDE), (SIDE, 0), (SIDE, SIDE)])),
        (POWER[:, ::-1], points(REGULAR, mirrored=True)),
    ],
    ids=["a row twice", "one is missing", "corners", "mirrored"],
)
def test_control_points_of_each_form_lead_to_the_same_pixels(
    image: np.ndarray, gcps: list[GroundControlPoint], tmp_path: Path
):
    source = open_source(write(tmp_path / "s1.tif", image.astype(np.float32), gcps=gcps))
    found = read_plane(source, GRID)
    inside = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(found[inside], DB[inside], rtol=0, atol=0.05)


# --- places


@pytest.mark.parametrize(
    ("reference", "secondary"),
    [
        (("EPSG:4326", 1e-4, 200.0, 10.0), ("EPSG:4326", 1e-4, -160.0, 10.0)),
        (("EPSG:3413", 10, -1280, 1280), ("EPSG:3995", 10, -1280, 1280)),
        (("EPSG:32761", 10, 1_998_720, 2_001_280), ("EPSG:3031", 10, -1280, 1280)),
    ],
    ids=["longitudes of 0 to 360", "the north pole", "the south pole"],
)
def test_places_at_the_ends_of_the_map_overlap(reference: Any, secondary: Any, tmp_path: Path):
    made = []
    for (crs, step, x, y), pixels, name in (
        (reference, np.rint(1e4 * REFLECTANCE).astype(np.uint16), "s2.tif"),
        (secondary, POWER.astype(np.float32), "s1.tif"),
    ):
        place = {"crs": crs, "transform": Affine(step, 0, x, 0, -step, y)}
        made.append(write(tmp_path / name, pixels, **place))
    plan = plan_pair(*open_pair(*made), Settings())
    assert plan.overviews is not None
    both = np.isfinite(plan.overviews.reference) & np.isfinite(plan.overviews.secondary)
    assert both.mean() > 0.75
    assert len(plan.tiles) >= 9


# --- reasons


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda red: np.full_like(red, 800), Reason.NO_TEXTURE),
        (lambda red: np.where(np.arange(SIDE) < 230, 0, red), Reason.MASKED),
        (lambda red: red[:40, :40], Reason.TOO_FEW_TIE_POINTS),
    ],
    ids=["one value", "zeros that nobody declared", "smaller than any tile"],
)
def test_a_pair_that_cannot_be_matched_says_why(spoil: Any, reason: Reason, tmp_path: Path):
    red = np.rint(1e4 * REFLECTANCE).astype(np.uint16)
    reference = write(tmp_path / "s2.tif", spoil(red).astype(np.uint16))
    plan = plan_pair(*open_pair(reference, write(tmp_path / "s1.tif", POWER.astype(np.float32))), Settings())
    assert (plan.tiles, plan.reason) == ((), reason)
