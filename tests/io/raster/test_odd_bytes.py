"""Bytes that no writer of rasters means: they end in a refusal that names the file, or change nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from crosstie.errors import UnreadableRasterError
from crosstie.io.products.displacement import displacement_cog, read_displacement
from crosstie.io.raster import open_source, read_plane
from crosstie.types import DisplacementField, Kind

GRID = GeoBox((48, 64), Affine(10, 0, 600_000, 0, -10, 3_300_000), "EPSG:32614")

SIGNALLING_NAN = np.frombuffer(b"\x01\x00\xa0\x7f", "<f4")
"""A NaN that numpy warns of when it is made another type."""


def written(path: Path, pixels: np.ndarray, **names: object) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=48, width=64, count=1, dtype=pixels.dtype, crs="EPSG:32614",
        transform=GRID.affine,
    ) as raster:  # fmt: skip
        raster.write(pixels, 1)
        raster.set_band_description(1, "VH of 2025")
        raster.update_tags(1, sensor="c band radar")
    return path


@pytest.mark.parametrize("text", [b"VH of 2025", b"c band radar"])
def test_names_and_tags_that_are_no_text(tmp_path: Path, text: bytes):
    path = written(tmp_path / "s1_vh.tif", np.full((48, 64), 0.1, np.float32))
    path.write_bytes(path.read_bytes().replace(text, b"\xe4" * len(text)))
    try:
        source = open_source(path, kind=Kind.SAR)
    except UnreadableRasterError as problem:
        assert "s1_vh.tif: its metadata are not UTF-8" in str(problem)  # noqa: PT017
    else:
        assert np.isfinite(read_plane(source, GRID)).all()


def test_a_displacement_field_whose_bands_have_no_names_in_utf8(tmp_path: Path):
    plane = np.ones((4, 5), np.float32)
    field = DisplacementField(GeoBox((4, 5), GRID.affine, "EPSG:32614"), plane, plane, plane)
    path = tmp_path / "displacement.tif"
    path.write_bytes(displacement_cog(field).replace(b"dy_m", b"\xe4y_m"))
    with pytest.raises(UnreadableRasterError, match=r"displacement\.tif: its metadata are not UTF-8"):
        read_displacement(path)


def test_numbers_that_are_none_are_invalid_and_nothing_is_said_of_them(tmp_path: Path):
    rng = np.random.default_rng(3)
    pixels = rng.gamma(2.0, 0.05, (48, 64)).astype(np.float32)
    pixels[5:8, 7] = SIGNALLING_NAN
    plane = read_plane(open_source(written(tmp_path / "s1_vh.tif", pixels), kind=Kind.SAR), GRID)
    assert np.isnan(plane[5:8, 7]).all()
    assert np.isfinite(plane).sum() == plane.size - 3
