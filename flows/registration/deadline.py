"""What ends the work on a pair before it is done: its time is up, or another run has taken the pair over.

Work asks between its steps, and wherever it waits: a thread that is inside GDAL or the network's code
cannot be stopped from outside.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Self

from crosstie.errors import CrosstieError


class TimeLimitError(CrosstieError):
    """A pair took longer than a pair may take."""


class RunStoppedError(CrosstieError):
    """The run that a pair belongs to was interrupted."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment after which a pair is given up."""

    at_s: float
    """On the clock of `time.monotonic`, seconds."""
    limit_s: float
    """Time that was given, seconds."""

    @classmethod
    def after(cls, limit_s: float) -> Self:
        return cls(time.monotonic() + limit_s, limit_s)

    @property
    def left_s(self) -> float:
        """Seconds left, not below 0."""
        return max(0.0, self.at_s - time.monotonic())

    def check(self) -> None:
        """Do nothing before the deadline.

        Raises
        ------
        TimeLimitError : it has passed
        """
        if self.left_s <= 0:
            raise TimeLimitError(
                f"not done within {self.limit_s:g} s; set runs.pair_timeout_s higher, or look at what is slow"
            )


_CHECKS: ContextVar[tuple[Callable[[], None], ...]] = ContextVar("crosstie_checks", default=())
"""A context variable: an engine that waits deep below asks without being told of pairs, claims and clocks."""


def check() -> None:
    """Do nothing as long as the work in this context is to go on; else raise what `stopped_by` was given."""
    for ask in _CHECKS.get():
        ask()


@contextmanager
def stopped_by(*checks: Callable[[], None]) -> Iterator[None]:
    """Have `check` ask these inside the block, and in threads that copy its context."""
    token = _CHECKS.set((*_CHECKS.get(), *checks))
    try:
        yield
    finally:
        _CHECKS.reset(token)
