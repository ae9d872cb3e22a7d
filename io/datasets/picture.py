"""A raster or picture as pixels alone, with or without a georeference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from crosstie.io.raster.gdal import IMAGE_DRIVERS, check_href, opened
from crosstie.io.raster.header import image_bands
from crosstie.io.raster.read import read_plane
from crosstie.io.raster.source import RasterSource
from crosstie.io.raster.values import palette as palettes
from crosstie.io.raster.values import plausible, scaling
from crosstie.io.raster.values import sensor as kinds
from crosstie.io.raster.values.units import find_units, undeclared_fills, valid_values
from crosstie.types import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

PIXEL_CRS = "EPSG:3857"
"""A placeholder: the grid is that of the pixels, x to the right, y down, one unit per pixel."""

NO_NODATA = ("PNG", "JPEG")
"""Formats that cannot say which value is no data: their black is the dark end of a stretch."""

BLACK_GREY = 0.5
"""Value of SAR pixels of 0 where black is dark and not missing: half a step of 8 bits. With them, 99 % of 89
templates (sih1733, 192 px) were within 1 px; without them, which removes the water of a shore, 92 %."""


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What one file tells before its pixels are read."""

    shape: tuple[int, int]
    """(rows, cols), px."""
    kind: Kind | None
    """What formed it, told from its name, its bands and its values; None where nothing tells."""


def picture_header(path: Path) -> PictureHeader:
    """Read the size of a picture and what formed it; where its own name says nothing, its folder's may.

    Raises
    ------
    UnreadableRasterError
        Missing, or no raster.
    """
    with _opened_picture(path) as raster:
        bands = image_bands(raster)
        descriptions = [raster.descriptions[n - 1] or "" for n in bands]
        values = _sample_whole(raster, bands)[0] if np.dtype(raster.dtypes[0]).kind == "f" else None
        found = None
        for name in (path.name, path.resolve().parent.name):
            found = found or kinds.find_kind(
                names=[name], descriptions=descriptions, count=len(bands), sample=values
            )
        return PictureHeader((raster.height, raster.width), found)


def read_picture(
    path: Path, kind: Kind, *, row: int, col: int, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Read a window of `shape` (rows, cols) that begins at pixel (row, col); it may stick out of the picture.

    Returns
    -------
    Plane
        As `read_plane` gives it, NaN where invalid and outside the picture. SAR of 0 is invalid in a raster,
        and dark in a PNG or JPEG of 8 bits without a mask.

    Raises
    ------
    UnreadableRasterError
        Missing, no raster, or cut short.
    """
    with _opened_picture(path) as raster:
        source = _source(path, raster, kind)
        black_is_dark = kind is Kind.SAR and _cannot_miss(raster)
    plane = read_plane(source, GeoBox(shape, Affine.translation(col, row), PIXEL_CRS))
    if black_is_dark:
        rows, cols = source.shape
        inside = plane[max(-row, 0) : max(rows - row, 0), max(-col, 0) : max(cols - col, 0)]
        inside[np.isnan(inside)] = 10 * np.log10(BLACK_GREY)
    return plane


def _cannot_miss(raster: DatasetReader) -> bool:
    whole = all(flags == [MaskFlags.all_valid] for flags in raster.mask_flag_enums)
    return raster.driver in NO_NODATA and raster.dtypes[0] == "uint8" and whole


def _source(path: Path, raster: DatasetReader, kind: Kind) -> RasterSource:
    bands = image_bands(raster)
    labels = [raster.descriptions[n - 1] or "" for n in bands]
    colours = [raster.colorinterp[n - 1].name for n in bands]
    chosen = kinds.sar_bands(labels) if kind is Kind.SAR else kinds.optical_bands(labels, colours)
    dtype = raster.dtypes[bands[0] - 1]
    scalings = tuple(scaling.declared(raster, bands[n]) for n in chosen)
    plain = dtype == "uint8" and set(scalings) == {scaling.NONE}
    values, fills = (None, ()) if plain else _sample_whole(raster, bands)
    units = find_units(kind, dtype, values, scalings)
    palette = palettes.for_kind(palettes.palette_of(raster, bands), kind)
    return RasterSource(
        hrefs=(str(path),),
        kind=kind,
        bands=tuple(bands[n] for n in chosen),
        is_db=units.is_db,
        scale=units.scale,
        shape=(raster.height, raster.width),
        crs=PIXEL_CRS,
        transform=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        nodata=None if raster.nodata is None else float(raster.nodata),
        drivers=IMAGE_DRIVERS,
        scalings=units.scalings,
        fills=fills,
        limits=units.limits,
        palette=palette,
    )


def _sample_whole(
    raster: DatasetReader, bands: Sequence[int]
) -> tuple[NDArray[np.float64], tuple[float, ...]]:
    """Read a few values in their unit, and find the fill values that nothing declares."""
    first = tuple(bands[:2])
    scalings = tuple(scaling.declared(raster, band) for band in first)
    values = valid_values(raster, first, scalings, Window(0, 0, raster.width, raster.height))
    fills = undeclared_fills(values)
    stored, in_unit, _ = values
    return in_unit[plausible.are_measured(stored, fills) & np.isfinite(in_unit)], fills


@contextmanager
def _opened_picture(path: Path) -> Iterator[DatasetReader]:
    with opened(check_href(path), drivers=IMAGE_DRIVERS) as raster:
        yield raster
