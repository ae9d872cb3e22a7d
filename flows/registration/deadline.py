"""Stop the work on a pair early: because its time is up, or because another run has taken the pair over.

The work itself calls `check` between its steps and while it waits, because a thread inside GDAL or the
network cannot be stopped from outside.
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
    """A pair took longer than `runs.pair_timeout_s`."""


class RunStoppedError(CrosstieError):
    """The run that the pair belongs to was interrupted."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment after which a pair is given up."""

    at_s: float
    """Moment on the clock of `time.monotonic`, seconds."""
    limit_s: float
    """Time that the pair was given, seconds."""

    @classmethod
    def after(cls, limit_s: float) -> Self:
        return cls(time.monotonic() + limit_s, limit_s)

    @property
    def left_s(self) -> float:
        """Seconds left, not below 0."""
        return max(0.0, self.at_s - time.monotonic())

    def check(self) -> None:
        """Raise an error once the deadline has passed.

        Raises
        ------
        TimeLimitError
            The deadline has passed.
        """
        if self.left_s <= 0:
            raise TimeLimitError(
                f"not done within {self.limit_s:g} s; set runs.pair_timeout_s higher, or look at what is slow"
            )


_CHECKS: ContextVar[tuple[Callable[[], None], ...]] = ContextVar("crosstie_checks", default=())
"""A context variable, so that an engine that waits need not know of pairs, claims and clocks."""


def check() -> None:
    """Call every check that `stopped_by` has set in this context; each raises an error to stop the work."""
    for ask in _CHECKS.get():
        ask()


@contextmanager
def stopped_by(*checks: Callable[[], None]) -> Iterator[None]:
    """Inside, and in threads that copy the context, `check` calls these checks too."""
    token = _CHECKS.set((*_CHECKS.get(), *checks))
    try:
        yield
    finally:
        _CHECKS.reset(token)
