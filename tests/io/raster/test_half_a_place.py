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
