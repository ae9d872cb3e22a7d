"""Whether an optical image shows ground, whatever a cloud mask says of it: told from its pixels.

The limits come from 16 pairs of 256 px: twelve months of boreal fields and forest, with snow in four of
them, and two places in Asia and Europe under clear sky and under cloud.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from crosstie.matcher.screening import CLOUD_FACTOR, absolute_correlation

if TYPE_CHECKING:
    from crosstie.types import BoolArray, FloatArray, Plane

DARK_GROUND = 0.35
"""Of white, which is a reflectance of 0.12. Cloud that hides the ground is brighter; the median of land
without snow lay at 0.07 to 0.35."""

SEEN_IN_SAR = 0.35
"""Median over blocks of the correlation (either sign) of brightness with SAR. Cloud had 0.08 to 0.23; fields,
forest and snow 0.38 to 0.84; two places of bare land 0.19 and 0.27."""

BLOCK_CELLS = 32
"""Side of a block in pixels of `CLOUD_FACTOR`."""

ENOUGH_OF_BLOCK = 0.5
"""Share of a block's pixels that must be valid in both images."""


def shows_ground(optical: Plane, hidden: BoolArray, sar: Plane | None, *, white: float, factor: int) -> bool:
    """Say whether what a mask hides of an image shows ground all the same.

    Parameters
    ----------
    optical : Plane
        (rows, cols) overview, NaN where invalid.
    hidden : BoolArray
        (rows, cols) True where the mask says cloud.
    sar : Plane or None
        (rows, cols) dB on the same grid; None where the other image is no SAR.
    white : float
        Value of the optical plane at a reflectance of 0.35.
    factor : int
        Pixels of the full grid per pixel of the overview, along one axis.
    """
    seen = optical[hidden & np.isfinite(optical)]
    if not seen.size:
        return False
    if np.median(seen) < DARK_GROUND * white:
        return True
    if sar is None:
        return False
    by = math.ceil(CLOUD_FACTOR / factor)
    under = np.where(hidden, optical, np.float32(np.nan))
    found = _block_correlations(_coarse_cells(under, by), _coarse_cells(sar, by))
    return bool(found.size and np.median(found) >= SEEN_IN_SAR)


def _coarse_cells(plane: Plane, by: int) -> FloatArray:
    """Average squares of `by` x `by` pixels, NaN where one of them is; what is left at the end is cut."""
    rows, cols = (length // by * by for length in plane.shape)
    squares = plane[:rows, :cols].reshape(rows // by, by, cols // by, by)
    mean: FloatArray = squares.mean(axis=(1, 3), dtype=np.float64)
    return mean


def _block_correlations(first: FloatArray, second: FloatArray) -> FloatArray:
    """Absolute correlation of two planes in each block (N,) in which both vary and are valid."""
    side = min(BLOCK_CELLS, *first.shape)
    found = []
    for row in range(0, first.shape[0] - side + 1, side):
        for col in range(0, first.shape[1] - side + 1, side):
            a, b = (plane[row : row + side, col : col + side] for plane in (first, second))
            if (np.isfinite(a) & np.isfinite(b)).mean() >= ENOUGH_OF_BLOCK:
                found.append(absolute_correlation(a, b))
    correlations = np.array(found, np.float64)
    return correlations[np.isfinite(correlations)]
