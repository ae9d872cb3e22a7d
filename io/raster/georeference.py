"""Where the pixels of a corrected raster lie: the correction carried over to the raster's own terms."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from pyproj import CRS, Transformer
from rasterio.control import GroundControlPoint

from crosstie.errors import NoGeoreferenceError
from crosstie.io.raster.control_points import GroundMap, Point, ground_map
from crosstie.io.raster.gdal import shown_name
from crosstie.io.raster.longitude import middle_of, near

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rasterio.io import DatasetReader

    from crosstie.types import FloatArray

MAX_ERROR_PX = 0.05
"""A correction that no affine of the raster's own CRS holds within this is written as control points."""

FARTHEST, SMALLEST_AREA = 1e9, 1e-20
"""Larger coordinates and smaller pixels are in no coordinate system of the Earth, whatever its unit."""

HIGHEST_DEG, EASTERNMOST_DEG = 91.0, 720.0
"""Of latitude and longitude: a pixel beyond the pole and two turns exist; what is farther is in metres."""

DEGREES_PX = 0.01
"""Side of a pixel in degrees, about a kilometre; as metres it is that of no image of the ground."""

NODES = 21
"""Points per side at which a correction is carried over to another CRS."""


@dataclass(frozen=True, slots=True, eq=False)
class Georeference:
    """A raster's place on the ground: either a transform or control points, in one CRS."""

    shape: tuple[int, int]
    """(rows, cols), px."""
    crs: str
    """EPSG code or WKT."""
    transform: Affine | None
    """Pixel (x, y) -> map (x, y); None where `gcps` hold the place."""
    gcps: tuple[GroundControlPoint, ...] = ()
    worst_error_px: float = 0.0
    """Largest distance between the exact correction and `transform`, px; 0 where that is exact."""
    control: GroundMap | None = None
    """The map through `gcps`: how well they agree, and which are left out."""


def georeference_of(raster: DatasetReader) -> Georeference:
    """Read where an open raster lies.

    Raises
    ------
    NoGeoreferenceError : neither CRS and transform nor control points that fix a place
    """
    if raster.crs is not None and not raster.transform.is_identity:
        crs = CRS.from_wkt(raster.crs.to_wkt())
        if not (crs.is_geographic or crs.is_projected):
            raise NoGeoreferenceError(
                f"{shown_name(raster.name)}: its coordinate system, {crs.name!r}, gives no place on a map;"
                " give it a geographic or projected one"
            )
        transform = Affine(*raster.transform[:6])
        if not _is_on_earth(transform, raster.shape):
            numbers = ", ".join(f"{number:g}" for number in transform[:6])
            raise NoGeoreferenceError(
                f"{shown_name(raster.name)}: its transform, {numbers}, gives no place on Earth; say where its"
                " corners lie (gdal_edit.py -a_ullr WEST NORTH EAST SOUTH)"
            )
        px = math.sqrt(abs(transform.determinant))
        _refuse_other_unit(raster, crs, _apply(transform, _nodes(raster.shape)), px)
        return Georeference(shape=raster.shape, crs=raster.crs.to_wkt(), transform=transform)
    gcps, crs = raster.gcps
    if gcps and crs is not None:
        try:
            control = ground_map(points_of(gcps), crs.to_wkt())
        except NoGeoreferenceError as error:
            raise NoGeoreferenceError(f"{shown_name(raster.name)}: {error}") from None
        place = Georeference(
            shape=raster.shape, crs=crs.to_wkt(), transform=None, gcps=tuple(gcps), control=control
        )
        _refuse_other_unit(raster, CRS.from_wkt(place.crs), _xy_of(_followed(place)), math.inf)
        return place
    raise NoGeoreferenceError(f"{shown_name(raster.name)}: {_what_lacks(raster)}")


def _is_on_earth(transform: Affine, shape: tuple[int, int]) -> bool:
    """Whether pixels have an area and corners have coordinates that a map can have."""
    rows, cols = shape
    corners = np.array([transform @ corner for corner in ((0, 0), (cols, 0), (0, rows), (cols, rows))])
    area = abs(transform.determinant)
    return bool(np.isfinite(corners).all() and np.abs(corners).max() < FARTHEST and area > SMALLEST_AREA)


def _refuse_other_unit(raster: DatasetReader, crs: CRS, xy: FloatArray, px: float) -> None:
    """Refuse metres where the CRS is in degrees, and degrees where it is in metres.

    Parameters
    ----------
    xy : (N, 2) places of the raster in its CRS
    px : side of a pixel, in the unit of the CRS
    """
    unit = crs.axis_info[0].unit_name if crs.axis_info else ""
    reach_x, reach_y = np.abs(xy).max(axis=0)
    degrees = reach_x <= EASTERNMOST_DEG and reach_y <= HIGHEST_DEG
    if crs.is_geographic and unit == "degree" and not degrees:
        farthest = f"latitude {reach_y:.6g}" if reach_y > HIGHEST_DEG else f"longitude {reach_x:.6g}"
        what = f"is in degrees, but its coordinates are not ({farthest})"
    elif crs.is_projected and degrees and px < DEGREES_PX:
        what = f"is in {unit or 'metre'}, but its coordinates are degrees (its pixels have {px:.3g})"
    else:
        return
    raise NoGeoreferenceError(
        f"{shown_name(raster.name)}: its coordinate system, {crs.name!r}, {what}; say which it is in"
        " (gdal_edit.py -a_srs EPSG:...), and give x or longitude before y or latitude"
    )


def _what_lacks(raster: DatasetReader) -> str:
    """Say which half of a georeference a raster has, and which it lacks."""
    gcps, crs = raster.gcps
    if gcps and crs is None:
        return (
            f"its {len(gcps)} ground control points have no CRS: say which they are in"
            " (gdal_translate -a_srs EPSG:4326, or the one that is theirs)"
        )
    if not raster.transform.is_identity:
        return "it has a transform, but no CRS: say which it is in (gdal_edit.py -a_srs EPSG:...)"
    if raster.crs is not None:
        return (
            "it has a CRS, but neither a transform nor ground control points: say where its corners lie"
            " (gdal_edit.py -a_ullr WEST NORTH EAST SOUTH)"
        )
    return "neither a CRS with a transform nor ground control points; georeference it first"


def points_of(gcps: Sequence[GroundControlPoint]) -> tuple[Point, ...]:
    """Control points as plain numbers: (row, col, x, y, height)."""
    return tuple((float(g.row), float(g.col), float(g.x), float(g.y), float(g.z or 0.0)) for g in gcps)


def corrected(
    place: Georeference, *, affine: Sequence[float], grid_crs: str, max_error_px: float = MAX_ERROR_PX
) -> Georeference:
    """Move a raster by a correction that is given in the CRS of the common grid.

    In the grid's CRS the new transform is `affine` o old transform, exactly. In another CRS the correction
    is carried over (there, corrected, and back) at 21 x 21 pixels and an affine fitted to them; where that
    misses by more than `max_error_px`, the pixels become control points in the grid's CRS instead. Control
    points are moved one by one and keep their heights; those that are plainly wrong are left out, and
    longitudes run on past 180 degrees, so that who draws a surface through the points meets no jump.

    Parameters
    ----------
    affine : (a, b, c, d, e, f) in rasterio's order, (x, y) in metres of `grid_crs`
    """
    move = Affine(*affine)
    if move.is_identity:
        return place
    same = CRS.from_user_input(place.crs) == CRS.from_user_input(grid_crs)
    if place.transform is None:
        kept = _followed(place)
        moved = _moved(_continuous(_xy_of(kept), place.crs), move, "" if same else place.crs, grid_crs)
        gcps = tuple(
            GroundControlPoint(row=g.row, col=g.col, x=float(x), y=float(y), z=g.z, id=g.id, info=g.info)
            for g, (x, y) in zip(kept, moved, strict=True)
            if np.isfinite([x, y]).all()
        )
        return replace(place, gcps=gcps)
    if same:
        return replace(place, transform=move @ place.transform)
    return _fitted(place, place.transform, move, grid_crs, max_error_px)


def _fitted(
    place: Georeference, old: Affine, move: Affine, grid_crs: str, max_error_px: float
) -> Georeference:
    px = _nodes(place.shape)
    there = Transformer.from_crs(place.crs, grid_crs, always_xy=True)
    on_grid = _transform(there, _apply(old, px))
    seen = np.isfinite(on_grid).all(axis=1)
    px, target_grid = px[seen], _apply(move, on_grid[seen])
    target = _transform(there, target_grid, "INVERSE")
    if CRS.from_user_input(place.crs).is_geographic:
        target[:, 0] = near(target[:, 0], _apply(old, px)[:, 0])
    # Fitted to displacements in pixels: small numbers, so that nothing is lost to large coordinates.
    shift_px = _apply(~old, target) - px
    half = np.array([place.shape[1], place.shape[0]]) / 2
    design = np.column_stack([(px - half) / half, np.ones(len(px))])
    solution, *_ = np.linalg.lstsq(design, shift_px, rcond=None)
    worst_px = float(np.hypot(*(design @ solution - shift_px).T).max())
    if not worst_px <= max_error_px:
        gcps = tuple(
            GroundControlPoint(row=float(row), col=float(col), x=float(x), y=float(y), z=0.0, id=str(n))
            for n, ((col, row), (x, y)) in enumerate(zip(px, target_grid, strict=True), start=1)
        )
        return Georeference(shape=place.shape, crs=grid_crs, transform=None, gcps=gcps)
    (ax, ay), (bx, by), (cx, cy) = solution
    ax, ay, bx, by = ax / half[0], ay / half[0], bx / half[1], by / half[1]
    in_px = Affine(1 + ax, bx, cx - ax * half[0] - bx * half[1], ay, 1 + by, cy - ay * half[0] - by * half[1])
    return replace(place, transform=old @ in_px, worst_error_px=worst_px)


def outline(place: Georeference) -> FloatArray:
    """Ring around the raster, (N, 2) in `place.crs`; the control points, unordered, where it has those."""
    if place.transform is None:
        return _continuous(_xy_of(_followed(place)), place.crs)
    rows, cols = place.shape
    steps = np.linspace(0, 1, NODES)
    top = np.column_stack([steps * cols, np.zeros(NODES)])
    right = np.column_stack([np.full(NODES, cols), steps * rows])
    bottom = np.column_stack([(1 - steps) * cols, np.full(NODES, rows)])
    left = np.column_stack([np.zeros(NODES), (1 - steps) * rows])
    return _apply(place.transform, np.concatenate([top, right[1:], bottom[1:], left[1:-1]]))


def _moved(xy: FloatArray, move: Affine, crs: str, grid_crs: str) -> FloatArray:
    if not crs:
        return _apply(move, xy)
    there = Transformer.from_crs(crs, grid_crs, always_xy=True)
    on_grid = _transform(there, xy)
    moved = _transform(there, _apply(move, on_grid), "INVERSE")
    if CRS.from_user_input(crs).is_geographic:
        moved[:, 0] = near(moved[:, 0], xy[:, 0])
    return moved


def _followed(place: Georeference) -> tuple[GroundControlPoint, ...]:
    wrong = set(place.control.facts.left_out) if place.control else set()
    return tuple(g for n, g in enumerate(place.gcps, start=1) if n not in wrong)


def _continuous(xy: FloatArray, crs: str) -> FloatArray:
    """Turn the longitudes of points that lie together so that none jumps at the antimeridian."""
    if not CRS.from_user_input(crs).is_geographic:
        return xy
    return np.column_stack([near(xy[:, 0], middle_of(xy[:, 0])), xy[:, 1]])


def _transform(there: Transformer, xy: FloatArray, direction: str = "FORWARD") -> FloatArray:
    return np.column_stack(there.transform(xy[:, 0], xy[:, 1], direction=direction))


def _nodes(shape: tuple[int, int]) -> FloatArray:
    x, y = np.meshgrid(np.linspace(0, shape[1], NODES), np.linspace(0, shape[0], NODES))
    return np.column_stack([x.ravel(), y.ravel()])


def _apply(transform: Affine, xy: FloatArray) -> FloatArray:
    matrix = np.array([[transform.a, transform.b], [transform.d, transform.e]])
    moved: FloatArray = xy @ matrix.T + np.array([transform.c, transform.f])
    return moved


def _xy_of(gcps: Sequence[GroundControlPoint]) -> FloatArray:
    return np.array([(g.x, g.y) for g in gcps], np.float64).reshape(-1, 2)
