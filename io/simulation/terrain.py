"""Random terrain: the relief that it leaves between two images, and patches of ground that lie together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from scipy.ndimage import map_coordinates, uniform_filter

from crosstie.io.simulation.landscape import PIXEL_M

if TYPE_CHECKING:
    from crosstie.types import FloatArray

FIELD_CELL_PX = 16
"""Pixel of the random fields, px of the images."""

RANGE_RATIO = 0.4
"""Relief across the look direction, by that along it."""


@dataclass(frozen=True, slots=True, eq=False)
class Relief:
    """Displacement of the secondary by terrain, that no affine undoes."""

    field_px: FloatArray
    """(side, side, 2) to the east and to the south, px; beyond its end it repeats itself."""
    size_px: int
    """Side of the scene, which begins at the first cell."""

    @classmethod
    def draw(cls, rng: np.random.Generator, *, size_px: int, rms_px: float, length_px: float) -> Relief:
        """Relief of this RMS along the look direction, over land; a single scene can have less or more."""
        side = max(256, -(-size_px // FIELD_CELL_PX) + 64)
        look = rng.uniform(0, np.pi)
        turn = np.array([[np.cos(look), np.sin(look)], [-np.sin(look), np.cos(look)]])
        height = np.stack([random_terrain(rng, side, length_px / FIELD_CELL_PX) for _ in range(2)], axis=-1)
        return cls(rms_px * (height * np.array([1.0, RANGE_RATIO])) @ turn, size_px)

    def at(self, xy_px: FloatArray, *, tile_px: int = 0) -> FloatArray:
        """(N, 2) relief at places (N, 2), or its mean over tiles around them, px."""
        width = max(tile_px // FIELD_CELL_PX, 1)
        seen = uniform_filter(self.field_px, (width, width, 0), mode="wrap")
        col, row = xy_px.T / FIELD_CELL_PX - 0.5
        bands = [
            map_coordinates(band, [row, col], order=1, mode="grid-wrap") for band in np.moveaxis(seen, 2, 0)
        ]
        return np.stack(bands, axis=1)

    def best_affine(self, north_west_m: tuple[float, float]) -> Affine:
        """Map coordinates of the secondary -> those of the affine that undoes most of the relief."""
        cells = -(-self.size_px // FIELD_CELL_PX)
        ground = self.field_px[:cells, :cells].reshape(-1, 2)
        place = (np.arange(cells) + 0.5) * FIELD_CELL_PX
        y, x = (axis.ravel() for axis in np.meshgrid(place, place, indexing="ij"))
        design = np.stack([x, y, np.ones(x.size)], axis=1)
        (a, d), (b, e), (c, f) = np.linalg.lstsq(design, ground, rcond=None)[0]
        in_px = Affine(1 + a, b, c, d, 1 + e, f)
        to_map = Affine(PIXEL_M, 0, north_west_m[0], 0, -PIXEL_M, north_west_m[1])
        best: Affine = to_map @ ~in_px @ ~to_map
        return best


def random_terrain(rng: np.random.Generator, side: int, length: float) -> FloatArray:
    """Random field (side, side) of deviation 1, as rough as land: amplitudes of the power -2.5 of frequency.

    Waves longer than `length`, cells, are no stronger than those of that length: longer ones shift a scene as
    a whole, and are part of its error.
    """
    frequency = 2 * np.pi * np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    amplitude = (1 / length**2 + frequency**2) ** -1.25
    # The deviation is that of the spectrum, not of this draw: a scene can lie on a slope of the terrain.
    weight = np.full(frequency.shape, 2.0)
    weight[:, 0] = 1.0
    deviation = np.sqrt((weight * amplitude**2).sum()) / side
    white = np.fft.rfft2(rng.standard_normal((side, side)))
    field: FloatArray = np.fft.irfft2(white * amplitude / deviation, s=(side, side))
    return field


def patch_rank(rng: np.random.Generator, xy_px: FloatArray, size_px: int) -> FloatArray:
    """(N,) rank 0..1 of places (N, 2): those below a share lie together, as a cloud or a lake does."""
    side = max(64, -(-size_px // FIELD_CELL_PX))
    field = random_terrain(rng, side, size_px / FIELD_CELL_PX / 4)
    col, row = xy_px.T / FIELD_CELL_PX
    value = map_coordinates(field, [row, col], order=1, mode="grid-wrap")
    rank: FloatArray = np.argsort(np.argsort(value)) / len(value)
    return rank
