"""Where a place of the map lies in the pixels of one raster, through its transform or its control points."""

from __future__ import annotations

from typing import TYPE_CHECKING

from odc.geo import CRS
from pyproj import Transformer

from crosstie.io.raster.longitude import near
from crosstie.io.raster.resample import apply

if TYPE_CHECKING:
    from affine import Affine

    from crosstie.io.raster.control_points import GroundMap
    from crosstie.io.raster.georeference import Georeference
    from crosstie.io.raster.resample import Locate
    from crosstie.types import FloatArray


def locator(place: Georeference, crs: str) -> Locate:
    """Make the map from coordinates (x, y) of `crs` to (col, row) of a raster, px from its outer corner.

    Control points are followed as reading follows them: pixels are moved from where they were measured.

    Raises
    ------
    ValueError
        The place has neither a transform nor control points.
    """
    if place.transform is not None:
        return through_transform(place.transform, place.shape, CRS(place.crs), CRS(crs))
    if place.control is None:
        raise ValueError(f"a place in {place.crs} has neither a transform nor control points")
    return through_points(place.control, CRS(crs))


def through_points(control: GroundMap, crs: CRS) -> Locate:
    """Make the map from coordinates (x, y) of `crs` to (col, row) of a raster that control points place."""
    to_lon_lat = Transformer.from_crs(crs.proj, "EPSG:4326", always_xy=True)

    def locate(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        row, col = control.locate(*to_lon_lat.transform(x, y))
        return col, row

    return locate


def through_transform(affine: Affine, shape: tuple[int, int], own: CRS, crs: CRS) -> Locate:
    """Make the map from coordinates (x, y) of `crs` to (col, row) of a raster, px from its outer corner.

    Parameters
    ----------
    affine : Affine
        Pixel (x, y) -> map (x, y) in `own`.
    shape : tuple of int
        (rows, cols), px.
    own : CRS
        Of the raster.
    crs : CRS
        Of the coordinates.
    """
    project = None if own == crs else Transformer.from_crs(crs.proj, own.proj, always_xy=True)
    inverse = ~affine
    middle = (affine @ (shape[1] / 2, shape[0] / 2))[0]

    def locate(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        if project is not None:
            x, y = project.transform(x, y)
        if own.geographic:
            x = near(x, middle)  # the raster's own longitudes may run on past 180 degrees
        return apply(inverse, x, y)

    return locate
