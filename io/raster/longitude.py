"""The one place that turns longitudes: a raster may run past 180 degrees, a transformed place never does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from crosstie.types import FloatArray


def middle_of(lon: FloatArray) -> float:
    """Middle of longitudes that lie together anywhere on the circle, degrees."""
    turns = np.exp(1j * np.radians(lon[np.isfinite(lon)]))
    return float(np.degrees(np.angle(turns.sum()))) if turns.size else 0.0


def near(lon: float | FloatArray, middle: float | FloatArray) -> FloatArray:
    """Turn longitudes by whole circles to within 180 degrees of `middle`, degrees."""
    turned: FloatArray = np.asarray(lon) - 360.0 * np.round((np.asarray(lon, np.float64) - middle) / 360.0)
    return turned
