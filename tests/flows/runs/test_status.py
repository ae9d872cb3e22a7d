from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from committed_runs import commit, copy_run, write_secondary
from typer.testing import CliRunner

from crosstie.cli import app
from crosstie.config import Settings
from crosstie.flows.discovery.pairs import find_pairs
from crosstie.flows.registration.load_matcher import weights_sha256
from crosstie.flows.registration.publish import run_key_of
from crosstie.flows.status import take_status
from crosstie.io.archive.claims import take
from crosstie.io.archive.failures import Failure, record_failure
from crosstie.io.archive.index import update_index
from crosstie.io.archive.run_log import begin
from crosstie.io.simulation.pairs import write_simulated_catalog
from crosstie.io.storage.root_layout import ProductKey
from crosstie.io.storage.store import Store, open_store
from crosstie.types import Reason, Registration, VerdictCode

MakeRegistration = Callable[..., Registration]
Run = tuple[str, str]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "products"))


@pytest.fixture
def registration(make_registration: MakeRegistration, tmp_path: Path) -> Registration:
    return make_registration(secondary_hrefs=(write_secondary(tmp_path),))


def fail(
    store: Store, run: Run, *, code: str = "time_limit", when: str = "2026-01-03T00:00:00+00:00"
) -> None:
    record_failure(
        store,
        Failure(
            *run, reference="S2", secondary="S1", code=code, message="it broke", failed_utc=when, attempts=2
        ),
    )


def run_out(store: Store, run: Run) -> None:
    """A claim that nobody renewed."""
    ended = datetime.now(UTC) - timedelta(hours=5)
    body = {"owner": "lost:1", "expires_utc": ended.isoformat()}
    store.put("/".join([*run, "_CLAIM.1"]), json.dumps(body).encode())


def test_done_pairs_are_counted_by_their_latest_verdict(
    store: Store, registration: Registration, make_registration: MakeRegistration, tmp_path: Path
):
    unsure = make_registration(
        code=VerdictCode.UNRELIABLE, reasons=(Reason.WATER, Reason.NO_TEXTURE), n=0,
        secondary_hrefs=(write_secondary(tmp_path),),
    )  # fmt: skip
    commit(store, unsure, run_key="a" * 16)
    commit(store, registration, run_key="b" * 16, hours=1)  # the same pair, later: corrected
    commit(store, unsure, secondary_id="S1A_SEA")
    copy_run(store, commit(store, registration, secondary_id="S1A_1"), "S1A_2")
    update_index(store)
    copy_run(store, ("S2B_L1C__S1A_1", "0123456789abcdef"), "S1A_NOT_INDEXED_YET")
    status = take_status(store, Settings())
    assert status.done == {"corrected": 4, "unreliable": 1}
    assert status.reasons == {"water": 1, "no_texture": 1}
    assert (status.failed, status.in_progress, status.plan) == ((), (), None)


def test_what_is_indexed_is_not_opened_and_nothing_is_written(store: Store, registration: Registration):
    run = commit(store, registration)
    update_index(store)
    store.put("/".join([*run, "correction.json"]), b"opened, it would be told")
    fail(store, ("S2__S1A_X", "0"))
    before = {key: store.get(key) for key in store.list()}
    assert take_status(store, Settings()).done == {"corrected": 1}
    assert {key: store.get(key) for key in store.list()} == before


def test_without_an_index_the_status_is_the_same(store: Store, registration: Registration):
    run = commit(store, registration)
    copy_run(store, run, "S1A_2")
    fail(store, ("S2__S1A_X", "0"))
    bare = take_status(store, Settings())
    update_index(store)
    assert take_status(store, Settings()) == bare


def test_failures_are_told_by_code_unless_tried_again_or_made_good(store: Store, registration: Registration):
    run = commit(store, registration)
    fail(store, run, code="committed_since")
    fail(store, (run[0], "made good"), code="older", when="2026-01-01T00:00:00+00:00")
    fail(store, (run[0], "new settings"), code="newer")
    for name, code in (("1", "time_limit"), ("2", "time_limit"), ("3", "unreadable_raster")):
        fail(store, (f"S2__S1A_{name}", "0"), code=code)
    store.put("S2__S1A_4/0/_FAILED.json", b"half a rec")
    fail(store, ("S2__S1A_5", "0"), code="being tried again")
    with take(store, ProductKey("S2__S1A_5", "0"), lease_s=60):  # type: ignore[union-attr]
        status = take_status(store, Settings())
    assert status.failures == {"newer": 1, "time_limit": 2, "unreadable_raster": 1, "unknown": 1}
    assert [claim.pair_key for claim in status.in_progress if claim.live] == ["S2__S1A_5"]


def test_claims_are_live_or_abandoned_and_none_of_what_is_committed(store: Store, registration: Registration):
    run_out(store, commit(store, registration))
    run_out(store, ("S2__S1A_LOST", "0"))
    store.put("S2__S1A_ODD/0/_CLAIM.1", b"[]")
    with take(store, ProductKey("S2__S1A_NOW", "0"), lease_s=60):  # type: ignore[union-attr]
        claims = {claim.pair_key: claim for claim in take_status(store, Settings()).in_progress}
    assert set(claims) == {"S2__S1A_LOST", "S2__S1A_NOW", "S2__S1A_ODD"}
    assert {key: claim.live for key, claim in claims.items()} == {
        "S2__S1A_LOST": False, "S2__S1A_NOW": True, "S2__S1A_ODD": False,
    }  # fmt: skip
    assert claims["S2__S1A_LOST"].owner == "lost:1"
    assert claims["S2__S1A_ODD"].expires_utc is None


def test_a_catalog_says_what_is_pending(
    store: Store, registration: Registration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    catalog = str(write_simulated_catalog(tmp_path / "scenes", seed=0, scenes=6, size_px=64))
    settings = Settings()
    digest = weights_sha256(settings)
    pairs = find_pairs(catalog, settings)
    runs = [(pair.key, run_key_of(pair.key, settings, weights_sha256=digest)) for pair in pairs]
    assert len(runs) == 6
    for n, other in ((0, None), (1, "f" * 16)):
        pair = pairs[n]
        commit(
            store, registration, reference_id=pair.reference.id, secondary_id=pair.secondary.id,
            run_key=other or runs[n][1],
        )  # fmt: skip
    fail(store, runs[2])
    run_out(store, runs[3])
    commit(store, registration, secondary_id="S1A_OF_ANOTHER_CATALOG")
    with take(store, ProductKey(*runs[4]), lease_s=60):  # type: ignore[union-attr]
        plan = take_status(store, settings, catalog=catalog).plan
    assert plan is not None
    assert dataclasses.astuple(plan)[:5] == (6, 1, 1, 1, 1)
    assert set(plan.pending) == {runs[1][0], runs[5][0]}
    assert plan.done_otherwise == 1
    told = CliRunner().invoke(app, ["status", "--out", store.url, "--catalog", catalog])
    assert told.exit_code == 3
    assert "catalog: 6 pairs, 1 done, 1 failed, 0 in progress, 1 abandoned, 3 pending" in told.stdout


def test_the_command_says_it_to_people_and_to_programs(store: Store, registration: Registration):
    commit(store, registration)
    log = begin(store, "nightly", scope="0" * 16, asked={}, started=datetime(2026, 1, 2, tzinfo=UTC))
    fine = CliRunner().invoke(app, ["status", "--out", store.url])
    assert fine.exit_code == 0
    assert ["done", "corrected", "1"] in [line.split() for line in fine.stdout.splitlines()]
    assert f"nightly: began {log.started_utc}, has not ended" in fine.stdout
    run_out(store, ("S2__S1A_LOST", "0"))
    for n in range(25):
        fail(store, (f"S2__S1A_{n:02d}", "0"))
    told = CliRunner().invoke(app, ["status", "--out", store.url])
    assert told.exit_code == 3
    rows = [line.split() for line in told.stdout.splitlines()]
    assert ["failed", "time_limit", "25"] in rows
    assert "S2__S1A_00: time_limit, tried 2 times, 2026-01-03T00:00:00+00:00: it broke" in told.stdout
    assert "… and 5 more" in told.stdout
    assert "S2__S1A_LOST: lost:1, expired 5 h ago, abandoned" in told.stdout
    result = CliRunner().invoke(app, ["status", "--out", store.url, "--format", "json"])
    assert result.exit_code == 3
    said = json.loads(result.stdout)
    assert (said["schema"], said["root"]) == ("crosstie/status/1", store.url)
    assert (said["done"], said["failed"]) == ({"corrected": 1}, {"time_limit": 25})
    assert len(said["failed_pairs"]) == 25
    assert said["in_progress"][0]["owner"] == "lost:1"
    assert said["last_runs"][0]["flow"] == "nightly"
    assert said["plan"] is None


def test_an_empty_root_has_nothing_to_tell(tmp_path: Path):
    missing = CliRunner().invoke(app, ["status", "--out", str(tmp_path / "typo")])
    assert missing.exit_code == 2
    assert "typo" in missing.stderr
    told = CliRunner().invoke(app, ["status", "--out", str(tmp_path)])
    assert told.exit_code == 0
    assert "nothing is here yet" in told.stdout
    assert not (tmp_path / "typo").exists()
