"""A made-up land that an optical sensor and a SAR see differently, at any point and not only at pixels.

Both sensors share what land shares: parcels, hedges, roads, water, a town, relief. What each of them sees
*in* a parcel is drawn independently, so that neither image is a function of the other and only structure can
be matched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.fft import fftfreq, irfft2, rfft2, rfftfreq
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.types import FloatArray

PIXEL_M = 10.0
"""Width over which an edge fades, metres: the pixel of both sensors."""

MARGIN_M = 600.0
"""The land goes on for this long outside its nominal square, metres."""

CROPS = np.array(
    [
        [62, 92, 88],
        [84, 118, 92],
        [148, 142, 124],
        [176, 160, 134],
        [120, 106, 100],
        [92, 90, 92],
        [104, 128, 108],
    ],
    np.float64,
)
"""Colours of farmland as a true-colour product shows them, digital numbers."""

FOREST, GARDEN, WATER, ASPHALT, HEDGE = (
    np.array(rgb, np.float64)
    for rgb in ([48, 70, 76], [66, 88, 84], [38, 62, 76], [118, 118, 124], [46, 66, 66])
)


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """A smooth random field of mean 0 and deviation 1 that repeats itself far away."""

    grid: FloatArray
    step_m: float

    @classmethod
    def draw(cls, rng: np.random.Generator, *, length_m: float, step_m: float, slope: float) -> Noise:
        """Spectrum of power-law `slope` in amplitude; `length_m` until it repeats."""
        n = max(16, int(np.ceil(length_m / step_m)))
        frequency = np.hypot(fftfreq(n)[:, None], rfftfreq(n)[None, :])
        frequency[0, 0] = np.inf
        grid = irfft2(rfft2(rng.standard_normal((n, n))) * frequency**-slope, s=(n, n))
        return cls((grid - grid.mean()) / grid.std(), step_m)

    def at(self, x: FloatArray, y: FloatArray) -> FloatArray:
        value: FloatArray = map_coordinates(
            self.grid, np.stack([y, x]) / self.step_m, order=1, mode="grid-wrap"
        )
        return value


@dataclass(frozen=True, slots=True, eq=False)
class Parcels:
    """Voronoi cells, each with its own look to either sensor."""

    sites: cKDTree
    colour: FloatArray
    """(N, 3) optical, digital numbers."""
    sar_db: FloatArray
    """(N,) backscatter, dB."""
    grain: FloatArray
    """(N, 2) how strongly and which way the fine texture shows to optical and to SAR."""


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Roads and a river as dense points on their middle lines."""

    points: cKDTree
    half_width_m: FloatArray
    """(N,) of the line that each point belongs to."""
    sar_db: FloatArray
    """(N,) backscatter, dB."""
    colour: FloatArray
    """(N, 3) optical, digital numbers."""

    def at(self, xy: FloatArray) -> tuple[FloatArray, NDArray[np.int64]]:
        """Cover (0..1) by the nearest line, and its point."""
        reach = float(self.half_width_m.max()) + PIXEL_M
        distance, nearest = self.points.query(xy, distance_upper_bound=reach)
        nearest = np.minimum(nearest, len(self.half_width_m) - 1)
        return _cover(self.half_width_m[nearest] - distance), nearest


@dataclass(frozen=True, slots=True, eq=False)
class Town:
    """Streets at right angles, and between them houses and gardens."""

    centre: FloatArray
    radius_m: float
    cos_sin: tuple[float, float]
    plots: FloatArray
    """(K, 5) of a plot by its hash: red, green, blue, SAR dB, share built on."""

    def at(
        self, x: FloatArray, y: FloatArray, ragged: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Cover (0..1), colour (N, 3) and SAR dB (N,)."""
        c, s = self.cos_sin
        dx, dy = x - self.centre[0], y - self.centre[1]
        inside = _cover((self.radius_m * (1 + 0.25 * ragged) - np.hypot(dx, dy)) / 4)
        u, v = c * dx + s * dy, -s * dx + c * dy
        # houses 30 m deep in blocks of two rows, streets every 90 m one way and 150 m the other
        street = np.maximum(_cover(7 - _to_multiple(u, 90.0)), _cover(6 - _to_multiple(v, 150.0)))
        i, j = np.floor(u / 30).astype(np.int64), np.floor(v / 37.5).astype(np.int64)
        plot = self.plots[_hash(i, j) % len(self.plots)]
        house = _cover(plot[:, 4] * 15 - np.maximum(np.abs(u - 30 * i - 15), np.abs(v - 37.5 * j - 18.75)))
        colour = GARDEN + house[:, None] * (plot[:, :3] - GARDEN)
        colour += street[:, None] * (ASPHALT - colour)
        db = _mix_db(-14.5, plot[:, 3], house)
        return inside, colour, _mix_db(db, -19.0, street)


@dataclass(frozen=True, slots=True, eq=False)
class Land:
    """Everything that stands on the ground, in metres east and north of its south-west corner."""

    parcels: Parcels
    roads: Lines
    river: Lines
    trees: cKDTree
    town: Town
    elevation: Noise
    fine: Noise
    ragged: Noise

    def optical(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """True colour (3, N) in digital numbers at points (N,), before haze and noise of the sensor."""
        colour, _ = self._look(x, y)
        return colour.T * (1 + 0.16 * self._slope(x, y, towards=(0.64, -0.77)))

    def sar_db(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """Backscatter (N,) in dB at points (N,), before speckle."""
        _, db = self._look(x, y)
        leaning: FloatArray = db + 1.6 * self._slope(x, y, towards=(-0.98, 0.17))
        return leaning

    def _slope(self, x: FloatArray, y: FloatArray, *, towards: tuple[float, float]) -> FloatArray:
        """Tilt of the ground towards a direction (east, north), about -2..2."""
        east, north = 30 * towards[0], 30 * towards[1]
        # from both sides: a one-sided difference would shift what each sensor sees its own way
        fall = self.elevation.at(x - east, y - north) - self.elevation.at(x + east, y + north)
        tilt: FloatArray = np.clip(fall * 8, -2.5, 2.5)
        return tilt

    def _look(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        xy = np.stack([x, y], axis=1)
        fine = self.fine.at(x, y)
        colour, db = self._fields(xy, fine)

        crown = _cover(11.0 - self.trees.query(xy, distance_upper_bound=25.0)[0])
        colour += crown[:, None] * (HEDGE - colour)
        db = _mix_db(db, -8.5, crown)

        inside, built, built_db = self.town.at(x, y, self.ragged.at(x, y))
        colour += inside[:, None] * (built - colour)
        db = _mix_db(db, built_db, inside)
        for lines in (self.river, self.roads):  # roads last: they have bridges
            cover, nearest = lines.at(xy)
            colour += cover[:, None] * (lines.colour[nearest] - colour)
            db = _mix_db(db, lines.sar_db[nearest], cover)
        return colour, db

    def _fields(self, xy: FloatArray, fine: FloatArray) -> tuple[FloatArray, FloatArray]:
        parcels = self.parcels
        distance, near = parcels.sites.query(xy, k=2)
        first, second = near.T
        apart = np.linalg.norm(parcels.sites.data[first] - parcels.sites.data[second], axis=1)
        to_border = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2 * apart)
        own = np.minimum(_cover(to_border), 1.0)
        colour = own[:, None] * parcels.colour[first] + (1 - own)[:, None] * parcels.colour[second]
        db = _mix_db(parcels.sar_db[second], parcels.sar_db[first], own)
        grain = parcels.grain[first]
        colour *= (1 + 0.1 * grain[:, 0] * fine)[:, None]
        db = db + 0.9 * grain[:, 1] * fine

        # some borders carry a hedge, the same one seen from both sides
        planted = _hash(np.minimum(first, second), np.maximum(first, second)) % 100 < 35
        hedge = np.where(planted, _cover(7.0 - to_border), 0.0)
        colour += hedge[:, None] * (HEDGE - colour)
        return colour, _mix_db(db, -10.5, hedge)


def draw_land(rng: np.random.Generator, *, size_m: float) -> Land:
    """Make up a land of `size_m` square, metres, and a margin around it; the generator decides everything."""
    length_m = size_m + 2 * MARGIN_M

    def noise(step_m: float, slope: float) -> Noise:
        return Noise.draw(rng, length_m=length_m, step_m=step_m, slope=slope)

    woods = noise(100.0, 1.6)
    return Land(
        parcels=_draw_parcels(rng, size_m, woods.at),
        roads=_draw_roads(rng, size_m),
        river=_draw_river(rng, size_m),
        trees=cKDTree(_scatter(rng, size_m, per_km2=18)),
        town=_draw_town(rng, size_m),
        elevation=noise(60.0, 2.2),
        fine=noise(20.0, 0.8),
        ragged=noise(100.0, 1.2),
    )


def _draw_parcels(
    rng: np.random.Generator, size_m: float, woods: Callable[[FloatArray, FloatArray], FloatArray]
) -> Parcels:
    # districts of about 2.5 km, each with its own way of cutting fields
    seeds = cKDTree(_scatter(rng, size_m, per_km2=0.16, at_least=3))
    sites = []
    for district in range(seeds.n):
        width, depth = rng.uniform(150, 320), rng.uniform(110, 200)
        angle = rng.uniform(0, np.pi)
        half = (size_m / 2 + MARGIN_M) * 1.5
        u, v = np.meshgrid(np.arange(-half, half, width), np.arange(-half, half, depth))
        u, v = (
            part.ravel() + rng.uniform(-0.22, 0.22, part.size) * step
            for part, step in ((u, width), (v, depth))
        )
        kept = rng.random(u.size) > 0.3  # a missing site joins its neighbours into larger fields
        x = size_m / 2 + np.cos(angle) * u[kept] - np.sin(angle) * v[kept]
        y = size_m / 2 + np.sin(angle) * u[kept] + np.cos(angle) * v[kept]
        points = np.stack([x, y], axis=1)
        inside = np.all((points > -MARGIN_M) & (points < size_m + MARGIN_M), axis=1)
        points = points[inside]
        sites.append(points[seeds.query(points)[1] == district])
    xy = np.concatenate(sites)
    n = len(xy)
    forest = woods(xy[:, 0], xy[:, 1]) > 1.0
    colour = CROPS[rng.integers(len(CROPS), size=n)] * rng.uniform(0.85, 1.2, (n, 1)) + rng.normal(
        0, 5, (n, 3)
    )
    colour[forest] = FOREST + rng.normal(0, 4, (int(forest.sum()), 3))
    sar_db = np.where(forest, rng.normal(-12.3, 0.5, n), rng.uniform(-20.0, -12.0, n))
    grain = rng.choice([-1.0, 1.0], (n, 2)) * rng.uniform(0.4, 1.4, (n, 2))
    return Parcels(cKDTree(xy), colour, sar_db, grain)


def _draw_roads(rng: np.random.Generator, size_m: float) -> Lines:
    lines = []
    for _ in range(max(3, round(size_m / 1500))):
        main = rng.random() < 0.4
        asphalt = ASPHALT * rng.uniform(0.8, 1.6)
        # most roads mirror the pulse away; a railway or a road with barriers sends it back
        lines.append(
            (
                _wander(rng, size_m, step_m=4.0),
                11.0 if main else 6.0,
                rng.choice([-21.0, -19.5, -8.0], p=[0.45, 0.35, 0.2]),
                asphalt,
            )
        )
    return _lines(lines)


def _draw_river(rng: np.random.Generator, size_m: float) -> Lines:
    return _lines([(_wander(rng, size_m, step_m=8.0, bend=3.0), rng.uniform(35.0, 70.0), -23.5, WATER)])


def _lines(lines: list[tuple[FloatArray, float, float, FloatArray]]) -> Lines:
    counts = [len(points) for points, *_ in lines]
    return Lines(
        points=cKDTree(np.concatenate([points for points, *_ in lines])),
        half_width_m=np.repeat([half for _, half, _, _ in lines], counts),
        sar_db=np.repeat([float(db) for _, _, db, _ in lines], counts),
        colour=np.repeat([colour for *_, colour in lines], counts, axis=0),
    )


def _wander(rng: np.random.Generator, size_m: float, *, step_m: float, bend: float = 1.0) -> FloatArray:
    """Points of a line that crosses the land from side to side, straight on the whole."""
    reach = (size_m / 2 + MARGIN_M) * 1.5
    along = np.arange(-reach, reach, step_m)
    aside = np.full(along.size, rng.uniform(-0.4, 0.4) * size_m)
    for wavelength, swing in ((5200.0, 160.0), (2100.0, 50.0), (900.0, 14.0)):
        aside += bend * swing * rng.normal() * np.sin(2 * np.pi * (along / wavelength + rng.random()))
    angle = rng.uniform(0, np.pi)
    x = size_m / 2 + np.cos(angle) * along - np.sin(angle) * aside
    y = size_m / 2 + np.sin(angle) * along + np.cos(angle) * aside
    return np.stack([x, y], axis=1)


def _draw_town(rng: np.random.Generator, size_m: float) -> Town:
    angle, kinds = rng.uniform(0, np.pi / 2), 4093
    roof = np.exp(rng.normal(np.log(120), 0.35, (kinds, 1))) * rng.uniform(0.92, 1.08, (kinds, 3))
    # heavy-tailed: a few walls stand square to the radar and outshine the rest
    db = -13.0 + rng.exponential(4.0, (kinds, 1))
    built = np.where(rng.random((kinds, 1)) < 0.75, rng.uniform(0.6, 1.0, (kinds, 1)), -1.0)
    return Town(
        centre=rng.uniform(0.25, 0.75, 2) * size_m,
        radius_m=0.14 * size_m,
        cos_sin=(float(np.cos(angle)), float(np.sin(angle))),
        plots=np.concatenate([np.minimum(roof, 255), db, built], axis=1),
    )


def _scatter(rng: np.random.Generator, size_m: float, *, per_km2: float, at_least: int = 1) -> FloatArray:
    side = size_m + 2 * MARGIN_M
    count = max(at_least, round(per_km2 * (side / 1000) ** 2))
    return rng.uniform(-MARGIN_M, size_m + MARGIN_M, (count, 2))


def _cover(inside_m: FloatArray) -> FloatArray:
    """Share of a pixel (0..1) on the inner side of an edge that lies `inside_m` metres away."""
    return np.clip(0.5 + np.asarray(inside_m) / PIXEL_M, 0.0, 1.0)


def _mix_db(under: FloatArray | float, over: FloatArray | float, cover: FloatArray) -> FloatArray:
    """Mix backscatter as power, as a resolution cell does, not as dB."""
    power = (1 - cover) * 10 ** (np.asarray(under) / 10) + cover * 10 ** (np.asarray(over) / 10)
    mixed: FloatArray = 10 * np.log10(power)
    return mixed


def _to_multiple(value: FloatArray, period: float) -> FloatArray:
    """Distance to the nearest multiple of `period`."""
    away: FloatArray = np.abs(value - period * np.round(value / period))
    return away


def _hash(i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.int64]:
    """Scramble two whole numbers into one, not negative."""
    mixed = (i.astype(np.int64) * 73_856_093) ^ (j.astype(np.int64) * 19_349_663)
    mixed ^= mixed >> 13
    return (mixed * 1_274_126_177) & 0x7FFF_FFFF
