"""Readers come while windows wait to be read, and go again; matchers stay."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from distributed import Client, Scheduler, wait
from picture_reader import loader, with_compute

from crosstie.flows.cluster.connect import GPU, connected
from crosstie.flows.cluster.workforce import look

pytestmark = [pytest.mark.server, pytest.mark.slow]


def until(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 120
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def count(client: Client) -> tuple[int, int]:
    """(workers, those with a GPU)."""
    seen = look(client)
    return seen.workers, seen.with_gpu


def test_each_of_several_matchers_sees_a_gpu_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    settings = with_compute(readers=1, matchers=2)
    with connected(settings.compute, loader(tmp_path / "journal.jsonl")) as client:
        gpus = client.run(lambda: os.environ.get("CUDA_VISIBLE_DEVICES"))
        readers = look(client).readers
    assert [gpus.pop(name) for name in readers] == ["3,5"]
    assert sorted(gpus.values()) == ["3", "5"]


def test_readers_come_and_go_with_what_is_to_be_read(tmp_path: Path) -> None:
    settings = with_compute(readers=1, matchers=2, adaptive_max=3)
    with connected(settings.compute, loader(tmp_path / "journal.jsonl")) as client:
        assert count(client) == (3, 2)
        # It is matching that takes the time: readers would not help.
        matching = client.map(slowly, range(50), resources={GPU: 1}, pure=False)
        while not all(future.done() for future in matching):
            assert count(client) == (3, 2)
            time.sleep(0.1)
        del matching

        reading = client.map(slowly, range(40), pure=False)
        assert until(lambda: count(client) == (5, 2))
        assert set(client.run_on_scheduler(all_but_one)) == set(look(client).readers)
        wait(reading)
        assert until(lambda: count(client) == (3, 2))


def all_but_one(dask_scheduler: Scheduler) -> list[str]:
    """Workers that Dask would close if it needed one alone."""
    return dask_scheduler.workers_to_close(target=1)


def slowly(_: int) -> bytes:
    time.sleep(0.4)
    return bytes(100_000)
