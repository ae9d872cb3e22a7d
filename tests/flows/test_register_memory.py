"""Open rasters of rasterio and xarray are registered as the files are, and dates find their way."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import rioxarray
import xarray
from odc.geo.geom import box
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from shapely import to_geojson

import crosstie
from crosstie.errors import BadInputError, NoGeoreferenceError
from crosstie.flows.register import committed
from crosstie.flows.registration.load_matcher import load_matcher
from crosstie.io.products.text import sentences
from crosstie.io.raster.in_memory import named_files
from crosstie.io.simulation.pairs import write_simulated_catalog

SIDE_PX = 64
"""Of the tiles."""

SETTINGS = crosstie.load_settings(
    options={
        "tiles.size_px": SIDE_PX,
        "tiles.stride_px": 64,
        "tiles.search_px": 16,
        "compute.threads": 1,
        "compute.device": "cpu",
    }
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    catalog = write_simulated_catalog(tmp_path_factory.mktemp("demo"), scenes=1, size_px=384)
    return catalog.parent / "place-000"


@pytest.mark.slow
def test_what_a_mask_covers_is_not_matched_and_the_result_says_so(place: Path, tmp_path: Path) -> None:
    matcher = load_matcher(SETTINGS)
    files = place / "s2_tci.tif", place / "s1_vh.tif"
    with rasterio.open(files[0]) as raster:
        left, right = raster.bounds.left, raster.bounds.right
        middle, crs = (left + right) / 2, raster.crs
        west = box(left, raster.bounds.bottom, middle, raster.bounds.top, crs=str(crs)).to_crs("EPSG:4326")
    mask = tmp_path / "west.geojson"
    mask.write_text(to_geojson(west.geom))
    plain = crosstie.register(*files, out=tmp_path / "out", settings=SETTINGS, matcher=matcher)
    masked = crosstie.register(
        *files, out=tmp_path / "out", settings=SETTINGS, matcher=matcher, secondary_mask=mask
    )
    # A tile is matched where most of it is seen.
    assert len(plain.tie_points) > len(masked.tie_points) > 0
    assert (masked.tie_points.geometry.x > middle - 10 * SIDE_PX / 2).all()
    assert masked.products != plain.products
    assert masked.products is not None
    record = crosstie.open(masked.products).record
    assert record["pair"]["secondary"]["mask"].endswith("west.geojson")
    assert "mask" not in record["pair"]["reference"]
    assert any("west.geojson" in line for line in sentences(masked.registration))
    done = committed(*files, out=tmp_path / "out", settings=SETTINGS, secondary_mask=mask)
    assert done is not None
    assert done.record["pair"]["secondary"]["mask"].endswith("west.geojson")
    mask.write_text(to_geojson(west.buffer(0.001).geom))
    assert committed(*files, out=tmp_path / "out", settings=SETTINGS, secondary_mask=mask) is None


@pytest.mark.slow
def test_arrays_give_the_correction_of_the_files(place: Path, tmp_path: Path) -> None:
    matcher = load_matcher(SETTINGS)
    of_files = crosstie.register(
        place / "s2_tci.tif", place / "s1_vh.tif", out=tmp_path / "out", acquired=datetime(2025, 6, 6, 5, 30),
        settings=SETTINGS, matcher=matcher,
    )  # fmt: skip
    # The optical file has a mask, which a copy keeps; an array of xarray has none.
    with rioxarray.open_rasterio(place / "s1_vh.tif") as sar, MemoryFile(
        (place / "s2_tci.tif").read_bytes()
    ) as memory, memory.open() as optical:  # fmt: skip
        of_arrays = crosstie.register(optical, sar, settings=SETTINGS, matcher=matcher)
    assert of_arrays.correction.affine == of_files.correction.affine
    np.testing.assert_array_equal(of_arrays.tie_points["dx_m"], of_files.tie_points["dx_m"])
    assert of_files.products is not None
    item = pystac.Item.from_file(f"{of_files.products.removeprefix('file://')}/item.json")
    assert item.datetime == datetime(2025, 6, 6, 5, 30, tzinfo=UTC)

    aligned, product = of_arrays.apply(), crosstie.open(of_files.products)
    np.testing.assert_array_equal(aligned.values, product.apply().values)
    with rioxarray.open_rasterio(place / "s2_tci.tif") as optical:
        assert (aligned.astype(float) - optical[:1]).shape == (1, 384, 384)
    assert "verdict:    corrected" in repr(of_arrays)
    assert "report" in of_files._repr_html_()
    assert of_arrays.plot().images


def test_a_file_that_is_open_is_read_from_its_file(place: Path) -> None:
    with rasterio.open(place / "s1_vh.tif") as raster:
        assert named_files(raster, "secondary") == (str(place / "s1_vh.tif"), False)
        with WarpedVRT(raster, width=100, height=100, transform=raster.transform) as other:
            path, is_temporary = named_files(other, "secondary")
    assert is_temporary
    with rasterio.open(path) as copy:
        assert copy.shape == (100, 100)


def test_an_array_keeps_its_place_bands_and_nodata(place: Path) -> None:
    with rioxarray.open_rasterio(place / "s1_vh.tif") as array:
        for raster in (array, array[0], xarray.Dataset({"vv": array[0], "vh": array[0]})):
            path, is_temporary = named_files(raster, "secondary")
            assert is_temporary
            with rasterio.open(path) as copy, rasterio.open(place / "s1_vh.tif") as source:
                assert (copy.crs, copy.transform) == (source.crs, source.transform)
                np.testing.assert_array_equal(copy.read(1), source.read(1))
                if not isinstance(raster, xarray.Dataset):
                    assert copy.nodata == source.nodata
                else:
                    assert copy.descriptions == ("vv", "vh")


def test_what_is_no_raster_is_told(place: Path, tmp_path: Path) -> None:
    with pytest.raises(NoGeoreferenceError, match="no geobox"):
        named_files(xarray.DataArray(np.zeros((4, 4)), dims=("y", "x")), "reference")
    with pytest.raises(BadInputError, match="a ndarray is no raster"):
        named_files(np.zeros((4, 4)), "reference")
    with rioxarray.open_rasterio(place / "s1_vh.tif") as array, pytest.raises(BadInputError, match="save it"):
        crosstie.register(place / "s2_tci.tif", array, out=tmp_path / "out", settings=SETTINGS)
    assert not (tmp_path / "out").exists()
