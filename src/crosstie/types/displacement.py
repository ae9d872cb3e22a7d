"""The displacement field of a pair: what no affine follows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import map_coordinates

from crosstie.types.correction import UNKNOWN_ERROR, Error

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

    from crosstie.types import BoolArray, FloatArray, Plane


class FieldReason(StrEnum):
    """Why a field is offered or not, one sentence each (`.sentence`)."""

    BETTER = "better"
    NOT_BETTER_THAN_AFFINE = "not_better_than_affine"
    TOO_FEW_TIE_POINTS = "too_few_tie_points"
    PAIR_UNRELIABLE = "pair_unreliable"

    @property
    def sentence(self) -> str:
        return _FIELD_SENTENCES[self]


_FIELD_SENTENCES = {
    FieldReason.BETTER: "The field predicts tie points left out of the fit better than the affine does.",
    FieldReason.NOT_BETTER_THAN_AFFINE: "The affine predicts tie points left out of the fit just as well.",
    FieldReason.TOO_FEW_TIE_POINTS: "Too few tiles gave an offset to tell relief from noise.",
    FieldReason.PAIR_UNRELIABLE: "The pair is unreliable: nothing is built on its tie points.",
}


@dataclass(frozen=True, slots=True, eq=False)
class DisplacementField:
    """Offsets at the nodes of a coarse grid, four from tile to tile, each at the centre of its cell.

    The secondary sampled at (x + dx, y + dy) shows what the reference shows at (x, y). NaN where nothing is
    known; there the affine is all there is. The bands are kept as the file has them, float32.
    """

    grid: GeoBox
    """The nodes; it begins where the common grid begins."""
    dx_m: Plane
    """(rows, cols) along the x axis of the map, metres."""
    dy_m: Plane
    """(rows, cols) along the y axis of the map, metres."""
    sigma_m: Plane
    """(rows, cols) standard deviation per axis, metres."""

    def __post_init__(self) -> None:
        for name in ("dx_m", "dy_m", "sigma_m"):
            if getattr(self, name).shape != self.grid.shape:
                raise ValueError(
                    f"{name} must have the shape of the grid, {tuple(self.grid.shape)}, "
                    f"got {getattr(self, name).shape}"
                )
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float32))

    def at(self, xy_m: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Sample the field between its nodes, bilinearly.

        Parameters
        ----------
        xy_m : (N, 2) reference positions, map coordinates

        Returns
        -------
        (N, 2) offset and (N,) sigma, metres; NaN outside the grid or next to a node that is NaN
        """
        col, row = ~self.grid.affine @ (xy_m[:, 0], xy_m[:, 1])
        rows, cols = self.grid.shape
        outside = (np.minimum(row, col) < -1e-6) | (row > rows + 1e-6) | (col > cols + 1e-6)
        # The outermost half cell has nodes on one side only: it takes the value of the nearest.
        place = np.stack([np.clip(row - 0.5, 0, rows - 1), np.clip(col - 0.5, 0, cols - 1)])
        dx, dy, sigma = (
            np.where(outside, np.nan, map_coordinates(band, place, np.float64, order=1, mode="nearest"))
            for band in (self.dx_m, self.dy_m, self.sigma_m)
        )
        return np.stack([dx, dy], axis=1), sigma


@dataclass(frozen=True, slots=True)
class FieldReport:
    """What became of the field, in numbers; NaN where it was not computed."""

    offered: bool
    reason: FieldReason
    used: int = 0
    """Tie points that the field trusts."""
    coverage: float = 0.0
    """Share of the scene's nodes where the field stands and is more than the affine, 0..1."""
    error_affine: Error = UNKNOWN_ERROR
    """Of the affine at tiles, over the tie points used: their noise is in it."""
    error_held_out: Error = UNKNOWN_ERROR
    """Of the field at tiles it has not seen, over the tie points used. A tile's neighbours are away with it,
    and its own noise is in it: the field is better than that where there are tiles."""
    error_after: Error = UNKNOWN_ERROR
    """Of the field where it holds, as held-out tiles tell it: their error, wrong matches aside, and the
    relief within a tile, which no tie point shows. The RMS of its sigma."""
    length_m: float = float("nan")
    """Correlation length of the relief that was chosen, metres."""
    noise_m: float = float("nan")
    """Standard deviation of a tie point's noise per axis that was chosen with it, metres."""


@dataclass(frozen=True, slots=True, eq=False)
class FieldFit:
    """The field, if one is offered, and why."""

    field: DisplacementField | None
    report: FieldReport
    used: BoolArray
    """(N,) tie points that the field trusts; more than the affine's where relief is strong."""
