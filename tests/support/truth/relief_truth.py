"""Tie points over relief whose truth is known everywhere: the affine, the land, the matcher's errors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from scipy.ndimage import map_coordinates, uniform_filter

from crosstie.grid import tiles
from crosstie.types import TiePoints

if TYPE_CHECKING:
    from crosstie.types import AffineCorrection, FloatArray

PIXEL_M = 10.0
TILE_PX = 192
STRIDE_PX = 64
CELL_PX = 16
"""Step of the lattice on which relief and noise are drawn."""
TILE_CELLS = TILE_PX // CELL_PX


@dataclass(frozen=True)
class Land:
    """Offsets of the ground by its height, one value a lattice cell."""

    relief_px: FloatArray
    """(2, rows, cols) at the corners of the lattice, along the axes of the map."""

    def at(self, px: FloatArray) -> FloatArray:
        """(N, 2) at pixels (N, 2) of the grid."""
        place = px[:, ::-1].T / CELL_PX
        return np.stack([map_coordinates(b, place, order=1, mode="nearest") for b in self.relief_px], axis=1)

    def seen_by_tile(self, px: FloatArray) -> FloatArray:
        """(N, 2) mean over the tiles centred at pixels (N, 2)."""
        place = px[:, ::-1].T / CELL_PX
        smooth = [uniform_filter(b, TILE_CELLS, mode="nearest") for b in self.relief_px]
        return np.stack([map_coordinates(b, place, order=1, mode="nearest") for b in smooth], axis=1)


def grid_of(shape: tuple[int, int], *, corner: tuple[float, float] = (600_000.0, 5_300_000.0)) -> GeoBox:
    """North-up grid of 10 m in UTM."""
    return GeoBox(shape, Affine(PIXEL_M, 0, corner[0], 0, -PIXEL_M, corner[1]), "EPSG:32632")


def land(
    shape: tuple[int, int],
    *,
    std_px: float,
    roughness: float = 0.8,
    longest_px: float = 2000.0,
    seed: int = 0,
) -> Land:
    """Fractal terrain of Hurst exponent `roughness`: its relief moves the image along x, a fifth along y."""
    rows, cols = (length // CELL_PX + 2 for length in shape)
    rng = np.random.default_rng(seed)
    size = 2 * max(rows, cols)
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    lowest = CELL_PX / longest_px
    amplitude = (k**2 + lowest**2) ** (-(roughness + 1) / 2)
    height = np.fft.ifft2(np.fft.fft2(rng.normal(size=(size, size))) * amplitude).real[:rows, :cols]
    height = std_px * (height - height.mean()) / height.std()
    return Land(np.stack([height, 0.2 * height]))


def flat(shape: tuple[int, int]) -> Land:
    return Land(np.zeros((2, *(length // CELL_PX + 2 for length in shape))))


def measured(
    grid: GeoBox,
    trend: AffineCorrection,
    ground: Land,
    *,
    noise_px: float = 0.3,
    wrong: float = 0.05,
    clusters: int = 0,
    stride_px: int = STRIDE_PX,
    seed: int = 0,
) -> TiePoints:
    """What a matcher makes of it.

    Noise is the mean of white noise over the tile, so tiles share it as far as they share pixels; its size
    varies threefold. A share `wrong` of the points is anywhere within the search, and `clusters` are squares
    of 2 x 2 tiles that agree on one wrong offset. What is wrong looks as sure as the rest, only less often.
    """
    rng = np.random.default_rng(seed)
    corner = np.array([(t.row, t.col) for t in tiles(grid.shape, size_px=TILE_PX, stride_px=stride_px)])
    centre = corner[:, ::-1] + TILE_PX / 2
    xy = np.column_stack(grid.affine @ (centre[:, 0], centre[:, 1]))
    n = len(xy)
    lattice = tuple(length // CELL_PX + 2 for length in grid.shape)
    white = rng.normal(size=(2, *lattice)) * TILE_CELLS
    size = noise_px * np.exp(rng.uniform(-0.5, 0.5, n) * math.log(3.0))
    noise = Land(white).seen_by_tile(centre) * size[:, None]
    offset = (ground.seen_by_tile(centre) + noise) * PIXEL_M + true_trend(trend, xy)
    bad = rng.random(n) < wrong
    offset[bad] = PIXEL_M * rng.uniform(-32, 32, (int(bad.sum()), 2))
    for _ in range(clusters):
        middle = rng.uniform(TILE_PX, np.array(grid.shape[::-1]) - TILE_PX, 2)
        together = (np.abs(centre - middle) <= STRIDE_PX).all(axis=1)
        offset[together] += PIXEL_M * (rng.choice([-1, 1], 2) * rng.uniform(2, 12, 2))
        bad |= together
    confidence = np.where(bad, rng.beta(2, 1.5, n), rng.beta(8, 1, n))
    return TiePoints(
        xy_m=xy,
        offset_m=offset,
        sigma_m=PIXEL_M * size * 0.3,
        confidence=confidence,
        row=corner[:, 0].astype(np.int64),
        col=corner[:, 1].astype(np.int64),
    )


def true_trend(trend: AffineCorrection, xy_m: FloatArray) -> FloatArray:
    """Offsets (N, 2) that `trend` corrects: its inverse less the place."""
    a, b, c, d, e, f = trend.affine
    inverse = ~Affine(a, b, c, d, e, f)
    return np.column_stack(inverse @ (xy_m[:, 0], xy_m[:, 1])) - xy_m
