"""Where a place of the map lies in the pixels of one raster, through its transform or its control points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo import CRS
from pyproj import Transformer
from rasterio.transform import GCPTransformer

from crosstie.io.raster.resample import apply

if TYPE_CHECKING:
    from crosstie.io.raster.georeference import Georeference
    from crosstie.io.raster.resample import Locate
    from crosstie.types import FloatArray


def locator(place: Georeference, crs: str) -> Locate:
    """Make the map from coordinates (x, y) of `crs` to (col, row) of a raster, px from its outer corner.

    Control points are followed through GDAL's polynomial, as whoever opens the raster by GDAL sees it.
    """
    own, other = CRS(place.crs), CRS(crs)
    project = None if own == other else Transformer.from_crs(other.proj, own.proj, always_xy=True)
    inverse = None if place.transform is None else ~place.transform
    by_gcps = GCPTransformer(list(place.gcps)) if inverse is None else None

    def locate(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        if project is not None:
            x, y = project.transform(x, y)
        if inverse is not None:
            return apply(inverse, x, y)
        rows, cols = by_gcps.rowcol(x, y, op=_as_is)
        return np.asarray(cols, np.float64), np.asarray(rows, np.float64)

    return locate


def _as_is(value: Any) -> Any:
    """Keep the fraction: by default rasterio rounds positions down to indices."""
    return value
