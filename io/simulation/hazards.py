"""Simulated pairs that are up against something: relief, cloud, water, change, or another land."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import map_coordinates

from crosstie.io.simulation.landscape import WATER
from crosstie.io.simulation.pairs import CLOUD_DN, SimulatedPair, simulate_pair
from crosstie.io.simulation.terrain import Relief, patch_rank
from crosstie.io.simulation.tie_points import Hazard, draw_scene_error

if TYPE_CHECKING:
    from affine import Affine

    from crosstie.types import BoolArray, ByteArray, FloatArray

ELSEWHERE = 100_000
"""Added to the number of a scene for the land that its changed or unrelated image shows."""

WATER_SHARE_OF_SAR = 0.25
"""Amplitude of water by that of land."""

PIXEL_RELIEF_PX, PIXEL_RELIEF_LENGTH_PX = (0.3, 2.0), (100.0, 600.0)
HIDDEN_SHARE = (0.2, 0.8)


@dataclass(frozen=True, slots=True, eq=False)
class EndangeredPair:
    """A simulated pair, what was done to it, and its truth."""

    pair: SimulatedPair
    hazard: Hazard
    optical: ByteArray
    """(3, rows, cols)."""
    sar: ByteArray
    """(rows, cols)."""
    relief: Relief | None

    @property
    def best_affine(self) -> Affine:
        """Map coordinates of the secondary -> true ones, as far as an affine can say."""
        if self.relief is None:
            return self.pair.true_affine
        corner = self.pair.grid.affine
        best: Affine = self.relief.best_affine((corner.c, corner.f)) @ self.pair.true_affine
        return best


def endangered_pair(seed: int, index: int, *, size_px: int, hazard: Hazard) -> EndangeredPair:
    """Draw place `index` with pixels, and do to it what `hazard` says."""
    rng = np.random.default_rng([seed, index, 9])
    pair = simulate_pair(seed, index, size_px=size_px, error=draw_scene_error(rng))
    optical, sar, relief = pair.optical, pair.sar, None
    row, col = np.mgrid[0:size_px, 0:size_px] + 0.5
    xy = np.stack([col.ravel(), row.ravel()], axis=1)
    hidden = (patch_rank(rng, xy, size_px) < rng.uniform(*HIDDEN_SHARE)).reshape(size_px, size_px)
    if hazard is Hazard.RELIEF:
        rms, length = (
            float(np.exp(rng.uniform(*np.log(span)))) for span in (PIXEL_RELIEF_PX, PIXEL_RELIEF_LENGTH_PX)
        )
        relief = Relief.draw(rng, size_px=size_px, rms_px=rms, length_px=length)
        sar = _displaced(sar, relief.at(xy))
    elif hazard is Hazard.CLOUD:
        optical = _painted(rng, optical, np.full(3, CLOUD_DN), hidden)
    elif hazard is Hazard.WATER:
        optical = _painted(rng, optical, WATER, hidden)
        sar = np.where(hidden, np.maximum(WATER_SHARE_OF_SAR * sar, 1), sar).astype(np.uint8)
    elif hazard in {Hazard.CHANGE, Hazard.UNRELATED}:
        other = simulate_pair(seed, index + ELSEWHERE, size_px=size_px).sar
        sar = np.where(hidden | (hazard is Hazard.UNRELATED), other, sar)
    return EndangeredPair(pair, hazard, np.where(pair.optical_valid, optical, np.uint8(0)), sar, relief)


def _displaced(sar: ByteArray, relief_px: FloatArray) -> ByteArray:
    """Move what an image shows by relief (N, 2) to the east and to the south."""
    row, col = np.mgrid[0 : sar.shape[0], 0 : sar.shape[1]].astype(np.float64)
    east, south = relief_px.T.reshape(2, *sar.shape)
    seen = map_coordinates(sar.astype(np.float64), [row - south, col - east], order=3, mode="nearest")
    image: ByteArray = np.clip(np.rint(seen), 1, 255).astype(np.uint8)
    return image


def _painted(rng: np.random.Generator, optical: ByteArray, colour: FloatArray, where: BoolArray) -> ByteArray:
    noise = rng.normal(0, 1.5, optical.shape)
    covered = np.clip(np.rint(colour[:, None, None] + noise), 1, 255)
    image: ByteArray = np.where(where, covered, optical).astype(np.uint8)
    return image
