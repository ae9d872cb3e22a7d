"""A pair that is committed: it is found again, and replaced only on request."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from crosstie.config import Settings
from crosstie.errors import StoreError
from crosstie.flows.register import committed, register
from crosstie.io.archive.claims import Claim, take
from crosstie.io.archive.index import read_index, update_index
from crosstie.io.storage.commit import damage_of
from crosstie.io.storage.store import open_store


@pytest.fixture(scope="module")
def rasters(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two places: unreliable, which costs no matching, is committed as everything else is."""
    folder = tmp_path_factory.mktemp("rasters")
    noise = np.random.default_rng(1).integers(1, 255, (1, 160, 160), dtype=np.uint8)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": 160, "width": 160}
    for name, east_m in (("s2_tci.tif", 600_000.0), ("s1_vh.tif", 650_000.0)):
        transform = Affine(10, 0, east_m, 0, -10, 5_300_000)
        with rasterio.open(folder / name, "w", **profile, crs="EPSG:32632", transform=transform) as raster:
            raster.write(noise)
    return folder / "s2_tci.tif", folder / "s1_vh.tif"


def test_a_committed_pair_is_opened_and_replaced_only_if_asked(
    rasters: tuple[Path, Path], tmp_path: Path
) -> None:
    """By the same key as `register` uses; an index that holds the earlier row gets the new one."""
    out, settings = tmp_path / "out", Settings()
    assert committed(*rasters, out=out, settings=settings) is None
    first = register(*rasters, out=out, settings=settings)
    product = committed(*rasters, out=out, settings=settings)
    assert product is not None
    assert product.url == first.products
    store = open_store(str(out))
    update_index(store)
    kept = register(*rasters, out=out, settings=settings)
    untouched = committed(*rasters, out=out, settings=settings)
    assert untouched is not None
    assert untouched.record == product.record
    again = register(*rasters, out=out, settings=settings, force=True)
    assert again.products == kept.products == first.products
    new = committed(*rasters, out=out, settings=settings)
    assert new is not None
    made = new.record["provenance"]["created_utc"]
    assert made > product.record["provenance"]["created_utc"]
    assert damage_of(store, new.key) == []
    (row,) = read_index(store).to_pylist()
    assert row["created"].isoformat() == made


def test_products_that_another_run_works_on_are_not_replaced(
    rasters: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    register(*rasters, out=out, settings=Settings())
    product = committed(*rasters, out=out, settings=Settings())
    assert product is not None
    claim = take(product.store, product.key, lease_s=60.0)
    assert isinstance(claim, Claim)
    with claim, pytest.raises(StoreError, match="works on it; wait"):
        register(*rasters, out=out, settings=Settings(), force=True)
    assert committed(*rasters, out=out, settings=Settings()) is not None
