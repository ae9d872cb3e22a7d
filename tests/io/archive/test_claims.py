"""A pair belongs to one run at a time, and not for longer than that run lives."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from crosstie.io.archive.claims import Claim, ClaimLostError, Held, Process, standing_claim, take
from crosstie.io.storage.root_layout import ProductKey
from crosstie.io.storage.store import Store, open_store

RUN = ProductKey("pair", "run")

HOLD_AND_SLEEP = """
import sys, time
from crosstie.io.archive.claims import take
from crosstie.io.storage.root_layout import ProductKey
from crosstie.io.storage.store import open_store
with take(open_store(sys.argv[1]), ProductKey("pair", "run"), lease_s=600):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which holds the pair."""
    command = [sys.executable, "-c", HOLD_AND_SLEEP, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def claims(store: Store) -> list[str]:
    return [key.rpartition("/")[2] for key in store.list(RUN.prefix)]


def held_by_another_machine(store: Store, *, seconds: float, number: int = 1) -> None:
    """A claim whose owner's life cannot be looked up: only its time counts."""
    expires = datetime.now(UTC) + timedelta(seconds=seconds)
    body = {"owner": "far-away:7:abc", "expires_utc": expires.isoformat()}
    store.put(RUN.claim(number), json.dumps(body).encode())


def test_of_many_who_try_at_once_one_gets_the_pair(store: Store) -> None:
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda _: take(store, RUN, lease_s=60), range(16)))
    (owner,) = [claim for claim in found if isinstance(claim, Claim)]
    assert all(isinstance(claim, Held) for claim in found if claim is not owner)
    assert claims(store) == ["_CLAIM.1"]


def test_a_pair_given_back_is_free_at_once(store: Store) -> None:
    for _ in range(2):
        claim = take(store, RUN, lease_s=60)
        assert isinstance(claim, Claim)
        with claim:
            assert isinstance(standing_claim(store, RUN), Held)
        assert claims(store) == []
        assert standing_claim(store, RUN) is None


def test_a_claim_that_has_run_out_is_taken_over_and_tidied_up(store: Store) -> None:
    held_by_another_machine(store, seconds=-1)
    claim = take(store, RUN, lease_s=60)
    assert isinstance(claim, Claim)
    assert claims(store) == ["_CLAIM.1", "_CLAIM.2"]
    with claim:
        assert isinstance(take(store, RUN, lease_s=60), Held)
    assert claims(store) == []


def test_a_claim_of_another_machine_is_respected_until_it_runs_out(store: Store) -> None:
    held_by_another_machine(store, seconds=60)
    held = take(store, RUN, lease_s=60)
    assert isinstance(held, Held)
    assert held.owner == "far-away:7:abc"


def test_what_is_no_claim_protects_nobody(store: Store) -> None:
    store.put(RUN.claim(1), b"nonsense")
    assert isinstance(take(store, RUN, lease_s=60), Claim)


def test_a_living_process_keeps_its_pair_and_a_killed_one_loses_it_at_once(
    store: Store, other_process: subprocess.Popen[str]
) -> None:
    assert isinstance(take(store, RUN, lease_s=60), Held)
    other_process.kill()  # it stays a zombie until it is waited for: dead all the same
    time.sleep(0.2)
    assert isinstance(take(store, RUN, lease_s=60), Claim)
    other_process.wait()


def test_a_number_that_is_given_out_again_is_another_process() -> None:
    me = Process.current()
    assert not me.is_dead
    assert Process(me.host, me.pid, me.started + "0").is_dead
    assert not Process("another machine", me.pid, me.started + "0").is_dead
    assert not Process(me.host, me.pid, "").is_dead  # nothing is known of when it started


def test_a_claim_renews_itself_as_long_as_it_is_held(store: Store) -> None:
    claim = take(store, RUN, lease_s=0.9)
    assert isinstance(claim, Claim)
    with claim:
        first = claim.expires_utc
        time.sleep(1.2)
        claim.check()
        assert claim.expires_utc > first
        assert isinstance(take(store, RUN, lease_s=60), Held)


def test_who_was_taken_over_learns_it_and_touches_nothing(store: Store) -> None:
    claim = take(store, RUN, lease_s=60)
    assert isinstance(claim, Claim)
    held_by_another_machine(store, seconds=60, number=2)
    with claim:
        claim.renew()
        assert claim.lost
        with pytest.raises(ClaimLostError, match="pair/run"):
            claim.check()
    assert claims(store) == ["_CLAIM.1", "_CLAIM.2"]


def test_who_slept_too_long_does_not_write_over_the_next_owner(store: Store) -> None:
    claim = take(store, RUN, lease_s=0.01)
    assert isinstance(claim, Claim)
    time.sleep(0.05)
    held_by_another_machine(store, seconds=60)
    claim.renew()
    assert claim.lost
    assert json.loads(store.get("pair/run/_CLAIM.1") or b"")["owner"] == "far-away:7:abc"


@pytest.mark.parametrize("seconds", [121, 3600, 10 * 365 * 86_400])
def test_a_claim_of_a_clock_that_is_far_ahead_protects_nobody(store: Store, seconds: float) -> None:
    held_by_another_machine(store, seconds=seconds)
    assert standing_claim(store, RUN, lease_s=60) is None
    claim = take(store, RUN, lease_s=60)
    assert isinstance(claim, Claim)
    assert claim.key == RUN.claim(2)


def test_a_clock_that_is_a_little_ahead_is_believed(store: Store) -> None:
    held_by_another_machine(store, seconds=115)
    assert isinstance(take(store, RUN, lease_s=60), Held)


def test_a_run_with_a_longer_lease_is_believed_by_one_with_a_short_lease(store: Store) -> None:
    claim = take(store, RUN, lease_s=3600)
    assert isinstance(claim, Claim)
    with claim:
        assert isinstance(take(store, RUN, lease_s=1), Held)
        assert isinstance(standing_claim(store, RUN), Held)


@pytest.mark.parametrize("lease_s", [1e300, "inf", "nan", -5, None, []])
def test_a_claim_that_says_of_itself_that_it_holds_for_ever_does_not(store: Store, lease_s: object) -> None:
    expires = datetime.now(UTC) + timedelta(days=3)
    body = {"owner": "far-away:7:abc", "expires_utc": expires.isoformat(), "lease_s": lease_s}
    store.put(RUN.claim(1), json.dumps(body).encode())
    assert isinstance(take(store, RUN, lease_s=60), Claim)


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
def test_a_claim_from_the_end_of_time_protects_nobody(store: Store, moment: str) -> None:
    store.put(RUN.claim(1), json.dumps({"owner": "x", "expires_utc": moment}).encode())
    assert isinstance(take(store, RUN, lease_s=60), Claim)


def test_an_owner_whose_clock_is_set_back_knows_when_its_claim_is_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SetBack(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(UTC) - timedelta(hours=1)

    claim = take(store, RUN, lease_s=0.05)
    assert isinstance(claim, Claim)
    monkeypatch.setattr("crosstie.io.archive.claims.datetime", SetBack)
    time.sleep(0.1)
    assert claim.lost
