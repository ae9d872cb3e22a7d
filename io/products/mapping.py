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
    from crosstie.types import DisplacementField, FloatArray, Plane, Registration

FADE_NODES = 16
"""Beyond its known nodes, what a field has over the affine fades to nothing over so many nodes: four tile
strides."""

STRIP_NODES = 256
"""Rows of nodes that are prepared at a time: bounds the memory."""


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
    _excess: tuple[Plane, Plane] | None = dataclasses.field(init=False, repr=False)
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


def _excess(field: DisplacementField, back: Affine) -> tuple[Plane, Plane]:
    """Spline coefficients of the field less the affine, padded, and faded out beyond the known nodes.

    float32, whose steps are a hundredth of a millimetre here, and a strip at a time: a scene of 21,960 px has
    two million nodes. Nodes beyond a strip and its margin are too far away to count.
    """
    known = np.pad(np.isfinite(field.dx_m) & np.isfinite(field.dy_m), FADE_NODES)
    across, down, constant = (
        np.subtract(field.grid.affine[:6], (back @ field.grid.affine)[:6]).reshape(2, 3).T
    )
    over = np.zeros((2, *known.shape), np.float32)
    for first in range(0, len(known), STRIP_NODES):
        begin, end = max(0, first - FADE_NODES), first + STRIP_NODES + FADE_NODES
        if not known[begin:end].any():
            continue
        strip = slice(first - begin, first - begin + STRIP_NODES)
        away, nearest = distance_transform_edt(~known[begin:end], return_indices=True)
        row, col = nearest[0, strip] + (begin - FADE_NODES), nearest[1, strip] - FADE_NODES
        fade = np.maximum(0.0, 1.0 - away[strip] / FADE_NODES)
        for axis, offset_m in enumerate((field.dx_m, field.dy_m)):
            beyond = across[axis] * (col + 0.5) + down[axis] * (row + 0.5) + constant[axis]
            over[axis, first : first + STRIP_NODES] = fade * (offset_m[row, col] + beyond)
    dx, dy = (spline_filter(plane, order=3, mode="constant", output=np.float32) for plane in over)
    return dx, dy
