"""How many bytes of a pair's files its tiles need: the blocks that they touch, by the files' own index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from pyproj import Transformer
from rasterio.io import DatasetReader
from rasterio.windows import Window

from crosstie.flows.registration.plan import TilePlan
from crosstie.io.raster.resample import apply
from crosstie.io.raster.source import RasterSource


@dataclass(frozen=True, slots=True)
class Needed:
    """Bytes of blocks, as stored."""

    full_resolution: int
    """Of the full resolution, under the tiles; of the secondary also as far as is searched."""
    overviews: int
    """Of the overviews from which the pair is planned; 0 for a file without any."""

    @property
    def with_overviews(self) -> int:
        return self.full_resolution + self.overviews


def needed_bytes(plan: TilePlan, reference: Path, secondary: Path) -> Needed:
    """Count for a plan; the paths are local copies of the files of its two sources."""
    assert plan.overviews is not None
    factor = plan.overviews.px_per_overview_px
    full = overviews = 0
    for source, path, margin in ((plan.reference, reference, 0), (plan.secondary, secondary, plan.search_px)):
        windows = list(_windows(plan, source, margin))
        full += _under(path, windows, factor=1)
        with rasterio.open(path) as raster:
            levels = [level for level in raster.overviews(1) if level <= factor]
        if levels:
            overviews += _under(path, windows, factor=max(levels), level=len(levels) - 1)
    return Needed(full, overviews)


def _windows(plan: TilePlan, source: RasterSource, margin: int) -> Iterator[Window]:
    """Pixels of a source under each tile."""
    assert plan.grid is not None
    there = Transformer.from_crs(plan.grid.crs.proj, source.crs, always_xy=True)
    rows, cols = source.shape
    for tile in plan.tiles:
        low, high = -margin, tile.size_px + margin
        corners = [plan.grid.affine @ (tile.col + x, tile.row + y) for x in (low, high) for y in (low, high)]
        x, y = there.transform(*np.transpose(corners))
        col, row = apply(~source.affine, x, y)
        first, last = np.maximum([row.min(), col.min()], 0), np.minimum([row.max(), col.max()], [rows, cols])
        if (first < last).all():
            yield Window(first[1], first[0], last[1] - first[1], last[0] - first[0])


def _under(path: Path, windows: list[Window], *, factor: int, level: int | None = None) -> int:
    options = {} if level is None else {"overview_level": level}
    with rasterio.open(path, **options) as raster:
        rows, cols = raster.block_shapes[0]
        blocks = {
            (row, col)
            for part in windows
            for row in _touched(part.row_off / factor, part.height / factor, rows)
            for col in _touched(part.col_off / factor, part.width / factor, cols)
        }
        return sum(_size(raster, r, c) for r, c in blocks)


def _touched(start: float, length: float, block: int) -> range:
    return range(int(start // block), int((start + length - 1e-6) // block) + 1)


def _size(raster: DatasetReader, row: int, col: int) -> int:
    bands = (1,) if raster.interleaving is None or raster.interleaving.value == "PIXEL" else raster.indexes
    return sum(int(raster.get_tag_item(f"BLOCK_SIZE_{col}_{row}", "TIFF", bidx=band) or 0) for band in bands)
