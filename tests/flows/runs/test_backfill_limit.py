"""What a limit counts when a backfill only tries again what failed. Nothing is registered here."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from fleet_runs import moved

from crosstie.config import load_settings
from crosstie.flows.backfill import Backfill, planned
from crosstie.flows.registration.load_matcher import weights_sha256
from crosstie.flows.registration.publish import run_key_of
from crosstie.io.archive.failures import Failure, record_failure
from crosstie.io.simulation.pairs import write_simulated_catalog
from crosstie.io.storage.store import open_store
from crosstie.types import pair_key

DATES = 6
FAILED = {1: "time_limit", 3: "storage", 4: "time_limit"}
"""Of the dates, counted from the newest."""

SETTINGS = load_settings(
    options={
        "catalog.start_utc": "2025-03-01",
        "catalog.end_utc": "2025-06-30",
        "backfill.partition_days": 20,
        "compute.device": "cpu",
    }
)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One place at six dates ten days apart, so that each scene has one partner."""
    folder = write_simulated_catalog(tmp_path_factory.mktemp("place"), scenes=1, size_px=192).parent
    items = []
    for name, asset in (("sentinel-2-l1c", "visual"), ("sentinel-1-grd", "vh")):
        item = json.loads((folder / "place-000" / f"{name}.json").read_text())
        item["links"] = []
        href = item["assets"][asset]["href"]
        item["assets"][asset]["href"] = f"./place-000/{Path(href).name}"
        items += [moved(item, name=f"{asset}{n}", by=-n * timedelta(days=10)) for n in range(DATES)]
    path = folder / "dates.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return str(path)


@pytest.fixture
def out(tmp_path: Path) -> str:
    store = open_store(str(tmp_path / "out"))
    for n, code in FAILED.items():
        key = pair_key(f"visual{n}", f"vh{n}")
        run_key = run_key_of(key, SETTINGS, weights_sha256=weights_sha256(SETTINGS))
        failure = Failure(key, run_key, f"visual{n}", f"vh{n}", code, "-", "2025-09-01T00:00:00+00:00", 1)
        record_failure(store, failure)
    return str(tmp_path / "out")


@pytest.mark.parametrize(
    ("asked", "pairs_to_do"),
    [
        (Backfill(only_failed=True), 3),
        (Backfill(only_failed=True, limit=1), 1),
        (Backfill(only_failed=True, limit=2), 2),
        (Backfill(only_failed=True, limit=9), 3),
        (Backfill(only_failed=True, limit=2, order="oldest"), 2),
        (Backfill(only_failed=True, code="storage", limit=1), 1),
        (Backfill(only_failed=True, code="bug", limit=1), 0),
        (Backfill(limit=2), 2),
        (Backfill(), DATES),
    ],
)
def test_a_limit_is_of_the_pairs_that_are_tried(
    catalog: str, out: str, asked: Backfill, pairs_to_do: int
) -> None:
    assert sum(part.to_do for part in planned(catalog, out, SETTINGS, asked)) == pairs_to_do
