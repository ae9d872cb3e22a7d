"""Damaged and hostile documents at every door: an error of ours or a result, never a traceback or a hang.

`make fuzz CASES=50000 SEED=7` tries more of them, and others.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fuzz.damage import damaged
from fuzz.doors import NAMES, Door, doors
from hypothesis import HealthCheck, given, seed, settings

from crosstie.errors import CrosstieError

CASES = int(os.environ.get("CROSSTIE_FUZZ_CASES", "2000"))
SEED = os.environ.get("CROSSTIE_FUZZ_SEED")
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
            raise AssertionError(f"{refusal!r} says nothing to a user") from refusal
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
        pass_through(door, body)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (run if SEED is None else seed(int(SEED))(run))()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_KIB
