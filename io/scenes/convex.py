"""Common area of convex polygons, many at once: scenes are convex, and there are millions of pairs of them.

Green's theorem over the border of the common area, which consists of the parts of either polygon's sides that
lie in the other: about ten times as fast as overlaying geometries one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from crosstie.types import FloatArray

TOUCH_M = 0.001
"""Sides that lie closer than this along all their length are one."""


def common_area(a: FloatArray, b: FloatArray) -> FloatArray:
    """Common area (K,) of convex polygons a (K, P, 2) and b (K, Q, 2), metres, anticlockwise.

    A polygon of fewer corners repeats its last.
    """
    # a side that both have counts once: for `a`
    twice = _border(a, b, shared=True) + _border(b, a, shared=False)
    area: FloatArray = np.maximum(twice / 2, 0.0)
    return area


def signed_area(polygons: FloatArray) -> FloatArray:
    """Area (K,) of polygons (K, P, 2); positive where anticlockwise."""
    following = np.roll(polygons, -1, axis=1)
    area: FloatArray = _cross(polygons, following).sum(axis=1) / 2
    return area


def _border(p: FloatArray, q: FloatArray, *, shared: bool) -> FloatArray:
    """Twice the area (K,) that the parts of p's sides in q enclose with the origin."""
    start, side = p[:, :, None], (np.roll(p, -1, axis=1) - p)[:, :, None]
    corner, edge = q[:, None], (np.roll(q, -1, axis=1) - q)[:, None]
    # distance from the edge, times its length, is d + t * slope along the side; inside where not negative
    d, slope = _cross(edge, start - corner), _cross(edge, side)
    near = TOUCH_M * np.hypot(edge[..., 0], edge[..., 1])
    along = (np.abs(d) <= near) & (np.abs(d + slope) <= near)
    # a side on the other's edge borders the common area where both run the same way, and counts once
    against = (edge * side).sum(axis=-1) < 0
    shut = along & (against if shared else near > 0)
    free = along & ~shut
    with np.errstate(divide="ignore", invalid="ignore"):
        t = -d / slope
    enter = np.where((slope > 0) & ~free, t, 0.0).max(axis=2)
    leave = np.where((slope < 0) & ~free, t, 1.0).min(axis=2)
    shut |= (slope == 0) & (d < 0)
    enter, leave = np.clip(enter, 0, 1), np.clip(leave, 0, 1)
    open_ = (leave > enter) & ~shut.any(axis=2)
    way = side[:, :, 0]
    twice: FloatArray = np.where(
        open_, _cross(p + enter[..., None] * way, p + leave[..., None] * way), 0.0
    ).sum(axis=1)
    return twice


def _cross(u: FloatArray, v: FloatArray) -> FloatArray:
    return np.asarray(u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0])
