"""The flow `crosstie-adjust`, on a Prefect server: artifacts, an event for each new change, metrics."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measured_archive import MeasuredArchive, optical_id, sar_id

from crosstie.config import load_settings
from crosstie.io.adjusted.moved import MOVED, known_moves
from crosstie.io.storage.store import open_store

TILE = "31UFS"


@pytest.fixture
def archive(tmp_path: Path) -> MeasuredArchive:
    made = MeasuredArchive(open_store(str(tmp_path / "products")), np.random.default_rng(0))
    made.place(TILE, optical=4, sar=9, wrong=0)
    return made


def events_named(name: str) -> list[dict[str, Any]]:
    """Events that the server has, waited for: they are sent in the background."""
    from prefect import get_client

    with get_client(sync_client=True) as client:
        asked = {"filter": {"event": {"name": [name]}}}
        for _ in range(60):
            found: list[dict[str, Any]] = client._client.post("/events/filter", json=asked).json()["events"]
            if found:
                return found
            time.sleep(0.5)
    return []


def artifact(key: str) -> str:
    from prefect import get_client

    with get_client(sync_client=True) as client:
        return str(client._client.get(f"/artifacts/{key}/latest").json()["data"])


@pytest.mark.slow
def test_the_flow_adjusts_and_tells_of_each_change_once(prefect_home: Path, archive: MeasuredArchive) -> None:
    from crosstie.flows.adjust import adjust
    from crosstie.flows.observe.run_metrics import RUN

    def moved() -> float:
        labels = {"scope": "place", "what": "jump"}
        return RUN.get_sample_value("crosstie_moved_total", labels) or 0

    quiet = adjust(archive.store.url)
    assert quiet["places"] == {"solved": 1, "unchanged": 0, "failed": 0}
    assert (quiet["moved"], quiet["new"]) == ([], [])
    before = moved()
    for n in range(9, 12):
        archive.scene(sar_id(TILE, n), [optical_id(TILE, k) for k in range(4)], at=(32.0, -7.0))
    loud = adjust(archive.store.url)
    assert loud["places"]["solved"] == 1
    assert len(loud["moved"]) == len(loud["new"]) == 1
    assert moved() == before + 1
    again = adjust(archive.store.url)
    assert again["places"] == {"solved": 0, "unchanged": 1, "failed": 0}
    assert (len(again["moved"]), again["new"]) == (1, [])
    assert moved() == before + 1
    events = events_named("crosstie.archive.moved")
    assert [event["payload"]["scene"] for event in events] == [sar_id(TILE, 9)]
    assert known_moves(archive.store) == {event["payload"]["key"] for event in events}
    assert loud["moved"][0] in artifact("crosstie-moved")
    assert f"T{TILE}" in artifact("crosstie-adjust")


def test_what_was_told_of_before_is_known_and_a_broken_list_tells_again(archive: MeasuredArchive) -> None:
    assert known_moves(archive.store) == set()
    archive.store.put(MOVED, json.dumps({"findings": [{"key": "a"}]}).encode())
    assert known_moves(archive.store) == {"a"}
    for broken in (b"", b"{", b"[1]", b'{"findings": [{}]}'):
        archive.store.put(MOVED, broken)
        assert known_moves(archive.store) == set()


@pytest.mark.filterwarnings("ignore:Logger 'prefect.task_runs' attempted to send logs")  # a task alone
def test_a_run_adjusts_at_its_end_only_where_that_is_asked_for(
    prefect_home: Path, archive: MeasuredArchive, caplog: pytest.LogCaptureFixture
) -> None:
    from crosstie.flows.archive.stage import after_run

    after_run(archive.store.url, load_settings())
    assert not list(archive.store.list("_adjusted"))
    nobody = load_settings(options={"adjust.after_run": True, "adjust.datum": "scene:S1_NOWHERE"})
    after_run(archive.store.url, nobody)
    assert "crosstie adjust" in caplog.text
