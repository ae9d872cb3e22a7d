"""Decide what to do for one pair: which grid, which tiles, how far to search. Reads overviews only."""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from odc.geo import CRS, Geometry
from odc.geo.geobox import GeoBox

from crosstie.flows.registration.clouds import doubted, told_clouds, under_clouds, with_clouded
from crosstie.grid import common_grid, tiles
from crosstie.io.raster import read_plane
from crosstie.io.raster.longitude import near
from crosstie.io.storage.href import public_href
from crosstie.matcher.screening import Screening, dominant_reason, screen_tiles
from crosstie.settings.groups import SMALL_TILE_PX
from crosstie.types import Kind, Reason, Tile

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.flows.registration.measure import ReadPlane
    from crosstie.io.raster import RasterSource
    from crosstie.types import CloudsTold, Plane

LOG = logging.getLogger(__name__)

OVERVIEW_PX = 1024
"""Longer side of the overviews on which tiles are screened. On the largest Sentinel-2 scene a tile of 192 px
still has some ten pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Overviews:
    """Both images, small, on one grid that covers the common grid."""

    reference: Plane
    """(rows, cols), NaN where invalid."""
    secondary: Plane
    """(rows, cols), NaN where invalid."""
    grid: GeoBox
    """Grid of both overviews; its last row and column may reach beyond the common grid."""
    px_per_overview_px: int
    """Side of an overview pixel, in pixels of the common grid."""


@dataclass(frozen=True, slots=True, eq=False)
class TilePlan:
    """All decisions about a pair, made before the first tile is read."""

    reference: RasterSource
    secondary: RasterSource
    grid: GeoBox | None
    """The common grid; None where the images share no ground."""
    tile_px: int
    stride_px: int
    search_px: int
    """Reach of the fine step around the coarse offset, px."""
    coarse_search_px: int
    """Reach of the coarse step, px; 0 where it is skipped."""
    tiles: tuple[Tile, ...]
    """Tiles worth matching, row by row."""
    reason: Reason | None
    """Why most tiles were left out; None where most were kept."""
    overviews: Overviews | None
    featured: bool = True
    """Whether most of the tiles show more than noise in both images."""
    reference_clouds: CloudsTold | None = None
    """What the catalog tells of the reference's clouds; None where it tells nothing."""
    secondary_clouds: CloudsTold | None = None
    """What the catalog tells of the secondary's clouds; None where it tells nothing."""


WIDEST_DEG = 120.0
"""Of longitude: a raster in degrees that is wider has no plane of its own."""

MASKED_SHARE = 0.05
"""Of the common grid that is valid in both images, from which they overlap, though in no whole tile."""

COARSE_MARGIN_PX = 12
"""Margin beyond the largest coarse offset, so that a peak at the end of the range still has flanks."""


def plan_pair(
    reference: RasterSource, secondary: RasterSource, settings: Settings, *, read: ReadPlane = read_plane
) -> TilePlan:
    """Choose the grid and the tiles of a pair.

    Parameters
    ----------
    read : ReadPlane, optional
        Reads the overviews. A raster without overviews is read in full for this. If the same process reads
        the tiles later, a remote file is fetched only once.

    Raises
    ------
    UnreadableRasterError
        An overview could not be read.
    """
    resolution_m = settings.grid.resolution_m
    overlap = _overlap(reference, secondary)
    grid = None if overlap is None else common_grid(reference.geobox, overlap, resolution_m=resolution_m)
    if grid is None:
        return _no_ground(reference, secondary, settings)
    shape = (grid.shape[0], grid.shape[1])
    size_px, stride_px = settings.tiles.resolved(shape)
    _say_small_tiles(reference, shape, size_px, settings)
    overviews = read_overviews(reference, secondary, grid, read=read)
    candidates = list(tiles(shape, size_px=size_px, stride_px=stride_px))
    screening = _screening(candidates, overviews, reference, secondary)
    masked = _under_clouds(candidates, overviews, reference, secondary, screening)
    reference, secondary, overviews = masked.reference, masked.secondary, masked.overviews
    kept, reason, featured = _screened(candidates, overviews, masked.screening)
    reach_px = settings.tiles.coarse_max_offset_m / abs(grid.affine.a)
    return TilePlan(
        reference=reference,
        secondary=secondary,
        grid=grid,
        tile_px=size_px,
        stride_px=stride_px,
        search_px=settings.tiles.search_px,
        coarse_search_px=math.ceil(reach_px) + COARSE_MARGIN_PX if reach_px > 0 else 0,
        tiles=kept,
        reason=reason,
        overviews=overviews,
        featured=featured,
        reference_clouds=masked.told[0],
        secondary_clouds=masked.told[1],
    )


def _no_ground(reference: RasterSource, secondary: RasterSource, settings: Settings) -> TilePlan:
    """Plan nothing: the images share no ground."""
    size_px, stride_px = settings.tiles.resolved((0, 0))
    return TilePlan(
        reference=reference,
        secondary=secondary,
        grid=None,
        tile_px=size_px,
        stride_px=stride_px,
        search_px=settings.tiles.search_px,
        coarse_search_px=0,
        tiles=(),
        reason=Reason.NO_OVERLAP,
        overviews=None,
    )


def _say_small_tiles(
    reference: RasterSource, shape: tuple[int, int], size_px: int, settings: Settings
) -> None:
    if settings.tiles.size_px == "auto" and size_px == SMALL_TILE_PX and min(shape) >= size_px:
        LOG.warning(
            "%s: the common ground has %d x %d px, so tiles have %d px: fewer and less sure than larger ones",
            public_href(reference.hrefs[0]),
            shape[1],
            shape[0],
            size_px,
        )


def read_overviews(
    reference: RasterSource, secondary: RasterSource, grid: GeoBox, *, read: ReadPlane = read_plane
) -> Overviews:
    """Read both images reduced by the same whole factor, to at most `OVERVIEW_PX` along the longer side."""
    factor = max(1, math.ceil(max(grid.shape) / OVERVIEW_PX))
    rows, cols = (math.ceil(length / factor) for length in grid.shape)
    small = GeoBox((rows, cols), grid.affine @ Affine.scale(factor), grid.crs)
    return Overviews(
        reference=read(reference, small),
        secondary=read(secondary, small),
        grid=small,
        px_per_overview_px=factor,
    )


def _overlap(reference: RasterSource, secondary: RasterSource) -> Geometry | None:
    crs = _plane(reference)
    overlap = reference.footprint.to_crs(crs).intersection(secondary.footprint.to_crs(crs))
    return None if overlap.is_empty or overlap.area == 0 else overlap


def _plane(reference: RasterSource) -> CRS:
    """Plane in which footprints meet: the reference's own; where that is in degrees, one at its middle.

    Longitudes begin anew at the antimeridian, and all meet at the poles.
    """
    crs = CRS(reference.crs)
    ring = np.array(reference.footprint.exterior.coords) if crs.geographic else np.zeros((0, 2))
    if not len(ring) or np.ptp(ring[:, 0]) > WIDEST_DEG:
        return crs
    lon, lat = (ring.min(axis=0) + ring.max(axis=0)) / 2
    return CRS(f"+proj=laea +lon_0={near(lon, 0.0):.6f} +lat_0={lat:.6f} +datum=WGS84 +units=m +type=crs")


@dataclass(frozen=True, slots=True, eq=False)
class _Masked:
    """A pair under the clouds that its catalog tells of."""

    reference: RasterSource
    secondary: RasterSource
    overviews: Overviews
    screening: Screening | None
    told: tuple[CloudsTold | None, CloudsTold | None]


def _under_clouds(
    candidates: list[Tile],
    overviews: Overviews,
    reference: RasterSource,
    secondary: RasterSource,
    by_pixels: Screening | None,
) -> _Masked:
    """Lay the clouds that a catalog tells of on both images, and judge the tiles anew where there are any."""
    small, factor = overviews.grid, overviews.px_per_overview_px
    planes, sources = (overviews.reference, overviews.secondary), (reference, secondary)
    clouds = [
        doubted(
            told_clouds(sources[n], planes[n], small),
            sources[n],
            planes[n],
            planes[1 - n] if sources[1 - n].kind is Kind.SAR else None,
            factor=factor,
        )
        for n in (0, 1)
    ]
    told = [None if one is None else one.told for one in clouds]
    under, reference_plane = under_clouds(reference, planes[0], clouds[0], small)
    below, secondary_plane = under_clouds(secondary, planes[1], clouds[1], small)
    if under.clouds is None and below.clouds is None:
        return _Masked(reference, secondary, overviews, by_pixels, (told[0], told[1]))
    masked = replace(overviews, reference=reference_plane, secondary=secondary_plane)
    again = _screening(candidates, masked, under, below)
    if by_pixels is not None:
        nothing = Screening((Reason.NO_OVERLAP,) * len(candidates))
        again = with_clouded(by_pixels, again or nothing)
    return _Masked(under, below, masked, again, (told[0], told[1]))


def _screening(
    candidates: list[Tile], overviews: Overviews, reference: RasterSource, secondary: RasterSource
) -> Screening | None:
    """Judge all tiles; None where there are none, or no ground in common."""
    both_valid = np.isfinite(overviews.reference) & np.isfinite(overviews.secondary)
    if not candidates or not both_valid.any():
        return None
    return screen_tiles(
        candidates,
        overviews.reference,
        overviews.secondary,
        px_per_overview_px=overviews.px_per_overview_px,
        reference_kind=reference.kind,
        secondary_kind=secondary.kind,
        reference_white=reference.white,
        secondary_white=secondary.white,
    )


def _screened(
    candidates: list[Tile], overviews: Overviews, screening: Screening | None
) -> tuple[tuple[Tile, ...], Reason | None, bool]:
    """Tiles worth matching, why most were left out, and whether those left show more than noise."""
    both_valid = np.isfinite(overviews.reference) & np.isfinite(overviews.secondary)
    if screening is None:
        return (), Reason.TOO_FEW_TIE_POINTS if both_valid.any() else Reason.NO_OVERLAP, True
    kept = tuple(tile for tile, keep in zip(candidates, screening.keep, strict=True) if keep)
    reason = _main_reason(screening)
    if reason is Reason.NO_OVERLAP and both_valid.mean() >= MASKED_SHARE:
        reason = Reason.MASKED
    return kept, reason, screening.featured


def _main_reason(screening: Screening) -> Reason | None:
    """Why most of the common ground was left out; None where most of it was kept."""
    if not screening.keep.any():
        return dominant_reason(screening)
    # The edge of the swath says nothing about the ground that both images show.
    counts = Counter(reason for reason in screening.reasons if reason is not Reason.NO_OVERLAP)
    return counts.most_common(1)[0][0]
