"""From the reference's map to the secondary's: where the secondary shows what lies at a place."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from odc.geo import CRS
from scipy.ndimage import distance_transform_edt, map_coordinates, spline_filter

from crosstie.io.raster.resample import apply
from crosstie.types import IDENTITY_AFFINE

if TYPE_CHECKING:
    from crosstie.types import DisplacementField, FloatArray, Registration

FADE_NODES = 16
"""Beyond its known nodes, what a field has over the affine fades to nothing over so many nodes: four tile
strides."""


@dataclass(frozen=True, slots=True, eq=False)
class Mapping:
    """A correction and, where there is one, a displacement field, both in one CRS. By default a plain copy.

    Raises
    ------
    ValueError : an affine that cannot be inverted, or a field in another CRS
    """

    crs: str
    """EPSG code or WKT, of the pair; in metres."""
    affine: tuple[float, ...] = IDENTITY_AFFINE
    """The correction (a, b, c, d, e, f): map (x, y) of the secondary -> of the reference, metres of `crs`."""
    field: DisplacementField | None = None
    """Takes the place of the affine where it is known."""
    _excess: tuple[FloatArray, FloatArray] | None = dataclasses.field(init=False, repr=False)
    """Spline coefficients of what the field has over the affine, padded; None without a field."""

    def __post_init__(self) -> None:
        if len(self.affine) != 6 or not np.isfinite(self.affine).all() or Affine(*self.affine).is_degenerate:
            raise ValueError(f"a correction of {self.affine} cannot be turned round; give six finite numbers")
        if self.field is not None and self.field.grid.crs != CRS(self.crs):
            raise ValueError(
                f"the field is in {self.field.grid.crs}, the pair in {self.crs}; give both in one CRS"
            )
        excess = None if self.field is None else _excess(self.field, ~Affine(*self.affine))
        object.__setattr__(self, "_excess", excess)

    def secondary_xy(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Where on the secondary's map, as it was delivered, the ground at (x, y) of the reference is seen.

        Between the nodes of the field, what it has over the affine is a cubic spline.

        Parameters
        ----------
        x, y : any shape, metres of `crs`
        """
        to_x, to_y = apply(~Affine(*self.affine), x, y)
        if self.field is None or self._excess is None:
            return to_x, to_y
        col, row = apply(~self.field.grid.affine, x, y)
        at = np.stack([row, col]) + (FADE_NODES - 0.5)  # counted from the centre of the first padded node
        at[:, ~np.isfinite(at).all(axis=0)] = -1.0
        dx, dy = (
            map_coordinates(plane, at, order=3, mode="constant", cval=0.0, prefilter=False)
            for plane in self._excess
        )
        return to_x + dx, to_y + dy


def mapping_of(registration: Registration) -> Mapping:
    """Map the reference to the secondary as far as the verdict allows: field, else affine, else as it is.

    Raises
    ------
    ValueError : the pair has no common grid
    """
    if registration.grid is None:
        raise ValueError(f"{registration.pair_key}: there is no common grid, so there is nothing to map")
    field = None if registration.field is None else registration.field.field
    return Mapping(str(registration.grid.crs), registration.estimate.correction.affine, field)


def _excess(field: DisplacementField, back: Affine) -> tuple[FloatArray, FloatArray]:
    """Spline coefficients of the field less the affine, padded, and faded out beyond the known nodes."""
    rows, cols = field.grid.shape
    x, y = apply(field.grid.affine, *np.meshgrid(np.arange(cols) + 0.5, np.arange(rows) + 0.5))
    to_x, to_y = apply(back, x, y)
    excess = np.stack([x + field.dx_m - to_x, y + field.dy_m - to_y])
    known = np.isfinite(excess).all(axis=0)
    excess, known = np.pad(excess, ((0, 0), *_PAD)), np.pad(known, _PAD)
    if not known.any():
        return np.zeros(known.shape), np.zeros(known.shape)
    away, (row, col) = distance_transform_edt(~known, return_indices=True)
    fade = np.maximum(0.0, 1.0 - away / FADE_NODES)
    dx, dy = (spline_filter(plane[row, col] * fade, order=3, mode="constant") for plane in excess)
    return dx, dy


_PAD = ((FADE_NODES, FADE_NODES), (FADE_NODES, FADE_NODES))
