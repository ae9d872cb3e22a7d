"""Relief that no tie point shows: a tie point is the mean over its tile, and the ground within it differs.

How much, the tie points tell all the same: how fast their means drift apart with distance gives the roughness
of the land, and roughness has no scale (a power law, as of a fractal), down to the ground within a tile.

References
----------
Journel & Huijbregts (1978), Mining Geostatistics, section II.D (regularisation, dispersion variance).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import nnls

if TYPE_CHECKING:
    from crosstie.types import FloatArray

EXPONENTS = np.round(np.arange(0.4, 1.01, 0.1), 1)
"""Hurst exponents that are tried: of terrain, from broken to smooth."""

REACH_TILES = 2.1
"""Distances at which means are compared, tiles: beyond, the trend has taken from the relief."""

CELLS = 12
"""Along a side of a tile, to integrate over it."""


def unseen_variance(centre_px: FloatArray, offset_px: FloatArray, *, tile_px: int, stride_px: int) -> float:
    """Variance of the ground around what the tiles next to a place show of it.

    A place lies between tiles, so that what is known of it is a mean over a tile and a stride.

    Parameters
    ----------
    centre_px : FloatArray
        (N, 2) centres of the tiles, px.
    offset_px : FloatArray
        (N, 2) what the trend leaves of their offsets, wrong ones aside, px.
    tile_px, stride_px : int
        Side of the tiles and step from tile to tile, px.

    Returns
    -------
    float
        Both axes together, px^2; 0 where no two tiles lie near each other.
    """
    lag, half_square, pairs = _variogram(centre_px, offset_px, tile_px=tile_px, stride_px=stride_px)
    if not len(lag):
        return 0.0
    scale = np.sqrt(pairs) / half_square  # residuals in shares, as sure as there are pairs
    fits = []
    for exponent in EXPONENTS:
        # Two tiles that share pixels share that part of their noise.
        model = np.stack([np.minimum(lag, 1.0), [_between_tiles(exponent, d) for d in lag]], axis=1)
        (_, rise), misfit = nnls(model * scale[:, None], half_square * scale)
        side = (tile_px + stride_px) / tile_px
        fits.append((misfit, rise * side ** (2 * exponent) * _around_mean(exponent)))
    return float(min(fits)[1])


def _variogram(
    centre_px: FloatArray, offset_px: FloatArray, *, tile_px: int, stride_px: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Distance in tiles, half the mean squared difference, and number of pairs, along rows and columns."""
    place = np.floor(centre_px / stride_px).astype(np.int64)
    place -= place.min(axis=0)
    plane = np.full((*place.max(axis=0) + 1, 2), np.nan)
    plane[place[:, 0], place[:, 1]] = offset_px
    found = []
    for steps in range(1, int(REACH_TILES * tile_px / stride_px) + 1):
        apart = (plane[steps:] - plane[:-steps], plane[:, steps:] - plane[:, :-steps])
        square = np.concatenate([(part**2).sum(axis=-1).ravel() for part in apart])
        square = square[np.isfinite(square)]
        if square.any():
            found.append((steps * stride_px / tile_px, square.mean() / 2, len(square)))
    lag, half_square, pairs = np.reshape(found, (-1, 3)).T
    return lag, half_square, pairs


@cache
def _between_tiles(exponent: float, lag: float) -> float:
    """Variogram of the means over tiles `lag` apart, where that of the ground is distance^(2 exponent)."""
    step = np.arange(1 - CELLS, CELLS)
    weight = (CELLS - np.abs(step)) / CELLS**2  # pairs of cells that are so far apart
    dx, dy = np.meshgrid(step / CELLS, step / CELLS)
    across, within = (np.hypot(dx + by, dy) ** (2 * exponent) for by in (lag, 0.0))
    return float((np.outer(weight, weight) * (across - within)).sum())


@cache
def _around_mean(exponent: float) -> float:
    """Variance of the ground in the middle of a unit square around the mean over the square."""
    step, at = np.arange(1 - CELLS, CELLS), (np.arange(CELLS) + 0.5) / CELLS - 0.5
    weight = (CELLS - np.abs(step)) / CELLS**2
    apart, out = (np.hypot(*np.meshgrid(d, d)) ** (2 * exponent) for d in (step / CELLS, at))
    return float(2 * out.mean() - (np.outer(weight, weight) * apart).sum())
