"""Stored numbers -> the unit that they stand for: scale and offset of each band, as they are declared.

What the file declares counts; where it declares nothing, what its item in a catalog declares, as far as the
pixels bear it out.
"""

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

Scalings = tuple[Scaling, ...]
"""Of each band."""

NONE: Scaling = (1.0, 0.0)

DEEPEST_DB = -60.0
"""No scene's median backscatter lies below: hundredths (or tenths) of dB were stored as whole numbers."""


DARKEST, DULLEST = -0.03, 0.005
"""Reflectance: a tenth of an image is not darker than the first, which some water is, and a hundredth is
brighter than the second, as open sea is."""


def declared(raster: DatasetReader, band: int) -> Scaling:
    """Read a band's scale and offset, band from 1; one that cannot be meant (0, not finite) is left out."""
    scale, offset = float(raster.scales[band - 1]), float(raster.offsets[band - 1])
    if not (math.isfinite(scale) and math.isfinite(offset)) or scale == 0:
        return NONE
    return scale, offset


def of_bands(declared: Scalings, *, count: int, bands: tuple[int, ...]) -> Scalings | None:
    """Lay what a catalog declares on the bands of a file.

    Parameters
    ----------
    declared : Scalings
        Of each band of the file, or one for all of them.
    count : int
        Bands of the file, alpha included.
    bands : tuple[int, ...]
        Those without alpha, from 1.

    Returns
    -------
    Scalings or None
        One for each of `bands`; None where the numbers of bands differ.
    """
    if len(set(declared)) == 1:
        return (declared[0],) * len(bands)
    if len(declared) == count:
        return tuple(declared[band - 1] for band in bands)
    return declared if len(declared) == len(bands) else None


def borne_out(scalings: Scalings, stored: FloatArray) -> Scalings:
    """Keep of what a catalog declares of an optical image as much as gives reflectance.

    Catalogs declare -0.1 of pixels that it was added to already, and scales of pixels that are in their unit.

    Parameters
    ----------
    scalings : Scalings
        Of each band.
    stored : FloatArray
        (N,) valid values of some pixels of the first band; 0 is none of Sentinel-2.
    """
    shown = stored[stored != 0]
    for offered in (scalings, tuple((scale, 0.0) for scale, _ in scalings)):
        scale, offset = offered[0]
        dark, bright = np.percentile(shown, (10, 99)) * scale + offset if len(shown) else (0.0, 1.0)
        if dark >= DARKEST and bright >= DULLEST:
            return offered
    return (NONE,) * len(scalings)


def zeros_are_blank(dtype: str, scalings: Scalings) -> bool:
    """Say whether 0 can be no reflectance: the offset of a band makes less of it than any shadow has."""
    return np.dtype(dtype).kind == "u" and any(offset < 2 * DARKEST for _, offset in scalings)


def are_in_unit(stored: FloatArray, *, in_unit: FloatArray) -> bool:
    """Say whether stored optical values (N,) are reflectance, and too dull for it once they are scaled."""
    if not len(stored):
        return False
    as_stored, as_scaled = (float(np.percentile(values, 99)) for values in (stored, in_unit))
    return as_scaled < DULLEST <= as_stored <= 2


def db_scale(sample: FloatArray) -> float:
    """Find the power of ten that brings undeclared tenths, hundredths or thousandths of dB to dB."""
    median = float(np.median(sample)) if len(sample) else 0.0
    for scale in (1.0, 0.1, 0.01):
        if median * scale >= DEEPEST_DB:
            return scale
    return 0.001


def scaled(stored: NDArray[np.floating], scalings: Scalings) -> NDArray[np.floating]:
    """Bring stored bands (B, rows, cols) to their unit; the very same array where nothing is to be done."""
    if all(scaling == NONE for scaling in scalings):
        return stored
    scale, offset = (
        np.asarray(column, stored.dtype)[:, None, None] for column in zip(*scalings, strict=True)
    )
    with np.errstate(over="ignore", invalid="ignore"):  # wild values become infinite, which is invalid
        result: NDArray[np.floating] = stored * scale + offset
    return result
