"""Where a place of the map lies in the pixels of one raster, through its transform or its control points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo import CRS
from pyproj import Transformer
from rasterio.transform import GCPTransformer

from crosstie.io.raster.resample import apply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from affine import Affine
    from rasterio.control import GroundControlPoint

    from crosstie.io.raster.georeference import Georeference
    from crosstie.io.raster.resample import Locate
    from crosstie.types import FloatArray


def locator(place: Georeference, crs: str) -> Locate:
    """Make the map from coordinates (x, y) of `crs` to (col, row) of a raster, px from its outer corner.

    Control points are followed through GDAL's polynomial, as whoever opens the raster by GDAL sees it.
    """
    own, other = CRS(place.crs), CRS(crs)
    project = None if own == other else Transformer.from_crs(other.proj, own.proj, always_xy=True)
    into = _by_transform(place.transform) if place.transform is not None else _by_gcps(place.gcps)
    if project is None:
        return into

    def locate(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        return into(*project.transform(x, y))

    return locate


def _by_transform(transform: Affine) -> Locate:
    inverse = ~transform
    return lambda x, y: apply(inverse, x, y)


def _by_gcps(gcps: Sequence[GroundControlPoint]) -> Locate:
    polynomial = GCPTransformer(list(gcps))

    def locate(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        rows, cols = polynomial.rowcol(x, y, op=_as_is)
        return np.asarray(cols, np.float64), np.asarray(rows, np.float64)

    return locate


def _as_is(value: Any) -> Any:
    """Keep the fraction: by default rasterio rounds positions down to indices."""
    return value
