"""Geometry of the common grid, its tiles and its chunks. Pure; reads nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from odc.geo import CRS, Geometry
from odc.geo.geobox import GeoBox

from crosstie.types import Tile

if TYPE_CHECKING:
    from crosstie.types import FloatArray


def tile_starts(length_px: int, *, size_px: int, stride_px: int) -> list[int]:
    """First pixels of the tiles along one axis: one every stride, and one that ends at the end.

    Empty if `length_px < size_px`. Every pixel is covered if `stride_px <= size_px`.
    """
    if size_px <= 0 or stride_px <= 0:
        raise ValueError(f"tile size and stride must be positive, got {size_px} and {stride_px}")
    if length_px < size_px:
        return []
    starts = list(range(0, length_px - size_px + 1, stride_px))
    if starts[-1] != length_px - size_px:
        starts.append(length_px - size_px)
    return starts


def tiles(shape: tuple[int, int], *, size_px: int, stride_px: int) -> Iterator[Tile]:
    """Cut a grid of `shape` (rows, cols) into square tiles that stay inside, row by row.

    Matching and training both use it.
    """
    cols = tile_starts(shape[1], size_px=size_px, stride_px=stride_px)
    for row in tile_starts(shape[0], size_px=size_px, stride_px=stride_px):
        for col in cols:
            yield Tile(row=row, col=col, size_px=size_px)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tiles that are read and matched together, and the window of the grid that they span."""

    tiles: tuple[Tile, ...]

    @property
    def row(self) -> int:
        return min(t.row for t in self.tiles)

    @property
    def col(self) -> int:
        return min(t.col for t in self.tiles)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols) of the smallest window that holds all tiles, px."""
        end_row = max(t.row + t.size_px for t in self.tiles)
        end_col = max(t.col + t.size_px for t in self.tiles)
        return end_row - self.row, end_col - self.col


def chunks(wanted: list[Tile], *, span_px: int) -> list[Chunk]:
    """Group tiles by the cell that their first pixel lies in; one task reads one group.

    Cells are equally large and at most `span_px` wide: the largest group says how much memory a task needs.
    """
    if not wanted:
        return []
    row_cell = _equal_cells([tile.row for tile in wanted], span_px)
    col_cell = _equal_cells([tile.col for tile in wanted], span_px)
    cells: dict[tuple[int, int], list[Tile]] = {}
    for tile in wanted:
        cells.setdefault((row_cell(tile.row), col_cell(tile.col)), []).append(tile)
    return [Chunk(tuple(sorted(members))) for _, members in sorted(cells.items())]


def _equal_cells(starts: Sequence[int], span_px: int) -> Callable[[int], int]:
    """The cell of a start, of as few equal cells as hold all starts."""
    first, extent = min(starts), max(starts) - min(starts) + 1
    width = math.ceil(extent / math.ceil(extent / span_px))
    return lambda start: (start - first) // width


def window(grid: GeoBox, *, row: int, col: int, shape: tuple[int, int]) -> GeoBox:
    """Window of `grid` of `shape` (rows, cols) that begins at pixel (row, col); it may exceed `grid`."""
    return GeoBox(shape, grid.affine @ Affine.translation(col, row), grid.crs)


def ground_lattice(grid: GeoBox, *, step_px: int) -> tuple[int, int]:
    """First (row, col), 0 to `step_px` - 1, of a lattice that is fixed to the ground.

    Grids that are cropped from one another by whole pixels get the same lattice. It counts from the origin
    of the map. The fraction of a pixel is dropped at 0.363, because whole and half pixels are common, and
    rounding errors must not put them on different sides.
    """
    col, row = ~grid.affine @ (0.0, 0.0)
    return math.floor(row + 0.637) % step_px, math.floor(col + 0.637) % step_px


def px_to_m(grid: GeoBox, xy_px: FloatArray) -> FloatArray:
    """Positions (N, 2) in pixels of the grid -> map coordinates, metres."""
    moved: FloatArray = px_to_m_vector(grid, xy_px) + np.array([grid.affine.c, grid.affine.f])
    return moved


def px_to_m_vector(grid: GeoBox, d_px: FloatArray) -> FloatArray:
    """Differences (N, 2) in pixels of the grid -> metres (no translation)."""
    a = grid.affine
    moved: FloatArray = np.asarray(d_px, np.float64) @ np.array([[a.a, a.d], [a.b, a.e]])
    return moved


def common_grid(reference: GeoBox, overlap: Geometry, *, resolution_m: float) -> GeoBox | None:
    """Choose the grid on which two rasters are compared.

    The reference's own pixel grid if that is projected, north-up and within 20 % of `resolution_m`; its
    pixels are then not resampled. Else a grid of `resolution_m` with edges at whole multiples of it, in the
    reference's CRS, or in the UTM zone of the overlap if that CRS is in degrees.

    Parameters
    ----------
    reference : GeoBox
        Grid of the reference raster.
    overlap : Geometry
        Outline of the ground that both images cover, in any CRS.
    resolution_m : float
        Pixel size wanted, metres.

    Returns
    -------
    GeoBox or None
        The grid, cropped to the overlap; None if that is less than one pixel.
    """
    if overlap.is_empty:
        return None
    crs = reference.crs
    if crs is None or crs.geographic or not _metric(crs):
        crs = CRS(f"EPSG:{_utm_epsg(overlap)}")
        anchor = Affine(resolution_m, 0, 0, 0, -resolution_m, 0)
    elif _is_near(reference.affine, resolution_m):
        anchor = reference.affine
    else:
        anchor = Affine(resolution_m, 0, 0, 0, -resolution_m, 0)
    box = overlap.to_crs(crs, resolution=max(resolution_m * 256, 1.0)).boundingbox
    inverse = ~anchor
    (x0, y0), (x1, y1) = inverse @ (box.left, box.top), inverse @ (box.right, box.bottom)
    col0, row0 = math.floor(x0 + 1e-6), math.floor(y0 + 1e-6)
    col1, row1 = math.ceil(x1 - 1e-6), math.ceil(y1 - 1e-6)
    if col1 <= col0 or row1 <= row0:
        return None
    return GeoBox((row1 - row0, col1 - col0), anchor @ Affine.translation(col0, row0), crs)


def _metric(crs: CRS) -> bool:
    return crs.units[0] in {"metre", "meter", "m"}


def _is_near(affine: Affine, resolution_m: float) -> bool:
    north_up = affine.b == 0 and affine.d == 0 and affine.a > 0 > affine.e
    return north_up and all(0.8 <= size / resolution_m <= 1.25 for size in (affine.a, -affine.e))


def _utm_epsg(overlap: Geometry) -> int:
    # In the overlap's own plane: longitudes of an outline across the antimeridian have no middle.
    lon, lat = overlap.centroid.to_crs("EPSG:4326").coords[0]
    if not -80 <= lat <= 84:
        return 32661 if lat > 0 else 32761  # no zone of UTM: polar stereographic
    zone = int((lon + 180) // 6) % 60 + 1
    return (32600 if lat >= 0 else 32700) + zone
