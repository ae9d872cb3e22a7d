"""The outcome of one pair, on one line."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from crosstie.ground import GroundFrame
from crosstie.types import VerdictCode

FAILED = "failed"
"""Stands in place of a verdict: the pair failed and has no products."""

IN_PROGRESS = "in progress elsewhere"
"""Stands in place of a verdict: another live run works on the pair."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row of the table at the end of a run."""

    pair_key: str
    verdict: str
    """`corrected`, `already_aligned`, `unreliable`, `failed` or `in progress elsewhere`."""
    reasons: tuple[str, ...]
    """Reason codes; for a failure its code."""
    explanation: tuple[str, ...] = ()
    """The reasons as sentences; for a failure its message."""
    model: str = ""
    offset_m: tuple[float, float] | None = None
    """Median offset (x, y) of the used points, metres of the grid, as all figures here."""
    ground: GroundFrame = GroundFrame()  # noqa: RUF009  # frozen
    """How the grid's metres lie on the ground; the table gives those."""
    used: int = 0
    planned: int = 0
    rmse_before_m: float | None = None
    rmse_after_m: float | None = None
    seconds: float | None = None
    """Wall time of the run that made the products."""
    products: str | None = None
    """URL of the products' folder."""
    already_done: bool = False
    """Whether another run made the products, so that this one computed nothing."""

    @classmethod
    def of(cls, pair_key: str, correction: dict[str, Any], *, products: str, already_done: bool) -> Self:
        """Make the outcome from a `correction.json`."""
        median = correction["offset_m"]["median_x"], correction["offset_m"]["median_y"]
        return cls(
            pair_key=pair_key,
            verdict=correction["verdict"],
            reasons=tuple(correction["reasons"]),
            explanation=tuple(correction["explanation"]),
            model=correction["model"],
            offset_m=None if None in median else median,
            ground=GroundFrame.of(correction.get("ground")),
            used=correction["tie_points"]["used"],
            planned=correction["tie_points"]["planned"],
            rmse_before_m=correction["error_before_m"]["rmse"],
            rmse_after_m=correction["error_after_m"]["rmse"],
            seconds=correction["provenance"]["seconds"],
            products=products,
            already_done=already_done,
        )

    @classmethod
    def failure(cls, pair_key: str, *, code: str, message: str) -> Self:
        """Make the outcome of a pair that failed; its traceback, if any, is in the log."""
        return cls(pair_key=pair_key, verdict=FAILED, reasons=(code,), explanation=(message,))

    @classmethod
    def elsewhere(cls, pair_key: str, *, until_utc: datetime) -> Self:
        """Make the outcome of a pair that another run works on; its claim holds until `until_utc`."""
        text = f"another run works on it; if that run dies, the pair is free at {until_utc:%H:%M:%S} UTC"
        return cls(pair_key=pair_key, verdict=IN_PROGRESS, reasons=(), explanation=(text,))

    @property
    def good(self) -> bool:
        return self.verdict in {VerdictCode.CORRECTED, VerdictCode.ALREADY_ALIGNED}

    @property
    def bad(self) -> bool:
        """Unreliable or failed; the command then exits with code 3."""
        return not self.good and self.verdict != IN_PROGRESS

    def row(self) -> dict[str, str]:
        """Cells of the table, as text."""
        return {
            "pair": self.pair_key,
            "verdict": self.verdict + (" (already done)" if self.already_done else ""),
            "reasons": ", ".join(self.reasons),
            "model": self.model,
            "offset m (east, north)": self._east_north(),
            "points": f"{self.used} of {self.planned}" if self.planned else "0",
            "RMSE m": " -> ".join(
                _one_decimal(self.ground.length(value)) for value in (self.rmse_before_m, self.rmse_after_m)
            ),
            "seconds": _one_decimal(self.seconds),
            "products": self.products or "",
        }

    def _east_north(self) -> str:
        if self.offset_m is None:
            return ""
        return "{:+.1f}, {:+.1f}".format(*self.ground.east_north(*self.offset_m))


def _one_decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
