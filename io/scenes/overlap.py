"""Areas and overlaps of scenes on the ground, correct everywhere, also at the antimeridian and the poles.

Each overlap is computed in its own equal-area plane, which touches the Earth at one of the two outlines. No
single projection of the world is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import shapely

from crosstie.io.scenes.convex import common_area, signed_area
from crosstie.io.scenes.sphere import LONG_SIDE_RAD, equal_area, on_sphere, refined, unit_vectors

if TYPE_CHECKING:
    from crosstie.io.scenes.sphere import Geometries
    from crosstie.types import BoolArray, FloatArray, IntArray

CHUNK_ROWS = 4096
"""Overlaps computed at once, as many as fit a processor cache. Changes no result."""

CORNERS = (4, 8)
"""Convex outlines with at most this number of corners are compared by arithmetic, others as geometries."""

STRAIGHT, ALIKE = 2e-4, 1e-3
"""Corners are dropped if they are closer to the line between their neighbours than the first share of the
outline's size, and if this changes its area by less than the second share."""

SNAP_M = 0.001
"""Grid on which the halves of an outline that was cut at the antimeridian are joined again, metres."""


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """Outlines on the ground, as columns."""

    outlines: Geometries
    """(N,) in degrees, with enough vertices."""
    vectors: FloatArray
    """(M, 3) all vertices on the unit sphere, outline after outline."""
    first: IntArray
    """(N + 1,) first row of each outline in `vectors`."""
    centre: FloatArray
    """(N, 3) a point in the middle of each outline, on the unit sphere."""
    several: BoolArray
    """(N,) True if the outline has several parts, which may touch in the plane."""
    corners: FloatArray
    """(N, 8, 3) corners of each convex outline, anticlockwise, the last one repeated."""
    corner_count: IntArray
    """(N,) number of corners; 0 if the outline is not convex or has more than 8."""
    area_m2: FloatArray
    """(N,) square metres."""

    def __len__(self) -> int:
        return len(self.outlines)

    @classmethod
    def of(cls, outlines: Geometries) -> Self:
        """Measure polygons.

        If every side of an outline follows a meridian or a parallel, it is a box in degrees and stays one.
        The sides of any other outline are shortest paths on the ground, as those of scenes are.

        Parameters
        ----------
        outlines : Geometries
            (N,) polygons as `footprint.lonlat_outlines` makes them, none empty.
        """
        fine = refined(outlines)
        vectors = unit_vectors(shapely.get_coordinates(fine))
        counts = shapely.get_num_coordinates(fine)
        first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        amid = np.add.reduceat(vectors, first[:-1], axis=0) if len(fine) else np.zeros((0, 3))
        length = np.linalg.norm(amid, axis=1, keepdims=True)
        centre = np.where(length > 1e-9, amid / np.maximum(length, 1e-9), [0.0, 0.0, 1.0])
        several = shapely.get_num_geometries(fine) > 1
        count, most = len(fine), CORNERS[-1]
        corners, number, area_m2 = np.zeros((count, most, 3)), np.zeros(count, np.int64), np.zeros(count)
        found = cls(fine, vectors, first, centre, several, corners, number, area_m2)
        for rows in _chunks(np.arange(count)):
            found._fill(rows)
        return found

    def _fill(self, rows: IntArray) -> None:
        """Measure each outline in its own plane, and store the corners of the convex ones."""
        centre = self.centre[rows]
        plane = self.flat(rows, centre)
        self.area_m2[rows] = shapely.area(plane)
        hull = shapely.convex_hull(plane)
        plain = shapely.simplify(hull, STRAIGHT * np.sqrt(self.area_m2[rows]))
        size = shapely.get_num_coordinates(plain) - 1
        like = np.abs(shapely.area(plain) - self.area_m2[rows]) <= ALIKE * self.area_m2[rows]
        good = np.flatnonzero(like & (size <= CORNERS[-1]) & (self.area_m2[rows] > 0))
        ring = shapely.get_exterior_ring(shapely.orient_polygons(plain[good]))
        first = np.concatenate([[0], np.cumsum(size[good] + 1)])[:-1]
        places = first[:, None] + np.minimum(np.arange(CORNERS[-1]), size[good, None] - 1)
        xy = shapely.get_coordinates(ring)[places] if len(good) else np.zeros((0, CORNERS[-1], 2))
        self.corners[rows[good]] = on_sphere(xy, centre[good])
        self.corner_count[rows[good]] = size[good]
        self.area_m2[rows[good]] = signed_area(xy)

    def take(self, rows: IntArray) -> Self:
        """Keep only these rows, in this order."""
        counts = self.first[rows + 1] - self.first[rows]
        return type(self)(
            self.outlines[rows],
            self.vectors[self._places(rows)],
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            self.centre[rows],
            self.several[rows],
            self.corners[rows],
            self.corner_count[rows],
            self.area_m2[rows],
        )

    def flat(self, rows: IntArray, centre: FloatArray) -> Geometries:
        """Project outlines of `rows` (K,) to equal-area planes that touch the sphere at `centre`, metres."""
        counts = self.first[rows + 1] - self.first[rows]
        whose = np.repeat(np.arange(len(rows)), counts)
        xy = equal_area(self.vectors[self._places(rows)][:, None], centre[whose])[:, 0]
        plane: Geometries = shapely.set_coordinates(self.outlines[rows], xy)
        apart = np.flatnonzero(self.several[rows] | ~shapely.is_valid(plane))
        if len(apart):
            whole = shapely.make_valid(plane[apart])
            plane[apart] = shapely.union_all(whole[:, None], axis=1, grid_size=SNAP_M)
        return plane

    def _places(self, rows: IntArray) -> IntArray:
        """Rows of `vectors` that hold the vertices of `rows`."""
        counts = self.first[rows + 1] - self.first[rows]
        places: IntArray = np.repeat(self.first[rows] - np.cumsum(counts) + counts, counts)
        return places + np.arange(counts.sum())


def overlaps(a: Ground, b: Ground, i: IntArray, j: IntArray) -> FloatArray:
    """Compute the common area of pairs of outlines.

    Parameters
    ----------
    a : Ground
        The first outlines.
    b : Ground
        The second outlines.
    i : IntArray
        (K,) rows of `a`.
    j : IntArray
        (K,) rows of `b`.

    Returns
    -------
    FloatArray
        (K,) common area as a share of the smaller of the two, 0..1.
    """
    common = np.zeros(len(i))
    counts = np.maximum(a.corner_count[i], b.corner_count[j])
    counts[(a.corner_count[i] == 0) | (b.corner_count[j] == 0)] = CORNERS[-1] + 1
    done = 0
    for most in CORNERS:
        for part in _chunks(np.flatnonzero((counts > done) & (counts <= most))):
            centre = a.centre[i[part]]
            ours = equal_area(a.corners[i[part], :most], centre)
            theirs = equal_area(b.corners[j[part], :most], centre)
            common[part] = common_area(ours, theirs)
        done = most
    for part in _chunks(np.flatnonzero(counts > done)):
        centre = a.centre[i[part]]
        common[part] = shapely.area(shapely.intersection(a.flat(i[part], centre), b.flat(j[part], centre)))
    share: FloatArray = np.minimum(common / np.minimum(a.area_m2[i], b.area_m2[j]), 1.0)
    return share


def search_boxes(outlines: Geometries) -> tuple[Geometries, IntArray]:
    """Make boxes in degrees for a spatial search, large enough for sides that bulge.

    Parameters
    ----------
    outlines : Geometries
        (N,) in degrees.

    Returns
    -------
    Geometries
        (K,) a box for each part of an outline.
    IntArray
        (K,) the outline that each box belongs to.
    """
    parts, owner = shapely.get_parts(outlines, return_index=True)
    west, south, east, north = shapely.bounds(parts).T
    # a great circle rises above the parallel of its ends by about its longitude squared over 16, and never by
    # more than half its own length
    bulge = np.degrees(np.minimum(np.radians(east - west) ** 2 / 12, LONG_SIDE_RAD / 2))
    return shapely.box(west, south - bulge, east, north + bulge), owner.astype(np.int64)


def _chunks(rows: IntArray) -> list[IntArray]:
    return [rows[start : start + CHUNK_ROWS] for start in range(0, len(rows), CHUNK_ROWS)]
