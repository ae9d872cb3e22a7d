"""A backfill on real servers: raced, cut short, resumed, given up and taken up again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_runs import Archive, Fleet, commits, failures, fleet_of, leftovers, write_archive

from crosstie.errors import CatalogError, SettingsError
from crosstie.io.archive.claims import take
from crosstie.io.storage.root_layout import ProductKey
from crosstie.io.storage.store import open_store

pytestmark = [pytest.mark.server, pytest.mark.slow]

PLACES = 5
SPAN = {
    "catalog__start_utc": "2025-06-01",
    "catalog__end_utc": "2025-07-31",
    "backfill__partition_days": 10,
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet_of(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return write_archive(tmp_path_factory.mktemp("archive"), PLACES)


@pytest.fixture(scope="module")
def catalog(archive: Archive) -> str:
    return archive.write("all.json", archive.items)


def command(catalog: str, out: Path) -> list[str]:
    return ["backfill", "--catalog", catalog, "--out", str(out), "--start", "2025-06-01",
            "--end", "2025-07-31", "--partition-days", "10"]  # fmt: skip


def registered(text: str) -> list[str]:
    """Pairs that a run registered itself, by its log."""
    ends = [line.partition(": ") for line in text.splitlines()]
    return [pair for pair, _, how in ends if how.startswith(("corrected", "already_aligned", "unreliable"))]


def test_two_runs_that_race_do_each_pair_once(fleet: Fleet, catalog: str, tmp_path: Path) -> None:
    runs = [fleet.start(*command(catalog, tmp_path / "out")) for _ in range(2)]
    said = [run.communicate(timeout=300) for run in runs]
    # The clouded pair is unreliable: exit code 3. Or 0, where the other run was at it to the end.
    assert {run.returncode for run in runs} <= {0, 3}, said
    assert 3 in {run.returncode for run in runs}
    pairs = [pair for _, log in said for pair in registered(log)]
    assert len(pairs) == PLACES
    assert set(pairs) == set(commits(tmp_path / "out"))
    assert leftovers(tmp_path / "out", "_CLAIM") == []


def test_killed_and_started_again_it_goes_on_where_it_was(fleet: Fleet, catalog: str, tmp_path: Path) -> None:
    from crosstie.flows.backfill import Backfill, run_backfill

    out = tmp_path / "out"
    run = fleet.start(*command(catalog, out), compute__pairs_at_once=1)
    assert run.stderr is not None
    for line in run.stderr:
        if "tiles to match" in line and commits(out):
            break  # one is committed, the next is begun
    run.kill()
    run.wait(10)
    before = commits(out)
    assert 1 <= len(before) < PLACES
    assert len(leftovers(out, "_CLAIM")) == 1
    begin = time.monotonic()
    tally = run_backfill(catalog, str(out), fleet.settings(**SPAN), Backfill())
    assert time.monotonic() - begin < 200  # a claim would hold for 300 s: its owner was seen to be dead
    assert (tally.already_done, tally.tried) == (len(before), PLACES - len(before))
    after = commits(out)
    assert len(after) == PLACES
    assert before.items() <= after.items()
    assert leftovers(out, "_CLAIM") == []


def test_what_takes_too_long_is_given_up_and_can_be_tried_again_alone(
    fleet: Fleet, archive: Archive, catalog: str, tmp_path: Path
) -> None:
    from crosstie.flows.backfill import Backfill, planned, run_backfill

    out = str(tmp_path / "out")
    hasty = fleet.settings(**SPAN, runs__pair_timeout_s=0.001)
    tally = run_backfill(catalog, out, hasty, Backfill())
    assert tally.codes == {"time_limit": PLACES}
    assert not tally.is_complete
    kept = list(failures(tmp_path / "out"))
    assert {failure.code for failure in kept} == {"time_limit"}
    assert {failure.attempts for failure in kept} == {1}
    assert "runs.pair_timeout_s" in kept[0].message
    assert leftovers(tmp_path / "out", "_CLAIM") == []

    # One pair more, that has not failed: it is none of those that are asked for.
    extra = archive.write("extra.json", [{**item, "id": f"{item['id']}_B"} for item in archive.items[:2]])
    settings = fleet.settings(**SPAN)
    assert run_backfill(extra, out, settings, Backfill(only_failed=True)).over == 0
    assert run_backfill(catalog, out, settings, Backfill(only_failed=True, code="storage")).over == 0
    plan = list(planned(catalog, out, settings, Backfill(only_failed=True, code="time_limit")))
    assert sum(part.to_do for part in plan) == sum(part.failed for part in plan) == PLACES
    again = run_backfill(catalog, out, settings, Backfill(only_failed=True, code="time_limit"))
    assert (again.tried, again.codes) == (PLACES, {})
    assert list(failures(tmp_path / "out")) == []
    plan = list(planned(catalog, out, settings, Backfill()))
    assert [sum(getattr(part, name) for part in plan) for name in ("pairs", "done", "to_do")] == [5, 5, 0]


def test_a_limit_counts_the_failed_pairs_that_are_tried_again_and_no_others(
    fleet: Fleet, archive: Archive, catalog: str, tmp_path: Path
) -> None:
    from crosstie.flows.backfill import Backfill, planned, run_backfill

    out, settings = str(tmp_path / "out"), fleet.settings(**SPAN)
    # The three newest pairs are done, the two oldest have failed: they come last.
    run_backfill(archive.write("newest.json", archive.items[4:]), out, settings, Backfill())
    run_backfill(catalog, out, fleet.settings(**SPAN, runs__pair_timeout_s=0.001), Backfill())
    assert len(failures(tmp_path / "out")) == 2
    for asked, left in (
        (Backfill(only_failed=True, limit=1), 1),
        (Backfill(only_failed=True, code="storage", limit=1), 1),  # neither failed by this
        (Backfill(only_failed=True, limit=3), 0),
    ):
        before = len(failures(tmp_path / "out"))
        plan = list(planned(catalog, out, settings, asked))
        assert sum(part.to_do for part in plan) == before - left
        assert run_backfill(catalog, out, settings, asked).tried == before - left
        assert len(failures(tmp_path / "out")) == left
    # Without it, done ones count as before.
    assert sum(part.pairs for part in planned(catalog, out, settings, Backfill(limit=2))) == 2


def test_a_dry_run_counts_by_period_and_knows_how_long_from_earlier_runs(
    fleet: Fleet, archive: Archive, catalog: str, tmp_path: Path
) -> None:
    from crosstie.flows.backfill import Backfill, planned, run_backfill

    out, settings = tmp_path / "out", fleet.settings(**SPAN)
    plan = list(planned(catalog, str(out), settings, Backfill()))
    assert not out.exists()
    # 61 days in periods of ten, the newest first; references of June 4th, 9th, 14th, 19th and 24th
    assert [part.pairs for part in plan] == [0, 0, 0, 0, 1, 2, 2]
    assert plan[0].period.start_utc > plan[-1].period.start_utc
    assert {part.estimated_s for part in plan} == {None}
    run_backfill(archive.write("one.json", archive.items[:2]), str(out), settings, Backfill(order="oldest"))
    plan = list(planned(catalog, str(out), settings, Backfill()))
    assert sum(part.to_do for part in plan) == PLACES - 1
    assert all((part.estimated_s or 0) > 0 for part in plan if part.to_do)


def test_a_pair_that_another_run_holds_is_left_to_it(fleet: Fleet, archive: Archive, tmp_path: Path) -> None:
    from crosstie.flows.backfill import Backfill, run_backfill
    from crosstie.flows.registration.load_matcher import weights_sha256
    from crosstie.flows.registration.publish import run_key_of
    from crosstie.types import pair_key

    two = archive.write("two.json", archive.items[:4])
    settings = fleet.settings(**SPAN)
    key = pair_key(archive.items[0]["id"], archive.items[1]["id"])
    run_key = run_key_of(key, settings, weights_sha256=weights_sha256(settings))
    store = open_store(str(tmp_path / "out"))
    with take(store, ProductKey(key, run_key), lease_s=9) as held:  # renewed every 3 s: its owner lives
        tally = run_backfill(two, str(tmp_path / "out"), settings, Backfill())
        held.check()
    assert tally.verdicts["in progress elsewhere"] == 1
    assert len(commits(tmp_path / "out")) == 1
    assert not tally.is_complete
    assert tally.is_well  # nothing is wrong with it
    assert run_backfill(two, str(tmp_path / "out"), settings, Backfill()).already_done == 1
    assert len(commits(tmp_path / "out")) == 2


def test_what_a_backfill_cannot_begin_leaves_nothing(fleet: Fleet, catalog: str, tmp_path: Path) -> None:
    from crosstie.flows.backfill import Backfill, run_backfill

    with pytest.raises(SettingsError, match="--start"):
        run_backfill(catalog, str(tmp_path / "out"), fleet.settings(), Backfill())
    with pytest.raises(CatalogError, match=r"absent\.json"):
        run_backfill(str(tmp_path / "absent.json"), str(tmp_path / "out"), fleet.settings(**SPAN), Backfill())
    with pytest.raises(SettingsError, match="only_failed"):
        Backfill(code="time_limit")
    assert not (tmp_path / "out").exists()


def test_artifacts_and_log_tell_what_became_of_a_run(fleet: Fleet, archive: Archive, tmp_path: Path) -> None:
    from prefect.artifacts import Artifact

    from crosstie.flows.backfill import Backfill, run_backfill

    broken = {**archive.items[2], "id": "BROKEN"}
    broken["assets"] = {"visual": {**broken["assets"]["visual"], "href": "./place-001/absent.tif"}}
    mixed = archive.write("mixed.json", [*archive.items[:2], broken, archive.items[3]])
    run_backfill(mixed, str(tmp_path / "out"), fleet.settings(**SPAN), Backfill())
    page = Artifact.get("crosstie-backfill-summary")
    assert page is not None
    text = str(page.data)
    assert "| 1 | `unreadable_raster` | BROKEN__" in text
    assert "/report.html)" in text
    assert "--only-failed" in text
    progress = Artifact.get("crosstie-backfill-progress")
    assert progress is not None
    assert float(str(progress.data)) == 100
    (path,) = (tmp_path / "out" / "_runs" / "backfill").iterdir()
    log = json.loads(path.read_text())
    assert log["failures"] == {"unreadable_raster": 1}
    assert log["ended_utc"] > log["started_utc"]
    assert log["pairs"] == 2


def test_help_and_exit_codes_of_the_command(fleet: Fleet, catalog: str, tmp_path: Path) -> None:
    dry = fleet.start(*command(catalog, tmp_path / "out"), "--dry-run")
    said, _ = dry.communicate(timeout=120)
    assert dry.returncode == 0
    assert "5 pairs, 5 to do" in said
    assert not (tmp_path / "out").exists()
    bad = fleet.start("backfill", "--catalog", catalog, "--out", str(tmp_path / "out"))
    assert bad.communicate(timeout=120)[1].startswith("error: a backfill needs to know from when on")
    assert bad.returncode == 2
