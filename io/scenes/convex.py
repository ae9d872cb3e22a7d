"""Common area of many convex polygons at once: scenes are convex, and there are millions of pairs of them.

Uses Green's theorem. The border of the common area consists of the parts of each polygon's sides that are
inside the other polygon. This is about ten times as fast as intersecting geometries one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from crosstie.types import FloatArray

TOUCH_M = 0.001
"""Sides that are closer than this over their whole length are treated as one, metres."""


def common_area(a: FloatArray, b: FloatArray) -> FloatArray:
    """Compute the common area of pairs of convex polygons.

    Parameters
    ----------
    a : FloatArray
        (K, P, 2) corners, anticlockwise, metres. A polygon with fewer corners repeats its last one.
    b : FloatArray
        (K, Q, 2) in the same form.

    Returns
    -------
    FloatArray
        (K,) square metres.
    """
    # a side that both polygons have is counted once, for `a`
    twice = _border(a, b, shared=True) + _border(b, a, shared=False)
    area: FloatArray = np.maximum(twice / 2, 0.0)
    return area


def signed_area(polygons: FloatArray) -> FloatArray:
    """Area (K,) of polygons (K, P, 2), positive if anticlockwise."""
    following = np.roll(polygons, -1, axis=1)
    area: FloatArray = _cross(polygons, following).sum(axis=1) / 2
    return area


def _border(p: FloatArray, q: FloatArray, *, shared: bool) -> FloatArray:
    """Twice the area (K,) between the origin and the parts of p's sides that are inside q."""
    start, side = p[:, :, None], (np.roll(p, -1, axis=1) - p)[:, :, None]
    corner, edge = q[:, None], (np.roll(q, -1, axis=1) - q)[:, None]
    # along the side, d + t * slope is the distance from the edge times its length: inside if not negative
    d, slope = _cross(edge, start - corner), _cross(edge, side)
    near = TOUCH_M * np.hypot(edge[..., 0], edge[..., 1])
    along = (np.abs(d) <= near) & (np.abs(d + slope) <= near)
    # a side on the other's edge belongs to the border if both have the same direction, and is counted once
    opposite = (edge * side).sum(axis=-1) < 0
    # a repeated corner makes an edge without length, which borders nothing
    has_length = near > 0
    shut = along & (opposite if shared else has_length)
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
