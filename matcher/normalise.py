"""Local contrast normalisation: it makes the features independent of gain, bias and units of the pixels.

Each pixel is expressed in standard deviations from the mean of its neighbourhood, over valid pixels only.
Like a normalisation over the tile this adapts to the place. But it depends on the pixel's surroundings alone,
so a feature does not change when the tile is cut elsewhere (Jarrett et al. 2009, ICCV, section 2.2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

WINDOW_PX = 65
"""Side of the neighbourhood; large against a field boundary, small against a mountain's shadow."""

FLOOR = 1e-3
"""Added to the standard deviation that is divided by, in reflectance or dB: a saturated cloud stays flat. It
is fixed; taken from the array, it would make a feature depend on where the array is cut."""

BEYOND = 1e6
"""No reflectance and no dB. Sums run along rows and columns: after a value of 1e20 they hold nothing else."""

AROUND_PX = (3, 5, 9, 17)
"""Neighbourhoods that a hole is filled from, the smallest first."""

LEAST_AROUND = 0.05
"""Of a neighbourhood that must be valid to be filled from."""

CLIP = 4.0
"""Standard deviations kept: a single corner reflector must not outweigh a landscape."""


def normalise(plane: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Normalise a plane (rows, cols), NaN where invalid; so are values `BEYOND` any unit.

    Returns
    -------
    normalised : NDArray[np.float32]
        (rows, cols) float32, 0 where invalid.
    valid : NDArray[np.bool_]
        (rows, cols) bool.
    """
    valid = np.abs(plane) <= BEYOND  # false for NaN, too
    if not valid.any():
        return np.zeros(plane.shape, np.float32), valid
    # Values are centred before squaring: dB of -2000 +- 3 would lose its variance in float32.
    centre = np.float32(np.median(plane[valid][:: max(1, valid.sum() // 4096)]))
    x = np.where(valid, plane - centre, 0).astype(np.float32)
    mean: NDArray[np.floating] = _box(x)
    square: NDArray[np.floating] = _box(x * x)
    if not valid.all():
        share = np.maximum(_box(valid.astype(np.float32)), 0.5 / WINDOW_PX**2)
        mean, square = mean / share, square / share
    deviation = np.sqrt(np.maximum(square - mean * mean, 0))
    normalised = np.clip((x - mean) / (deviation + FLOOR), -CLIP, CLIP)
    return np.where(valid, normalised, 0).astype(np.float32), valid


def fill_holes(normalised: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Fill fine holes with the mean of the valid pixels around them, the nearest that are enough.

    A hole of zeros has an edge, and features follow edges: under fine cloud holes they would follow the mask.
    What is filled stays invalid, and takes no part in a correlation. Larger holes stay 0 in their middle.
    """
    if valid.all():
        return normalised
    known = valid.astype(np.float32)
    filled, open_ = normalised.copy(), ~valid
    for side in AROUND_PX:
        share = uniform_filter(known, side)
        near = open_ & (share > LEAST_AROUND)
        filled[near] = uniform_filter(normalised, side)[near] / share[near]
        open_ &= ~near
    return filled


def _box(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over the neighbourhood of each pixel."""
    averaged: NDArray[np.float32] = uniform_filter(x, WINDOW_PX, mode="reflect")
    return averaged
