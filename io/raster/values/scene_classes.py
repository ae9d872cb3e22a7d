"""Clouds of a Sentinel-2 scene, from the scene classification (SCL) that its catalog gives with it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.warp import reproject, transform_bounds
from rasterio.windows import Window, from_bounds
from rasterio.windows import transform as window_transform

from crosstie.errors import BadInputError
from crosstie.io.raster.gdal import IMAGE_DRIVERS, opened, reading
from crosstie.io.raster.georeference import georeference_of
from crosstie.io.storage.href import public_href
from crosstie.io.storage.s3 import FROM_ENVIRONMENT, S3Options

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

NOT_TO_USE = (0, 1, 3, 8, 9, 10)
"""Classes of SCL that show no ground: no data, saturated or defective, cloud shadow, cloud of medium and of
high probability, thin cirrus. Snow (11), water (6) and cast shadow (2) do."""

LARGEST_CLASS = 11

MOST_CLASS_CELLS = 6000**2
"""A whole tile at 20 m has 5490 x 5490; of more, every second or third row and column are read."""

EDGE_CELLS = 2
"""Read around the grid, so that averages at its edge are whole."""

WHOLE = 200
"""Stands for all of a cell in bytes that are averaged."""


@dataclass(frozen=True, slots=True)
class SceneClouds:
    """Where clouds and their shadows lie over the ground of a pair."""

    packed: bytes
    """Bits (rows, cols) of the cells, row by row, compressed: 1 is not to be used."""
    shape: tuple[int, int]
    transform: tuple[float, float, float, float, float, float]
    """(a, b, c, d, e, f), cell (x, y) -> map (x, y)."""
    crs: str

    @classmethod
    def of(cls, covered: NDArray[np.bool_], grid: GeoBox) -> SceneClouds:
        """Keep cells (rows, cols) of a grid; True is not to be used."""
        affine = grid.affine
        return cls(
            packed=zlib.compress(np.packbits(covered).tobytes()),
            shape=(covered.shape[0], covered.shape[1]),
            transform=(affine.a, affine.b, affine.c, affine.d, affine.e, affine.f),
            crs=str(grid.crs),
        )

    def covers(self, geobox: GeoBox) -> NDArray[np.bool_]:
        """(rows, cols) True where at least half of a pixel of the grid is not to be used."""
        return _laid_on(_unpacked(self), rasterio.Affine(*self.transform), self.crs, geobox)


def read_clouds(
    href: str, grid: GeoBox, *, must_reach: bool = True, storage: S3Options = FROM_ENVIRONMENT
) -> NDArray[np.bool_]:
    """Read where a scene classification shows no ground, (rows, cols) of a grid; outside of it nothing is.

    Classes are read at their own resolution: half of a pixel of the grid, or more, must be hidden.

    Parameters
    ----------
    href : str
        Checked address from a catalog.
    grid : GeoBox
        Grid with a CRS.
    must_reach : bool, optional
        Refuse a classification that lies elsewhere; without it, that hides nothing.
    storage : S3Options, optional
        How S3 is reached.

    Raises
    ------
    UnreadableRasterError
        It cannot be read.
    BadInputError
        It is no scene classification, or does not say where it lies.
    """
    with opened(href, drivers=IMAGE_DRIVERS, storage=storage) as raster:
        _refuse_no_classes(href, raster)
        crs = georeference_of(raster).crs
        part = _part_under(raster, crs, grid)
        if part is None and not must_reach:
            return np.zeros(grid.shape, np.bool_)
        if part is None:
            raise BadInputError(f"{public_href(href)}: does not reach the ground of the pair")
        step = int(np.ceil(np.sqrt(max(1.0, part.width * part.height / MOST_CLASS_CELLS))))
        shape = (max(1, part.height // step), max(1, part.width // step))
        with reading(raster):
            classes = raster.read(1, window=part, out_shape=shape, resampling=Resampling.nearest)
        place = window_transform(part, raster.transform) @ rasterio.Affine.scale(
            part.width / shape[1], part.height / shape[0]
        )
    if classes.max(initial=0) > LARGEST_CLASS and not set(np.unique(classes)) <= {*range(12), 255}:
        raise BadInputError(
            f"{public_href(href)}: holds {classes.max()}, and scene classes are 0 to {LARGEST_CLASS}"
        )
    return _laid_on(np.isin(classes, NOT_TO_USE), place, crs, grid)


def _refuse_no_classes(href: str, raster: DatasetReader) -> None:
    place = georeference_of(raster)
    if raster.count != 1 or raster.dtypes[0] != "uint8" or place.transform is None:
        raise BadInputError(
            f"{public_href(href)}: {raster.count} bands of {raster.dtypes[0]} are no scene classification; it"
            " is one band of bytes with a CRS and a transform"
        )


def _part_under(raster: DatasetReader, crs: str, grid: GeoBox) -> Window | None:
    """Find the window of a raster that lies under a grid; None where it misses the grid."""
    try:
        bounds = transform_bounds(str(grid.crs), crs, *grid.boundingbox.bbox, densify_pts=21)
        under = from_bounds(*bounds, transform=raster.transform)
    except (RasterioError, ValueError):  # another side of the Earth, or a raster that is turned
        return None
    first_col, first_row = (int(np.floor(at)) - EDGE_CELLS for at in (under.col_off, under.row_off))
    last_col = int(np.ceil(under.col_off + under.width)) + EDGE_CELLS
    last_row = int(np.ceil(under.row_off + under.height)) + EDGE_CELLS
    first_col, first_row = max(first_col, 0), max(first_row, 0)
    last_col, last_row = min(last_col, raster.width), min(last_row, raster.height)
    if first_col >= last_col or first_row >= last_row:
        return None
    return Window(first_col, first_row, last_col - first_col, last_row - first_row)


def _laid_on(
    hidden: NDArray[np.bool_], place: rasterio.Affine, crs: str, geobox: GeoBox
) -> NDArray[np.bool_]:
    """Lay cells on a grid: half of a pixel, or more, must be hidden."""
    found = np.zeros(geobox.shape, np.uint8)
    reproject(
        hidden.astype(np.uint8) * np.uint8(WHOLE),
        found,
        src_transform=place,
        src_crs=crs,
        dst_transform=geobox.affine,
        dst_crs=str(geobox.crs),
        resampling=Resampling.average,
    )
    covered: NDArray[np.bool_] = found >= WHOLE // 2
    return covered


@lru_cache(maxsize=8)
def _unpacked(clouds: SceneClouds) -> NDArray[np.bool_]:
    rows, cols = clouds.shape
    bits = np.frombuffer(zlib.decompress(clouds.packed), np.uint8)
    return np.unpackbits(bits, count=rows * cols).reshape(rows, cols).astype(np.bool_)
