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
from scipy.ndimage import map_coordinates, uniform_filter

from crosstie.grid import tile_starts
from crosstie.io.simulation.landscape import PIXEL_M
from crosstie.io.simulation.pairs import MAX_ROTATION_DEG, MAX_SCALE, MAX_SHIFT_M, TrueError
from crosstie.types import TiePoints

if TYPE_CHECKING:
    from crosstie.types import BoolArray, FloatArray

NORTH_WEST_M = np.array([600_000.0, 5_300_000.0])
"""First corner of every scene, UTM metres."""

FIELD_CELL_PX = 16
"""Pixel of the random fields that noise and relief are drawn from, px."""

SEARCH_PX = 32.0
SMALL_SIZES_PX, LARGE_SIZES_PX = (384, 512, 768), (1024, 1536, 2048, 3072)
NOISE_PX, WRONG_SHARE = (0.15, 0.8), (0.0, 0.3)
RELIEF_PX, RELIEF_LENGTH_PX = (0.1, 2.0), (100.0, 600.0)
LOST_SHARE = (0.2, 0.95)
"""Share of a scene under cloud or water, or changed."""

RANGE_RATIO = 0.4
"""Relief across the look direction, by that along it."""

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
    relief_trend: FloatArray
    """(3, 2) affine that lies closest to the relief over the whole scene, px: coefficients of (x, y, 1), with
    x and y from -1 to 1 across the scene, y downwards."""

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
        x, y = self.corners_m.mean(axis=0)
        half = self.size_px * PIXEL_M / 2
        (a, d), (b, e), (c, f) = PIXEL_M * self.relief_trend
        # Offsets to the east grow with x; y of the trend runs downwards, that of the map upwards.
        undone = Affine(1 - a / half, b / half, -c, -d / half, 1 + e / half, -f)
        centred = Affine.translation(x, y) @ undone @ Affine.translation(-x, -y)
        best: Affine = self.true_affine @ centred
        return best


def simulate_tie_points(
    seed: int, index: int, *, size_px: int | None = None, hazard: Hazard | None = None
) -> SimulatedTiePoints:
    """Draw scene `index`: size, hazard, noise, relief and error; what is given is not drawn.

    A third of the scenes is aligned, a third is shifted by up to 3 px, and a third is as far off as the
    scenes of `simulate_pair`.
    """
    rng = np.random.default_rng([seed, index])
    small = rng.random() < 0.5
    size = int(rng.choice(SMALL_SIZES_PX if small else LARGE_SIZES_PX))
    hazards = list(Hazard)
    drawn = hazards[int(rng.choice(len(hazards), p=[0.2, 0.4, 0.1, 0.1, 0.1, 0.1]))]
    error = _draw_scene_error(rng)
    noise = _log_uniform(rng, NOISE_PX)
    relief, length = _log_uniform(rng, RELIEF_PX), _log_uniform(rng, RELIEF_LENGTH_PX)
    wrong = rng.uniform(*WRONG_SHARE)
    lost = rng.uniform(*LOST_SHARE)
    size, hazard = size_px or size, drawn if hazard is None else hazard
    if hazard is not Hazard.RELIEF:
        relief = 0.0
    tile, stride = (192, 64) if size >= 1024 else (128, 32)
    starts = np.array(tile_starts(size, size_px=tile, stride_px=stride))
    row, col = (axis.ravel() for axis in np.meshgrid(starts, starts, indexing="ij"))
    at = np.stack([row, col], axis=1)
    relief_px, trend = _relief(rng, at, tile, size, relief, length)
    measured = noise * _tile_noise(rng, at, tile) + relief_px
    covered = _patch_rank(rng, at, size) < lost
    good = rng.random(len(at)) >= wrong
    if hazard is Hazard.CHANGE:
        good &= ~covered
    if hazard is Hazard.UNRELATED:
        good[:] = False
    points = _points(rng, at, tile, size, measured, good, error, noise)
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
        relief_px=relief,
        relief_length_px=length,
        relief_trend=trend,
    )


def _points(
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
    offset = seen - xy + PIXEL_M * measured_px
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


def _draw_scene_error(rng: np.random.Generator) -> TrueError:
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


def _relief(
    rng: np.random.Generator, at: FloatArray, tile_px: int, size_px: int, rms_px: float, length_px: float
) -> tuple[FloatArray, FloatArray]:
    """Relief of a random terrain: (N, 2) as tiles see it, and its trend (3, 2) over the whole scene.

    It is stronger along the look direction than across it.
    """
    cells = int(np.ceil(size_px / FIELD_CELL_PX))
    side = max(256, cells + 64)
    look = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(look), np.sin(look)], [-np.sin(look), np.cos(look)]])
    height = np.stack([_terrain(rng, side, length_px / FIELD_CELL_PX) for _ in range(2)], axis=-1)
    field = rms_px * (height * np.array([1.0, RANGE_RATIO])) @ turn
    ground = field[:cells, :cells].reshape(-1, 2)
    place = (np.arange(cells) + 0.5) / cells * 2 - 1
    y, x = (axis.ravel() for axis in np.meshgrid(place, place, indexing="ij"))
    trend = np.linalg.lstsq(np.stack([x, y, np.ones(x.size)], axis=1), ground, rcond=None)[0]
    width = max(tile_px // FIELD_CELL_PX, 1)
    seen = uniform_filter(field, (width, width, 0), mode="wrap")
    row, col = (at + tile_px / 2).T / FIELD_CELL_PX - 0.5
    tiles = [map_coordinates(band, [row, col], order=1, mode="grid-wrap") for band in seen.transpose(2, 0, 1)]
    return np.stack(tiles, axis=1), trend


def _terrain(rng: np.random.Generator, side: int, length: float) -> FloatArray:
    """Random field of deviation 1, as rough as land: an amplitude of the power -2.5 of the frequency."""
    frequency = 2 * np.pi * np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    amplitude = (1 / length**2 + frequency**2) ** -1.25
    # The deviation is that of the spectrum, not of this draw: a scene can lie on a slope of the terrain.
    weight = np.full(frequency.shape, 2.0)
    weight[:, 0] = 1.0
    deviation = np.sqrt((weight * amplitude**2).sum()) / side
    white = np.fft.rfft2(rng.standard_normal((side, side)))
    field: FloatArray = np.fft.irfft2(white * amplitude / deviation, s=(side, side))
    return field


def _patch_rank(rng: np.random.Generator, at: FloatArray, size_px: int) -> FloatArray:
    """(N,) rank 0..1 of tiles by a smooth field: those below a share lie together, as a cloud or a lake."""
    side = max(64, size_px // FIELD_CELL_PX)
    field = _terrain(rng, side, size_px / FIELD_CELL_PX / 4)
    value = field[(at[:, 0] // FIELD_CELL_PX) % side, (at[:, 1] // FIELD_CELL_PX) % side]
    rank: FloatArray = np.argsort(np.argsort(value)) / len(value)
    return rank
