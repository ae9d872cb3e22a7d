"""Stored numbers -> the unit that they stand for: scale and offset of each band, as the file declares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

    from crosstie.types import FloatArray

Scaling = tuple[float, float]
"""(scale, offset) of a band: unit = stored * scale + offset."""

NONE: Scaling = (1.0, 0.0)

DEEPEST_DB = -60.0
"""No scene's median backscatter lies below: hundredths (or tenths) of dB were stored as whole numbers."""


def declared(raster: DatasetReader, band: int) -> Scaling:
    """Read a band's scale and offset, band from 1; one that cannot be meant (0, not finite) is left out."""
    scale, offset = float(raster.scales[band - 1]), float(raster.offsets[band - 1])
    if not (math.isfinite(scale) and math.isfinite(offset)) or scale == 0:
        return NONE
    return scale, offset


def db_scale(sample: FloatArray) -> float:
    """Find the power of ten that brings undeclared tenths, hundredths or thousandths of dB to dB."""
    median = float(np.median(sample)) if len(sample) else 0.0
    for scale in (1.0, 0.1, 0.01):
        if median * scale >= DEEPEST_DB:
            return scale
    return 0.001


def scaled(stored: NDArray[np.floating], scalings: tuple[Scaling, ...]) -> NDArray[np.floating]:
    """Bring stored bands (B, rows, cols) to their unit; the very same array where nothing is to be done."""
    if all(scaling == NONE for scaling in scalings):
        return stored
    scale, offset = (
        np.asarray(column, stored.dtype)[:, None, None] for column in zip(*scalings, strict=True)
    )
    with np.errstate(over="ignore", invalid="ignore"):  # wild values become infinite, which is invalid
        result: NDArray[np.floating] = stored * scale + offset
    return result
