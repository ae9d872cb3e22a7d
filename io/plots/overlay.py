"""Two images of one place, made comparable by eye: contrast, edges, and moving by a correction."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_gradient_magnitude, map_coordinates

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

    from crosstie.types import FloatArray, Plane

    SeenAt = Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]

EDGE_SIGMA_PX = 2.0
"""Smoothing before the gradient: less shows speckle, more hides an offset of two pixels."""


def resampled(plane: Plane, grid: GeoBox, seen_at: SeenAt) -> Plane:
    """Resample an image on its own grid through a mapping: bilinear, for the eye only.

    Parameters
    ----------
    plane : Plane
        (rows, cols), NaN where invalid.
    grid : GeoBox
        Of `plane`.
    seen_at : callable
        (x, y) of the reference -> (x, y) of this image where the same ground is seen, map coordinates.
    """
    rows, cols = plane.shape
    col, row = np.meshgrid(np.arange(cols) + 0.5, np.arange(rows) + 0.5)
    to_map, to_px = grid.affine, ~grid.affine
    x, y = seen_at(to_map.a * col + to_map.b * row + to_map.c, to_map.d * col + to_map.e * row + to_map.f)
    from_col, from_row = to_px.a * x + to_px.b * y + to_px.c, to_px.d * x + to_px.e * y + to_px.f
    moved: Plane = map_coordinates(plane, [from_row - 0.5, from_col - 0.5], order=1, cval=np.nan)
    return moved


def stretched(plane: Plane) -> Plane:
    """Stretch the values between the 2nd and 98th percentile of the valid ones to 0..1; NaN stays."""
    valid = plane[np.isfinite(plane)]
    if valid.size == 0:
        return plane
    low, high = np.percentile(valid, (2, 98))
    scaled: Plane = np.clip((plane - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
    return scaled


def red_cyan_edges(reference: Plane, secondary: Plane) -> NDArray[np.float32]:
    """Draw the edges of both images, (rows, cols, 3): SAR and optics share edges, not grey values."""
    red, cyan = (_edge_strength(plane) for plane in (reference, secondary))
    return np.dstack([red, cyan, cyan])


def _edge_strength(plane: Plane) -> Plane:
    valid = np.isfinite(plane)
    if not valid.any():
        return np.zeros_like(plane)
    filled = np.where(valid, stretched(plane), np.nanmedian(stretched(plane)))
    strength = gaussian_gradient_magnitude(filled, EDGE_SIGMA_PX)
    top = max(float(np.percentile(strength[valid], 99)), 1e-6)
    scaled: Plane = np.where(valid, np.clip(strength / top, 0, 1) ** 1.4, 0).astype(np.float32)
    return scaled
