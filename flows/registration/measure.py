"""Read a window of both images, and match the tiles in it. Plain functions that pickle.

Reading and matching are separate, so that a worker without the network can read for one that has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from crosstie.grid import Chunk, ground_lattice, px_to_m, px_to_m_vector, window
from crosstie.io.raster import RasterSource, read_plane
from crosstie.types import Kind, TiePoints, Tile

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

    from crosstie.types import FloatArray, IntArray, Plane

ALIGN_PX = 16
"""Windows begin and end at multiples of this on the ground. The coarsest features of the network have pixels
of this size, and their positions must not depend on the window or on the first pixel of the scene."""

COARSE_TEMPLATE_PX = 256
"""Side of a template of the coarse step; large, so that its peak stands out in a wide search."""

THIRDS = 3
"""Parts that the spots of the coarse step are divided into."""


class ReadPlane(Protocol):
    """Reads a raster on a grid: `io.raster.read_plane`, or a worker that has read it before."""

    def __call__(self, source: RasterSource, geobox: GeoBox) -> Plane: ...


class MatchedTiles(Protocol):
    """What a matcher has measured at N tiles."""

    @property
    def offset_px(self) -> FloatArray:
        """(N, 2) x, y: position in the secondary minus position in the reference, px."""

    @property
    def sigma_px(self) -> FloatArray:
        """(N,) standard deviation per axis, px."""

    @property
    def confidence(self) -> FloatArray:
        """(N,) probability that the offset is within 1 px, 0..1."""


class TileMatcher(Protocol):
    """What the flows need from a matcher. The one that ships is `crosstie.matcher.matching.Matcher`."""

    @property
    def weights_sha256(self) -> str:
        """Identity of the weights; it is stored in the products."""

    @property
    def halo_px(self) -> int:
        """Context that the network needs around a tile, px."""

    def match(
        self,
        reference: Plane,
        secondary: Plane,
        rows: IntArray,
        cols: IntArray,
        *,
        size_px: int,
        search_px: int,
        reference_kind: Kind,
        secondary_kind: Kind,
    ) -> MatchedTiles:
        """Measure the offsets of the tiles that begin at (rows, cols) of the two planes."""

    def offset_probability(
        self,
        reference: Plane,
        secondary: Plane,
        *,
        search_px: int,
        reference_kind: Kind,
        secondary_kind: Kind,
    ) -> Plane:
        """(2 search + 1, 2 search + 1) probability of each whole offset of the middle of a patch."""


@dataclass(frozen=True, slots=True, eq=False)
class MatchJob:
    """What all chunks of one pair have in common."""

    reference: RasterSource
    secondary: RasterSource
    grid: GeoBox
    search_px: int
    """Reach of the fine step, px."""
    coarse_search_px: int
    """Reach of the coarse step, px."""
    coarse_offset_px: tuple[int, int] = (0, 0)
    """Coarse offset (x, y), whole px; the windows of the secondary are moved by it."""


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """The same window of both images, that of the secondary moved by the coarse offset; NaN where invalid."""

    reference: Plane
    secondary: Plane
    row: int
    """First row of the window in the grid, px."""
    col: int
    """First column of the window in the grid, px."""


def read_chunk(job: MatchJob, chunk: Chunk, *, halo_px: int) -> Planes:
    """Read what is needed to match the tiles of `chunk`: the tiles, and the search and the halo around them.

    Raises
    ------
    UnreadableRasterError
        The window could not be read.
    """
    margin = job.search_px + halo_px
    rows, cols = chunk.shape
    first_row, first_col = ground_lattice(job.grid, step_px=ALIGN_PX)
    row0, row1 = _widen_to_steps(chunk.row - margin, chunk.row + rows + margin, first_row)
    col0, col1 = _widen_to_steps(chunk.col - margin, chunk.col + cols + margin, first_col)
    return _read_planes(job, row=row0, col=col0, shape=(row1 - row0, col1 - col0))


def match_chunk(job: MatchJob, chunk: Chunk, planes: Planes, matcher: TileMatcher) -> TiePoints:
    """Measure the offset of every tile of `chunk` on planes that `read_chunk` has read."""
    size_px = chunk.tiles[0].size_px
    row = np.array([tile.row for tile in chunk.tiles], np.int64)
    col = np.array([tile.col for tile in chunk.tiles], np.int64)
    found = matcher.match(
        planes.reference,
        planes.secondary,
        row - planes.row,
        col - planes.col,
        size_px=size_px,
        search_px=job.search_px,
        reference_kind=job.reference.kind,
        secondary_kind=job.secondary.kind,
    )
    offset_px = np.asarray(found.offset_px, np.float64) + np.array(job.coarse_offset_px, np.float64)
    centre_px: FloatArray = np.stack([col, row], axis=1).astype(np.float64) + size_px / 2
    pixel_m = math.sqrt(abs(job.grid.affine.determinant))
    points = TiePoints(
        xy_m=px_to_m(job.grid, centre_px),
        offset_m=px_to_m_vector(job.grid, offset_px),
        sigma_m=np.asarray(found.sigma_px, np.float64) * pixel_m,
        confidence=np.asarray(found.confidence, np.float64),
        row=row,
        col=col,
    )
    return points.keep(np.asarray(np.isfinite(offset_px).all(axis=1)))


def read_patch(job: MatchJob, tile: Tile) -> Planes:
    """Read what the coarse step needs at one place: a template around the centre of a tile, and the search.

    A template that would reach beyond the grid is moved inside, so that it is full of ground.
    """
    side = _patch_px(job)
    template = side - 2 * job.coarse_search_px
    x, y = tile.centre_px
    start = (
        min(max(int(centre) - template // 2, 0), max(length - template, 0)) - job.coarse_search_px
        for centre, length in ((y, job.grid.shape[0]), (x, job.grid.shape[1]))
    )
    row, col = (first // ALIGN_PX * ALIGN_PX for first in start)
    return _read_planes(job, row=row, col=col, shape=(side, side))


def patch_probability(job: MatchJob, planes: Planes, matcher: TileMatcher) -> Plane:
    """Probability of each whole offset up to the coarse reach, on a patch that `read_patch` has read."""
    return matcher.offset_probability(
        planes.reference,
        planes.secondary,
        search_px=job.coarse_search_px,
        reference_kind=job.reference.kind,
        secondary_kind=job.secondary.kind,
    )


def spread_out(tiles: tuple[Tile, ...], *, count: int) -> list[Tile]:
    """Choose at most `count` tiles that lie far apart: the most central one of each cell of a square lattice.

    They are ordered in thirds. Each third lies on diagonals all over the scene, so that it can be used alone.
    """
    if not tiles:
        return []
    side = math.isqrt(count)
    centres = np.array([tile.centre_px for tile in tiles])
    low, high = centres.min(axis=0), centres.max(axis=0)
    scaled = (centres - low) / np.maximum(high - low, 1.0) * side
    cell = np.minimum(scaled.astype(int), side - 1)
    from_middle = np.hypot(*(scaled - cell - 0.5).T)
    best: dict[tuple[int, int], int] = {}
    for i in np.argsort(from_middle, kind="stable"):
        best.setdefault((int(cell[i, 1]), int(cell[i, 0])), int(i))
    in_thirds = sorted(best, key=lambda at: ((at[1] + 2 * at[0]) % THIRDS, at))
    return [tiles[best[at]] for at in in_thirds]


def room_for_templates(rows: int, cols: int) -> int:
    """Number of coarse templates that cover a grid of (rows, cols) px; more would see the same ground."""
    return math.ceil(rows / COARSE_TEMPLATE_PX) * math.ceil(cols / COARSE_TEMPLATE_PX)


def _patch_px(job: MatchJob) -> int:
    """Side of a coarse patch, px; on a small grid the template is as large as the grid."""
    template: int = min(COARSE_TEMPLATE_PX, *job.grid.shape)
    return math.ceil((template + 2 * job.coarse_search_px) / ALIGN_PX) * ALIGN_PX


def _read_planes(job: MatchJob, *, row: int, col: int, shape: tuple[int, int]) -> Planes:
    dx, dy = job.coarse_offset_px
    return Planes(
        reference=read_plane(job.reference, window(job.grid, row=row, col=col, shape=shape)),
        secondary=read_plane(job.secondary, window(job.grid, row=row + dy, col=col + dx, shape=shape)),
        row=row,
        col=col,
    )


def _widen_to_steps(start_px: int, stop_px: int, first_px: int) -> tuple[int, int]:
    """Smallest span that contains the given one and whose ends lie whole steps from `first_px`."""
    return start_px - (start_px - first_px) % ALIGN_PX, stop_px + (first_px - stop_px) % ALIGN_PX
