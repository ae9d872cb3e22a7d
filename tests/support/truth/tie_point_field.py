"""Tie points whose truth is known: a map between the images, relief, noise, wrong matches."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from crosstie.grid import tiles
from crosstie.types import AffineCorrection, Model, TiePoints

if TYPE_CHECKING:
    from crosstie.types import BoolArray, FloatArray

PIXEL_M = 10.0
TILE_PX = 192
STRIDE_PX = 64
NORTH_WEST = np.array([600_000.0, 5_300_000.0])
"""First corner of the grid, UTM metres."""


def truth(
    *, rotation_deg: float = 0.0, scale: float = 0.0, shift_px: tuple[float, float] = (0.0, 0.0)
) -> AffineCorrection:
    """The map from secondary to reference that turns and stretches around a point inside the scene."""
    centre = NORTH_WEST + np.array([10_000.0, -10_000.0])
    c, s = (
        (1 + scale) * math.cos(math.radians(rotation_deg)),
        (1 + scale) * math.sin(math.radians(rotation_deg)),
    )
    matrix = np.array([[c, -s], [s, c]])
    tx, ty = centre - matrix @ centre - PIXEL_M * np.asarray(shift_px)
    return AffineCorrection(Model.AFFINE, (c, -s, float(tx), s, c, float(ty)), np.zeros((6, 6)))


def inverse(correction: AffineCorrection) -> AffineCorrection:
    a, b, c, d, e, f = correction.affine
    back = np.linalg.inv(np.array([[a, b], [d, e]]))
    x, y = -back @ np.array([c, f])
    numbers = (back[0, 0], back[0, 1], x, back[1, 0], back[1, 1], y)
    return AffineCorrection(correction.model, tuple(map(float, numbers)), np.zeros((6, 6)))  # type: ignore[arg-type]


def tie_points(
    true: AffineCorrection | None = None,
    *,
    shape: tuple[int, int] = (2048, 2048),
    noise_px: float = 0.0,
    wrong: float = 0.0,
    relief_px: FloatArray | None = None,
    stride_px: int = STRIDE_PX,
    seed: int = 0,
) -> TiePoints:
    """One tie point a tile; a share `wrong` of them is uniform within +-32 px of the search's centre."""
    rng = np.random.default_rng(seed)
    corner = np.array([(t.row, t.col) for t in tiles(shape, size_px=TILE_PX, stride_px=stride_px)])
    xy = NORTH_WEST + PIXEL_M * (corner[:, ::-1] + TILE_PX / 2) * np.array([1, -1])
    n = len(xy)
    offset = inverse(true or AffineCorrection.identity()).apply(xy) - xy
    if relief_px is not None:
        offset = offset + PIXEL_M * relief_px
    offset = offset + rng.normal(0, PIXEL_M * noise_px, (n, 2)) if noise_px else offset
    bad = rng.random(n) < wrong
    offset[bad] = np.median(offset, axis=0) + PIXEL_M * rng.uniform(-32, 32, (int(bad.sum()), 2))
    return TiePoints(
        xy_m=xy,
        offset_m=offset,
        sigma_m=np.full(n, PIXEL_M * max(noise_px, 0.1)),
        confidence=np.where(bad, rng.uniform(0.2, 0.8, n), rng.uniform(0.4, 1.0, n)),
        row=corner[:, 0].astype(np.int64),
        col=corner[:, 1].astype(np.int64),
    )


def smooth_field(points: TiePoints, *, std_px: float, wavelength_px: float, seed: int = 0) -> FloatArray:
    """(N, 2) sum of sine waves in random directions, as relief gives; zero mean, `std_px` per axis."""
    rng = np.random.default_rng(seed)
    angle, phase = rng.uniform(0, 2 * math.pi, (2, 12, 2))
    along = points.col[:, None, None] * np.cos(angle) + points.row[:, None, None] * np.sin(angle)
    field = np.sin(2 * math.pi * along / wavelength_px + phase).sum(axis=1)
    field -= field.mean(axis=0)
    scaled: FloatArray = std_px * field / field.std(axis=0)
    return scaled


def overlap_noise(points: TiePoints, *, std_px: float, seed: int = 0) -> FloatArray:
    """(N, 2) mean of white noise over each tile: neighbours err alike as far as they share pixels."""
    cells = TILE_PX // STRIDE_PX
    rows, cols = points.row // STRIDE_PX, points.col // STRIDE_PX
    white = np.random.default_rng(seed).normal(size=(rows.max() + cells, cols.max() + cells, 2))
    summed = sum(white[rows + r, cols + c] for r in range(cells) for c in range(cells))
    noise: FloatArray = std_px / cells * np.asarray(summed)
    return noise


def pick(points: TiePoints, count: int, *, seed: int = 0) -> TiePoints:
    """`count` points at random."""
    mask: BoolArray = np.zeros(len(points), np.bool_)
    mask[np.random.default_rng(seed).choice(len(points), count, replace=False)] = True
    return points.keep(mask)


def swapped(points: TiePoints) -> TiePoints:
    """The same matches with reference and secondary exchanged."""
    return replace(points, xy_m=points.xy_m + points.offset_m, offset_m=-points.offset_m)


def corners(points: TiePoints) -> FloatArray:
    """(4, 2) corners of the box around the points, metres."""
    (west, south), (east, north) = points.xy_m.min(axis=0), points.xy_m.max(axis=0)
    return np.array([[west, south], [west, north], [east, south], [east, north]])


def apart_px(first: AffineCorrection, second: AffineCorrection, at_m: FloatArray) -> float:
    """Largest distance between two corrections of the same positions, px."""
    return float(np.hypot(*(first.apply(at_m) - second.apply(at_m)).T).max() / PIXEL_M)
