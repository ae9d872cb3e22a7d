"""How far one pair is, how fast it goes, and how long it will take, in a few words."""

from __future__ import annotations

from dataclasses import dataclass

from crosstie.flows.registration.phases import Phase
from crosstie.flows.runs.in_words import time_span


@dataclass(slots=True)
class PairPace:
    """What is known of a pair under way; moments are those of one clock, seconds."""

    now: Phase = Phase.PLAN
    done: int = 0
    """Tiles that are matched."""
    planned: int = 0
    """Tiles worth matching; 0 until they are known."""
    tiles_from_s: float | None = None
    """When the first tiles went to the matcher; None before."""

    def begin(self, phase: Phase, *, now_s: float) -> None:
        """Come to a phase; a pair that is tried again comes to the first one again."""
        self.now = phase
        if phase is Phase.PLAN:
            self.done = self.planned = 0
        self.tiles_from_s = now_s if phase is Phase.TILES else self.tiles_from_s

    def count_tiles(self, done: int, planned: int) -> None:
        """Count the tiles that are matched by now."""
        self.done, self.planned = done, planned

    def text(self, now_s: float) -> str:
        """`tiles 512 of 1,521, 400 tiles/s, 3 s left`; the phase alone where nothing is counted."""
        if self.now is not Phase.TILES or not self.planned:
            return str(self.now)
        said = f"{self.now} {self.done:,} of {self.planned:,}"
        took_s = 0.0 if self.tiles_from_s is None else now_s - self.tiles_from_s
        if not self.done or took_s <= 0:
            return said
        pace = self.done / took_s
        return f"{said}, {_rounded(pace)} tiles/s, {time_span((self.planned - self.done) / pace)} left"


def _rounded(pace: float) -> str:
    return f"{pace:.1f}" if pace < 10 else f"{pace:,.0f}"
