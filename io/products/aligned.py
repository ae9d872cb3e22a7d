"""Aligned pixels: a raster of the secondary laid on the reference's grid, each pixel resampled once."""

from __future__ import annotations

import math
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from crosstie.codes import Kernel
from crosstie.errors import BadInputError, UnreadableRasterError
from crosstie.grid import window
from crosstie.io.products.mapping import Mapping
from crosstie.io.raster.cog import cog_writer
from crosstie.io.raster.gdal import IMAGE_DRIVERS, OWN_DRIVERS, check_href, opened, reading, shown_name
from crosstie.io.raster.georeference import georeference_of
from crosstie.io.raster.locate import locator
from crosstie.io.raster.resample import apply
from crosstie.io.raster.warp import GDAL_TYPES, Pixels, warp
from crosstie.io.storage.s3 import FROM_ENVIRONMENT, S3Options
from crosstie.types import IDENTITY_AFFINE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import xarray
    from rasterio.io import DatasetReader, DatasetWriter

    from crosstie.io.raster.resample import Locate
    from crosstie.io.storage.store import Store, StoredFile
    from crosstie.types import FloatArray

    AlignImage = Callable[["AlignTask"], StoredFile]

BLOCK_PX = 1024
"""Rows and columns, at most, of what is warped at a time: 2048 saves a tenth of the CPU, and takes half as
much memory again."""

BLOCK_BYTES = 16 * 2**20
"""Of one block of one band, as read: bounds the memory whatever the raster."""

LATTICE_PX = 32
"""Exact positions are computed so far apart (see `resample.NODE_PX`); blocks begin on this lattice."""

FIELD_LATTICE_PX = 8
"""The same where there is a field: a spline between nodes 64 px apart is followed to about 0.01 px."""

SHRINK_FROM = 1.5
"""Pixels of the source in one of the output from which the kernel is widened: below, little can alias."""

THREADS = max(1, min(4, len(os.sched_getaffinity(0))))
"""That warp and compress; more would cost memory and gain little beside reading."""

ALIGNED = "aligned.tif"
"""Name of the file."""

SCHEMA = "crosstie/aligned/1"

_FAR_PX = -1e6
"""Stands for a position that there is not: outside of any raster."""


@dataclass(frozen=True, slots=True, eq=False)
class AlignTask:
    """Aligned pixels that are to be written, in this process or in a worker: what `write_aligned` is told."""

    href: str | Path
    store: Store
    key: str
    grid: GeoBox
    mapping: Mapping
    resampling: Kernel
    from_catalog: bool
    storage: S3Options

    def write(self) -> StoredFile:
        """Write them in this process."""
        return write_aligned(
            self.href,
            self.store,
            self.key,
            grid=self.grid,
            mapping=self.mapping,
            resampling=self.resampling,
            from_catalog=self.from_catalog,
            storage=self.storage,
        )


def write_aligned(
    href: str | Path,
    store: Store,
    key: str,
    *,
    grid: GeoBox,
    mapping: Mapping,
    resampling: Kernel = Kernel.CUBIC,
    from_catalog: bool = False,
    storage: S3Options = FROM_ENVIRONMENT,
    progress: Callable[[int, int], None] | None = None,
) -> StoredFile:
    """Lay a raster on a grid and write it as a COG, whole or not at all; memory does not grow with it.

    Data type, scale, offset, units, names and colours of the bands stay, and so does nodata; where none is
    declared, what lies outside the raster becomes NaN, or 0 in integers, which is then declared (a tag says
    so). A raster with an alpha band has transparent pixels there. Colour tables are never interpolated.

    Parameters
    ----------
    href : a raster of the secondary scene, by its own georeference: transform or control points, any CRS
    grid : the reference's, or any other
    mapping : the same for all rasters of a scene, whichever was measured
    resampling : NEAREST for masks and classes. Where a pixel of the grid spans more than 1.5 of the raster
        the others are averages over it
    from_catalog : a catalog named the file, not the user: see `open_source`
    storage : how S3 is reached, where the raster lies there
    progress : called with (blocks done, blocks in all)

    Raises
    ------
    UnreadableRasterError : missing, no raster, cut short, or of a data type that is not warped
    NoGeoreferenceError : neither CRS and transform nor control points
    BadInputError : the raster lies outside the grid
    StoreError : the root cannot be written
    """
    with (
        _opened(href, from_catalog, storage) as raster,
        store.scratch(key) as folder,
    ):
        plan = _plan(raster, grid, mapping, resampling)
        path = folder / "aligned.tif"
        rows, cols = grid.shape
        with cog_writer(
            path,
            overviews="NEAREST" if Kernel.NEAREST in plan.kernels else "AVERAGE",
            threads=THREADS,
            height=rows,
            width=cols,
            count=raster.count,
            dtype=plan.dtype,
            nodata=plan.nodata,
            crs=str(grid.crs),
            transform=grid.affine,
        ) as out:
            _describe(raster, out, mapping, resampling)
            holes = _fill(raster, out, plan, progress)
            if holes and out.nodata is None and not plan.has_alpha:
                out.nodata = 0
                out.update_tags(CROSSTIE_NODATA="0 outside the source, which declares none")
        return store.put_file(key, path)


def aligned_dataarray(
    href: str | Path,
    *,
    grid: GeoBox,
    mapping: Mapping,
    resampling: Kernel = Kernel.CUBIC,
    from_catalog: bool = False,
    storage: S3Options = FROM_ENVIRONMENT,
    chunk_px: int = BLOCK_PX,
) -> xarray.DataArray:
    """Lay a raster on a grid lazily: the pixels of `write_aligned`, block by block as they are asked for.

    Parameters and errors as there; `chunk_px` is a multiple of 32.

    Returns
    -------
    Dims (band, y, x), Dask-backed, with coordinates, CRS and attributes as rioxarray has them: subtract what
    `rioxarray.open_rasterio` opens on the same grid, and no pixel and no coordinate is lost.
    """
    import dask.array as da  # slow to import, and only lazy arrays need both
    from odc.geo.xr import wrap_xr

    if chunk_px <= 0 or chunk_px % LATTICE_PX:
        raise ValueError(f"chunk_px must be a multiple of {LATTICE_PX}, got {chunk_px}")
    with _opened(href, from_catalog, storage) as raster:
        plan = _plan(raster, grid, mapping, resampling)
        count, names = raster.count, raster.descriptions

    def chunk(block_info: dict[Any, Any]) -> Pixels:
        _, (row, row_end), (col, col_end) = block_info[None]["array-location"]
        with _opened(href, from_catalog, storage) as raster:
            own = _plan(raster, grid, mapping, resampling)
            pixels = np.empty((raster.count, row_end - row, col_end - col), own.dtype)
            for part in _blocks(own, row, row_end, col, col_end):
                for band in raster.indexes:
                    block, _ = _warped(own, band, part, _source_pixels(raster, band, part, own))
                    pixels[band - 1, part.row - row :, part.col - col :][: part.shape[0], : part.shape[1]] = (
                        block
                    )
        return pixels

    shape = (count, *grid.shape)
    chunks = da.core.normalize_chunks((count, chunk_px, chunk_px), shape=shape)  # type: ignore[no-untyped-call]
    pixels = da.map_blocks(  # type: ignore[no-untyped-call]
        chunk, chunks=chunks, dtype=plan.dtype, meta=np.zeros((0, 0, 0), plan.dtype)
    )
    array = wrap_xr(pixels, grid, axis=1, always_yx=True, nodata=plan.fill).rename(time="band")
    array = array.assign_coords(band=np.arange(1, count + 1)).assign_attrs(
        _FillValue=plan.dtype.type(plan.fill)
    )
    if any(names):
        array = array.assign_attrs(long_name=tuple(name or "" for name in names))
    # rioxarray's number for every CRS. With another one here, xarray would drop the CRS from a difference.
    return array.assign_coords(spatial_ref=((), 0, array["spatial_ref"].attrs))


def _opened(href: str | Path, from_catalog: bool, storage: S3Options) -> Any:
    return opened(check_href(href), drivers=IMAGE_DRIVERS if from_catalog else OWN_DRIVERS, storage=storage)


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """How one raster comes onto the grid; the same whichever block is asked for."""

    grid: GeoBox
    locate: Locate
    lattice_px: int
    shrink: tuple[float, float]
    """Pixels of the source along (cols, rows) in one of the grid; 1 where they are not averaged."""
    block_px: int
    source_shape: tuple[int, int]
    dtype: np.dtype[Any]
    kernels: tuple[Kernel, ...]
    """Of each band."""
    nodata: float | None
    """That the output declares from the start."""
    keep_clear: bool
    """The source declares nodata: no valid pixel may take its value by interpolation."""
    has_alpha: bool

    @property
    def fill(self) -> float:
        """Value of the pixels that are not valid."""
        return 0.0 if self.nodata is None else self.nodata


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One block of the grid, and what it needs of the source."""

    row: int
    col: int
    shape: tuple[int, int]
    window: Window | None
    """Pixels of the source; None where the block lies outside of it."""
    at: tuple[FloatArray, FloatArray]
    """(col, row) on the lattice, px from the outer corner of `window`."""
    step_px: int


def _plan(raster: DatasetReader, grid: GeoBox, mapping: Mapping, resampling: Kernel) -> _Plan:
    if grid.crs is None:
        raise BadInputError(f"the grid {grid.shape} has no CRS; give it one")
    dtype = _dtype(raster)
    locate = _locate(raster, grid, mapping)
    shrink = _shrink(grid, locate)
    side = math.sqrt(BLOCK_BYTES / dtype.itemsize) / max(shrink)
    declared = _declared(raster.nodata, dtype)
    interps = raster.colorinterp
    exact = (ColorInterp.palette, ColorInterp.alpha)
    return _Plan(
        grid=grid,
        locate=locate,
        lattice_px=LATTICE_PX if mapping.field is None else FIELD_LATTICE_PX,
        shrink=shrink,
        block_px=min(BLOCK_PX, int(side // 512 * 512 or max(side // LATTICE_PX, 1) * LATTICE_PX)),
        source_shape=raster.shape,
        dtype=dtype,
        kernels=tuple(Kernel.NEAREST if colour in exact else resampling for colour in interps),
        nodata=math.nan if declared is None and dtype.kind in "fc" else declared,
        keep_clear=declared is not None,
        has_alpha=ColorInterp.alpha in interps,
    )


def _dtype(raster: DatasetReader) -> np.dtype[Any]:
    """Tell the one data type of all bands; complex integers become complex64."""
    names = {"complex64" if name == "complex_int16" else name for name in raster.dtypes}
    if len(names) > 1 or not names <= GDAL_TYPES.keys():
        raise UnreadableRasterError(
            f"{shown_name(raster.name)}: bands of type {', '.join(sorted(names))} cannot be aligned;"
            f" give bands of one type: {', '.join(GDAL_TYPES)}"
        )
    return np.dtype(names.pop())


def _declared(nodata: float | None, dtype: np.dtype[Any]) -> float | None:
    """Nodata as the source declares it, or None where no pixel can have that value."""
    if nodata is None or dtype.kind in "fc":
        return nodata
    info = np.iinfo(dtype)
    return nodata if info.min <= nodata <= info.max and float(nodata).is_integer() else None


def _locate(raster: DatasetReader, grid: GeoBox, mapping: Mapping) -> Locate:
    """Make the map from the grid's coordinates to pixels of the raster, correction included."""
    own, pair = CRS(str(grid.crs)), CRS(mapping.crs)
    project = None if own == pair else Transformer.from_crs(own.proj, pair.proj, always_xy=True)
    into = locator(georeference_of(raster), mapping.crs)

    def locate(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        if project is not None:
            x, y = project.transform(x, y)
        return into(*mapping.secondary_xy(x, y))

    return locate


def _shrink(grid: GeoBox, locate: Locate) -> tuple[float, float]:
    """Measure the pixels of the source in one of the grid: medians over it."""
    rows, cols = grid.shape
    px, py = (part.ravel() for part in np.meshgrid(np.linspace(0, cols, 9), np.linspace(0, rows, 9)))
    here, right, down = (
        np.stack(locate(*apply(grid.affine, px + dx, py + dy))) for dx, dy in ((0, 0), (1, 0), (0, 1))
    )
    spans = np.hypot(right - here, down - here)
    factors = []
    for span in spans:
        known = span[np.isfinite(span)]
        factor = float(np.median(known)) if known.size else 1.0
        factors.append(factor if factor > SHRINK_FROM else 1.0)
    return factors[0], factors[1]


def _blocks(plan: _Plan, row: int, row_end: int, col: int, col_end: int) -> Iterator[_Part]:
    """Cut a window of the grid, begun on the lattice, into blocks, row by row."""
    for r in range(row, row_end, plan.block_px):
        for c in range(col, col_end, plan.block_px):
            shape = (min(plan.block_px, row_end - r), min(plan.block_px, col_end - c))
            yield _part(plan, r, c, shape)


def _part(plan: _Plan, row: int, col: int, shape: tuple[int, int]) -> _Part:
    """Find what a block needs; where a place has no position, each pixel is placed for itself."""
    step_px = plan.lattice_px
    at = _positions(plan, row, col, shape, step_px)
    if not np.isfinite(at).all():
        step_px = 1
        at = _positions(plan, row, col, shape, step_px)
        at[:, ~np.isfinite(at).all(axis=0)] = _FAR_PX
    at_col, at_row = np.round(at, 6)  # a copy is exact: coordinates of 1e7 m leave 1e-8 px of rounding
    cols = _pixels_needed(at_col, plan.source_shape[1], plan.shrink[0])
    rows = _pixels_needed(at_row, plan.source_shape[0], plan.shrink[1])
    if cols is None or rows is None:
        return _Part(row, col, shape, None, (at_col, at_row), step_px)
    need = Window(cols[0], rows[0], cols[1] - cols[0], rows[1] - rows[0])
    return _Part(row, col, shape, need, (at_col - cols[0], at_row - rows[0]), step_px)


def _positions(plan: _Plan, row: int, col: int, shape: tuple[int, int], step_px: int) -> FloatArray:
    """Place corners of pixels in the source: (2, nodes down, nodes across), col and row."""
    down, across = (np.arange(-(-length // step_px) + 1) * float(step_px) for length in shape)
    px, py = np.meshgrid(across, down)
    block = window(plan.grid, row=row, col=col, shape=shape)
    places = plan.locate(*apply(block.affine, px.ravel(), py.ravel()))
    return np.stack([np.asarray(place, np.float64).reshape(px.shape) for place in places])


def _pixels_needed(at: FloatArray, limit: int, shrink: float) -> tuple[int, int] | None:
    """First pixel needed along one axis and the one after the last; None where all lies outside."""
    reach = math.ceil(4 * shrink) + 1
    inside = at[at > _FAR_PX]
    if not inside.size or inside.max() <= 0 or inside.min() >= limit:
        return None
    return max(0, math.floor(inside.min()) - reach), min(limit, math.ceil(inside.max()) + reach)


_Source = tuple[Pixels, NDArray[np.bool_] | None] | None
"""Pixels of a window and where they are valid (None: everywhere); None where there is no window."""


def _source_pixels(raster: DatasetReader, band: int, part: _Part, plan: _Plan) -> _Source:
    """Read what a block needs of a band; what is not valid becomes 0."""
    if part.window is None:
        return None
    valid: NDArray[np.bool_] | None = None
    with reading(raster):
        pixels = raster.read(band, window=part.window)
        if raster.mask_flag_enums[band - 1] != [MaskFlags.all_valid]:
            valid = raster.read_masks(band, window=part.window) > 0
    if pixels.dtype.kind in "fc":
        copied = plan.kernels[band - 1] is Kernel.NEAREST  # then infinity spoils no neighbour
        good = ~np.isnan(pixels) if copied else np.isfinite(pixels)
        valid = good if valid is None else valid & good
    if valid is None or valid.all():
        return pixels, None
    pixels[~valid] = 0
    return pixels, valid


def _warped(plan: _Plan, band: int, part: _Part, source: _Source) -> tuple[Pixels, bool]:
    """Make one block of the output; also whether any of it is not valid."""
    if source is None:
        return np.full(part.shape, plan.fill, plan.dtype), True
    kernel = plan.kernels[band - 1]
    pixels, valid = warp(
        *source, at=part.at, step_px=part.step_px, shape=part.shape, kernel=kernel, shrink=plan.shrink
    )
    if plan.keep_clear and kernel is not Kernel.NEAREST:
        pixels[valid & (pixels == plan.fill)] = _beside(plan.fill, plan.dtype)
    holes = not valid.all()
    if holes:
        pixels[~valid] = plan.fill
    return pixels, holes


def _beside(nodata: float, dtype: np.dtype[Any]) -> float:
    """Value closest to nodata that is not it."""
    if dtype.kind in "fc":
        real = np.dtype(f"f{dtype.itemsize // 2}") if dtype.kind == "c" else dtype
        return float(np.nextafter(real.type(nodata), real.type(0 if nodata else 1)))
    return nodata - 1 if nodata == np.iinfo(dtype).max else nodata + 1


def _fill(
    raster: DatasetReader, out: DatasetWriter, plan: _Plan, progress: Callable[[int, int], None] | None
) -> bool:
    """Write all blocks: one thread reads and writes, the others warp. Says whether any pixel is not valid."""
    waiting: deque[tuple[int, _Part, Future[tuple[Pixels, bool]]]] = deque()
    holes = False
    met = False
    done, total = 0, raster.count * math.prod(-(-length // plan.block_px) for length in plan.grid.shape)

    def write_first() -> None:
        nonlocal holes, done
        band, part, future = waiting.popleft()
        pixels, some = future.result()
        holes |= some
        out.write(pixels, band, window=Window(part.col, part.row, part.shape[1], part.shape[0]))
        done += 1
        if progress is not None:
            progress(done, total)

    with ThreadPoolExecutor(THREADS, thread_name_prefix="crosstie-warp") as pool:
        for part in _blocks(plan, 0, plan.grid.shape[0], 0, plan.grid.shape[1]):
            met |= part.window is not None
            for band in raster.indexes:
                if len(waiting) > THREADS:
                    write_first()
                source = _source_pixels(raster, band, part, plan)
                waiting.append((band, part, pool.submit(_warped, plan, band, part, source)))
        while waiting:
            write_first()
    if not met:
        raise BadInputError(
            f"{shown_name(raster.name)}: lies outside the grid of {plan.grid.shape} pixels;"
            " give a raster of the same ground"
        )
    return holes


def _describe(raster: DatasetReader, out: DatasetWriter, mapping: Mapping, resampling: Kernel) -> None:
    """Carry over all that the source says of its bands, and say how this raster came about."""
    out.scales, out.offsets = raster.scales, raster.offsets
    out.descriptions, out.units = raster.descriptions, [unit or "" for unit in raster.units]
    out.colorinterp = raster.colorinterp
    for band in raster.indexes:
        tags = raster.tags(band)
        out.update_tags(band, **{k: v for k, v in tags.items() if not k.startswith("STATISTICS_")})
        if raster.colorinterp[band - 1] is ColorInterp.palette:
            out.write_colormap(band, raster.colormap(band))
    tags = {key: value for key, value in raster.tags().items() if key != "AREA_OR_POINT"}
    model = (
        "field"
        if mapping.field is not None
        else "affine"
        if mapping.affine != IDENTITY_AFFINE
        else "identity"
    )
    out.update_tags(
        **tags,
        CROSSTIE_SCHEMA=SCHEMA,
        CROSSTIE_SOURCE=shown_name(raster.name),
        CROSSTIE_MODEL=model,
        CROSSTIE_AFFINE=" ".join(f"{value:.17g}" for value in mapping.affine),
        CROSSTIE_RESAMPLING=str(resampling),
    )
