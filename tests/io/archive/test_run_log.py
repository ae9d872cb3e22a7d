"""Which run is the last success: the newest that is whole, of the same scope, and not of the future."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from crosstie.io.archive import run_log
from crosstie.io.archive.run_log import last_success
from crosstie.io.storage.store import Store, open_store


@dataclass
class Counted:
    verdicts: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    already_done: int = 0
    work_s: float = 0.0
    over: int = 0
    is_complete: bool = True


def night(store: Store, started: datetime, *, until: datetime | None = None) -> str:
    log = run_log.begin(store, "nightly", scope="here", asked={}, started=started, until=until)
    return run_log.end(store, log, Counted()).started_utc


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


NOW = datetime.now(UTC)


def test_a_log_from_the_future_is_passed_over(store: Store) -> None:
    """A night under a wrong clock would otherwise hide all that comes until that clock is right."""
    night(store, NOW - timedelta(days=2))
    yesterday = night(store, NOW - timedelta(days=1))
    night(store, NOW + timedelta(days=300))
    found = last_success(store, "nightly", scope="here")
    assert found is not None
    assert found.started_utc == yesterday


def test_with_logs_of_the_future_alone_there_is_no_success(store: Store) -> None:
    night(store, NOW + timedelta(hours=1))
    assert last_success(store, "nightly", scope="here") is None


@pytest.mark.parametrize("said", ["soon", "2031-01-01T00:00:00+00:00", "2025-01-01T00:00:00", 5, []])
def test_a_log_whose_time_makes_no_sense_is_passed_over(store: Store, said: object) -> None:
    earlier = night(store, NOW - timedelta(days=2))
    night(store, NOW - timedelta(days=1))
    key = max(store.list("_runs/nightly"))
    tree = json.loads(store.get(key) or b"")
    store.put(key, json.dumps(tree | {"until_utc": said}).encode())
    found = last_success(store, "nightly", scope="here")
    assert found is not None
    assert found.started_utc == earlier
