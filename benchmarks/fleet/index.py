"""Seconds that the index and the status take over an archive of small committed runs.

    python benchmarks/fleet/index.py [--pairs 10000] [--out FOLDER_OR_URL]

The runs are copies of one set of products, made under other scene ids; only what the index reads differs.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial

import geopandas as gpd

from crosstie.config import Settings
from crosstie.flows.status import take_status
from crosstie.io.archive.index import IndexUpdate, index_committed, update_index
from crosstie.io.storage.commit import FileFacts, encode_commit
from crosstie.io.storage.root_layout import INDEX, ProductKey
from crosstie.io.storage.store import Store, open_store

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
BULK = ("tie_points.parquet", "corrected.vrt", "overview.png", "report.html")
VERDICTS = ("corrected", "corrected", "corrected", "already_aligned", "unreliable")


def main() -> None:
    """Make an archive, index it, add to it, ask for its status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000, help="committed runs (default 10000)")
    parser.add_argument("--out", help="an empty root; a temporary folder by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(open_store(given.out or folder), given.pairs)


def measure(store: Store, pairs: int) -> None:
    """Print a line a step."""
    timed("archive made", lambda: make(store, range(pairs)))
    timed("first build", lambda: told(update_index(store)))
    timed("nothing new", lambda: told(update_index(store)))
    timed("100 more made", lambda: make(store, range(pairs, pairs + 100)))
    timed("100 more indexed, root listed", lambda: told(update_index(store)))
    newest = ProductKey(*names(pairs + 100)[2:])
    timed("1 more made", lambda: make(store, range(pairs + 100, pairs + 101)))
    timed("1 more indexed, as a flow does", lambda: told(index_committed(store, [newest])))
    timed("status", lambda: str(dict(take_status(store, Settings()).done)))
    body = store.get(INDEX) or b""
    print(f"{INDEX}: {len(body) / 1e6:.2f} MB, {len(body) / (pairs + 101):.0f} bytes a row")
    if store.url.startswith("file://"):
        path = f"{store.url.removeprefix('file://')}/{INDEX}"
        timed("read with geopandas", lambda: f"{len(gpd.read_parquet(path))} rows")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def timed(what: str, step: Callable[[], str]) -> None:
    begin = time.perf_counter()
    said = step()
    print(f"{what:32} {time.perf_counter() - begin:8.2f} s  {said}", flush=True)


def told(update: IndexUpdate) -> str:
    return f"{update.rows} rows, {update.added} added"


def names(n: int) -> tuple[str, str, str, str]:
    """Reference, secondary, pair key and run key of the n-th run."""
    when = BEGIN + timedelta(minutes=n)
    reference = f"S2A_MSIL2A_{when:%Y%m%dT%H%M%S}_N0510_R112_T14RNT_{n:06d}"
    secondary = f"S1A_IW_GRDH_1SDV_{when:%Y%m%dT%H%M%S}_{n:06d}_0430F4_A0F4"
    return reference, secondary, f"{reference}__{secondary}", f"{n:016x}"


def make(store: Store, numbers: range) -> str:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(partial(commit, store), numbers))
    return f"{len(numbers)} runs"


def commit(store: Store, n: int) -> None:
    """Write the products of the n-th run: what the index reads is whole, the rest is a few bytes."""
    _, _, pair, run = names(n)
    files = dict.fromkeys(BULK, b"0")
    files["item.json"] = json.dumps(item(n)).encode()
    files["correction.json"] = json.dumps(correction(n)).encode()
    product = ProductKey(pair, run)
    for name, body in files.items():
        store.put(product.file(name), body)
    store.create(product.commit, encode_commit({name: FileFacts.of(body) for name, body in files.items()}))


def item(n: int) -> dict[str, object]:
    reference, secondary, pair, run = names(n)
    west, south = -170 + n % 340, -60 + n // 340 % 120
    ring = [[west, south], [west + 2, south], [west + 2, south + 2], [west, south + 2], [west, south]]
    files = {
        "corrected": "corrected.vrt",
        "correction": "correction.json",
        "tie_points": "tie_points.parquet",
        "overview": "overview.png",
        "report": "report.html",
    }
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v2.0.0/schema.json"],
        "id": f"{pair}-{run}",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, west + 2, south + 2],
        "properties": {
            "created": "2026-01-02T03:04:05Z",
            "datetime": f"{BEGIN + timedelta(minutes=n):%Y-%m-%dT%H:%M:%SZ}",
            "crosstie:verdict": VERDICTS[n % len(VERDICTS)],
            "crosstie:reasons": [],
            "crosstie:reference": reference,
            "crosstie:secondary": secondary,
            "proj:code": "EPSG:32614",
            "proj:shape": [10980, 10980],
            "proj:transform": [10.0, 0.0, 600000.0 + n, 0.0, -10.0, 3300000.0],
        },
        "links": [
            {"rel": "derived_from", "href": f"s3://archive/{scene}.tif", "title": scene}
            for scene in (reference, secondary)
        ],
        "assets": {
            key: {"href": name, "type": "application/octet-stream", "title": key, "roles": ["data"]}
            for key, name in files.items()
        },
    }


def correction(n: int) -> dict[str, object]:
    reference, secondary, _, _ = names(n)
    verdict = VERDICTS[n % len(VERDICTS)]
    applied = verdict == "corrected"
    return {
        "schema": "crosstie/correction/1",
        "pair": {
            "reference": {"id": reference, "href": f"s3://archive/{reference}.tif"},
            "secondary": {"id": secondary, "href": f"s3://archive/{secondary}.tif"},
        },
        "crs": "EPSG:32614",
        "verdict": verdict,
        "reasons": ["water"] if verdict == "unreliable" else [],
        "explanation": [],
        "model": "affine" if applied else "identity",
        "affine": [1.0, 1e-5 * n, 12.5 + n, 0.0, 1.0, -8.25] if applied else [1, 0, 0, 0, 1, 0],
        "covariance": [[1e-8] * 6] * 6,
        "fitted": {"model": "affine", "affine": [1.0, 1e-5 * n, 12.5 + n, 0.0, 1.0, -8.25]},
        "tie_points": {"planned": 900, "matched": 900, "used": 700 + n % 200},
        "offset_m": {"median_x": 11.4 + n % 7, "median_y": -8.25},
        "error_before_m": {"rmse": 25.7, "ce90": 37.4},
        "error_after_m": {"rmse": 4 + n % 10 / 7, "ce90": 6.5},
        "provenance": {
            "versions": {"crosstie": "0.1.0"},
            "weights_sha256": "ab" * 32,
            "settings_hash": "cd" * 8,
            "created_utc": f"{BEGIN + timedelta(days=400, seconds=n):%Y-%m-%dT%H:%M:%S.%f+00:00}",
            "seconds": 8.25,
        },
    }


if __name__ == "__main__":
    main()
