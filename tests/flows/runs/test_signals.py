from __future__ import annotations

import signal
from collections.abc import Iterator
from threading import Thread

import pytest

from crosstie.flows.runs.signals import ENDING, signals_wait


@pytest.fixture(autouse=True)
def interrupts_are_heard() -> Iterator[None]:
    """A shell that runs tests in the background lets them ignore interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_signal_waits_for_the_end_of_the_block() -> None:
    done = []

    def load() -> None:
        with signals_wait():
            signal.raise_signal(signal.SIGINT)
            done.append("the rest of the block")

    with pytest.raises(KeyboardInterrupt):
        load()
    assert done


def test_without_a_signal_all_stays_as_it_was() -> None:
    before = [signal.getsignal(number) for number in ENDING]
    with signals_wait():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert [signal.getsignal(number) for number in ENDING] == before


def test_a_thread_leaves_signals_alone() -> None:
    """Python lets the main thread alone set handlers."""
    seen: list[object] = []

    def look() -> None:
        with signals_wait():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]
