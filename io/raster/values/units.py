"""The unit of a raster's values: told once, from its header and a few values, for whoever opens it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crosstie.io.raster.gdal import reading
from crosstie.io.raster.values import plausible, scaling
from crosstie.io.raster.values import sensor as kinds
from crosstie.types import Kind

if TYPE_CHECKING:
    from rasterio.io import DatasetReader
    from rasterio.windows import Window

    from crosstie.types import FloatArray

SAMPLE_PX = 256
"""Rows and columns, at most, of the decimated sample that tells dB, reflectance and what is plausible."""


@dataclass(frozen=True, slots=True)
class Units:
    """How stored values become what is matched; the fields are those of `RasterSource`."""

    is_db: bool
    scale: float
    scalings: tuple[scaling.Scaling, ...]
    limits: plausible.Limits | None


def find_units(
    kind: Kind, dtype: str, sample: FloatArray | None, scalings: tuple[scaling.Scaling, ...]
) -> Units:
    """Settle the unit of a raster whose kind is known.

    Parameters
    ----------
    kind : Kind
        What formed the image.
    dtype : str
        Data type as stored.
    sample : FloatArray | None
        (N,) values with `scalings` applied and without fills; None for plain bytes.
    scalings : tuple[scaling.Scaling, ...]
        Declared (scale, offset) of each band that is read.
    """
    is_db = kind is Kind.SAR and sample is not None and kinds.are_db(sample)
    if is_db and sample is not None and (factor := scaling.db_scale(sample)) != 1:
        sample = sample * factor
        scalings = tuple((scale * factor, offset * factor) for scale, offset in scalings)
    declared = any(each != scaling.NONE for each in scalings)
    scale = kinds.reflectance_scale(dtype, sample, declared=declared) if kind is Kind.OPTICAL else 1.0
    limits = None if sample is None else plausible.find_limits(kind, is_db=is_db, scale=scale, sample=sample)
    return Units(is_db, scale, scalings if declared else (), limits)


def valid_values(
    raster: DatasetReader, bands: tuple[int, ...], scalings: tuple[scaling.Scaling, ...], part: Window
) -> FloatArray:
    """Read (3, N) valid values of a window, thinned to `SAMPLE_PX`: as stored, in their unit, whose band."""
    shape = (min(SAMPLE_PX, part.height), min(SAMPLE_PX, part.width))
    with reading(raster):
        stored = raster.read(bands, window=part, out_shape=(len(bands), *shape)).astype(np.float64)
        valid = raster.read_masks(bands, window=part, out_shape=(len(bands), *shape)) > 0
    band = np.broadcast_to(np.asarray(bands, np.float64)[:, None, None], stored.shape)
    values: FloatArray = np.stack([each[valid] for each in (stored, scaling.scaled(stored, scalings), band)])
    return values[:, np.isfinite(values[0])]


def undeclared_fills(values: FloatArray) -> tuple[float, ...]:
    """Find fill values in (3, N) `valid_values`, in each band by itself: a mask of 1 beside power is none."""
    stored, _, band = values
    found = (plausible.find_fills(stored[band == one]) for one in np.unique(band))
    return tuple(sorted({fill for fills in found for fill in fills}))
