"""A raster as a value, hashable and without a handle: where its pixels are, and where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from odc.geo import CRS, Geometry
from odc.geo.geobox import GeoBox
from odc.geo.geom import polygon
from pyproj import Transformer

from crosstie.io.raster.control_points import GroundMap, Point, ground_map
from crosstie.io.raster.gdal import IMAGE_DRIVERS
from crosstie.io.raster.longitude import middle_of, near
from crosstie.io.raster.masks import GroundMask
from crosstie.io.raster.resample import apply
from crosstie.io.raster.values.palette import Palette
from crosstie.io.raster.values.plausible import Limits
from crosstie.io.raster.values.scaling import Scaling
from crosstie.io.raster.values.scene_classes import SceneClouds
from crosstie.io.raster.values.sensor import BYTE_SCALE
from crosstie.io.storage.s3 import FROM_ENVIRONMENT, S3Options
from crosstie.types import Kind

if TYPE_CHECKING:
    from crosstie.types import FloatArray

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
    """Brings optical values to about 0..1; 1 for SAR. Comes after `scalings`."""
    shape: tuple[int, int]
    """(rows, cols), px."""
    crs: str
    """EPSG code or WKT, of the transform or of the GCPs."""
    transform: tuple[float, float, float, float, float, float] | None
    """(a, b, c, d, e, f), pixel (x, y) -> map (x, y); None where GCPs hold the place."""
    gcps: tuple[Point, ...] | None = None
    """(row, col, x, y, height) of each ground control point; None where there is a transform."""
    nodata: float | None = None
    drivers: tuple[str, ...] = IMAGE_DRIVERS
    """GDAL drivers that may open the files."""
    storage: S3Options = FROM_ENVIRONMENT
    """How S3 is reached, where the files lie there."""
    scalings: tuple[Scaling, ...] = ()
    """(scale, offset) of each of `bands`, stored value -> unit; empty where values are in their unit."""
    fills: tuple[float, ...] = ()
    """Stored values that stand for no measurement although nothing declares them."""
    blank_zeros: bool = False
    """Pixels that are 0 in all bands hold nothing although nothing declares it."""
    wild_share: float = 0.0
    """Of the values sampled at opening, 0..1: wild ones that nothing declares. A warning said so."""
    mask: GroundMask | None = None
    """Ground that the user knows to be useless in this image."""
    limits: Limits | None = None
    """Least and largest plausible value in the unit, before `scale`; None: all that the type can hold."""
    classes: str | None = None
    """Checked address of the scene classification that a catalog gives; planning makes `clouds` of it."""
    clouds: SceneClouds | None = None
    """Clouds and their shadows over the ground of the pair that is planned."""
    palette: Palette | None = None
    """Colours that the stored numbers stand for, looked up first; None where there are none."""

    @property
    def white(self) -> float:
        """Value of an optical plane at a reflectance of 0.35, where 8-bit true colour is clipped."""
        return 1.0 if self.scale == BYTE_SCALE else 0.35

    @property
    def affine(self) -> Affine:
        """Pixel (x, y) -> map (x, y); for GCPs the affine that is nearest to their map."""
        if self.transform is not None:
            return Affine(*self.transform)
        rows, cols = self.shape
        row, col = (grid.ravel() for grid in np.meshgrid(np.linspace(0, rows, 9), np.linspace(0, cols, 9)))
        design = np.column_stack([col - cols / 2, row - rows / 2, np.ones(len(row))])
        xy = np.column_stack(self._followed(row, col))
        (ax, ay), (bx, by), (cx, cy) = np.linalg.lstsq(design, xy, rcond=None)[0]
        return Affine(ax, bx, cx, ay, by, cy) @ Affine.translation(-cols / 2, -rows / 2)

    @property
    def geobox(self) -> GeoBox:
        """The pixel grid; an approximation where GCPs hold the place."""
        return GeoBox(self.shape, self.affine, self.crs)

    @property
    def footprint(self) -> Geometry:
        """Outline on the ground, in the raster's own CRS; through its GCPs where it has those.

        Longitudes run on past 180 degrees where the outline crosses the antimeridian.
        """
        rows, cols = self.shape
        t = np.linspace(0, 1, OUTLINE_POINTS)[:-1]
        col = np.concatenate([t * 0, t, t * 0 + 1, 1 - t]) * cols
        row = np.concatenate([1 - t, t * 0, t, t * 0 + 1]) * rows
        if self.transform is not None:
            x, y = apply(self.affine, col, row)
        else:
            x, y = self._followed(row, col)
        ring = [(float(px), float(py)) for px, py in zip(x, y, strict=True)]
        return polygon([*ring, ring[0]], CRS(self.crs))

    @property
    def control(self) -> GroundMap | None:
        """The map through the GCPs; None where there is a transform."""
        return None if self.gcps is None else ground_map(self.gcps, self.crs)

    def _followed(self, row: FloatArray, col: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Map coordinates (x, y) of pixels through the GCPs."""
        lon, lat = ground_map(self.gcps or (), self.crs).ground(row, col)
        x, y = Transformer.from_crs("EPSG:4326", CRS(self.crs).proj.to_2d(), always_xy=True).transform(
            lon, lat
        )
        return (near(x, middle_of(x)), y) if CRS(self.crs).geographic else (x, y)
