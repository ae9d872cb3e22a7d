"""How the ground control points of a raster were followed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ControlPoints:
    """How the ground control points of a raster were followed."""

    count: int
    """Points that are followed."""
    left_out: tuple[int, ...]
    """Numbers, from 1, of the points that are plainly wrong."""
    residual_m: float
    """95 % of the points lie within this of where the others put them, metres; NaN where none is spare."""
    irregular: bool
    """The points are no grid of (row, col): a thin-plate spline lies between them, else bilinear."""
    height_m: tuple[float, float]
    """Lowest and highest point. Heights are kept, and not corrected for."""

    @property
    def sentence(self) -> str:
        """What was followed, and how well the points agree."""
        how = "a thin-plate spline" if self.irregular else "bilinear"
        said = f"{self.count} ground control points followed, {how} between them"
        low, high = self.height_m
        if high - low > 1:
            said += f", as they lie at heights of {low:.0f} to {high:.0f} m"
        if math.isfinite(self.residual_m):
            said += f"; 95 % lie within {self.residual_m:.2f} m of where the others put them"
        if self.left_out:
            said += f"; left out as plainly wrong: number {listed(self.left_out)}"
        return said


def listed(numbers: Sequence[int], *, most: int = 8) -> str:
    """Numbers in a sentence: `3, 7, 9 and 12 more`."""
    shown = ", ".join(str(n) for n in numbers[:most])
    return f"{shown} and {len(numbers) - most} more" if len(numbers) > most else shown
