"""Committed runs for tests of what reads many of them."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from affine import Affine

from crosstie.io.products.write import write_products
from crosstie.io.storage.commit import FileFacts, encode_commit
from crosstie.io.storage.root_layout import ProductKey
from crosstie.types import pair_key

if TYPE_CHECKING:
    from pathlib import Path

    from crosstie.io.storage.store import Store
    from crosstie.types import Registration

Run = ProductKey


def write_secondary(folder: Path, *, crs: str = "EPSG:32614", easting_m: float = 600_000) -> str:
    """A small raster with coordinates, for registrations to name as their secondary."""
    path = folder / f"s1-{crs[5:]}-{easting_m:.0f}.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=100, width=120, count=1, dtype="uint8", crs=crs,
        transform=Affine(100, 0, easting_m, 0, -100, 3_300_000),
    ) as raster:  # fmt: skip
        raster.write(np.random.default_rng(0).integers(0, 255, (1, 100, 120), np.uint8))
    return str(path)


def commit(
    store: Store,
    registration: Registration,
    *,
    reference_id: str = "S2B_L1C",
    secondary_id: str = "S1A_IW",
    run_key: str = "0123456789abcdef",
    hours: float = 0,
) -> Run:
    """Write the products of a registration under other names, made so many hours later."""
    made = registration.provenance
    named = dataclasses.replace(
        registration,
        pair_key=pair_key(reference_id, secondary_id),
        run_key=run_key,
        reference_id=reference_id,
        secondary_id=secondary_id,
        provenance=dataclasses.replace(made, created_utc=made.created_utc + timedelta(hours=hours)),
    )
    write_products(store, named, thumbnails=None)
    return ProductKey(named.pair_key, run_key)


def copy_run(store: Store, run: Run, secondary_id: str) -> Run:
    """Commit a copy of a run's item and correction under another secondary: cheap, where many are needed."""
    correction = json.loads(store.get(f"{run[0]}/{run[1]}/correction.json") or b"")
    correction["pair"]["secondary"]["id"] = secondary_id
    copy = ProductKey(pair_key(correction["pair"]["reference"]["id"], secondary_id), run[1])
    item = json.loads(store.get(f"{run[0]}/{run[1]}/item.json") or b"")
    item["id"] = "-".join(copy)
    item["properties"]["crosstie:secondary"] = secondary_id
    store.put(f"{copy[0]}/{copy[1]}/correction.json", json.dumps(correction).encode())
    store.put(f"{copy[0]}/{copy[1]}/item.json", json.dumps(item).encode())
    recommit(store, copy)
    return copy


def recommit(store: Store, run: tuple[str, str]) -> None:
    """Make the commit of a run say what is there, as whoever writes into a shared root can."""
    product = ProductKey(*run)
    names = [key.rpartition("/")[2] for key in store.list(product.prefix)]
    files = {name: FileFacts.of(store.get(product.file(name)) or b"") for name in names if name[0] != "_"}
    store.put(product.commit, encode_commit(files))
