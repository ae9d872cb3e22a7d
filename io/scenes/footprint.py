"""Make outlines of scenes in degrees correct: cut at the antimeridian, closed round a pole, valid.

GeoJSON requires two parts for an outline that crosses the antimeridian. Some catalogs write one part, from
179 to -179 degrees, which in the plane of degrees goes round the whole Earth the other way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from crosstie.io.scenes.sphere import refined_ring

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from crosstie.io.scenes.sphere import Geometries
    from crosstie.types import BoolArray, FloatArray, IntArray

DECIMALS = 9
"""Decimals of a degree that are kept: a tenth of a millimetre, as in WKT."""

LONGEST_LONGITUDE = 360.0
"""Largest longitude, degrees, that an outline may have: some write 0..360 instead of -180..180."""

LARGEST_LATITUDE = 90.0
"""Degrees."""

ROUNDING_DEG = 1e-6
"""How far numbers of an outline may lie beyond these limits: programs round differently."""

FOUR_CORNERS = 5
"""Vertices of a closed ring of four corners: so few are repaired exactly, whatever it costs."""

STEP_RAD = 0.001
"""Longest step along a side of an outline that is cut, 6 km: near a pole, sides are curves in degrees."""


def lonlat_outlines(geometries: Sequence[BaseGeometry | None] | Geometries) -> Geometries:
    """Repair outlines, so that they are in the plane of degrees what they are on the ground.

    Rings that jump over the antimeridian are cut there, rings round a pole are closed along it, and
    self-intersections are repaired.

    Parameters
    ----------
    geometries : sequence of BaseGeometry or None
        (N,) in degrees.

    Returns
    -------
    Geometries
        (N,) with longitudes in -180..180; None stays None. None, too, where numbers are not degrees.
    """
    given: Geometries = np.array(geometries, dtype=object)
    if not len(given):
        return given
    given = given.copy()
    given[[why is not None for why in not_degrees(given)]] = None
    flat: Geometries = shapely.force_2d(given)
    coordinates, owner = shapely.get_coordinates(flat, return_index=True)
    flat = shapely.set_coordinates(flat.copy(), np.round(coordinates, DECIMALS))
    for n in _suspicious(coordinates, owner):
        flat[n] = _mended(flat[n])
    valid = shapely.is_valid(flat)
    wrong = np.flatnonzero(~valid & ~shapely.is_missing(flat))
    few = wrong[shapely.get_num_coordinates(flat[wrong]) <= FOUR_CORNERS]
    many = np.setdiff1d(wrong, few)
    flat[few] = shapely.make_valid(flat[few])
    flat[many] = _valid(flat[many])
    return flat


def not_degrees(geometries: Geometries) -> list[str | None]:
    """Say of each outline which number of it cannot be a longitude or latitude; None where all can be.

    Outlines in metres of a map projection would otherwise be turned round the Earth thousands of times.
    """
    found: list[str | None] = [None] * len(geometries)
    xy, owner = shapely.get_coordinates(geometries, return_index=True)
    inside = np.abs(xy) <= np.array([LONGEST_LONGITUDE, LARGEST_LATITUDE]) + ROUNDING_DEG  # NaN is not
    for n in np.unique(owner[~inside.all(axis=1)]).tolist():
        own = slice(*np.searchsorted(owner, [n, n + 1]))
        axis = 0 if not inside[own, 0].all() else 1
        values = xy[own, axis]
        found[n] = f"{('longitude', 'latitude')[axis]} {values[np.argmax(np.abs(values))]:.10g}"
    return found


def crosses_antimeridian(geometries: Geometries) -> BoolArray:
    """Say which geometries (N,) `lonlat_outlines` would cut: their longitudes jump or leave -180..180."""
    found = np.zeros(len(geometries), bool)
    found[_suspicious(*shapely.get_coordinates(geometries, return_index=True))] = True
    return found


def _valid(geometries: Any) -> Any:
    """Repair self-intersections. The default method takes 60 times as long where many sides cross."""
    return shapely.make_valid(geometries, method="structure", keep_collapsed=False)


def box_outline(bbox: Sequence[float]) -> BaseGeometry:
    """Outline of a STAC bbox of four or six numbers, degrees; west > east crosses the antimeridian."""
    half = len(bbox) // 2  # six numbers where the box has heights
    west, south, east, north = *bbox[:2], *bbox[half : half + 2]
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.MultiPolygon([shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)])


def _suspicious(coordinates: FloatArray, owner: IntArray) -> IntArray:
    """Find geometries in which a longitude jumps by more than half the Earth, or leaves -180..180."""
    lon = coordinates[:, 0]
    jump = (np.abs(np.diff(lon)) > 180) & (np.diff(owner) == 0)
    far = np.abs(lon) > 180
    return np.unique(np.concatenate([owner[1:][jump], owner[far]]))


def _mended(geometry: BaseGeometry) -> BaseGeometry:
    parts = shapely.get_parts(shapely.get_parts(geometry))
    cut = [_cut_polygon(part) for part in parts]
    if all(new is old for new, old in zip(cut, parts, strict=True)):
        return geometry
    return shapely.union_all(cut)


def _cut_polygon(part: BaseGeometry) -> BaseGeometry:
    """Cut one polygon. Anything else, and a polygon that is correct, is returned as it is."""
    if not isinstance(part, shapely.Polygon) or part.is_empty:
        return part
    shell = _unrolled(part.exterior)
    if shell is None:
        return part
    outline = _wrapped(shell)
    holes = [_wrapped(ring) for hole in part.interiors if (ring := _unrolled(hole)) is not None]
    holes += [shapely.Polygon(hole) for hole in part.interiors if _unrolled(hole) is None]
    return shapely.difference(outline, shapely.union_all(holes)) if holes else outline


def _unrolled(ring: Any) -> FloatArray | None:
    """Vertices (N, 2) of a closed ring with continuous longitude; None if no longitude jumps."""
    points: FloatArray = np.asarray(ring.coords, np.float64)[:, :2]
    lon = points[:, 0]
    step = np.diff(lon)
    # from exactly -180 to exactly 180 is no jump: a box round the Earth has such a side along a parallel
    jump = (np.abs(step) > 180) & ~((np.abs(lon[1:]) == 180) & (np.abs(lon[:-1]) == 180))
    if not jump.any() and np.abs(lon).max() <= 180:
        return None
    step = np.where(jump, step - 360 * np.round(step / 360), step)
    return np.column_stack([lon[0] + np.concatenate([[0], np.cumsum(step)]), points[:, 1]])


def _wrapped(ring: FloatArray) -> BaseGeometry:
    """Polygon in -180..180 of a ring with continuous longitude; a ring round a pole contains the pole."""
    round_pole = abs(ring[-1, 0] - ring[0, 0]) > 180
    if round_pole or (np.abs(np.diff(ring, axis=0)) > 1e-9).all(axis=1).any():
        # no box in degrees: its sides are shortest paths on the ground, which are curves in degrees
        ring = refined_ring(ring, step_rad=STEP_RAD)
    if round_pole:
        pole = 90.0 if ring[:, 1].mean() > 0 else -90.0
        first, last = ring[0], ring[-1]
        ring = np.vstack([ring, [last[0], pole], [first[0], pole], first])
    polygon = _valid(shapely.Polygon(ring))
    west, _, east, _ = polygon.bounds
    turns = range(int(np.floor((west + 180) / 360)), int(np.floor((east + 180) / 360)) + 1)
    slices = []
    for turn in turns:
        window = shapely.box(360 * turn - 180, -91, 360 * turn + 180, 91)
        piece = shapely.intersection(polygon, window)
        pieces = [part for part in shapely.get_parts(piece) if part.area > 0]
        slices += [shapely.transform(part, lambda xy, t=turn: xy - [360 * t, 0]) for part in pieces]
    return shapely.union_all(slices) if slices else polygon
