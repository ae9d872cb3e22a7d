"""The stages of a pair that can be shown: as delivered, after the affine, after the displacement field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from crosstie.io.products.mapping import Mapping, mapping_of
from crosstie.io.products.text import SURE, has_field
from crosstie.types import VerdictCode

if TYPE_CHECKING:
    from crosstie.types import FloatArray, Registration, TiePoints


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """A way to lay the secondary on the reference."""

    name: str
    """`before`, `affine` or `field`."""
    title: str
    mapping: Mapping

    def left_m(self, points: TiePoints) -> FloatArray:
        """(N, 2) what it leaves of the offsets, metres."""
        x, y = points.xy_m.T
        left: FloatArray = points.xy_m + points.offset_m - np.column_stack(self.mapping.secondary_xy(x, y))
        return left


def stages(registration: Registration) -> list[Stage]:
    """List the stages, from the secondary as delivered to the best that the verdict allows.

    Returns
    -------
    list of Stage
        Empty without a common grid.
    """
    if registration.grid is None:
        return []
    crs, estimate = str(registration.grid.crs), registration.estimate
    found = [Stage("before", "Before", Mapping(crs))]
    if estimate.verdict.code is VerdictCode.CORRECTED:
        found.append(Stage("affine", "After the affine", Mapping(crs, estimate.correction.affine)))
    if has_field(registration):
        found.append(Stage("field", "After the field", mapping_of(registration)))
    return found


def most_improved(registration: Registration, *, side_m: float) -> int | None:
    """Choose the tie point around which the last stage improves most on the first: there it can be seen.

    Parameters
    ----------
    registration : Registration
    side_m : float
        Side of the square window around the point; the median of the sure points in it counts, metres.

    Returns
    -------
    int or None
        Index of a point in use. The surest where nothing is applied; None where no point is in use.
    """
    points, fit = registration.points, registration.field
    used = fit.used if fit is not None and has_field(registration) else registration.estimate.used
    if not used.any():
        return None
    shown = stages(registration)
    if len(shown) < 2:
        return int(np.argmax(np.where(used, points.confidence, -1.0)))
    sure = used & (points.confidence >= SURE)
    index = np.flatnonzero(sure if sure.any() else used)
    chosen = points.keep(np.isin(np.arange(len(points)), index))
    # Never more than the mapping moves: what a point's own noise adds to its offset, the rest keeps.
    gain_m = np.hypot(*chosen.offset_m.T) - np.hypot(*shown[-1].left_m(chosen).T)
    near = cKDTree(chosen.xy_m).query_ball_point(chosen.xy_m, side_m / 2, p=np.inf)
    return int(index[np.argmax([np.median(gain_m[neighbours]) for neighbours in near])])
