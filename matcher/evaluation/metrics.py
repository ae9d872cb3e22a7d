"""Figures of merit of N measured offsets whose true values are known.

What the published tables call RMSE is the mean distance. Both are given here, each under its own name.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FAILURE_PX = 5.0
"""A pair farther off than this is a failure, which RMSE(T=5) leaves out."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """How far off N offsets are; every figure but `n` is NaN where there is nothing to take it from."""

    n: int
    """Pairs measured."""
    cmr_1: float
    """Correct matching rate: share of the pairs with an error of at most 1 px, 0..1."""
    cmr_2: float
    """The same at 2 px."""
    cmr_5: float
    """The same at 5 px."""
    mean_distance_px: float
    """Mean length of the error, px: the "RMSE" of the published tables."""
    rmse_px: float
    """Root of the mean squared length of the error, px."""
    rmse_t5_px: float
    """The same over the pairs with an error of at most 5 px: how sharp it is where it is not lost."""
    median_px: float
    """Median length of the error, px."""


def error_metrics(error_px: NDArray[np.float64]) -> Metrics:
    """Sum up errors (N, 2) dx, dy: measured minus true offset, px.

    Raises
    ------
    ValueError
        An error is not finite, and would leave every mean without meaning.
    """
    if not np.isfinite(error_px).all():
        raise ValueError(f"{int((~np.isfinite(error_px)).any(axis=1).sum())} errors are not finite")
    distance = np.hypot(error_px[:, 0], error_px[:, 1])
    near = distance[distance <= FAILURE_PX]
    return Metrics(
        n=len(distance),
        cmr_1=_mean(distance <= 1),
        cmr_2=_mean(distance <= 2),
        cmr_5=_mean(distance <= 5),
        mean_distance_px=_mean(distance),
        rmse_px=float(np.sqrt(_mean(distance**2))),
        rmse_t5_px=float(np.sqrt(_mean(near**2))),
        median_px=float(np.median(distance)) if len(distance) else float("nan"),
    )


def _mean(values: NDArray[np.float64] | NDArray[np.bool_]) -> float:
    """Mean; NaN of nothing."""
    return float(values.mean()) if len(values) else float("nan")
