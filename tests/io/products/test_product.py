"""A product as Python, xarray, rioxarray and odc-stac see it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
import rioxarray
from committed_runs import recommit
from odc.geo.geobox import GeoBox
from product_with_truth import AFFINE, GROUND, SHAPE, UTM, Made, make_product

import crosstie
from crosstie.errors import BadInputError, StoreError, UnreadableRasterError
from crosstie.io.products.aligned import ALIGNED
from crosstie.io.products.write import AlignedRequest, write_products
from crosstie.io.storage.root_layout import ProductKey
from crosstie.io.storage.store import Store, open_store
from crosstie.types import Registration, VerdictCode

MakeRegistration = Callable[..., Registration]


@pytest.fixture
def made(tmp_path: Path, make_registration: MakeRegistration) -> Made:
    return make_product(tmp_path / "data", make_registration)


def folder(made: Made) -> Path:
    return Path(made.url.removeprefix("file://"))


def place_of(made: Made) -> tuple[Store, ProductKey]:
    return open_store(str(folder(made).parents[1])), ProductKey(*folder(made).parts[-2:])


@pytest.mark.parametrize("name", ["", "/", "/correction.json", "/item.json"])
def test_an_opened_product_holds_what_was_measured(made: Made, name: str) -> None:
    product = crosstie.open(made.url + name)
    assert product.verdict.code is VerdictCode.CORRECTED
    assert product.correction.affine == AFFINE
    np.testing.assert_allclose(product.displacement.dx_m, made.field.dx_m, rtol=1e-6)
    assert len(product.tie_points) == 150
    assert product.tie_points.crs == UTM
    assert product.item["properties"]["crosstie:verdict"] == "corrected"
    assert product.report == f"{made.url}/report.html"
    assert crosstie.open(folder(made)).record == product.record


def test_it_prints_a_few_lines_and_no_markup_of_others(made: Made) -> None:
    product = crosstie.open(made.url)
    assert "verdict:    corrected" in repr(product)
    assert len(repr(product).splitlines()) < 12
    path = folder(made) / "correction.json"
    record = json.loads(path.read_text())
    record["pair"]["secondary"]["id"] = "<script>alert(1)</script>"
    path.write_text(json.dumps(record))
    recommit(*place_of(made))
    shown = crosstie.open(made.url)._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "incomplete" in repr(replace(product, record={}))


def test_the_overview_is_drawn_by_matplotlib(made: Made) -> None:
    with mpl.rc_context({"backend": "agg"}):
        import matplotlib.pyplot as plt

        ax = crosstie.open(made.url).plot()
        assert ax.images[0].get_array().shape[1] == 1600
        plt.close(ax.figure)


def test_an_array_is_lazy_equals_the_file_and_lies_on_the_reference_as_others_open_it(
    made: Made, tmp_path: Path
) -> None:
    array = crosstie.open(made.url).apply(chunk_px=128)
    assert array.chunks is not None
    assert array.odc.geobox == GeoBox(SHAPE, GROUND, UTM)
    assert array.rio.crs == UTM
    assert array.rio.transform() == GROUND
    assert np.isnan(array.rio.nodata)
    assert array["x"].ndim == array["y"].ndim == 1
    (file,) = crosstie.apply(made.url, tmp_path / "aligned.tif")
    assert file.applied == "field"
    with rioxarray.open_rasterio(tmp_path / "aligned.tif") as written:
        np.testing.assert_allclose(array.values, written.values, rtol=0, atol=1e-3)  # of 100 .. 900
    with rioxarray.open_rasterio(made.reference) as reference:
        for aligned in (array, rioxarray.open_rasterio(tmp_path / "aligned.tif")):
            difference = aligned - reference
            assert difference.shape == (1, *SHAPE)
            assert difference["x"].equals(reference["x"])
            assert difference["y"].equals(reference["y"])
            assert difference.rio.crs == UTM


def test_another_grid_and_another_model_are_a_word_away(made: Made) -> None:
    product = crosstie.open(made.url)
    coarse = GeoBox((100, 100), GROUND @ rasterio.Affine.scale(3), UTM)
    assert product.apply(like=coarse).odc.geobox == coarse
    bent = product.apply(model="affine") - product.apply()
    assert float(np.nanmax(np.abs(bent.values[0, 40:-40, 40:-40]))) > 50
    with pytest.raises(BadInputError, match="take one of auto, affine, field"):
        product.apply(model="spline")


def test_what_is_broken_or_refused_is_told_in_one_line(made: Made) -> None:
    path = folder(made) / "correction.json"
    record = json.loads(path.read_text())
    record["pair"]["secondary"]["href"] = "https://169.254.169.254/latest/meta-data"
    path.write_text(json.dumps(record))
    recommit(*place_of(made))
    product = crosstie.open(made.url)  # what it measured can be read; its raster cannot
    with pytest.raises(UnreadableRasterError, match=r"metadata service.*name the raster yourself"):
        product.apply()
    assert product.apply(made.secondary).shape == (1, *SHAPE)
    (folder(made) / "displacement.tif").unlink()
    with pytest.raises(StoreError, match="is committed, but broken"):
        crosstie.open(made.url)


def test_stac_readers_load_the_aligned_and_the_corrected_pixels(
    tmp_path: Path, make_registration: MakeRegistration
) -> None:
    plain = make_product(tmp_path / "data", make_registration, field=False)
    grid = GeoBox(SHAPE, GROUND, UTM)
    registration = make_registration(affine=AFFINE, grid=grid, secondary_hrefs=(str(plain.secondary),))
    store = open_store(str(tmp_path / "with-pixels"))
    url = write_products(store, registration, thumbnails=None, aligned=AlignedRequest(grid))
    item = pystac.Item.from_file(f"{url.removeprefix('file://')}/item.json")
    aligned = odc.stac.load([item], bands=["aligned"], geobox=grid)
    assert item.assets["aligned"].get_absolute_href().endswith(ALIGNED)
    corrected = odc.stac.load([item], bands=["corrected"], geobox=grid, resampling="cubic")
    a, c = (np.asarray(band.values[0], float) for band in (aligned["aligned"], corrected["corrected"]))
    inside = np.s_[40:-40, 40:-40]
    assert np.nanmax(np.abs(a - c)[inside]) < 8  # of 100 .. 900: one is moved by GDAL, the other by us
    assert np.nanstd(a[inside]) > 50


def test_a_root_that_holds_its_scenes_can_be_moved(
    tmp_path: Path, make_registration: MakeRegistration
) -> None:
    made = make_product(tmp_path / "data", make_registration, products=str(tmp_path / "data"))
    text = (folder(made) / "corrected.vrt").read_text()
    assert '<SourceFilename relativeToVRT="1">../../s1.tif</SourceFilename>' in text
    shutil.move(tmp_path / "data", tmp_path / "moved")
    moved = tmp_path / "moved" / folder(made).relative_to(tmp_path / "data") / "corrected.vrt"
    with rasterio.open(moved) as vrt, rasterio.open(tmp_path / "moved" / "s1.tif") as source:
        np.testing.assert_array_equal(vrt.read(), source.read())
    apart = make_product(tmp_path / "apart", make_registration)
    assert f'relativeToVRT="0">{apart.secondary}<' in (folder(apart) / "corrected.vrt").read_text()
