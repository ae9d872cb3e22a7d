"""Inputs that are half of what a raster needs, or a folder around it: one line says what lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

from crosstie.errors import NoGeoreferenceError, UnreadableRasterError
from crosstie.io.raster import open_source

PLACE = Affine(10, 0, 600_000, 0, -10, 5_300_000)
UTM = CRS.from_epsg(32632)
ENGINEERING = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]')

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def written(
    path: Path, crs: CRS | None, transform: Affine | None, gcps: list[tuple[float, float]] | None = None
) -> Path:
    shape = {"count": 1, "height": 64, "width": 64, "dtype": "uint8", "driver": "GTiff"}
    with rasterio.open(path, "w", **shape, **({"transform": transform} if transform else {})) as raster:
        raster.write(np.full((1, 64, 64), 7, np.uint8))
        if gcps is not None:
            points = [GroundControlPoint(row=r, col=c, x=11 + c / 1e4, y=48 - r / 1e4) for r, c in gcps]
            raster.gcps = (points, crs)
        elif crs is not None:
            raster.crs = crs
    return path


@pytest.mark.parametrize(
    ("crs", "transform", "gcps", "lacks"),
    [
        (None, PLACE, None, "has a transform, but no CRS"),
        (UTM, None, None, "has a CRS, but neither a transform nor ground control points"),
        (None, None, None, "georeference it first"),
        (ENGINEERING, PLACE, None, "gives no place on a map"),
        (CRS.from_epsg(4978), PLACE, None, "gives no place on a map"),
        (CRS.from_epsg(5773), PLACE, None, "gives no place on a map"),
        (CRS.from_epsg(4326), None, [(0, 0), (32, 32), (64, 64)], "s1_vh.tif"),
        (CRS.from_epsg(4326), None, [(10, 10)] * 12, "s1_vh.tif"),
    ],
)
def test_what_lacks_of_a_place_is_said(
    crs: CRS | None,
    transform: Affine | None,
    gcps: list[tuple[float, float]] | None,
    lacks: str,
    tmp_path: Path,
):
    path = written(tmp_path / "s1_vh.tif", crs, transform, gcps)
    with pytest.raises(NoGeoreferenceError, match=lacks) as caught:
        open_source(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "inside", "said"),
    [
        (
            "S1A.SAFE",
            ["measurement/s1a-iw-grd-vv-1.tiff", "measurement/s1a-iw-grd-vh-2.tiff"],
            "s1a-iw-grd-vh-2.tiff",
        ),
        ("S1B.SAFE", ["measurement/s1b-ew-grd-hh-1.tiff"], "s1b-ew-grd-hh-1.tiff"),
        (
            "S2A.SAFE",
            ["GRANULE/L1C_T/IMG_DATA/T32_TCI.jp2", "GRANULE/L1C_T/IMG_DATA/T32_B04.jp2"],
            "T32_TCI.jp2",
        ),
        ("S2B.SAFE", ["GRANULE/L2A_T/IMG_DATA/R10m/T32_TCI_10m.jp2"], "T32_TCI_10m.jp2"),
        ("renamed", ["measurement/s1a-iw-grd-hv-2.tiff"], "s1a-iw-grd-hv-2.tiff"),
        ("S2.zarr", [], "is a Zarr store"),
        ("store", ["zarr.json"], "is a Zarr store"),
        ("S1C.SAFE", ["manifest.safe"], "SAFE folder without images"),
        ("scenes", ["a.tif"], "is a folder; give the raster in it"),
    ],
)
def test_a_folder_is_named_with_what_to_give_instead(name: str, inside: list[str], said: str, tmp_path: Path):
    folder = tmp_path / name
    folder.mkdir()
    for file in inside:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"")
    with pytest.raises(UnreadableRasterError, match=said) as caught:
        open_source(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(1e300, 0, 600_000, 0, -1e300, 5_300_000),
        Affine(10, 0, float("inf"), 0, -10, 5_300_000),
        Affine(float("nan"), 0, 600_000, 0, -10, 5_300_000),
        Affine(1e-200, 0, 600_000, 0, -1e-200, 5_300_000),
        Affine(10, 10, 600_000, 10, 10, 5_300_000),
        Affine(10, 0, 6e11, 0, -10, 5_300_000),
    ],
)
def test_a_transform_that_is_no_place_is_refused(transform: Affine, tmp_path: Path):
    path = written(tmp_path / "s1_vh.tif", UTM, transform)
    with pytest.raises(NoGeoreferenceError, match=r"s1_vh.tif: its transform, .* gives no place on Earth"):
        open_source(path)


LONLAT = CRS.from_epsg(4326)


@pytest.mark.parametrize(
    ("crs", "transform", "said"),
    [
        (LONLAT, PLACE, "latitude 5.3e+06"),
        (LONLAT, Affine(10, 0, -1.097e7, 0, -10, 3.4e6), "latitude 3.4e+06"),
        (CRS.from_epsg(4258), Affine(10, 0, 4.3e6, 0, -10, 700), "latitude 700"),
        (LONLAT, Affine(10, 0, 5e5, 0, -10, 50 + 320), "latitude 370"),
        (LONLAT, Affine(30, 0, -9000, 0, -1e-3, 40), "longitude 9000"),
        (LONLAT, Affine(1e-4, 0, 30.1, 0, -1e-4, -98.2), "latitude 98.2064"),
    ],
)
def test_metres_or_swapped_axes_are_no_degrees(crs: CRS, transform: Affine, said: str, tmp_path: Path):
    path = written(tmp_path / "s1_vh.tif", crs, transform)
    with pytest.raises(NoGeoreferenceError) as caught:
        open_source(path)
    assert f"is in degrees, but its coordinates are not ({said})" in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (UTM, Affine(1e-4, 0, 11, 0, -1e-4, 48)),
        (CRS.from_epsg(3857), Affine(9e-5, 0, -98.5, 0, -9e-5, 29.5)),
        (CRS.from_epsg(2263), Affine(2.7e-4, 0, -74, 0, -2.7e-4, 40.7)),
    ],
)
def test_degrees_are_no_metres(crs: CRS, transform: Affine, tmp_path: Path):
    with pytest.raises(NoGeoreferenceError, match=r"coordinates are degrees .*gdal_edit\.py -a_srs"):
        open_source(written(tmp_path / "s1_vh.tif", crs, transform))


def test_control_points_with_latitude_first_are_told(tmp_path: Path):
    path = tmp_path / "s1_vh.tif"
    corners = [(r, c) for r in (0, 32, 64) for c in (0, 32, 64)]
    with rasterio.open(path, "w", count=1, height=64, width=64, dtype="uint8", driver="GTiff") as raster:
        raster.write(np.full((1, 64, 64), 7, np.uint8))
        raster.gcps = (
            [GroundControlPoint(row=r, col=c, x=29 - r / 1e4, y=-98 + c / 1e4) for r, c in corners],
            LONLAT,
        )
    with pytest.raises(NoGeoreferenceError, match=r"latitude 98\).*longitude before y or latitude"):
        open_source(path)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (LONLAT, Affine(360 / 64, 0, 0, 0, -181 / 64, 90.5)),  # the whole Earth, and half a pixel more
        (LONLAT, Affine(1e-4, 0, 359.9, 0, -1e-4, -89.9)),
        (CRS.from_epsg(4901), Affine(1e-4, 0, 2, 0, -1e-4, 95)),  # grads: the pole is at 100
        (UTM, Affine(0.005, 0, 600_000, 0, -0.005, 5_300_000)),  # a drone's millimetres
        (CRS.from_epsg(3857), Affine(10, 0, -80, 0, -10, 80)),  # metres where the axes cross
    ],
)
def test_unusual_places_stay_places(crs: CRS, transform: Affine, tmp_path: Path):
    assert open_source(written(tmp_path / "s1_vh.tif", crs, transform)).transform is not None
