"""Scale and offset that a catalog declares of a raster: when they are applied, and what they change."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from crosstie.config import Settings
from crosstie.flows.registration.plan import plan_pair
from crosstie.flows.registration.scenes import open_scenes
from crosstie.io.raster import open_source, read_plane
from crosstie.types import Kind, Reason, SceneRef

SIDE = 160
RNG = np.random.default_rng(8)
REFLECTANCE = np.clip(0.12 + 0.01 * np.cumsum(RNG.normal(0, 0.3, (SIDE, SIDE)), axis=1), 0.01, 0.9)
DARKER = np.clip(REFLECTANCE - 0.06, 0.01, 0.9)
"""As vegetation in red."""
DB = np.clip(RNG.normal(-14, 3, (SIDE, SIDE)), -35, 5)
BOA = ((0.0001, -0.1),)


def write(path: Path, *bands: np.ndarray, size: float = 10, **declared: Any) -> Path:
    shape = {"count": len(bands), "height": len(bands[0]), "width": len(bands[0]), "dtype": bands[0].dtype}
    place = {"crs": "EPSG:32630", "transform": Affine(size, 0, 500_000, 0, -size, 4_200_000)}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as raster:
        raster.write(np.stack(bands))
        for name, values in declared.items():
            setattr(raster, name, values)
    return path


def plane(path: Path, kind: Kind, declared: tuple[tuple[float, float], ...]) -> np.ndarray:
    source = open_source(path, kind=kind, from_catalog=True, declared=declared)
    return read_plane(source, source.geobox)


def test_an_offset_that_only_the_catalog_declares_is_applied_once(tmp_path: Path):
    path = write(tmp_path / "B04.tif", np.rint(1e4 * (REFLECTANCE + 0.1)).astype(np.uint16))
    np.testing.assert_allclose(plane(path, Kind.OPTICAL, BOA), REFLECTANCE, rtol=0, atol=6e-5)


def test_what_the_file_declares_goes_before(tmp_path: Path):
    stored = np.rint(1e4 * (REFLECTANCE + 0.05)).astype(np.uint16)
    path = write(tmp_path / "B04.tif", stored, scales=(1e-4,), offsets=(-0.05,))
    np.testing.assert_allclose(plane(path, Kind.OPTICAL, BOA), REFLECTANCE, rtol=0, atol=6e-5)


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        (np.rint(1e4 * DARKER).astype(np.uint16), "scale 0.0001 and offset 0"),
        (np.where(DARKER < 0.05, 0, np.rint(1e4 * DARKER)).astype(np.uint16), "offset 0"),
        (DARKER.astype(np.float32), "scale 1 and offset 0"),
    ],
    ids=["the offset was taken out before", "and zeros lie around it", "pixels in their unit"],
)
def test_what_the_pixels_contradict_is_not_applied_and_said(
    stored: np.ndarray, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = write(tmp_path / "B04.tif", stored)
    found = plane(path, Kind.OPTICAL, BOA)
    shown = stored > 0
    np.testing.assert_allclose(found[shown], DARKER[shown], rtol=0, atol=6e-5)
    (warning,) = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert warning.startswith(f"{path}: with the scale 0.0001 and the offset -0.1 that the catalog declares")
    assert told in warning


@pytest.mark.parametrize("by_file", [False, True])
def test_zeros_beside_an_offset_hold_nothing(by_file: bool, tmp_path: Path):
    """Sentinel-2 as JPEG 2000 declares no nodata: what was not seen is 0, and no reflectance is -0.1."""
    stored = np.rint(1e4 * (REFLECTANCE + 0.1)).astype(np.uint16)
    stored[tuple(RNG.integers(0, SIDE, (2, 40)))] = 0  # too few to be told by their number
    said = {"scales": (1e-4,), "offsets": (-0.1,)} if by_file else {}
    found = plane(write(tmp_path / "B04.tif", stored, **said), Kind.OPTICAL, () if by_file else BOA)
    np.testing.assert_array_equal(np.isnan(found), stored == 0)


def test_dark_water_bears_an_offset_out(tmp_path: Path):
    water = RNG.normal(0.005, 0.008, (SIDE, SIDE))
    water[:20] = 0.2
    path = write(tmp_path / "B04.tif", np.rint(1e4 * (water + 0.1)).astype(np.uint16))
    np.testing.assert_allclose(plane(path, Kind.OPTICAL, BOA), water, rtol=0, atol=6e-5)


def test_a_picture_of_bytes_stays_as_it_is(tmp_path: Path):
    rgb = [np.rint(255 * np.clip(REFLECTANCE / 0.35, 0, 1)).astype(np.uint8)] * 3
    path = write(tmp_path / "TCI.tif", *rgb)
    np.testing.assert_array_equal(plane(path, Kind.OPTICAL, BOA * 3), plane(path, Kind.OPTICAL, ()))


@pytest.mark.parametrize(
    ("scaling", "dtype"), [((0.01, 0.0), np.int16), ((0.001, -50.0), np.uint16), ((0.25, -50.0), np.uint8)]
)
def test_db_as_whole_numbers_are_db_again(scaling: tuple[float, float], dtype: type, tmp_path: Path):
    stored = np.rint((DB - scaling[1]) / scaling[0]).astype(dtype)
    path = write(tmp_path / "vh.tif", stored)
    found = plane(path, Kind.SAR, (scaling,))
    np.testing.assert_allclose(found, DB, rtol=0, atol=scaling[0] / 2 + 1e-4)


def test_each_band_has_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    other = DB + 3
    bands = [np.rint(DB * 100).astype(np.int16), np.rint((other + 60) * 100).astype(np.int16)]
    path = write(tmp_path / "s1.tif", *bands)
    found = plane(path, Kind.SAR, ((0.01, 0.0), (0.01, -60.0)))
    np.testing.assert_allclose(found, DB + 1.5, rtol=0, atol=0.01)
    assert not caplog.records
    plane(path, Kind.SAR, ((0.01, 0.0), (0.01, -60.0), (1.0, 0.0)))
    assert "scale and offset of 3 bands, and it has 2" in caplog.text


def scene(name: str, kind: Kind, path: Path, declared: tuple[tuple[float, float], ...] = ()) -> SceneRef:
    noon = datetime(2022, 6, 1, 12, tzinfo=UTC)
    return SceneRef(name, kind, noon, "POLYGON ((0 0, 1 0, 1 1, 0 0))", (str(path),), declared=declared)


def test_open_water_is_seen_as_water_where_the_offset_is_taken_out(tmp_path: Path):
    side = 512
    water = RNG.normal(0.02, 0.0002, (side, side))
    optical = write(tmp_path / "B04.tif", np.rint(1e4 * (water + 0.1)).astype(np.uint16))
    speckle = RNG.gamma(4, 0.01, (side, side)).astype(np.float32)
    sar = write(tmp_path / "vh.tif", speckle)

    def planned(declared: tuple[tuple[float, float], ...]) -> Reason | None:
        sources = open_scenes(
            scene("S2", Kind.OPTICAL, optical, declared), scene("S1", Kind.SAR, sar), Settings()
        )
        return plan_pair(*sources, Settings()).reason

    assert planned(BOA) is Reason.WATER
    assert planned(()) is None  # 0.12: as bright as land
