"""Counts and progress of a run, in bounded memory however many pairs there are."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

from crosstie.flows.runs.failure_codes import PASSING
from crosstie.flows.runs.in_words import counted
from crosstie.flows.runs.outcome import FAILED, IN_PROGRESS, Outcome
from crosstie.types import VerdictCode

MOST_ROWS = 500
"""Maximum number of outcomes of each sort that are kept for tables; all are counted."""


@dataclass(slots=True)
class Tally:
    """Counts of a run, updated while it goes on.

    A run over periods knows the pairs of the periods it has planned, and assumes their mean for the rest.
    """

    periods: int = 1
    """Periods that the run is planned in."""
    planned_periods: int = 0
    planned: int = 0
    """Pairs of the planned periods."""
    to_do: int = 0
    """Pairs of the planned periods that no earlier run has registered."""
    verdicts: Counter[str] = field(default_factory=Counter)
    """Pairs by verdict, `failed` and `in progress elsewhere` included."""
    codes: Counter[str] = field(default_factory=Counter)
    """Failed pairs by code."""
    already_done: int = 0
    tried: int = 0
    """Pairs that this run worked on, whatever their outcome."""
    work_s: float = 0.0
    """Sum of the seconds that each pair registered by this run took."""
    unwell: list[Outcome] = field(default_factory=list)
    """The first outcomes that failed, are unreliable or in progress elsewhere."""
    well: list[Outcome] = field(default_factory=list)
    """The first of the other outcomes."""
    begun_s: float = field(default_factory=time.monotonic)
    """When the run began, on the clock of `time.monotonic`."""

    def plan(self, pairs: int, *, to_do: int) -> None:
        """Count a period that has been planned."""
        self.planned_periods += 1
        self.planned += pairs
        self.to_do += to_do

    def add(self, outcome: Outcome) -> None:
        """Count a pair that has ended."""
        self.verdicts[outcome.verdict] += 1
        if outcome.verdict == FAILED:
            self.codes.update(outcome.reasons)
        if outcome.already_done:
            self.already_done += 1
        else:
            self.tried += 1
            self.work_s += outcome.seconds or 0.0
        rows = self.well if outcome.good else self.unwell
        if len(rows) < MOST_ROWS:
            rows.append(outcome)

    @property
    def over(self) -> int:
        """Pairs that have ended."""
        return self.verdicts.total()

    @property
    def expected(self) -> float:
        """Pairs of the whole run; those of later periods are estimated."""
        return self.planned + self._mean(self.planned) * self._periods_to_come

    @property
    def to_come(self) -> float:
        """Pairs still to be worked on; those of later periods are estimated."""
        return max(0, self.to_do - self.tried) + self._mean(self.to_do) * self._periods_to_come

    @property
    def done_pct(self) -> float:
        """Share of the run that is done, per cent, 0..100."""
        if not self.planned_periods:
            return 0.0
        return 100.0 if not self.expected else min(100.0, 100 * self.over / self.expected)

    @property
    def left(self) -> timedelta | None:
        """Time to the end at the pace so far; None before the first pair has ended."""
        if not self.tried:
            return None if self.to_come else timedelta(0)
        pace_s = (time.monotonic() - self.begun_s) / self.tried
        return timedelta(seconds=round(pace_s * self.to_come))

    @property
    def is_complete(self) -> bool:
        """Whether a later run could do no more: failures repeat until somebody fixes the input."""
        return not self.verdicts[IN_PROGRESS] and not PASSING & self.codes.keys()

    @property
    def is_well(self) -> bool:
        """Whether no pair is unreliable or failed."""
        return not self.verdicts[FAILED] and not self.verdicts[VerdictCode.UNRELIABLE]

    def line(self) -> str:
        """`12 of 40 pairs, 2 failed, 0:05:10 left`."""
        about = "about " if self._periods_to_come else ""
        parts = [f"{self.over} of {about}{counted(round(self.expected), 'pair')}"]
        if self.verdicts[FAILED]:
            parts.append(f"{self.verdicts[FAILED]} failed")
        if self.left is not None:
            parts.append(f"{about}{self.left} left")
        return ", ".join(parts)

    @property
    def _periods_to_come(self) -> int:
        return self.periods - self.planned_periods

    def _mean(self, pairs: int) -> float:
        return pairs / self.planned_periods if self.planned_periods else 0.0
