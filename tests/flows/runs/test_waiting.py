"""Pairs of other runs are waited for, and waiting has an end."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from crosstie.config import load_settings
from crosstie.flows.runs.pair import PairBatch
from crosstie.flows.runs.waiting import released
from crosstie.io.archive.claims import Claim, take
from crosstie.io.storage.store import Store, open_store
from crosstie.types import Kind, ScenePair, SceneRef

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


def scene(scene_id: str, kind: Kind) -> SceneRef:
    return SceneRef(scene_id, kind, NOON, "POINT (0 0)", ("a.tif",))


PAIR = ScenePair(scene("S2", Kind.OPTICAL), scene("S1", Kind.SAR))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def batch(store: Store, claim_s: float) -> PairBatch:
    return PairBatch(store.url, load_settings(options={"runs.claim_s": claim_s}), "0" * 64)


def claimed(store: Store, batch: PairBatch, *, seconds: float) -> None:
    expires = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    body = json.dumps({"owner": "far-away:1", "expires_utc": expires}).encode()
    store.put(batch.product_of(PAIR.key).claim(1), body)


def wait(store: Store, batch: PairBatch) -> list[ScenePair]:
    return list(released([PAIR], batch, store, poll_s=0.01))


def test_a_claim_that_nobody_can_believe_is_not_waited_for(store: Store) -> None:
    run = batch(store, 300)
    claimed(store, run, seconds=3_000)
    assert wait(store, run) == [PAIR]


def test_a_clock_that_stands_still_is_not_waited_for_without_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = batch(store, 0.2)
    claimed(store, run, seconds=0.3)
    now = datetime.now(UTC)

    class Stopped(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return now

    monkeypatch.setattr("crosstie.io.archive.claims.datetime", Stopped)
    found: list[ScenePair] = []
    waiting = threading.Thread(target=lambda: found.extend(wait(store, run)), daemon=True)
    waiting.start()
    waiting.join(30)
    assert found == [PAIR]


def test_a_pair_that_is_given_back_is_free_at_once(store: Store) -> None:
    run = batch(store, 300)
    claim = take(store, run.product_of(PAIR.key), lease_s=300)
    assert isinstance(claim, Claim)
    found: list[ScenePair] = []
    waiting = threading.Thread(target=lambda: found.extend(wait(store, run)), daemon=True)
    with claim:
        waiting.start()
        time.sleep(0.2)
        assert found == []
    waiting.join(30)
    assert found == [PAIR]
