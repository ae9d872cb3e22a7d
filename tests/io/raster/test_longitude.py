"""Rasters in degrees that run past 180, or begin before -180."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely.geometry import Point, shape

from crosstie.config import Settings
from crosstie.flows.registration.plan import plan_pair
from crosstie.grid import common_grid
from crosstie.io.products.stac_item import lon_lat_outline
from crosstie.io.raster import open_source, read_plane
from crosstie.io.raster.georeference import Georeference, corrected
from crosstie.io.raster.longitude import middle_of, near

SHAPE = (400, 500)
DEGREE = Affine(1e-4, 0, 179.975, 0, -9e-5, -16.98)
"""From 179.975 to 180.025 east, 5 km to either side of the antimeridian."""


def write(path: Path, pixels: np.ndarray, transform: Affine, crs: str = "EPSG:4326") -> Path:
    bands = np.atleast_3d(pixels) if pixels.ndim == 3 else pixels[None]
    with rasterio.open(
        path, "w", driver="GTiff", height=bands.shape[1], width=bands.shape[2], count=bands.shape[0],
        dtype=bands.dtype, crs=crs, transform=transform,
    ) as file:  # fmt: skip
        file.write(bands)
    return path


@pytest.mark.parametrize("turned", [0, -360, 360])
@pytest.mark.parametrize("utm", ["EPSG:32760", "EPSG:32701"])
def test_pixels_on_both_sides_of_the_antimeridian_are_read(tmp_path: Path, utm: str, turned: int):
    transform = Affine.translation(turned, 0) @ DEGREE
    row, col = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float32) + 0.5
    to_utm = Transformer.from_crs("EPSG:4326", utm, always_xy=True)
    x, y = to_utm.transform(180.0, -16.998)
    grid = GeoBox((200, 300), Affine(10, 0, x - 1500, 0, -10, y + 1000), utm)
    c, r = np.meshgrid(np.arange(300) + 0.5, np.arange(200) + 0.5)
    lon, lat = to_utm.transform(*(grid.affine @ (c, r)), direction="INVERSE")
    lon = np.where(lon < 0, lon + 360, lon)
    assert lon.min() < 179.99
    assert lon.max() > 180.01
    for ramp, exact in ((col, (lon - DEGREE.c) / DEGREE.a), (row, (lat - DEGREE.f) / DEGREE.e)):
        source = replace(open_source(write(tmp_path / "nir.tif", ramp, transform)), scale=1.0)
        np.testing.assert_allclose(read_plane(source, grid), exact, rtol=0, atol=0.01)


@pytest.mark.parametrize("secondary_crs", ["EPSG:32760", "EPSG:32701", "EPSG:4326"])
@pytest.mark.parametrize("turned", [0, -360])
@pytest.mark.parametrize("degrees_first", [True, False])
def test_the_whole_ground_is_in_common(tmp_path: Path, secondary_crs: str, turned: int, degrees_first: bool):
    texture = np.random.default_rng(0).integers(1, 255, SHAPE, dtype=np.uint8)
    one = open_source(write(tmp_path / "s2_nir.tif", texture, DEGREE))
    if secondary_crs == "EPSG:4326":
        other = write(tmp_path / "s1_vh.tif", texture, Affine.translation(turned, 0) @ DEGREE)
    else:
        x, y = Transformer.from_crs("EPSG:4326", secondary_crs, always_xy=True).transform(180.0, -16.998)
        wide = Affine(10, 0, x - 4000, 0, -10, y + 4000)
        other = write(tmp_path / "s1_vh.tif", np.tile(texture, (2, 2)), wide, secondary_crs)
    two = open_source(other)
    plan = plan_pair(*((one, two) if degrees_first else (two, one)), Settings())
    assert plan.grid is not None
    assert plan.overviews is not None
    both = np.isfinite(plan.overviews.reference) & np.isfinite(plan.overviews.secondary)
    area_m2 = both.sum() * abs(plan.overviews.grid.affine.determinant)
    assert area_m2 == pytest.approx(500 * 10.65 * 400 * 9.96, rel=0.02)  # all of the smaller raster


def test_beyond_the_zones_of_utm_the_grid_is_polar(tmp_path: Path):
    texture = np.random.default_rng(0).integers(1, 255, SHAPE, dtype=np.uint8)
    source = open_source(write(tmp_path / "s2_nir.tif", texture, Affine(1e-3, 0, 30, 0, -9e-5, 86.0)))
    grid = common_grid(source.geobox, source.footprint, resolution_m=10)
    assert grid is not None
    assert grid.crs.epsg == 32661


@pytest.mark.parametrize("turned", [0, -360])
def test_a_correction_turns_no_longitude(turned: int):
    transform = Affine.translation(turned, 0) @ DEGREE
    place = Georeference(SHAPE, "EPSG:4326", transform)
    mended = corrected(place, affine=(1, 0, 50.0, 0, 1, 0.0), grid_crs="EPSG:32760")
    assert mended.transform is not None
    (x, y), (x0, y0) = mended.transform @ (250.0, 200.0), transform @ (250.0, 200.0)
    assert x - x0 == pytest.approx(50 / (111_320 * np.cos(np.radians(17))), rel=0.01)
    assert y - y0 == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("turned", [0, -360])
def test_an_outline_in_degrees_is_cut_at_the_antimeridian(turned: int):
    place = Georeference(SHAPE, "EPSG:4326", Affine.translation(turned, 0) @ DEGREE)
    geometry = shape(lon_lat_outline(place))
    assert geometry.geom_type == "MultiPolygon"
    assert geometry.area == pytest.approx(0.05 * 0.036, rel=1e-3)
    west, _, east, _ = geometry.bounds
    assert (west, east) == (-180, 180)
    assert geometry.contains(Point(179.99, -17.0))
    assert geometry.contains(Point(-179.99, -17.0))


def test_longitudes_turn_by_whole_circles():
    lon = np.array([-179.0, 179.0, 181.0, 539.0])
    np.testing.assert_allclose(near(lon, 180.0), [181, 179, 181, 179])
    assert abs(abs(middle_of(np.array([-179.0, 179.0, -178.0, 178.0, np.nan]))) - 180) < 1e-9
