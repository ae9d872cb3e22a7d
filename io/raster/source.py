"""A raster as a value, hashable and without a handle: where its pixels are, and where they lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from affine import Affine
from odc.geo import CRS, Geometry
from odc.geo.geobox import GeoBox
from odc.geo.geom import polygon
from rasterio.control import GroundControlPoint
from rasterio.transform import GCPTransformer, from_gcps

from crosstie.io.raster.gdal import IMAGE_DRIVERS
from crosstie.io.raster.resample import apply
from crosstie.io.raster.sensor import BYTE_SCALE
from crosstie.io.storage.s3 import FROM_ENVIRONMENT, S3Options
from crosstie.types import Kind

OUTLINE_POINTS = 17
"""Points per side of a footprint, so that its edges bend with a change of CRS."""


@dataclass(frozen=True, slots=True)
class RasterSource:
    """A raster as far as reading needs it."""

    hrefs: tuple[str, ...]
    """Checked paths or URLs; several hold one band each, on one pixel grid."""
    kind: Kind
    bands: tuple[int, ...]
    """Bands to read, from 1; of several files the band of each."""
    is_db: bool
    """SAR values are dB already."""
    scale: float
    """Brings optical values to about 0..1; 1 for SAR."""
    shape: tuple[int, int]
    """(rows, cols), px."""
    crs: str
    """EPSG code or WKT, of the transform or of the GCPs."""
    transform: tuple[float, float, float, float, float, float] | None
    """(a, b, c, d, e, f), pixel (x, y) -> map (x, y); None where GCPs hold the place."""
    gcps: tuple[tuple[float, float, float, float], ...] | None = None
    """(row, col, x, y) of each ground control point; None where there is a transform."""
    nodata: float | None = None
    drivers: tuple[str, ...] = IMAGE_DRIVERS
    """GDAL drivers that may open the files."""
    storage: S3Options = FROM_ENVIRONMENT
    """How S3 is reached, where the files lie there."""

    @property
    def white(self) -> float:
        """Value of an optical plane at a reflectance of 0.35, where 8-bit true colour is clipped."""
        return 1.0 if self.scale == BYTE_SCALE else 0.35

    @property
    def affine(self) -> Affine:
        """Pixel (x, y) -> map (x, y); for GCPs their best affine."""
        return Affine(*self.transform) if self.transform is not None else from_gcps(self.control_points())

    @property
    def geobox(self) -> GeoBox:
        """The pixel grid; an approximation where GCPs hold the place."""
        return GeoBox(self.shape, self.affine, self.crs)

    @property
    def footprint(self) -> Geometry:
        """Outline on the ground, in the raster's own CRS; through the GCPs' polynomial where it has those."""
        rows, cols = self.shape
        t = np.linspace(0, 1, OUTLINE_POINTS)[:-1]
        col = np.concatenate([t * 0, t, t * 0 + 1, 1 - t]) * cols
        row = np.concatenate([1 - t, t * 0, t, t * 0 + 1]) * rows
        if self.transform is not None:
            x, y = apply(self.affine, col, row)
        else:
            with GCPTransformer(self.control_points()) as transformer:
                # rasterio adds half a pixel to make centres of indices; ours are positions already.
                x, y = transformer.xy(row, col, offset="ul")
        ring = [(float(px), float(py)) for px, py in zip(x, y, strict=True)]
        return polygon([*ring, ring[0]], CRS(self.crs))

    def control_points(self) -> list[GroundControlPoint]:
        return [GroundControlPoint(row=r, col=c, x=x, y=y) for r, c, x, y in self.gcps or ()]
