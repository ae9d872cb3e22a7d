"""Tie points of scenes whose truth is known, without pixels: thousands of scenes a minute.

They behave as those of the shipped matcher do on pictures: noise that tiles share as far as they share
pixels, relief that lies on the ground, wrong matches that come alone, and ground where nothing matches.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from scipy.ndimage import uniform_filter

from crosstie.grid import tile_starts
from crosstie.io.simulation.landscape import PIXEL_M
from crosstie.io.simulation.pairs import MAX_ROTATION_DEG, MAX_SCALE, MAX_SHIFT_M, TrueError
from crosstie.io.simulation.terrain import FIELD_CELL_PX, Relief, patch_rank
from crosstie.types import TiePoints

if TYPE_CHECKING:
    from crosstie.types import BoolArray, FloatArray

NORTH_WEST_M = np.array([600_000.0, 5_300_000.0])
"""First corner of every scene, UTM metres."""

SEARCH_PX = 32.0
SMALL_SIZES_PX, LARGE_SIZES_PX = (384, 512, 768), (1024, 1536, 2048, 3072)
NOISE_PX, WRONG_SHARE = (0.15, 0.8), (0.0, 0.3)
RELIEF_PX, RELIEF_LENGTH_PX = (0.1, 2.0), (100.0, 600.0)
LOST_SHARE = (0.2, 0.95)
"""Share of a scene under cloud or water, or changed."""

UNSHARED_NOISE = 0.05
"""Share of a tile's noise that no other tile has."""


class Hazard(StrEnum):
    """What a scene is up against."""

    NONE = "none"
    RELIEF = "relief"
    CLOUD = "cloud"
    WATER = "water"
    CHANGE = "change"
    UNRELATED = "unrelated"


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedTiePoints:
    """Tie points of one scene, and the truth about it."""

    points: TiePoints
    planned: int
    """Number of tiles that were worth matching."""
    size_px: int
    tile_px: int
    stride_px: int
    hazard: Hazard
    error: TrueError
    noise_px: float
    relief_px: float
    """RMS of the relief along the look direction, px."""
    relief_length_px: float
    relief: Relief | None

    @property
    def corners_m(self) -> FloatArray:
        """(4, 2) corners of the scene."""
        side = self.size_px * PIXEL_M
        return NORTH_WEST_M + side * np.array([[0, 0], [1, 0], [0, -1], [1, -1]], np.float64)

    @property
    def true_affine(self) -> Affine:
        """Map coordinates of the secondary -> true map coordinates: undoes the error of the scene."""
        x, y = self.corners_m.mean(axis=0)
        return self.error.affine((float(x), float(y)))

    @property
    def best_affine(self) -> Affine:
        """The same, and what of the relief an affine can undo over the whole scene."""
        if self.relief is None:
            return self.true_affine
        best: Affine = self.relief.best_affine((NORTH_WEST_M[0], NORTH_WEST_M[1])) @ self.true_affine
        return best


def simulate_tie_points(
    seed: int, index: int, *, size_px: int | None = None, hazard: Hazard | None = None
) -> SimulatedTiePoints:
    """Draw scene `index`: size, hazard, noise, relief and error; what is given is not drawn.

    A third of the scenes is aligned, a third is shifted by up to 3 px, and a third is as far off as the
    scenes of `simulate_pair`.
    """
    # In one piece: the draws follow one another, and what is given is drawn all the same.
    rng = np.random.default_rng([seed, index])
    small = rng.random() < 0.5
    size = int(rng.choice(SMALL_SIZES_PX if small else LARGE_SIZES_PX))
    hazards = list(Hazard)
    drawn = hazards[int(rng.choice(len(hazards), p=[0.2, 0.4, 0.1, 0.1, 0.1, 0.1]))]
    error = draw_scene_error(rng)
    noise = _log_uniform(rng, NOISE_PX)
    rms, length = _log_uniform(rng, RELIEF_PX), _log_uniform(rng, RELIEF_LENGTH_PX)
    wrong = rng.uniform(*WRONG_SHARE)
    lost = rng.uniform(*LOST_SHARE)
    size, hazard = size_px or size, drawn if hazard is None else hazard
    if hazard is not Hazard.RELIEF:
        rms = 0.0
    tile, stride = (192, 64) if size >= 1024 else (128, 32)
    starts = np.array(tile_starts(size, size_px=tile, stride_px=stride))
    row, col = (axis.ravel() for axis in np.meshgrid(starts, starts, indexing="ij"))
    at = np.stack([row, col], axis=1)
    centre = at[:, ::-1] + tile / 2
    relief = Relief.draw(rng, size_px=size, rms_px=rms, length_px=length)
    measured = noise * _tile_noise(rng, at, tile) + relief.at(centre, tile_px=tile)
    covered = patch_rank(rng, centre, size) < lost
    good = rng.random(len(at)) >= wrong
    if hazard is Hazard.CHANGE:
        good &= ~covered
    if hazard is Hazard.UNRELATED:
        good[:] = False
    points = _drawn_points(rng, at, tile, size, measured, good, error, noise)
    kept = ~covered if hazard in {Hazard.CLOUD, Hazard.WATER} else np.ones(len(at), np.bool_)
    return SimulatedTiePoints(
        points=points.keep(kept),
        planned=int(kept.sum()),
        size_px=size,
        tile_px=tile,
        stride_px=stride,
        hazard=hazard,
        error=error,
        noise_px=noise,
        relief_px=rms,
        relief_length_px=length,
        relief=relief if rms else None,
    )


def _drawn_points(
    rng: np.random.Generator,
    at: FloatArray,
    tile_px: int,
    size_px: int,
    measured_px: FloatArray,
    good: BoolArray,
    error: TrueError,
    noise_px: float,
) -> TiePoints:
    """Put what was measured beyond the error of the scene where the tiles lie."""
    xy = NORTH_WEST_M + PIXEL_M * (at[:, ::-1] + tile_px / 2) * np.array([1, -1])
    x, y = NORTH_WEST_M + PIXEL_M * size_px / 2 * np.array([1, -1])
    wrong_way = ~error.affine((float(x), float(y)))
    seen = np.stack(wrong_way @ (xy[:, 0], xy[:, 1]), axis=1)
    offset = seen - xy + PIXEL_M * measured_px * np.array([1, -1])
    lost, count = ~good, int((~good).sum())
    offset[lost] = np.median(offset, axis=0) + PIXEL_M * rng.uniform(-SEARCH_PX, SEARCH_PX, (count, 2))
    return TiePoints(
        xy_m=xy,
        offset_m=offset,
        sigma_m=PIXEL_M * max(noise_px, 0.1) * rng.lognormal(0, 0.3, len(at)),
        confidence=np.where(good, rng.beta(5, 1, len(at)), rng.beta(1, 3, len(at))),
        row=at[:, 0].astype(np.int64),
        col=at[:, 1].astype(np.int64),
    )


def draw_scene_error(rng: np.random.Generator) -> TrueError:
    """Nothing, a small shift, or all that a faulty delivery has."""
    kind, angle = rng.integers(3), rng.uniform(0, 2 * np.pi)
    length = (0.0, rng.uniform(0, 30.0), rng.uniform(0.2, 1.0) * MAX_SHIFT_M)[kind]
    turned, stretched = rng.uniform(-1, 1, 2) * (kind == 2)
    return TrueError(
        shift_m=(float(length * np.cos(angle)), float(length * np.sin(angle))),
        rotation_deg=float(turned * MAX_ROTATION_DEG),
        scale=float(stretched * MAX_SCALE),
    )


def _log_uniform(rng: np.random.Generator, span: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(span))))


def _tile_noise(rng: np.random.Generator, at: FloatArray, tile_px: int) -> FloatArray:
    """(N, 2) white noise averaged over each tile, of deviation 1: tiles err alike as they share pixels."""
    cells = int(at.max()) // FIELD_CELL_PX + tile_px // FIELD_CELL_PX + 1
    width = tile_px // FIELD_CELL_PX
    white = uniform_filter(rng.standard_normal((cells, cells, 2)), (width, width, 0), mode="wrap") * width
    shared = white[at[:, 0] // FIELD_CELL_PX, at[:, 1] // FIELD_CELL_PX]
    noise: FloatArray = (1 - UNSHARED_NOISE) ** 0.5 * shared + UNSHARED_NOISE**0.5 * rng.standard_normal(
        (len(at), 2)
    )
    return noise
