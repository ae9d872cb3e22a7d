"""From the reference's map to the secondary's: where the secondary shows what lies at a place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from odc.geo import CRS
from scipy.ndimage import distance_transform_edt, map_coordinates

from crosstie.io.raster.resample import apply
from crosstie.types import IDENTITY_AFFINE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from crosstie.types import DisplacementField, FloatArray, Registration

FADE_NODES = 16
"""Beyond its known nodes, what a field has over the affine fades to nothing over so many nodes: four tile
strides."""

SPLINE_NODES = 16
"""Nodes around the places asked for that their spline is made from: it forgets a node further away, by 0.27 a
node."""

PART_NODES = 128
"""Nodes along an axis that are prepared at a time: bounds the memory. A block of pixels spans 64 or fewer."""


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

    def __post_init__(self) -> None:
        if len(self.affine) != 6 or not np.isfinite(self.affine).all() or Affine(*self.affine).is_degenerate:
            raise ValueError(f"a correction of {self.affine} cannot be turned round; give six finite numbers")
        if self.field is not None and self.field.grid.crs != CRS(self.crs):
            raise ValueError(
                f"the field is in {self.field.grid.crs}, the pair in {self.crs}; give both in one CRS"
            )

    def secondary_xy(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Where on the secondary's map, as it was delivered, the ground at (x, y) of the reference is seen.

        Between the nodes of the field, what it has over the affine is a cubic spline.

        Parameters
        ----------
        x, y : any shape, metres of `crs`
        """
        to_x, to_y = apply(~Affine(*self.affine), x, y)
        if self.field is None:
            return to_x, to_y
        dx, dy = _excess_at(self.field, ~Affine(*self.affine), *apply(~self.field.grid.affine, x, y))
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


def _excess_at(field: DisplacementField, back: Affine, col: FloatArray, row: FloatArray) -> FloatArray:
    """Interpolate what the field has over the affine: (2, ...) metres, at places in pixels of its grid.

    Only the part of the field around the places is touched: a scene of 21,960 px has two million nodes, and
    is asked for block by block.
    """
    at = np.stack([row, col]) - 0.5  # counted from the centre of the first node
    limits = np.reshape(field.grid.shape, (2, *(1,) * (at.ndim - 1))) - 1
    near = ((at > -FADE_NODES) & (at < limits + FADE_NODES)).all(axis=0)  # false where a place is not finite
    found = np.zeros(at.shape)
    places, numbers = at[:, near], np.flatnonzero(near)
    for index in _side_by_side(places):
        inner = places[:, index]
        begin = np.floor(inner.min(axis=1)).astype(int) - SPLINE_NODES
        end = np.ceil(inner.max(axis=1)).astype(int) + SPLINE_NODES + 1
        for axis, over in enumerate(_excess(field, back, begin, end)):
            found[axis].flat[numbers[index]] = map_coordinates(
                over, inner - begin[:, None], order=3, mode="constant"
            )
    return found


def _side_by_side(at: FloatArray) -> Iterator[NDArray[np.int_]]:
    """Split places (2, N) into groups, none of which spans more than `PART_NODES` along an axis."""

    def split(index: NDArray[np.int_]) -> Iterator[NDArray[np.int_]]:
        inner = at[:, index]
        axis = int(np.ptp(inner, axis=1).argmax())
        low, high = inner[axis].min(), inner[axis].max()
        if high - low <= PART_NODES:
            yield index
            return
        first = inner[axis] <= (low + high) / 2
        yield from split(index[first])
        yield from split(index[~first])

    if at.size:
        yield from split(np.arange(at.shape[1]))


def _excess(
    field: DisplacementField, back: Affine, begin: NDArray[np.int_], end: NDArray[np.int_]
) -> FloatArray:
    """Take the field less the affine at nodes `begin` to `end`, (row, col), also outside of its grid.

    Beyond the known nodes it has the nearest one's value, faded out.
    """
    reach = np.stack([begin - FADE_NODES, end + FADE_NODES])  # nodes further away do not count
    inside = np.clip(reach, 0, field.grid.shape)
    part = tuple(slice(first, last) for first, last in inside.T)
    known = np.pad(
        np.isfinite(field.dx_m[part]) & np.isfinite(field.dy_m[part]), list(np.abs(reach - inside).T)
    )
    over = np.zeros((2, *(end - begin)))
    if not known.any():
        return over
    away, nearest = (
        found[..., FADE_NODES:-FADE_NODES, FADE_NODES:-FADE_NODES]
        for found in distance_transform_edt(~known, return_indices=True)
    )
    row, col = nearest + reach[0][:, None, None]
    across, down, constant = (
        np.subtract(field.grid.affine[:6], (back @ field.grid.affine)[:6]).reshape(2, 3).T
    )
    fade = np.maximum(0.0, 1.0 - away / FADE_NODES)
    for axis, offset_m in enumerate((field.dx_m, field.dy_m)):
        beyond = across[axis] * (col + 0.5) + down[axis] * (row + 0.5) + constant[axis]
        over[axis] = fade * (offset_m[row, col] + beyond)
    return over
