"""Where the field holds: what held-out tiles say within a window around each node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.ndimage import gaussian_filter

from crosstie.estimation.field.validation import TYPICAL_LIMIT, typical_z2

if TYPE_CHECKING:
    from crosstie.estimation.field.kriging import Samples
    from crosstie.estimation.field.validation import HeldOut
    from crosstie.types import FloatArray

NO_BETTER, BETTER = 0.5, 0.75
"""Shares of the field that would suit held-out tiles best. With less than half the whole field is worse than
none; from three quarters on it stands as it is."""

PRIOR_POINTS = 10.0
"""Weight, in points, of the whole scene against the surroundings of a node."""


@dataclass(frozen=True, slots=True, eq=False)
class Surroundings:
    """Averages around each node."""

    share: FloatArray
    """(rows, cols) share of the field that is applied, 0 (the affine) to 1."""
    z2: FloatArray
    """(rows, cols) mean squared length of held-out residuals in standard deviations; 2 as foretold."""

    @classmethod
    def of(
        cls,
        samples: Samples,
        held: HeldOut,
        *,
        shape: tuple[int, int],
        stride_px: int,
        window_px: float,
    ) -> Self:
        """Compare field and affine around each node of `shape` (rows, cols), samples weighted by trust."""
        col, row = np.floor(samples.centre_px / stride_px).astype(np.int64).T
        place = np.clip(row, 0, shape[0] - 1), np.clip(col, 0, shape[1] - 1)
        width = window_px / stride_px

        def around(value: FloatArray) -> FloatArray:
            total = np.zeros(shape)
            np.add.at(total, place, value)
            # In points: a window full of them would count its area.
            smooth: FloatArray = gaussian_filter(total, width, mode="constant") * 2 * np.pi * width**2
            return smooth

        w, relief = samples.weight, held.relief_px
        power = around(w * (relief**2).sum(axis=1))
        common = around(w * (relief * samples.offset_px).sum(axis=1))
        best = np.where(power > 0, common / np.maximum(power, 1e-12), 1.0)
        typical = held.z2 <= TYPICAL_LIMIT
        z2 = around(np.where(typical, held.z2, 0.0)) + PRIOR_POINTS * typical_z2(held)
        return cls(
            share=smooth_step(best, NO_BETTER, BETTER),
            z2=z2 / (around(typical.astype(np.float64)) + PRIOR_POINTS),
        )


def smooth_step(value: FloatArray, low: float, high: float) -> FloatArray:
    """0 up to `low`, 1 from `high`, without an edge between."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    step: FloatArray = t * t * (3 - 2 * t)
    return step
