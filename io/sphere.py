"""Areas and overlaps on the ground, right everywhere: over the antimeridian and at the poles too.

Every overlap is computed in an equal-area plane of its own that touches the Earth at one of the two outlines,
so that no projection of the world has to do. Latitudes become authalic first: areas on that sphere are those
of the ellipsoid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import shapely

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.types import FloatArray

    Geometries = NDArray[np.object_]
    IntArray = NDArray[np.int64]

RADIUS_M = 6_371_007.181
"""Of the sphere with the area of WGS 84."""

E2 = 0.0066943799901413165
"""Eccentricity of WGS 84, squared."""

PARALLEL_STEP_DEG = 0.5
"""Sides of boxes in degrees follow their parallel in steps of at most this."""

LONG_SIDE_RAD = 0.06
"""Sides that are longer, about 400 km, are refined: short ones are straight enough in the plane."""

HALF_TURN_DEG = 179.999
"""A side over more longitude than this has no shortest way: it is taken to follow its parallel."""

CHUNK = 50_000
"""Overlaps computed at once; bounds the memory, changes no result."""

SNAP_M = 0.001
"""Grid on which halves of an outline that was cut at the antimeridian grow together again."""


def unit_vectors(lonlat: FloatArray) -> FloatArray:
    """Positions (N, 2) in degrees -> (N, 3) on the authalic unit sphere."""
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
    """Add vertices to a line (N, 2), so that it follows the shortest ways between those given.

    Longitudes may run on beyond 180 degrees, and do so in the result. Vertices are at most `step_rad` apart.
    """
    pieces = []
    for (lon, lat), (to_lon, to_lat) in zip(lonlat[:-1], lonlat[1:], strict=True):
        ends = unit_vectors(np.array([[lon, lat], [to_lon, to_lat]]))
        angle = float(np.arccos(np.clip(ends[0] @ ends[1], -1, 1)))
        t = np.linspace(0, 1, int(np.ceil(angle / step_rad)) + 1)[:-1]
        if abs(to_lon - lon) > HALF_TURN_DEG or angle == 0:
            pieces.append(np.column_stack([lon + t * (to_lon - lon), lat + t * (to_lat - lat)]))
            continue
        far = np.sin((1 - t) * angle)[:, None] * _plain(lon, lat) + np.sin(t * angle)[:, None] * _plain(
            to_lon, to_lat
        )
        east = np.degrees(np.arctan2(far[:, 1], far[:, 0]))
        piece = np.column_stack(
            [
                east + 360 * np.round((lon + t * (to_lon - lon) - east) / 360),
                np.degrees(np.arctan2(far[:, 2], np.hypot(far[:, 0], far[:, 1]))),
            ]
        )
        piece[0] = lon, lat  # to the last bit: the ring must close
        pieces.append(piece)
    return np.vstack([*pieces, lonlat[-1:]])


def _plain(lon: float, lat: float) -> FloatArray:
    x, y = np.radians([lon, lat])
    return np.array([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)])


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """Outlines on the ground, as columns."""

    outlines: Geometries
    """(N,) in degrees, with vertices enough."""
    vectors: FloatArray
    """(M, 3) their vertices on the unit sphere, outline after outline."""
    first: IntArray
    """(N + 1,) where the vertices of each outline begin."""
    centre: FloatArray
    """(N, 3) a point amid each outline, on the unit sphere."""
    several: NDArray[np.bool_]
    """(N,) it has more than one part: in the plane they may touch."""
    area_m2: FloatArray
    """(N,) square metres."""

    def __len__(self) -> int:
        return len(self.outlines)

    @classmethod
    def of(cls, outlines: Geometries) -> Self:
        """Take outlines as `footprint.lonlat_outlines` makes them; none may be empty.

        An outline whose every side follows a meridian or a parallel is a box in degrees and stays one; the
        sides of any other are the shortest ways on the ground, as those of scenes are.
        """
        fine = _refined(outlines)
        vectors = unit_vectors(shapely.get_coordinates(fine))
        counts = shapely.get_num_coordinates(fine)
        first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        amid = np.add.reduceat(vectors, first[:-1], axis=0) if len(fine) else np.zeros((0, 3))
        length = np.linalg.norm(amid, axis=1, keepdims=True)
        centre = np.where(length > 1e-9, amid / np.maximum(length, 1e-9), [0.0, 0.0, 1.0])
        half = cls(fine, vectors, first, centre, shapely.get_num_geometries(fine) > 1, np.zeros(len(fine)))
        every = np.arange(len(fine))
        areas = [
            shapely.area(half.flat(rows, centre[rows]))
            for rows in np.split(every, range(CHUNK, len(fine), CHUNK))
        ]
        return cls(half.outlines, vectors, first, centre, half.several, np.concatenate(areas))

    def take(self, rows: IntArray) -> Self:
        """Only these rows, in this order."""
        counts = self.first[rows + 1] - self.first[rows]
        return type(self)(
            self.outlines[rows],
            self.vectors[self._places(rows)],
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            self.centre[rows],
            self.several[rows],
            self.area_m2[rows],
        )

    def _places(self, rows: IntArray) -> IntArray:
        """Where in `vectors` the vertices of `rows` are."""
        counts = self.first[rows + 1] - self.first[rows]
        places: IntArray = np.repeat(self.first[rows] - np.cumsum(counts) + counts, counts)
        return places + np.arange(counts.sum())

    def flat(self, rows: IntArray, centre: FloatArray) -> Geometries:
        """Outlines of `rows` (K,) in equal-area planes that touch the sphere at `centre` (K, 3), metres."""
        counts = self.first[rows + 1] - self.first[rows]
        east = np.column_stack([-centre[:, 1], centre[:, 0], np.zeros(len(centre))])
        length = np.linalg.norm(east, axis=1, keepdims=True)
        east = np.where(length > 1e-12, east / np.maximum(length, 1e-12), [1.0, 0.0, 0.0])
        north = np.cross(centre, east)
        seen, whose = self.vectors[self._places(rows)], np.repeat(np.arange(len(rows)), counts)
        # Snyder (1987), equations 24-2, 22-4 and 22-5: Lambert's azimuthal equal-area projection
        height = np.einsum("ij,ij->i", seen, centre[whose])
        scale = RADIUS_M * np.sqrt(2 / np.maximum(1 + height, 1e-9))
        x = scale * np.einsum("ij,ij->i", seen, east[whose])
        y = scale * np.einsum("ij,ij->i", seen, north[whose])
        plane = shapely.set_coordinates(self.outlines[rows], np.column_stack([x, y]))
        apart = np.flatnonzero(self.several[rows] | ~shapely.is_valid(plane))
        if len(apart):
            whole = shapely.make_valid(plane[apart])
            plane[apart] = shapely.union_all(whole[:, None], axis=1, grid_size=SNAP_M)
        return plane


def overlaps(a: Ground, b: Ground, i: IntArray, j: IntArray) -> FloatArray:
    """Common area of a[i] and b[j] (K,), as a share of the smaller of the two, 0..1."""
    shares = np.zeros(len(i))
    for start in range(0, len(i), CHUNK):
        part = slice(start, start + CHUNK)
        rows, cols = i[part], j[part]
        centre = a.centre[rows]
        common = shapely.area(shapely.intersection(a.flat(rows, centre), b.flat(cols, centre)))
        shares[part] = np.minimum(common / np.minimum(a.area_m2[rows], b.area_m2[cols]), 1.0)
    return shares


def search_boxes(outlines: Geometries) -> tuple[Geometries, IntArray]:
    """Boxes in degrees (K,) round the parts of outlines, sides that bulge included, and whose each is (K,)."""
    parts, owner = shapely.get_parts(outlines, return_index=True)
    west, south, east, north = shapely.bounds(parts).T
    # a great circle rises above the parallel of its ends by about its longitude squared over 16, and never by
    # more than half its own length
    bulge = np.degrees(np.minimum(np.radians(east - west) ** 2 / 12, LONG_SIDE_RAD / 2))
    return shapely.box(west, south - bulge, east, north + bulge), owner.astype(np.int64)


def _refined(outlines: Geometries) -> Geometries:
    parts, owner = shapely.get_parts(outlines, return_index=True)
    rings, part_of = shapely.get_rings(parts, return_index=True)
    points, ring_of = shapely.get_coordinates(rings, return_index=True)
    inside = np.flatnonzero(np.diff(ring_of) == 0)
    step = np.abs(points[inside + 1] - points[inside])
    slanted = (step > 1e-9).all(axis=1)
    whose = owner[part_of[ring_of[inside]]]
    is_box = np.bincount(whose, weights=slanted, minlength=len(outlines)) == 0
    fine = outlines.copy()
    fine[is_box] = shapely.segmentize(outlines[is_box], PARALLEL_STEP_DEG)
    vectors = unit_vectors(points)
    chord = np.linalg.norm(vectors[inside + 1] - vectors[inside], axis=1)
    long = np.bincount(whose, weights=chord > LONG_SIDE_RAD, minlength=len(outlines)) > 0
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
