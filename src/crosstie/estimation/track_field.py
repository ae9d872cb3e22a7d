"""The displacement field of a track at a place: what relief does to all its dates alike.

The tie points of the dates are brought into cells, one a tile. The cells are averaged over the dates, each of
which may be moved as a whole. A field is offered only where it is more than noise: what two halves of the
dates have in common must be larger than what chance leaves in the mean of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from crosstie.estimation.field.fit import NODES_A_STRIDE, between_nodes
from crosstie.estimation.static_field import align, average
from crosstie.types import DisplacementField

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crosstie.estimation.static_field import StaticField
    from crosstie.types import BoolArray, FloatArray, IntArray

FEWEST_DATES = 4
"""Two in each half; fewer dates make no field."""

MOST_DATES = 60
"""Those that show most: more would sharpen the field by little and take memory."""

FULL_DATE = 0.25
"""Of the cells that the fullest date shows. What shows less is aligned by the field, and has no say."""

FEWEST_TILES = 3
"""That must agree with the field on the shift of a date."""

MOST_CELLS = 90_000
"""Of a place: a tile of Sentinel-2 has 29,000 at a stride of 64 px."""

LEAST_POINT_SIGMA_M = 0.01
"""Of a tie point: simulated ones may have none."""


@dataclass(frozen=True, slots=True, eq=False)
class DatePoints:
    """Tie points of one scene, N of them, from all its pairs."""

    scene: str
    xy_m: FloatArray
    """(N, 2)"""
    offset_m: FloatArray
    """(N, 2) against the datum of the place."""
    sigma_m: FloatArray
    """(N,) per axis"""


@dataclass(frozen=True, slots=True)
class DateShift:
    """What one scene is moved by as a whole against the field of its track."""

    dx_m: float
    dy_m: float
    sigma_m: float
    """Per axis: noise of its tiles alone."""
    tiles: int
    """That agree with the field."""


@dataclass(frozen=True, slots=True, eq=False)
class TrackField:
    """Field of a track, and its scenes against it."""

    field: DisplacementField
    """Offsets against the datum; the mean of the dates that it was made of."""
    dates: int
    """That it was made of."""
    relief_m: float
    """Standard deviation per axis of what it has over an affine."""
    noise_m: float
    """Its own, per axis."""
    shifts: Mapping[str, DateShift]
    """Of each scene that shows enough of it."""


def track_field(dates: Sequence[DatePoints], crs: str) -> TrackField | None:
    """Make the field of a track, or None where dates are too few or show no more than an affine and noise.

    Parameters
    ----------
    dates : Sequence[DatePoints]
        All scenes of the track at one place, each once.
    crs : str
        CRS of the coordinates.

    Returns
    -------
    TrackField or None
        The same dates give the same field, whatever their order.
    """
    dates = sorted((date for date in dates if len(date.xy_m)), key=lambda date: date.scene)
    lattice = _lattice(dates) if len(dates) >= FEWEST_DATES else None
    if lattice is None:
        return None
    cells = [lattice.cells_of(date) for date in dates]
    shown = np.array([np.isfinite(sigma).sum() for _, sigma in cells])
    full = np.sort(np.argsort(-shown, kind="stable")[:MOST_DATES])
    full = full[shown[full] >= FULL_DATE * shown.max()]
    if len(full) < FEWEST_DATES:
        return None
    offset, sigma = (np.stack([cells[n][part] for n in full]) for part in (0, 1))
    try:
        found = average(offset, sigma)
        halves = [average(offset[start::2], sigma[start::2]).offset for start in (0, 1)]
    except ValueError:  # dates that share no ground
        return None
    relief2 = _in_common(lattice, *halves)
    noise2 = float(np.nanmean(found.sigma**2))
    if relief2 <= noise2:
        return None
    shifts = {
        date.scene: shift
        for date, (own, spread) in zip(dates, cells, strict=True)
        if (shift := _shift_against(found, own, spread)) is not None
    }
    field = lattice.field(found.offset, found.sigma, crs)
    return TrackField(field, len(full), float(np.sqrt(relief2)), float(np.sqrt(noise2)), shifts)


def _shift_against(field: StaticField, offset: FloatArray, sigma: FloatArray) -> DateShift | None:
    try:
        found = align(field, offset, sigma)
    except ValueError:  # it shows none of the ground that the field knows
        return None
    if found.used < FEWEST_TILES:
        return None
    return DateShift(*found.shift, found.shift_sigma, found.used)


@dataclass(frozen=True, slots=True)
class _TileCells:
    """Cells of one tile stride; row 0 is the northernmost."""

    west_m: float
    """Centre of column 0."""
    north_m: float
    """Centre of row 0."""
    step_m: float
    shape: tuple[int, int]

    def index(self, xy_m: FloatArray) -> IntArray:
        """(N,) flat index of the cell that each position lies in."""
        col = np.floor((xy_m[:, 0] - self.west_m) / self.step_m + 0.5).astype(np.int64)
        row = np.floor((self.north_m - xy_m[:, 1]) / self.step_m + 0.5).astype(np.int64)
        flat: IntArray = row * self.shape[1] + col
        return flat

    def cells_of(self, date: DatePoints) -> tuple[FloatArray, FloatArray]:
        """Weighted mean offset (2, rows, cols) and sigma (rows, cols) of the points in each cell."""
        count = self.shape[0] * self.shape[1]
        at, weight = self.index(date.xy_m), 1 / np.maximum(date.sigma_m, LEAST_POINT_SIGMA_M) ** 2
        total = np.bincount(at, weight, count)
        known = total > 0
        total = np.where(known, total, np.nan)
        mean = [np.bincount(at, weight * date.offset_m[:, axis], count) / total for axis in (0, 1)]
        return np.stack(mean).reshape(2, *self.shape), (1 / np.sqrt(total)).reshape(self.shape)

    def without_plane(self, offset: FloatArray, known: BoolArray) -> FloatArray:
        """(2, M) offsets of the known cells less the affine that fits them."""
        row, col = np.nonzero(known)
        design = np.column_stack([np.ones(len(row)), row - row.mean(), col - col.mean()])
        values = offset[:, known]
        fitted = design @ np.linalg.lstsq(design, values.T, rcond=None)[0]
        left: FloatArray = values - fitted.T
        return left

    def field(self, offset: FloatArray, sigma: FloatArray, crs: str) -> DisplacementField:
        """Nodes of a displacement field, as close as those of a pair."""
        rows, cols = self.shape
        corner = Affine.translation(self.west_m - self.step_m / 2, self.north_m + self.step_m / 2)
        step = self.step_m / NODES_A_STRIDE
        nodes = GeoBox(
            (rows * NODES_A_STRIDE, cols * NODES_A_STRIDE), corner @ Affine.scale(step, -step), crs
        )
        at = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in nodes.shape), indexing="ij"))
        at = at / NODES_A_STRIDE - 0.5
        dx, dy = (between_nodes(band, at, order=3) for band in offset)
        bands = (band.astype(np.float32) for band in (dx, dy, between_nodes(sigma, at, order=1)))
        return DisplacementField(nodes, *bands)


def _in_common(lattice: _TileCells, first: FloatArray, second: FloatArray) -> float:
    """Variance per axis that two fields of independent noise share, over an affine each."""
    known = np.asarray(np.isfinite(first).all(axis=0) & np.isfinite(second).all(axis=0), np.bool_)
    if known.sum() <= FEWEST_TILES:
        return 0.0
    one, other = (lattice.without_plane(field, known) for field in (first, second))
    return float((one * other).mean())


def _lattice(dates: Sequence[DatePoints]) -> _TileCells | None:
    """Cells for the tiles of all dates; None where their step is not known or they lie too far apart."""
    xy_m = np.concatenate([date.xy_m for date in dates])
    step_m = _tile_step(dates)
    if step_m is None:
        return None
    # On the tiles of the date that shows most, so that its points lie in the middle of their cells.
    most = max(dates, key=lambda date: (len(date.xy_m), date.scene))
    phase = most.xy_m[0] % step_m
    low = np.floor((xy_m.min(axis=0) - phase) / step_m + 0.5) * step_m + phase
    high = np.floor((xy_m.max(axis=0) - phase) / step_m + 0.5) * step_m + phase
    cols, rows = (np.rint((high - low) / step_m).astype(int) + 1).tolist()
    if rows * cols > MOST_CELLS:
        return None
    return _TileCells(float(low[0]), float(high[1]), step_m, (rows, cols))


def _tile_step(dates: Sequence[DatePoints]) -> float | None:
    """Step from tile to tile, metres: the most frequent one of rows and columns."""
    steps = [np.diff(np.unique(np.round(date.xy_m[:, axis], 2))) for date in dates for axis in (0, 1)]
    every = np.concatenate(steps)
    values, counts = np.unique(np.round(every, 1), return_counts=True)
    if not len(values) or values[counts.argmax()] <= 0:
        return None
    return float(np.median(every[np.abs(every - values[counts.argmax()]) <= 0.1]))
