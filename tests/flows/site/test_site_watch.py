"""What the site knows of an archive: seen in the background, kept where the store fails, told as figures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import site_archive
from committed_runs import copy_run
from prometheus_client.parser import text_string_to_metric_families
from site_archive import EVIL, NEW, NIGHT, S1, S2, Site

from crosstie.flows.site.app import make_site_app
from crosstie.flows.site.snapshot import PAGE_COLUMNS, take_snapshot
from crosstie.flows.site.watch import REST, Watch
from crosstie.io.archive.index import survey, update_index
from crosstie.io.archive.listing import list_archive
from crosstie.io.storage.root_layout import INDEX
from crosstie.io.storage.store import READ_PIECE_BYTES, Store, open_store
from crosstie.types import Reason, Registration, pair_key

RUN = pair_key(S2, S1), NEW


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, make_registration: Callable[..., Registration]) -> Store:
    return site_archive.filled(tmp_path_factory.mktemp("site"), make_registration)


@pytest.fixture
def store(filled: Store, tmp_path: Path) -> Store:
    """A copy, to be changed."""
    store = open_store(str(tmp_path / "copy"))
    for key in filled.list():
        store.put(key, filled.get(key) or b"")
    return store


def figures(watch: Watch) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every figure of /metrics by its name and the values of its labels."""
    text = Site(make_site_app(watch, None, local=True)).get("/metrics").text
    return {
        (sample.name, tuple(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_metrics_say_how_the_archive_stands(filled: Store) -> None:
    watch = Watch(filled, every_s=60)
    before = figures(watch)
    assert before["crosstie_archive_scan_errors_total", ()] == 0
    assert not any(name.startswith("crosstie_archive_pairs") for name, _ in before)  # unknown is not none
    begin = time.time()
    watch.look()
    told = figures(watch)
    pairs = {labels: value for (name, labels), value in told.items() if name == "crosstie_archive_pairs"}
    assert {labels: value for labels, value in pairs.items() if value} == {
        ("", "corrected"): 2, ("", "already_aligned"): 1, ("water", "unreliable"): 1,
    }  # fmt: skip
    assert len(pairs) == 2 + len(Reason)  # a rule finds a 0 where there are none
    assert told["crosstie_archive_failures", ("unreadable_raster",)] == 2
    assert told["crosstie_archive_failures", ("time_limit",)] == 1
    assert told["crosstie_archive_in_progress", ()] == told["crosstie_archive_abandoned", ()] == 1
    newest = datetime(2026, 1, 2, 6, 4, 5, tzinfo=UTC)  # made_registration's moment and three hours
    assert told["crosstie_archive_newest_commit_timestamp_seconds", ()] == newest.timestamp()
    assert begin - 1 <= told["crosstie_archive_scan_timestamp_seconds", ()] <= time.time()
    assert told["crosstie_archive_scan_seconds", ()] >= 0


def test_the_metrics_tell_began_from_ended_from_complete(filled: Store) -> None:
    watch = Watch(filled, every_s=60)
    watch.look()
    told = figures(watch)
    day, took = 86_400, 300
    last = {
        what: told[f"crosstie_run_last_{what}_timestamp_seconds", ("nightly",)]
        for what in ("start", "end", "success")
    }
    assert last == {
        "start": NIGHT.timestamp() + 2 * day,
        "end": NIGHT.timestamp() + day + took,
        "success": NIGHT.timestamp() + took,
    }
    assert told["crosstie_run_last_success_timestamp_seconds", ("backfill",)] < last["success"]
    outcomes = {
        labels[1]: value
        for (name, labels), value in told.items()
        if name == "crosstie_run_last_pairs" and labels[0] == "nightly"
    }
    assert outcomes == {"corrected": 3, "unreliable": 1, "failed": 1, "already_done": 1}


def test_figures_name_no_scene(filled: Store) -> None:
    watch = Watch(filled, every_s=60)
    watch.look()
    text = Site(make_site_app(watch, None, local=True)).get("/metrics").text
    for name in (S1, S2, "S1A_", EVIL[:3] + "<"):
        assert name not in text


def test_where_the_store_fails_what_was_seen_stays_and_its_age_is_told(store: Store) -> None:
    watch = Watch(store, every_s=60)
    watch.look()
    site = Site(make_site_app(watch, None, local=True))
    seen = figures(watch)
    store.put(INDEX, b"no index")
    watch.look()
    watch.look()
    now = figures(watch)
    assert now.pop(("crosstie_archive_scan_errors_total", ())) == 2
    assert {k: v for k, v in now.items() if "archive" in k[0]} == {
        k: v for k, v in seen.items() if "archive" in k[0] and "errors" not in k[0]
    }
    text = " ".join(site.get("/").text.split())
    assert "The archive cannot be read." in text
    assert "What follows was read" in text
    assert S1 in text
    store.delete(INDEX)
    watch.look()
    assert watch.seen.problem is None
    assert "cannot be read" not in site.get("/").text


def test_a_store_that_was_never_there_is_told_and_the_site_serves(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    watch = Watch(open_store(str(tmp_path / "file")), every_s=60)
    with watch:
        for _ in range(600):
            if watch.seen.failures:
                break
            time.sleep(0.1)
        site = Site(make_site_app(watch, None, local=True))
        assert "cannot be read" in site.get("/").text
        assert site.get("/healthz").json() == {"status": "ok", "archive_readable": False, "seen_utc": None}
        assert site.get(f"/runs/{RUN[0]}/{RUN[1]}/report.html").status_code in {404, 503}


def test_it_looks_again_by_itself_and_less_often_where_that_takes_long(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(of: Store, before: object) -> object:
        found = take_snapshot(of)
        return type(found)(**{n: getattr(found, n) for n in found.__slots__} | {"took_s": 40.0})

    watch = Watch(store, every_s=60)
    assert watch.look() == 60
    monkeypatch.setattr("crosstie.flows.site.watch.take_snapshot", slow)
    assert watch.look() == 40 * REST
    monkeypatch.undo()
    with Watch(store, every_s=0.01) as running:
        copy_run(store, RUN, "S1A_LATER")
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            snapshot = running.seen.snapshot
            if snapshot is not None and "S1A_LATER" in snapshot.table["secondary_id"].to_pylist():
                break
            time.sleep(0.05)
        else:
            pytest.fail("the new run was not seen")
    assert not running.alive


def test_a_look_that_died_of_a_bug_makes_the_service_unhealthy(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*given: object) -> None:
        raise RuntimeError("a bug")

    watch = Watch(store, every_s=0.01)
    site = Site(make_site_app(watch, None, local=True))
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    with watch:
        assert site.get("/healthz").status_code == 200
        monkeypatch.setattr("crosstie.flows.site.watch.take_snapshot", bug)
        watch._thread.join(60)
        answer = site.get("/healthz")
    assert answer.status_code == 503
    assert "bug" in answer.json()["status"]


def test_a_broken_product_is_counted_and_the_others_are_shown(store: Store) -> None:
    store.put("/".join([*copy_run(store, RUN, "S1A_BROKEN"), "correction.json"]), b"{")
    snapshot = take_snapshot(store)
    assert snapshot.unreadable == 1
    assert snapshot.table.num_rows == 5
    watch = Watch(store, every_s=60)
    watch.look()
    text = " ".join(Site(make_site_app(watch, None, local=True)).get("/").text.split())
    assert "1 committed run is not shown" in text


# --- What it stands on --------------------------------------------------------------------------------------


@pytest.mark.parametrize("indexed", [True, False])
def test_a_survey_of_some_columns_says_what_one_of_all_says(store: Store, indexed: bool) -> None:
    if indexed:
        update_index(store)
        copy_run(store, RUN, "S1A_NOT_INDEXED")
    committed = list_archive(store).committed
    some = survey(store, committed, columns=PAGE_COLUMNS)
    assert set(some.column_names) == set(PAGE_COLUMNS)
    moved = [name for name in some.column_names if name != "updated"]  # when the row was made
    assert some.select(moved).equals(survey(store, committed).select(moved))


def test_what_an_earlier_survey_has_is_not_read_again(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    update_index(store)
    late = copy_run(store, RUN, "S1A_LATE")
    before = survey(store, list_archive(store).committed, columns=PAGE_COLUMNS)
    for name in ("item.json", "correction.json"):
        store.put("/".join([*late, name]), b"opened, it would be told")
    copy_run(store, RUN, "S1A_LATEST")
    now = survey(store, list_archive(store).committed, columns=PAGE_COLUMNS, before=before)
    assert set(now["secondary_id"].to_pylist()) - set(before["secondary_id"].to_pylist()) == {"S1A_LATEST"}
    assert now.num_rows == before.num_rows + 1
    assert "S1A_LATE" not in caplog.text  # as a run that is broken would be
    store.delete("/".join([*late, "_COMMIT"]))
    gone = survey(store, list_archive(store).committed, columns=PAGE_COLUMNS, before=now)
    assert "S1A_LATE" not in gone["secondary_id"].to_pylist()


def test_an_object_is_read_in_pieces_and_whole(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    body = bytes(range(256)) * 8192
    store.put("a/large", body)
    reading = store.open("a/large")
    assert reading is not None
    pieces = list(reading.pieces)
    assert b"".join(pieces) == body
    assert reading.size_bytes == len(body)
    assert max(map(len, pieces)) <= 2 * READ_PIECE_BYTES
    assert store.open("a/none") is None
    assert open_store(str(tmp_path / "unborn")).open("a") is None
    store.put("a/large", body[:-1])
    again = store.open("a/large")
    assert again is not None
    assert again.etag != reading.etag


def test_keys_come_alike_in_order_and_as_they_come(filled: Store, tmp_path: Path) -> None:
    assert sorted(filled.each_key()) == list(filled.list())
    assert list(open_store(str(tmp_path / "unborn")).each_key()) == []
