"""SIGINT, SIGTERM and SIGHUP end a run: each raises KeyboardInterrupt, at a moment that bears it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_ENDED_BY: list[int] = []
"""Signals that have ended this process's command."""


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP end a run as an interrupt does; where SIGHUP is ignored (nohup) it stays so."""

    def stop(number: int, frame: object) -> None:
        del frame
        _ENDED_BY.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, stop)


def ended_by() -> int:
    """Number of the signal that ended the command."""
    return _ENDED_BY[-1] if _ENDED_BY else signal.SIGINT


@contextmanager
def signals_wait() -> Iterator[None]:
    """Let signals wait for the end of the block, such as one that loads modules.

    Compiled code in which an interrupt arrives makes an error of its own of it, or loses it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handled = [each for each in ENDING if callable(signal.getsignal(each))]
    before = {each: signal.signal(each, lambda number, _: came.append(number)) for each in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
