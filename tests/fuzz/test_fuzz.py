"""Damaged and hostile documents at every door: an error of ours or a result, never a traceback or a hang.

`make fuzz CASES=50000 SEED=7` tries more of them, and others. What fails is kept in `build/fuzz`.
"""

from __future__ import annotations

import hashlib
import os
import random
import resource
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fuzz.damage import damaged
from fuzz.doors import NAMES, Door, doors
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from crosstie.errors import CrosstieError

CASES = int(os.environ.get("CROSSTIE_FUZZ_CASES", "2000"))
SEED = os.environ.get("CROSSTIE_FUZZ_SEED")
FOUND = Path(__file__).parents[2] / "build" / "fuzz"
"""Bodies that failed are kept here."""
HANG_CPU_S = 10.0
MOST_KIB = 2 * 2**20


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Door]:
    found = {door.name: door for door in doors(tmp_path_factory.mktemp("seeds"))}
    assert tuple(found) == NAMES
    return found


@contextmanager
def limited() -> Iterator[None]:
    """No case takes more than 10 s of a processor."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {HANG_CPU_S:g} s of CPU")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def pass_through(door: Door, body: bytes) -> None:
    folder = Path(tempfile.mkdtemp(prefix="crosstie-fuzz-"))
    try:
        with limited():
            door.read(folder, body)
    except CrosstieError as refusal:
        if not str(refusal).strip() or "Traceback" in str(refusal):
            keep(door, body)
            raise AssertionError(f"{refusal!r} says nothing to a user") from refusal
    except BaseException:
        keep(door, body)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def keep(door: Door, body: bytes) -> None:
    """Write down what failed at once: a run of hours may be stopped before it reports."""
    name = f"{door.name.replace(' ', '-')}-{hashlib.sha256(body).hexdigest()[:16]}"
    FOUND.mkdir(parents=True, exist_ok=True)
    (FOUND / name).write_bytes(body)


@pytest.mark.parametrize("name", NAMES)
def test_a_valid_document_passes(known: dict[str, Door], name: str, tmp_path: Path) -> None:
    door = known[name]
    for number, body in enumerate(door.seeds):
        (tmp_path / str(number)).mkdir()
        door.read(tmp_path / str(number), body)


# rasterio reads messages of GDAL as UTF-8, and passes over those that are not.
@pytest.mark.filterwarnings("ignore:Exception ignored in. 'rasterio._env.log_error'")
@pytest.mark.parametrize("name", NAMES)
def test_damage_ends_in_an_error_of_ours(known: dict[str, Door], name: str) -> None:
    door = known[name]
    cases = max(round(CASES * door.share / sum(one.share for one in known.values())), 1)

    @settings(
        max_examples=cases, deadline=None, derandomize=SEED is None, database=None, print_blob=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(body=damaged(door.seeds))
    def run(body: bytes) -> None:
        before = peak_kib()
        pass_through(door, body)
        if peak_kib() - before > MOST_KIB // 4:
            keep(door, body)

    before = peak_kib()
    (run if SEED is None else seed(int(SEED))(run))()
    assert peak_kib() - before < MOST_KIB


def test_a_thread_that_draws_random_numbers_fails_no_case() -> None:
    done = threading.Event()

    def draw() -> None:
        while not done.is_set():
            random.random()

    @settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(body=st.binary(min_size=100))
    def run(body: bytes) -> None:
        assert len(body) >= 100

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        run()
    finally:
        done.set()
        thread.join()


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
