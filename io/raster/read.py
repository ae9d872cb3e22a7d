"""The pixels of a raster on a grid: copied where the grid is its own, else interpolated once."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags, Resampling
from rasterio.windows import Window
from scipy.ndimage import binary_dilation

from crosstie.errors import BadInputError, UnreadableRasterError
from crosstie.grid import window
from crosstie.io.raster.gdal import opened, reading, shown_name
from crosstie.io.raster.locate import through_points, through_transform
from crosstie.io.raster.resample import Locate, positions, sample
from crosstie.io.raster.source import RasterSource
from crosstie.io.raster.values.palette import FINER, Palette, averaged, looked_up
from crosstie.io.raster.values.plane import optical_plane, sar_plane
from crosstie.io.raster.values.plausible import implausible
from crosstie.io.raster.values.scaling import scaled
from crosstie.types import Kind

if TYPE_CHECKING:
    import xarray
    from rasterio.io import DatasetReader

    from crosstie.types import FloatArray, Plane

LOG = logging.getLogger(__name__)


BLOCK_PX = 1024
"""Rows and columns of the grid that are read at a time: bounds the memory whatever the grid."""

WHOLE_PX = 1e-3
"""A grid this close to whole pixels of the source is the source's own grid: its pixels are copied."""

MAX_READ_SAMPLES = 2**25
"""Of one band, for one block of the grid: eight times what a turned raster needs. Control points, or a CRS,
that fold a whole scene into one block would ask for all of it at once."""


def read_plane(source: RasterSource, geobox: GeoBox) -> Plane:
    """Read a raster as one float32 plane on a grid, (rows, cols), NaN where invalid.

    On the raster's own pixel grid (whole-pixel shifts included) pixels are copied. Elsewhere they are
    interpolated bilinearly, SAR as power and not as dB; where a pixel of the grid spans two or more of the
    source, these are averaged first, from overviews where the file has them (stored values then: dB too).
    The grid may stick out of the raster or miss it.

    Invalid are nodata, masked and transparent pixels, NaN and infinity, SAR power <= 0, what lies under
    `source.mask` and `source.clouds`, and values that are not plausible (`plausible`); how many of the last
    there are is logged.

    Returns
    -------
    Optical: luminance or the mean of the bands, about 0..1. SAR: dB, mean of the polarisations.

    Raises
    ------
    UnreadableRasterError : a block is missing from the file; never passed over as nodata
    """
    plane = np.full(geobox.shape, np.nan, np.float32)
    locate = _locator(source, geobox)
    shift = _whole_shift(source, geobox)
    with ExitStack() as stack:
        rasters = [
            stack.enter_context(opened(href, drivers=source.drivers, storage=source.storage))
            for href in source.hrefs
        ]
        for row in range(0, geobox.shape[0], BLOCK_PX):
            for col in range(0, geobox.shape[1], BLOCK_PX):
                block = plane[row : row + BLOCK_PX, col : col + BLOCK_PX]
                if shift is not None:
                    _copy(rasters, source, block, row=row + shift[0], col=col + shift[1])
                else:
                    _interpolate(
                        rasters, source, block, locate, window(geobox, row=row, col=col, shape=block.shape)
                    )
    if source.mask is not None:
        plane[source.mask.covers(geobox)] = np.nan
    if source.clouds is not None:
        plane[source.clouds.covers(geobox)] = np.nan
    return plane


def read_dataarray(source: RasterSource, geobox: GeoBox, chunk_px: int = BLOCK_PX) -> xarray.DataArray:
    """Lay a raster on a grid lazily: `read_plane` per Dask chunk, dims (y, x), with coordinates and CRS."""
    import dask.array as da  # slow to import, and only lazy arrays need both
    from odc.geo.xr import wrap_xr

    def read_chunk(block_info: dict[Any, Any]) -> Plane:
        (row, row_end), (col, col_end) = block_info[None]["array-location"]
        return read_plane(source, window(geobox, row=row, col=col, shape=(row_end - row, col_end - col)))

    chunks = da.core.normalize_chunks((chunk_px, chunk_px), shape=geobox.shape)  # type: ignore[no-untyped-call]
    planes = da.map_blocks(  # type: ignore[no-untyped-call]
        read_chunk, chunks=chunks, dtype=np.float32, meta=np.zeros((0, 0), np.float32)
    )
    return wrap_xr(planes, geobox, always_yx=True)


def _locator(source: RasterSource, geobox: GeoBox) -> Locate:
    """Make the map from coordinates of the grid to pixels of the source."""
    own, other = CRS(source.crs), geobox.crs
    if other is None:
        raise BadInputError(f"the grid {geobox.shape} has no CRS; give it one")
    if source.control is not None:
        return through_points(source.control, other)
    return through_transform(source.affine, source.shape, own, other)


def _whole_shift(source: RasterSource, geobox: GeoBox) -> tuple[int, int] | None:
    """First (row, col) of the grid in the source where the two share their pixels, else None."""
    if source.transform is None or CRS(source.crs) != geobox.crs:
        return None
    to_source = ~source.affine @ geobox.affine
    shift_col, shift_row = round(to_source.c), round(to_source.f)
    rows, cols = geobox.shape
    for corner in ((0, 0), (cols, 0), (0, rows), (cols, rows)):
        col, row = to_source @ corner
        if max(abs(col - corner[0] - shift_col), abs(row - corner[1] - shift_row)) > WHOLE_PX:
            return None
    return shift_row, shift_col


def _copy(rasters: list[DatasetReader], source: RasterSource, block: Plane, *, row: int, col: int) -> None:
    """Fill a block, whose first pixel is (row, col) of the source, with the pixels themselves."""
    rows, cols = source.shape
    row0, row1 = max(row, 0), min(row + block.shape[0], rows)
    col0, col1 = max(col, 0), min(col + block.shape[1], cols)
    if row0 >= row1 or col0 >= col1:
        return
    bands = _read(rasters, source, Window(col0, row0, col1 - col0, row1 - row0), (row1 - row0, col1 - col0))
    plane = optical_plane(bands) if source.kind is Kind.OPTICAL else sar_plane(bands, is_db=source.is_db)
    block[row0 - row : row1 - row, col0 - col : col1 - col] = plane


def _interpolate(
    rasters: list[DatasetReader], source: RasterSource, block: Plane, locate: Locate, geobox: GeoBox
) -> None:
    """Fill a block with values at its pixels' positions in the source."""
    col, row = positions(geobox, locate)
    cols = _span(col, limit=source.shape[1])
    rows = _span(row, limit=source.shape[0])
    if cols is None or rows is None:
        return
    part = Window(cols.first, rows.first, cols.last - cols.first, rows.last - rows.first)
    shape = (-(-part.height // rows.step), -(-part.width // cols.step))
    bands = _read(rasters, source, part, shape)
    # Not quite the whole step where the raster is smaller than one cell.
    at_col = (col - part.col_off) * (shape[1] / part.width)
    at_row = (row - part.row_off) * (shape[0] / part.height)
    if source.kind is Kind.OPTICAL:
        # Luminance and interpolation are both linear: one plane to interpolate instead of three.
        block[:] = sample(optical_plane(bands)[None], at_col, at_row)[0]
        return
    with np.errstate(over="ignore"):
        power = np.power(np.float32(10), bands / 10) if source.is_db else bands
    block[:] = sar_plane(sample(power, at_col, at_row), is_db=False)


@dataclass(frozen=True, slots=True)
class _Span:
    """What to read along one axis of the source, px."""

    first: int
    last: int
    step: int
    """Pixels averaged into one."""


def _span(at: FloatArray, *, limit: int) -> _Span | None:
    """Find the pixels that positions along one axis need, or None where they all miss 0..limit."""
    inside = at[np.isfinite(at) & (at > -1) & (at < limit + 1)]
    if not inside.size:
        return None
    step = _step(at, limit=limit)
    # Begun at a whole number of steps from the first position's cell, so that averages fall on cells.
    first = math.floor(inside.min() - step / 2 + 0.25) - 2 * step
    last = math.ceil(inside.max() + step / 2) + 2 * step
    first, last = max(first, 0), min(last, limit)
    if last - first >= step:
        # Whole cells only: a stretched last one would put all the others between the grid's pixels.
        last = first + (last - first) // step * step
    return _Span(first, last, step) if last > first else None


def _step(at: FloatArray, *, limit: int) -> int:
    """Whole source pixels per pixel of the grid: the larger of both directions, mid-block."""
    middle = at[at.shape[0] // 2, :], at[:, at.shape[1] // 2]
    steps = [float(np.nanmedian(np.abs(np.diff(line)))) for line in middle if len(line) > 1]
    finite = [step for step in steps if math.isfinite(step)]
    return max(1, min(limit, math.floor(max(finite, default=1.0) + 1e-6)))


def _read(
    rasters: list[DatasetReader], source: RasterSource, part: Window, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Read the source's bands (B, rows, cols) of a window at a size, scaled, NaN where invalid."""
    how = Resampling.nearest if shape == (part.height, part.width) else Resampling.average
    ask: dict[str, Any] = {"window": part, "resampling": how}
    if math.prod(shape) > MAX_READ_SAMPLES:
        raise UnreadableRasterError(
            f"{shown_name(rasters[0].name)}: {math.prod(shape)} samples fall into one block of the grid,"
            f" and the limit is {MAX_READ_SAMPLES}; check its control points"
        )
    several = len(rasters) > 1
    wanted = [[band] for band in source.bands] if several else [list(source.bands)]
    stored, masks = [], []
    for raster, numbers in zip(rasters, wanted, strict=True):
        with reading(raster):
            if source.palette is not None:
                colours, shown = _colours(raster, source.palette, numbers[0], shape, ask)
                stored.append(colours)
                masks.append(shown)
                continue
            with np.errstate(over="ignore", invalid="ignore"):  # 1e300 becomes infinite, which is invalid
                stored.append(
                    raster.read(numbers, out_shape=(len(numbers), *shape), **ask).astype(np.float32)
                )
            masks.append(_valid(raster, numbers, shape, ask))
    bands: NDArray[np.float32] = np.concatenate(stored)
    valid = np.concatenate(masks)
    # A band of a colour image may hold the nodata value by chance (0 over dark water): then not all do.
    bad = ~(valid.any(axis=0) if source.kind is Kind.OPTICAL else valid.all(axis=0))
    if source.blank_zeros:
        blank = (bands == 0).all(axis=0)
        bad |= binary_dilation(blank, np.ones((3, 3))) if how is Resampling.average else blank
    wild = np.isin(bands, np.asarray(source.fills, np.float32)).any(axis=0)
    bands = scaled(bands, source.scalings).astype(np.float32, copy=False)
    bad |= ~np.isfinite(bands).all(axis=0)
    if source.kind is Kind.SAR and not source.is_db:
        bad |= (bands <= 0).any(axis=0)
    wild = (wild | implausible(bands, source.limits)) & ~bad
    if wild.any():
        _say_wild(rasters[0], source, int(wild.sum()), wild.size)
        # An average beside a wild one may hold a part of a wild pixel, and look plausible.
        bad |= binary_dilation(wild, np.ones((3, 3))) if how is Resampling.average else wild
    if source.scale != 1:
        bands *= np.float32(source.scale)
    bands[:, bad] = np.nan
    return bands


def _colours(
    raster: DatasetReader, palette: Palette, band: int, shape: tuple[int, int], ask: dict[str, Any]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read colours (B, rows, cols) of a band with a colour table, and where it shows any, (1, rows, cols)."""
    part: Window = ask["window"]
    by = min(FINER, -(-part.height // shape[0]), -(-part.width // shape[1]))
    fine = {"out_shape": (shape[0] * by, shape[1] * by), "window": part, "resampling": Resampling.nearest}
    colours, shown = looked_up(raster.read(band, **fine), palette)
    good = shown & (raster.read_masks(band, **fine) > 0)
    weight = averaged(good[None].astype(np.float32), by)
    colours = averaged(np.where(good, colours, 0), by) / np.maximum(weight, 0.5 / by**2)
    return colours, weight >= 0.5


def _say_wild(raster: DatasetReader, source: RasterSource, count: int, of: int) -> None:
    """Say how many pixels of a window are wild: a warning once, where opening has not warned already."""
    reasons = [f"{fill:g}" for fill in source.fills]
    if source.limits is not None:
        reasons.append("outside {:g} to {:g}".format(*source.limits))
    first = next(_windows_said(source.hrefs)) == 0
    LOG.log(
        logging.WARNING if first and not source.wild_share else logging.INFO,
        "%s: %d of the %d pixels of a window are not plausible (%s), and are taken as invalid",
        shown_name(raster.name),
        count,
        of,
        ", ".join(reasons),
    )


@lru_cache(maxsize=1024)
def _windows_said(_hrefs: tuple[str, ...]) -> Iterator[int]:
    """Count the windows of a raster of which this process has spoken."""
    return itertools.count()


def _valid(
    raster: DatasetReader, bands: list[int], shape: tuple[int, int], ask: dict[str, Any]
) -> NDArray[np.bool_]:
    """Read where bands are valid, (B, rows, cols); of averaged pixels at least half must be."""
    if all(raster.mask_flag_enums[band - 1] == [MaskFlags.all_valid] for band in bands):
        return np.ones((len(bands), *shape), np.bool_)
    masks = raster.read_masks(bands, out_shape=(len(bands), *shape), **ask)
    averaged = ask["resampling"] is Resampling.average
    good: NDArray[np.bool_] = masks >= 128 if averaged else masks > 0
    return good
