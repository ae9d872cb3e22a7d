"""Where each pixel lies on the ground, followed through ground control points and not fitted to them.

One polynomial through the points of a whole swath misses them by tens of metres, and what it misses would be
measured as an error of the image. Here a polynomial holds the smooth part of the geometry only; what it
leaves at the points is interpolated between them, so that every point is met. All in earth-centred
coordinates: they know neither antimeridian nor poles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError
from scipy.interpolate import RBFInterpolator

from crosstie.errors import NoGeoreferenceError
from crosstie.types import ControlPoints, listed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from crosstie.types import BoolArray, FloatArray

Point = tuple[float, float, float, float, float]
"""(row, col, x, y, height): px from the image's outer corner, map coordinates, metres."""

DEGREE = 4
"""Of the polynomial, at most: leaves 1 cm of the geometry of a swath of 250 km from the equator to 80 N."""

FARTHEST_PX, HIGHEST_M = 1e7, 1e5
"""Rows and columns, and heights, beyond these are of no image of the ground: such a point is not used."""

SAME_PX = 1e-6
"""Points whose rows or columns spread less than this lie on one line."""

FEW = 6
"""Fewer points than this fix an affine map and no more."""

FEW_WORST_PX = 0.5
"""An affine map that misses one of a few points by more than this is none: the ground bends between them."""

BLUNDER_PX = 3.0
"""A point closer than this to where the others put it is never left out."""

BLUNDER_SPREADS = 10.0
"""Nor is one within so many times the spread of all: terrain moves points, too."""

FAR = 10.0
"""Times the distance from the middle within which 90 % of the points lie: beyond, a point is a blunder."""

MOST_BLUNDERS = 0.1
"""Share of the points that may be left out. Where more disagree nobody can say which ones are wrong."""

ROUGH_M = 1.0
"""Heights that vary by less tell nothing."""

NODES = 65
"""Nodes per side on which the spline of irregular points is laid out."""

SPLINE_POINTS = 1000
"""With more irregular points, the spline at a node is made of the nearest 60."""

TOLERANCE_PX = 1e-4
"""Newton's method ends here: 1 mm of a 10 m pixel."""

STEPS = 25
"""Newton's method takes three to six; more only where it fails."""

PART = 8_192
"""Positions that are computed at a time: their terms stay in the processor's cache."""

SEMI_MAJOR_M, FLATTENING = 6_378_137.0, 1 / 298.257223563
"""The ellipsoid of WGS 84."""


@dataclass(frozen=True, slots=True, eq=False)
class GroundMap:
    """The map from pixels to the ground through control points, and back."""

    facts: ControlPoints
    """Which points are followed, and how well they agree."""
    centre: FloatArray
    """(2,) row and col that s = t = 0 stand for, px."""
    half: FloatArray
    """(2,) rows and cols of s = t = 1 from there, px: the points span -1..1."""
    reach: FloatArray
    """(2,) |s| and |t| beyond which the map goes on straight."""
    powers: NDArray[np.int64]
    """(K, 2) powers of s and t in the polynomial."""
    coefficients: FloatArray
    """(K, 3) earth-centred x, y, z, metres."""
    terrain: FloatArray
    """(6, 3) how far a height of 1 moves a point, as a polynomial of degree 2: metres."""
    at_s: FloatArray
    """(R,) nodes of what the polynomials leave."""
    at_t: FloatArray
    """(C,)."""
    left: FloatArray
    """(R, C, 4) what they leave, earth-centred x, y, z in metres, and the height in spreads from the mean."""

    def ground(self, row: FloatArray, col: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Longitude and latitude (degrees, WGS 84) of positions in pixels; -180..180."""
        st = (np.column_stack([row, col]) - self.centre) / self.half
        found = np.concatenate([self._evaluate(part)[0] for part in _parts(st)] or [np.zeros((0, 3))])
        return lon_lat(found)

    def locate(self, lon: FloatArray, lat: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Position (row, col) in pixels of places (degrees, WGS 84), by Newton's method.

        Beyond the points the map goes on straight. NaN where the place is on another side of the Earth.
        """
        places = np.column_stack([lon, lat])
        found = np.concatenate([self._invert(part) for part in _parts(places)] or [np.zeros((0, 2))])
        return found[:, 0], found[:, 1]

    def _invert(self, places: FloatArray) -> FloatArray:
        lon, lat = np.radians(places).T
        target = _earth_centred(lon, lat)
        axes = _level(lon, lat)
        st = self._start(target)
        there = np.isfinite(st).all(axis=1)
        going = np.flatnonzero(there)
        for _ in range(STEPS):
            xyz, by_s, by_t = self._evaluate(st[going])
            # Only the level part counts: heights, and the chord between points, are upright.
            east, north = axes[0][going], axes[1][going]
            off = xyz - target[going]
            a, b, e = (_dot(v, east) for v in (by_s, by_t, off))
            c, d, f = (_dot(v, north) for v in (by_s, by_t, off))
            with np.errstate(divide="ignore", invalid="ignore"):
                step = np.column_stack([d * e - b * f, a * f - c * e]) / (a * d - b * c)[:, None]
            # Half the swath at most: the start is better than that, whatever a single cell says.
            st[going] -= np.clip(step, -1, 1)
            going = going[~(np.abs(step * self.half).max(axis=1) < TOLERANCE_PX)]
            if not going.size:
                break
        st[going] = np.nan
        return st * self.half + self.centre

    def _start(self, target: FloatArray) -> FloatArray:
        """Solve the map's affine part at its centre, on the level there."""
        xyz, by_s, by_t = self._evaluate(np.zeros((1, 2)))
        lon, lat = np.radians(lon_lat(xyz))
        east, north = _level(lon, lat)
        matrix = np.array([[_dot(by_s, east), _dot(by_t, east)], [_dot(by_s, north), _dot(by_t, north)]])
        off = target - xyz
        level = np.column_stack([off @ east[0], off @ north[0]])
        st: FloatArray = level @ np.linalg.inv(matrix[..., 0]).T
        st[target @ xyz[0] < 0.5 * SEMI_MAJOR_M**2] = np.nan  # more than 60 degrees away
        return st

    def _evaluate(self, st: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Earth-centred x, y, z (N, 3) and their derivatives by s and t."""
        held = np.clip(st, -self.reach, self.reach)
        designs = _designs(held, self.powers)
        xyz, by_s, by_t = (design @ self.coefficients for design in designs)
        beyond = st - held
        xyz += by_s * beyond[:, :1] + by_t * beyond[:, 1:]
        left, left_s, left_t = _bilinear(self.at_s, self.at_t, self.left, st)
        xyz, by_s, by_t = xyz + left[:, :3], by_s + left_s[:, :3], by_t + left_t[:, :3]
        if self.terrain.any():
            moved, moved_s, moved_t = (design[:, :6] @ self.terrain for design in designs)
            xyz += left[:, 3:] * moved
            by_s += left_s[:, 3:] * moved + left[:, 3:] * moved_s
            by_t += left_t[:, 3:] * moved + left[:, 3:] * moved_t
        return xyz, by_s, by_t


@lru_cache(maxsize=32)
def ground_map(points: tuple[Point, ...], crs: str) -> GroundMap:
    """Make the map that follows ground control points.

    A polynomial of degree 4 at most holds the smooth part; what it leaves at the points is interpolated
    between them: bilinearly where they are a grid of (row, col), with what rough terrain does to them, else
    by a thin-plate spline. Heights of the points tell terrain from geometry while the polynomial is fitted;
    they are not corrected for. Points that contradict the others are left out.

    Parameters
    ----------
    points : (row, col, x, y, height) each; px from the outer corner, coordinates of `crs`, metres
    crs : EPSG code or WKT

    Raises
    ------
    NoGeoreferenceError : the points fix no place: fewer than three, on one line, in two rows, all the same,
        or at odds with one another. The message is to be led by the name of the file

    References
    ----------
    Duchon (1977), Splines minimizing rotation-invariant semi-norms in Sobolev spaces (thin-plate spline).
    """
    if len(points) < 3:
        raise NoGeoreferenceError(
            f"{len(points)} ground control points do not fix its place; at least three do"
        )
    table = np.array(points, np.float64)
    table[np.isinf(table)] = np.nan
    rc, height = table[:, :2], np.nan_to_num(table[:, 4])
    lon, lat = _to_lon_lat(table[:, 2:4], crs)
    xyz = _earth_centred(np.radians(lon), np.radians(lat))
    known = np.asarray(np.isfinite(np.column_stack([rc, xyz])).all(axis=1), np.bool_)
    known &= (np.abs(rc) <= FARTHEST_PX).all(axis=1) & (np.abs(height) <= HIGHEST_M)
    rc[~known], xyz[~known], height[~known] = 0.0, 0.0, 0.0  # their size must not spoil what the others say
    kept = _consistent(rc, xyz, height, known)
    most = max(1, MOST_BLUNDERS * len(points))
    if (~kept).sum() > most and np.ptp(height) <= ROUGH_M:
        # Terrain whose heights somebody has dropped: nothing tells it from blunders, unless the image folds.
        kept = known
    left_out = tuple(int(n) + 1 for n in np.flatnonzero(~kept))
    if len(left_out) > most:
        raise NoGeoreferenceError(
            f"{len(left_out)} of its {len(points)} ground control points contradict the others"
            f" (number {listed(left_out)}); georeference it anew"
        )
    rc, xyz, height = _without_copies(rc[kept], xyz[kept], height[kept])
    _refuse_degenerate(rc, xyz)
    return _followed(rc, xyz, height, left_out)


def _followed(rc: FloatArray, xyz: FloatArray, height: FloatArray, left_out: tuple[int, ...]) -> GroundMap:
    centre, half = (rc.min(axis=0) + rc.max(axis=0)) / 2, np.ptp(rc, axis=0) / 2
    st = (rc - centre) / half
    powers = _powers(st)
    design = _designs(st, powers)[0]
    rough = _rough(height, len(powers))
    both = np.column_stack([design, design[:, :6] * rough[:, None]]) if rough.any() else design
    solution = np.asarray(np.linalg.lstsq(both, xyz, rcond=None)[0], np.float64)
    coefficients = solution[: len(powers)]
    terrain = solution[len(powers) :] if rough.any() else np.zeros((6, 3))
    residual = xyz - both @ solution
    miss = _spare_residual(both, residual)
    if len(rc) < FEW:
        _refuse_bent(residual, coefficients, half)
    nodes = _grid(st)
    at_s, at_t = nodes or (np.linspace(-1, 1, NODES), np.linspace(-1, 1, NODES))
    found = GroundMap(
        facts=ControlPoints(
            count=len(rc),
            left_out=left_out,
            residual_m=float(np.percentile(miss, 95)) if len(miss) else float("nan"),
            irregular=nodes is None and len(rc) >= FEW,
            height_m=(float(height.min()), float(height.max())),
        ),
        centre=centre,
        half=half,
        reach=np.array([1 + min(0.5, 2 / (len(axis) - 1)) if nodes else 1.2 for axis in (at_s, at_t)]),
        powers=powers,
        coefficients=coefficients,
        terrain=terrain,
        at_s=at_s,
        at_t=at_t,
        left=_laid_out(at_s, at_t, st, np.column_stack([residual, rough]), half),
    )
    _refuse_folded(found)
    return found


def _consistent(rc: FloatArray, xyz: FloatArray, height: FloatArray, kept: BoolArray) -> BoolArray:
    """Tell points that fit a smooth map from blunders: first roughly, by an affine, then closely."""
    good = kept.copy()
    for cloud in (rc, xyz):
        far = (
            np.linalg.norm(cloud - np.median(cloud[kept], axis=0), axis=1)
            if kept.any()
            else np.zeros(len(rc))
        )
        good &= ~(far > FAR * np.percentile(far[kept], 90)) if kept.any() else kept
    for degree in (1, DEGREE):
        if good.sum() < FEW or not (rc[good].std(axis=0) > SAME_PX).all():
            return good
        st = (rc[good] - rc[good].mean(axis=0)) / rc[good].std(axis=0)
        powers = _powers(st, degree=degree, spare=2)
        design, rough = _designs(st, powers)[0], _rough(height[good], len(powers))
        both = np.column_stack([design, design[:, :6] * rough[:, None]]) if rough.any() else design
        solution, miss = _least_absolute(both, xyz[good])
        pixel = float(np.linalg.norm(solution[1:3], axis=1).max() / rc[good].std(axis=0).min()) or 1.0
        # An affine misses the bend of a swath as well: there, only what is off by tenths of it counts.
        least = BLUNDER_PX * pixel if degree > 1 else 0.1 * float(np.linalg.norm(solution[1:3]))
        good[np.flatnonzero(good)[miss > max(least, BLUNDER_SPREADS * float(np.median(miss)))]] = False
    return good


def _least_absolute(design: FloatArray, xyz: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Fit by least absolute distances, which blunders do not pull; also how far each point is off, metres."""
    weight = np.ones(len(xyz))
    for _ in range(30):
        root = np.sqrt(weight)[:, None]
        solution = np.asarray(np.linalg.lstsq(design * root, xyz * root, rcond=None)[0], np.float64)
        miss: FloatArray = np.linalg.norm(xyz - design @ solution, axis=1)
        weight = 1 / np.maximum(miss, max(0.01, 1e-3 * float(np.median(miss))))
    return solution, miss


def _powers(st: FloatArray, *, degree: int = DEGREE, spare: float = 1.5) -> NDArray[np.int64]:
    """Powers of s and t that the points determine, constant and linear ones first.

    Parameters
    ----------
    spare : points wanted per term
    """
    most = [len(np.unique(np.round(axis, 3))) - 1 for axis in st.T]
    chosen = [(0, 0), (1, 0), (0, 1)]
    for total in range(2, degree + 1):
        further = [(i, total - i) for i in range(total, -1, -1) if i <= most[0] and total - i <= most[1]]
        if spare * (len(chosen) + len(further)) > len(st):
            break
        chosen += further
    return np.array(chosen, np.int64)


def _rough(height: FloatArray, terms: int) -> FloatArray:
    """Heights in spreads from their mean; 0 where they are level, or the points too few to tell what they do.

    A height moves a point by h / tan(incidence), which changes along the swath as a polynomial of degree 2.
    """
    if np.ptp(height) <= ROUGH_M or terms < 6 or len(height) < 2 * (terms + 6):
        return np.zeros(len(height))
    rough: FloatArray = (height - height.mean()) / height.std()
    return rough


def _spare_residual(design: FloatArray, residual: FloatArray) -> FloatArray:
    """How far each point is from where the others put it, metres; empty where none is to spare."""
    q, _ = np.linalg.qr(design)
    free = 1 - (q**2).sum(axis=1)
    if len(design) <= np.linalg.matrix_rank(design) or (free < 1e-6).any():
        return np.zeros(0)
    miss: FloatArray = np.linalg.norm(residual, axis=1) / free
    return miss


def _grid(st: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Rows and columns of the points (s, t) where at least three quarters of them are there, else None."""
    at_s, at_t = (np.unique(np.round(axis, 9)) for axis in st.T)
    return (at_s, at_t) if len(st) >= 0.75 * len(at_s) * len(at_t) else None


def _laid_out(
    at_s: FloatArray, at_t: FloatArray, st: FloatArray, left: FloatArray, half: FloatArray
) -> FloatArray:
    """Lay what is left at the points out on nodes; where there is no point, by a thin-plate spline."""
    out = np.full((len(at_s), len(at_t), left.shape[1]), np.nan)
    row, col = (
        np.searchsorted(axis, np.round(value, 9)) for axis, value in zip((at_s, at_t), st.T, strict=True)
    )
    inside = (row < len(at_s)) & (col < len(at_t))
    row, col = np.minimum(row, len(at_s) - 1), np.minimum(col, len(at_t) - 1)
    inside &= (np.abs(at_s[row] - st[:, 0]) < 1e-8) & (np.abs(at_t[col] - st[:, 1]) < 1e-8)
    out[row[inside], col[inside]] = left[inside]
    empty = np.isnan(out[..., 0])
    if empty.any() and len(st) < FEW:
        out[empty] = 0.0
    elif empty.any():
        scale = half / half.max()  # round in pixels
        spline = RBFInterpolator(st * scale, left, neighbors=None if len(st) <= SPLINE_POINTS else 60)
        s, t = np.meshgrid(at_s, at_t, indexing="ij")
        out[empty] = spline(np.column_stack([s[empty], t[empty]]) * scale)
    return out


def _refuse_degenerate(rc: FloatArray, xyz: FloatArray) -> None:
    what = f"its {len(rc)} ground control points"
    if len(rc) < 3:
        raise NoGeoreferenceError(
            f"its ground control points mark {len(rc)} pixels, which do not fix its place; at least three do"
        )
    centred = rc - rc.mean(axis=0)
    for cloud in (centred, xyz - xyz.mean(axis=0)):
        values = np.linalg.svd(cloud, compute_uv=False)
        if values[1] <= 1e-4 * values[0]:
            raise NoGeoreferenceError(f"{what} lie on one line, which fixes no place; give points beside it")
    if len(rc) < FEW:
        return
    st = centred / np.abs(centred).max(axis=0)
    s, t = st[:, 0], st[:, 1]
    values = np.linalg.svd(np.column_stack([s * 0 + 1, s, t, s * s, s * t, t * t]), compute_uv=False)
    if values[-1] <= 1e-4 * values[0]:
        raise NoGeoreferenceError(
            f"{what} lie in two rows, which do not say how the image bends between them;"
            " give points in three rows and three columns"
        )


def _refuse_bent(residual: FloatArray, coefficients: FloatArray, half: FloatArray) -> None:
    """Too few points for more than an affine map: they must lie on one."""
    pixel = np.linalg.norm(coefficients[1:3], axis=1) / half
    worst = float(np.linalg.norm(residual, axis=1).max() / pixel.min())
    if worst > FEW_WORST_PX:
        raise NoGeoreferenceError(
            f"its {len(residual)} ground control points miss an affine map by {worst:.1f} px, and are too few"
            " for more; give at least nine, in three rows and three columns"
        )


def _refuse_folded(found: GroundMap) -> None:
    """Where the image turns over between two points, a place has two pixels."""
    s, t = np.meshgrid((found.at_s[1:] + found.at_s[:-1]) / 2, (found.at_t[1:] + found.at_t[:-1]) / 2)
    xyz, by_s, by_t = found._evaluate(np.column_stack([s.ravel(), t.ravel()]))
    turn = _dot(np.cross(by_s, by_t), xyz)
    if not ((turn > 0).all() or (turn < 0).all()):
        raise NoGeoreferenceError(
            f"its {found.facts.count} ground control points contradict one another: the image folds between"
            " them; georeference it anew"
        )


def _without_copies(
    rc: FloatArray, xyz: FloatArray, height: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Points of one pixel become their mean."""
    unique, which = np.unique(rc, axis=0, return_inverse=True)
    which = which.ravel()
    if len(unique) == len(rc):
        return rc, xyz, height
    count = np.bincount(which)
    mean = [np.bincount(which, weights=values) / count for values in (*xyz.T, height)]
    return unique, np.column_stack(mean[:3]), mean[3]


def _to_lon_lat(xy: FloatArray, crs: str) -> tuple[FloatArray, FloatArray]:
    said = "the coordinate system of its ground control points gives no place on the Earth; give them another"
    try:
        flat = CRS.from_user_input(crs).to_2d()
        if not (flat.is_geographic or flat.is_projected):
            raise NoGeoreferenceError(said)
        there = Transformer.from_crs(flat, "EPSG:4326", always_xy=True)
        lon, lat = there.transform(xy[:, 0], xy[:, 1])
    except (CRSError, ProjError):
        raise NoGeoreferenceError(said) from None
    return np.asarray(lon), np.asarray(lat)


def _earth_centred(lon: FloatArray, lat: FloatArray) -> FloatArray:
    """Earth-centred x, y, z (N, 3) in metres of places on the ellipsoid, radians.

    Heights stay out: in the raster's plane they are in the points' places already.
    """
    e2 = FLATTENING * (2 - FLATTENING)
    n = SEMI_MAJOR_M / np.sqrt(1 - e2 * np.sin(lat) ** 2)
    return np.column_stack(
        [n * np.cos(lat) * np.cos(lon), n * np.cos(lat) * np.sin(lon), n * (1 - e2) * np.sin(lat)]
    )


def lon_lat(xyz: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Longitude and latitude, degrees, of earth-centred places (N, 3) in metres."""
    lon, lat, _ = _GEODETIC.transform(xyz[:, 0], xyz[:, 1], xyz[:, 2])
    return np.asarray(lon), np.asarray(lat)


_GEODETIC = Transformer.from_crs("EPSG:4978", "EPSG:4979", always_xy=True)


def _level(lon: FloatArray, lat: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Unit vectors (N, 3) to the east and to the north, of radians."""
    east = np.column_stack([-np.sin(lon), np.cos(lon), 0 * lon])
    north = np.column_stack([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)])
    return east, north


def _designs(st: FloatArray, powers: NDArray[np.int64]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Terms (N, K) of the polynomial and their derivatives by s and t."""
    s = np.vander(st[:, 0], DEGREE + 1, increasing=True)
    t = np.vander(st[:, 1], DEGREE + 1, increasing=True)
    i, j = powers.T
    by_s = s[:, np.maximum(i - 1, 0)] * i * t[:, j]
    by_t = s[:, i] * t[:, np.maximum(j - 1, 0)] * j
    return s[:, i] * t[:, j], by_s, by_t


def _bilinear(
    at_s: FloatArray, at_t: FloatArray, values: FloatArray, st: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Values (N, 3) between nodes and their derivatives by s and t; the edge's value beyond it."""
    i, u, per_s = _cell(at_s, st[:, 0])
    j, v, per_t = _cell(at_t, st[:, 1])
    a, b, c, d = values[i, j], values[i, j + 1], values[i + 1, j], values[i + 1, j + 1]
    top, bottom = a + (b - a) * v, c + (d - c) * v
    by_t = ((b - a) * (1 - u) + (d - c) * u) * per_t
    return top + (bottom - top) * u, (bottom - top) * per_s, by_t


def _cell(nodes: FloatArray, at: FloatArray) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
    """Cell of each position, its share of the cell, and how that grows; 0 beyond the nodes."""
    index = np.clip(np.searchsorted(nodes, at) - 1, 0, len(nodes) - 2)
    width = nodes[index + 1] - nodes[index]
    share = (at - nodes[index]) / width
    inside = (share >= 0) & (share <= 1)
    return index, np.clip(share, 0, 1)[:, None], np.where(inside, 1 / width, 0.0)[:, None]


def _dot(a: FloatArray, b: FloatArray) -> FloatArray:
    product: FloatArray = np.einsum("ij,ij->i", a, b)
    return product


def _parts(values: FloatArray) -> Iterator[FloatArray]:
    return (values[n : n + PART] for n in range(0, len(values), PART))
