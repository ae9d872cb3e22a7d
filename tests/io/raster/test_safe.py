"""SAFE folders given as they were downloaded: their image is read, and nothing outside of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint

from crosstie.config import Settings
from crosstie.errors import UnreadableRasterError
from crosstie.flows.registration.plan import plan_pair
from crosstie.io.raster import open_pair, open_source, read_plane
from crosstie.types import Kind

SIDE = 256
RNG = np.random.default_rng(2)
FIELDS = RNG.random((16, 16)).repeat(16, axis=0).repeat(16, axis=1)
AMPLITUDE = np.rint(300 * 10 ** (-FIELDS / 2) * RNG.gamma(9, 1 / 9, FIELDS.shape)).astype(np.uint16) + 1
RGB = np.rint(np.stack([60 + 90 * FIELDS] * 3) + RNG.normal(0, 3, (3, SIDE, SIDE))).astype(np.uint8)
NORTH_UP = Affine(10, 0, 600_000, 0, -10, 5_300_000)
S1 = "S1A_IW_GRDH_1SDV_20210809T173953_20210809T174018_039156_049F13_6FF8.SAFE"
S2 = "S2B_MSIL2A_20190629T212529_N0213_R043_T06VVN_20190629T233533.SAFE"


def sentinel_1(folder: Path, *names: str) -> Path:
    """A SAFE of GRD: each polarisation is the amplitude, VV five times as strong."""
    measured = folder / S1 / "measurement"
    measured.mkdir(parents=True)
    gcps = []
    for row in np.linspace(0, SIDE, 5):
        for col in np.linspace(0, SIDE, 5):
            x, y = NORTH_UP @ (col, row)
            lon, lat = (values[0] for values in rasterio.warp.transform("EPSG:32632", "EPSG:4326", [x], [y]))
            gcps.append(GroundControlPoint(row=row, col=col, x=lon, y=lat, z=0))
    for name in names:
        pixels = AMPLITUDE * (5 if "-vv-" in name else 1)
        shape = {"height": SIDE, "width": SIDE, "count": 1, "dtype": "uint16"}
        with rasterio.open(
            measured / name, "w", driver="GTiff", crs="EPSG:4326", gcps=gcps, **shape
        ) as raster:
            raster.write(pixels.astype(np.uint16), 1)
    (folder / S1 / "manifest.safe").write_text("<xfdu/>")
    return folder / S1


def sentinel_2(folder: Path, inside: str) -> Path:
    path = folder / S2 / inside
    path.parent.mkdir(parents=True)
    shape = {"height": SIDE, "width": SIDE, "count": 3, "dtype": "uint8"}
    place = {"crs": "EPSG:32632", "transform": NORTH_UP}
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", quality=100, reversible=True, **shape, **place
    ) as raster:
        raster.write(RGB)
    return folder / S2


VV, VH = "s1a-iw-grd-vv-20210809-001.tiff", "s1a-iw-grd-vh-20210809-002.tiff"


@pytest.mark.parametrize(
    "inside",
    ["GRANULE/L2A_T06VVN/IMG_DATA/R10m/T06VVN_TCI_10m.jp2", "GRANULE/L1C_T06VVN/IMG_DATA/T06VVN_TCI.jp2"],
)
def test_a_pair_of_folders_is_read(inside: str, tmp_path: Path):
    optical, sar = open_pair(sentinel_2(tmp_path, inside), sentinel_1(tmp_path, VV, VH))
    assert (optical.kind, optical.hrefs) == (Kind.OPTICAL, (str(tmp_path / S2 / inside),))
    assert (sar.kind, sar.hrefs) == (Kind.SAR, (str(tmp_path / S1 / "measurement" / VH),))
    plan = plan_pair(optical, sar, Settings())
    assert len(plan.tiles) == 25
    np.testing.assert_allclose(
        read_plane(sar, plan.grid)[2:-2, 2:-2], 10 * np.log10(AMPLITUDE[2:-2, 2:-2]), rtol=0, atol=0.1
    )


def test_the_only_polarisation_is_read_whatever_it_is(tmp_path: Path):
    source = open_source(sentinel_1(tmp_path, VV))
    assert (source.kind, Path(source.hrefs[0]).name) == (Kind.SAR, VV)


def test_of_several_images_of_one_sort_the_user_chooses(tmp_path: Path):
    folder = sentinel_1(tmp_path, VH, "s1a-iw-grd-vh-20210810-002.tiff")
    with pytest.raises(UnreadableRasterError, match="2 images of one sort; give one of them instead"):
        open_source(folder)


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_nothing_outside_the_folder_is_read_through_a_link(linked: str, tmp_path: Path):
    elsewhere = sentinel_1(tmp_path / "elsewhere", VH) / "measurement"
    folder = tmp_path / "given.SAFE"
    if linked == "folder":
        folder.mkdir()
        (folder / "measurement").symlink_to(elsewhere)
    else:
        (folder / "measurement").mkdir(parents=True)
        (folder / "measurement" / VH).symlink_to(elsewhere / VH)
    with pytest.raises(UnreadableRasterError, match="leads out of the SAFE folder"):
        open_source(folder)
    # a link to the folder itself is the user's own
    (tmp_path / "link.SAFE").symlink_to(elsewhere.parent)
    assert open_source(tmp_path / "link.SAFE").kind is Kind.SAR


def test_a_catalog_names_images_and_no_folders(tmp_path: Path):
    with pytest.raises(UnreadableRasterError, match="is a folder, the SAFE of a Sentinel-1 scene"):
        open_source(sentinel_1(tmp_path, VH), kind=Kind.SAR, from_catalog=True)


def test_a_zip_is_named_with_what_to_do(tmp_path: Path):
    path = tmp_path / "S1A.zip"
    path.write_bytes(b"PK\x03\x04" + bytes(60))
    with pytest.raises(UnreadableRasterError, match=r"unpack it, and give the folder \(\.SAFE\)"):
        open_source(path)
