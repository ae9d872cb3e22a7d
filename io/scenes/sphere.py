"""The Earth as a sphere of equal area: points as unit vectors, and equal-area planes that touch it anywhere.

Latitudes are first made authalic, so that areas on the sphere are those of the ellipsoid.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import shapely

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.types import BoolArray, FloatArray

    Geometries = NDArray[np.object_]

RADIUS_M = 6_371_007.181
"""Radius of the sphere with the area of WGS 84, metres."""

E2 = 0.0066943799901413165
"""Eccentricity of WGS 84, squared."""

PARALLEL_STEP_DEG = 0.5
"""Longest step along a parallel, for sides of boxes in degrees."""

LONG_SIDE_RAD = 0.06
"""Longer sides, above about 400 km, get more vertices. Shorter ones are straight enough in the plane."""

HALF_TURN_DEG = 179.999
"""A side over more longitude than this has no unique shortest path: it is assumed to follow its parallel."""

FAST_DEG, MOST_PIECES = 3.0, 5000
"""Longest step of longitude along a refined side; a side over the pole stops at this number of pieces."""

BOWED = 0.005
"""A box in degrees has straight sides if its parallel bends by less than this share of its height."""


def unit_vectors(lonlat: FloatArray) -> FloatArray:
    """Convert positions (N, 2) in degrees to points (N, 3) of the authalic unit sphere."""
    lon, lat = np.radians(lonlat[:, 0]), np.radians(lonlat[:, 1])
    # Snyder (1987), Map Projections, equation 3-18
    lat = (
        lat
        - (E2 / 3 + 31 * E2**2 / 180 + 517 * E2**3 / 5040) * np.sin(2 * lat)
        + (23 * E2**2 / 360 + 251 * E2**3 / 3780) * np.sin(4 * lat)
        - (761 * E2**3 / 45360) * np.sin(6 * lat)
    )
    flat = np.cos(lat)
    return np.column_stack([flat * np.cos(lon), flat * np.sin(lon), np.sin(lat)])


def refined_ring(lonlat: FloatArray, *, step_rad: float = LONG_SIDE_RAD / 4) -> FloatArray:
    """Add vertices to a line, so that it follows the shortest paths between the given ones.

    Parameters
    ----------
    lonlat : FloatArray
        (N, 2) in degrees. Longitudes may continue beyond 180, also in the result.
    step_rad : float, optional
        Longest distance between vertices; near a pole, where the longitude changes fast, they are closer.

    Returns
    -------
    FloatArray
        (M, 2) in degrees.
    """
    pieces = [_shortest_path(here, there, step_rad) for here, there in pairwise(lonlat.tolist())]
    return np.vstack([*pieces, lonlat[-1:]])


def _shortest_path(here: list[float], there: list[float], step_rad: float) -> FloatArray:
    """Vertices of one side, with its first end and without its last."""
    turn = there[0] - here[0]
    ends = _plain(*here), _plain(*there)
    angle = float(np.arccos(np.clip(ends[0] @ ends[1], -1, 1)))
    pieces = max(int(np.ceil(angle / step_rad)), 1)
    while True:
        t = np.linspace(0, 1, pieces + 1)
        if abs(turn) > HALF_TURN_DEG or angle == 0:
            return np.column_stack([here[0] + t * turn, here[1] + t * (there[1] - here[1])])[:-1]
        way = np.outer(np.sin((1 - t) * angle), ends[0]) + np.outer(np.sin(t * angle), ends[1])
        lon = here[0] + np.unwrap(np.arctan2(way[:, 1], way[:, 0]) - np.radians(here[0])) * (180 / np.pi)
        lon += 360 * np.round((here[0] - lon[0]) / 360)
        if np.abs(np.diff(lon)).max() < FAST_DEG or pieces > MOST_PIECES:
            break
        pieces *= 2
    lat = np.degrees(np.arctan2(way[:, 2], np.hypot(way[:, 0], way[:, 1])))
    found = np.column_stack([lon, lat])[:-1]
    found[0] = here  # to the last bit: the ring must close
    return found


def _plain(lon: float, lat: float) -> FloatArray:
    x, y = np.radians([lon, lat])
    return np.array([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)])


def equal_area(vectors: FloatArray, centre: FloatArray) -> FloatArray:
    """Project points (K, P, 3) of the unit sphere to planes that touch it at `centre`: (K, P, 2), metres."""
    seen = vectors @ _axes(centre)
    # Snyder (1987), equations 24-2, 22-4 and 22-5: Lambert's azimuthal equal-area projection
    scale = RADIUS_M * np.sqrt(2 / np.maximum(1 + seen[..., 2], 1e-9))
    flat: FloatArray = seen[..., :2] * scale[..., None]
    return flat


def on_sphere(xy: FloatArray, centre: FloatArray) -> FloatArray:
    """Invert `equal_area`: points (K, P, 2) of planes, metres, to points (K, P, 3) of the unit sphere."""
    far = np.linalg.norm(xy, axis=2, keepdims=True) / RADIUS_M
    angle = 2 * np.arcsin(np.minimum(far / 2, 1.0))
    way = xy / RADIUS_M * (np.sin(angle) / np.maximum(far, 1e-15))
    axes = _axes(centre)
    found: FloatArray = way @ axes[:, :, :2].swapaxes(1, 2) + np.cos(angle) * centre[:, None]
    return found


def _axes(centre: FloatArray) -> FloatArray:
    """East, north and up as columns (K, 3, 3), at points (K, 3) of the unit sphere."""
    east = np.column_stack([-centre[:, 1], centre[:, 0], np.zeros(len(centre))])
    length = np.linalg.norm(east, axis=1, keepdims=True)
    east = np.where(length > 1e-12, east / np.maximum(length, 1e-12), [1.0, 0.0, 0.0])
    return np.stack([east, np.cross(centre, east), centre], axis=2)


def refined(outlines: Geometries) -> Geometries:
    """Add vertices to outlines (N,) whose sides are not straight in the plane."""
    parts, owner = shapely.get_parts(outlines, return_index=True)
    rings, part_of = shapely.get_rings(parts, return_index=True)
    points, ring_of = shapely.get_coordinates(rings, return_index=True)
    inside = np.flatnonzero(np.diff(ring_of) == 0)
    here, there = points[inside], points[inside + 1]
    whose = owner[part_of[ring_of[inside]]]

    def any_of(sides: BoolArray) -> BoolArray:
        return np.bincount(whose, weights=sides, minlength=len(outlines)) > 0

    step = np.abs(there - here)
    vectors = unit_vectors(points)
    long = any_of(np.linalg.norm(vectors[inside + 1] - vectors[inside], axis=1) > LONG_SIDE_RAD)
    is_box = ~any_of((step > 1e-9).all(axis=1))
    # a parallel differs from the shortest path by its longitude squared over 16, times sin 2 lat
    bow = np.radians(step[:, 0]) ** 2 / 16 * np.abs(np.sin(2 * np.radians(here[:, 1])))
    south, north = shapely.bounds(outlines)[:, 1], shapely.bounds(outlines)[:, 3]
    bowed = any_of(bow > BOWED * np.radians(north - south)[whose])
    fine = outlines.copy()
    boxes = is_box & (long | bowed)
    fine[boxes] = shapely.segmentize(outlines[boxes], PARALLEL_STEP_DEG)
    for n in np.flatnonzero(long & ~is_box):
        fine[n] = _refined_polygon(outlines[n])
    return fine


def _refined_polygon(outline: shapely.Geometry) -> shapely.Geometry:
    polygons = [
        shapely.Polygon(
            refined_ring(np.asarray(part.exterior.coords)),
            [refined_ring(np.asarray(hole.coords)) for hole in part.interiors],
        )
        for part in shapely.get_parts(outline)
        if isinstance(part, shapely.Polygon)
    ]
    return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)
