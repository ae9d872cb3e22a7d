"""Which tiles are not worth matching, judged from overviews.

Conservative: a tile is dropped only where it surely holds nothing; for the others the confidence decides.
The limits come from 1,168 tiles of 256 px in Texas and Los Angeles (8-bit true colour, uint8 SAR), 144 arid
coastal pairs, and chips of forest, snow, coast, farmland and cloud, each at overviews of 4, 8 and 16 px.
Twelve months of boreal fields and forest, at 4 and 8 px, taught to tell snow from cloud.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, uniform_filter

from crosstie.types import Kind, Reason, Tile

if TYPE_CHECKING:
    from crosstie.types import BoolArray, FloatArray

MIN_VALID_REFERENCE = 0.7
MIN_VALID_SECONDARY = 0.5
"""The secondary may miss more: its exact position is not known yet."""

HOLE_PX = 17
"""Narrower holes count as valid: the matcher sees past them, and its confidence says how well."""

HOLE_VALID = 0.4
"""Share of valid pixels that must be left around such a hole."""

DARK_WHITE = 0.34
"""Optical, of white. Sea lies at 0.25 to 0.33 (haze included), nine in ten land tiles above 0.4."""

SMOOTH_CONTRAST = 0.012
"""Optical, median step to the neighbours over the median. Open sea reaches 0.007, land seldom < 0.03."""

SMOOTH_SPREAD = 1.2
"""Optical, 90th percentile over 10th. Open sea stays under 1.15; a shore or an island exceeds it."""

NOISE_SPREAD = 2.2
"""SAR, standard deviation over the median step to the neighbours. White noise has 1.33, sea with swell and
wind 1.4 to 2.2, and a field, a road or a slope that spans the tile more."""

DARK_DB = 2.5
"""SAR, below the scene's brighter tiles. Sea lies 4 to 6 dB below the land beside it."""

BRIGHT_WHITE = 0.6
"""Optical, of white. Cloud, snow, roofs and sand."""

BROKEN_SHARE = (0.3, 0.9)
"""Share of bright pixels in a tile of broken cloud. Above it lie overcast, snow and desert."""

BROKEN_SPREAD = 2.5
"""90th percentile over 10th of a tile of broken cloud: ours has 3.5, half of LA under 1.6."""

BROKEN_VARIATION = (0.24, 0.14)
"""Standard deviation over the mean among bright pixels. Cloud has 0.29, bright land up to 0.2. The second is
for 8 bit, where both are clipped at white."""

BROKEN_STEP = 0.09
"""Median step to the neighbours over the standard deviation, among bright pixels, per root of the overview's
factor: cloud has 0.08, bright land mostly above 0.12."""

BROKEN_CORE = 0.1
"""8 bit: share clipped at white. Cloud has 0.12 to 0.17, beach beside sea under 0.09."""

BROKEN_SNOW = 0.4
"""Reflectance: share brighter than `OVERCAST_WHITE`. Snow has 0.45 and more, broken cloud 0.12."""

BROKEN_CONTRAST = 0.04
"""Median step to the neighbours over the median, per root of the overview's factor, of the whole tile. Cloud
is blurred, and has 0.02 to 0.03; snow between trees has 0.055 and more."""

CLOUD_FACTOR = 4
"""Least number of pixels of the grid per pixel in which cloud is looked for: the limits were learnt from
there on. At 10 m, snow on fields is as smooth as cloud."""

KNOWS_GROUND = 0.6
"""Correlation (either sign) of optical brightness with SAR in a tile, from which the brightness lies on the
ground. Cloud has up to 0.5 by chance; snow, forest and fields mostly have 0.6 to 0.95."""

OVERCAST_WHITE = 1.2
OVERCAST_SHARE = 0.9
OVERCAST_CONTRAST = 0.03
"""Nearly all of the tile as bright as cloud and smooth. Snow has a contrast of 0.06 to 0.08 and stays."""

SATURATED_WHITE = 0.98
SATURATED_SHARE = 0.7
"""8 bit: pixels clipped at white hold nothing to match. The brightest land tile has a share of 0.2."""

FLAT_VARIATION = 0.001
FLAT_DB = 0.01
"""No contrast at all: a constant, give or take rounding. Standard deviation: optical over
the median, SAR in dB."""

STRUCTURE = 1.6
"""Standard deviation over the median step to the neighbours, in pixels of `CLOUD_FACTOR`. White noise has
1.3, tidal flats in SAR 1.5, savanna 1.8, and every other land more; optical land has 2 and more."""

FAINT_CONTRAST = 0.006
"""Optical, median step to the neighbours over the median, in the same pixels: overcast and even haze stay
below, deserts and snowfields above."""

MIN_SIDE_PX = 12
"""Of a tile in the overview: below that, numbers of so few pixels tell neither water nor cloud."""

BATCH_PX = 2_000_000
"""Overview pixels whose windows are in memory at a time: tiles overlap, so all at once would be too many."""


@dataclass(frozen=True, slots=True, eq=False)
class Screening:
    """Which tiles of a grid are worth matching, and why the others are not."""

    reasons: tuple[Reason | None, ...]
    """For each tile, why it is dropped; None where it is kept."""
    featured: bool = True
    """Whether most of the tiles that are kept show more than noise in both images, so that their offset would
    be found if it were within the search."""

    @property
    def keep(self) -> BoolArray:
        """(N,) True where a tile is worth matching."""
        return np.array([reason is None for reason in self.reasons], np.bool_)

    @property
    def counts(self) -> dict[Reason, int]:
        """How many tiles were dropped for each reason, most frequent first."""
        return dict(Counter(reason for reason in self.reasons if reason is not None).most_common())


def screen_tiles(
    tiles: Sequence[Tile],
    reference_overview: NDArray[np.float32],
    secondary_overview: NDArray[np.float32],
    *,
    px_per_overview_px: float,
    reference_kind: Kind,
    secondary_kind: Kind,
    reference_white: float = 1.0,
    secondary_white: float = 1.0,
) -> Screening:
    """Drop tiles that surely hold nothing to match: no shared ground, cloud, open water, no contrast.

    Parameters
    ----------
    tiles : Sequence[Tile]
        Tiles of the common grid, all of one size.
    reference_overview, secondary_overview : NDArray[np.float32]
        Both planes over the whole grid, averaged to `px_per_overview_px` pixels of the grid a pixel, (rows,
        cols), NaN where invalid. Optical in about 0..1, SAR in dB up to a constant.
    px_per_overview_px : float
        Pixels of the grid per pixel of the overviews, up to 16. Tiles of less than 12 pixels a side in the
        overview are judged by overlap and flatness only; cloud is looked for in pixels of at least 4.
    reference_white, secondary_white : float
        Value of an optical plane at a reflectance of 0.35, where 8-bit true-colour images are clipped: 1 for
        those, 0.35 for reflectance (`RasterSource.white`).
    """
    if reference_overview.shape != secondary_overview.shape:
        raise ValueError(
            f"overviews must cover one grid, got {reference_overview.shape} and {secondary_overview.shape}"
        )
    if not tiles:
        return Screening(())
    reference = _Seen.of(tiles, reference_overview, reference_kind, reference_white, px_per_overview_px)
    secondary = _Seen.of(tiles, secondary_overview, secondary_kind, secondary_white, px_per_overview_px)
    overlap = (_usable(reference) >= MIN_VALID_REFERENCE) & (_usable(secondary) >= MIN_VALID_SECONDARY)
    water, flat = overlap.copy(), np.zeros_like(overlap)
    for seen in (reference, secondary):
        stats = seen.stats
        if seen.kind is Kind.OPTICAL:
            water &= _dark_and_smooth(stats)
            flat |= stats.deviation < FLAT_VARIATION * np.abs(stats.median)
        else:
            water &= _dark_and_noisy(stats, overlap)
            flat |= stats.deviation < FLAT_DB
    if reference.too_small:
        water[:] = False
    coarse, other = reference.coarse(tiles), secondary.coarse(tiles)
    clouded = _clouded(coarse, other) | _clouded(other, coarse)
    # Later reasons overwrite earlier ones: sea and saturated cloud are flat, too.
    reasons: list[Reason | None] = [None] * len(tiles)
    for reason, dropped in (
        (Reason.NO_TEXTURE, flat),
        (Reason.WATER, water),
        (Reason.CLOUDED, clouded),
        (Reason.NO_OVERLAP, ~overlap),
    ):
        for n in np.flatnonzero(dropped):
            reasons[n] = reason
    featured = _has_structure(coarse) & _has_structure(other)
    kept = np.array([reason is None for reason in reasons])
    return Screening(tuple(reasons), bool(2 * featured[kept].sum() >= kept.sum()))


def dominant_reason(screening: Screening) -> Reason:
    """Say why nothing is left: the most frequent reason, lack of overlap only where there is no other.

    A scene at the edge of a swath overlaps in few tiles; the reason of those is what matters.
    """
    if screening.keep.any():
        raise ValueError(f"{int(screening.keep.sum())} tiles are left; there is nothing to explain")
    others = {reason: n for reason, n in screening.counts.items() if reason is not Reason.NO_OVERLAP}
    return max(others, key=lambda reason: others[reason]) if others else Reason.NO_OVERLAP


@dataclass(frozen=True, slots=True, eq=False)
class _Windows:
    """Where the tiles lie in the overview."""

    row: NDArray[np.int64]
    col: NDArray[np.int64]
    size: tuple[int, int]

    @classmethod
    def of(cls, tiles: Sequence[Tile], shape: tuple[int, ...], factor: float) -> _Windows:
        """Windows of tiles in an overview that is `factor` times coarser."""
        sizes = {tile.size_px for tile in tiles}
        if len(sizes) > 1:
            raise ValueError(f"tiles must be of one size, got {sorted(sizes)}")
        side = max(1, round(sizes.pop() / factor))
        size = (min(side, shape[0]), min(side, shape[1]))
        first = np.array([(tile.row, tile.col) for tile in tiles]) / factor
        start = np.clip(np.rint(first).astype(np.int64), 0, np.array(shape) - size)
        return cls(start[:, 0], start[:, 1], size)

    def only(self, at: NDArray[np.int64]) -> _Windows:
        """Some of the windows."""
        return _Windows(self.row[at], self.col[at], self.size)

    def cut(self, plane: NDArray[np.float32], part: slice) -> NDArray[np.float32]:
        """Copy the windows of some tiles out of a plane, (n, pixels)."""
        every = np.lib.stride_tricks.sliding_window_view(plane, self.size)
        return every[self.row[part], self.col[part]].reshape(-1, self.size[0] * self.size[1])


@dataclass(frozen=True, slots=True, eq=False)
class _Stats:
    """Numbers of each tile of one plane, (N,); NaN where a tile has no valid pixel."""

    valid: FloatArray
    median: FloatArray
    p10: FloatArray
    p90: FloatArray
    deviation: FloatArray
    step: FloatArray
    """Median absolute difference to the mean of the four neighbours."""
    bright: FloatArray
    """Share of bright pixels."""
    bright_variation: FloatArray
    """Their standard deviation over their mean."""
    bright_step: FloatArray
    """Their median step over their standard deviation."""
    overcast: FloatArray
    saturated: FloatArray


def _measure(overview: NDArray[np.float32], windows: _Windows, kind: Kind, white: float) -> _Stats:
    """Numbers of every window of one overview."""
    plane = overview / np.float32(white) if kind is Kind.OPTICAL else overview
    step = _neighbour_step(plane)
    parts = []
    batch = max(1, BATCH_PX // (windows.size[0] * windows.size[1]))
    for begin in range(0, len(windows.row), batch):
        part = slice(begin, begin + batch)
        parts.append(_window_numbers(windows.cut(plane, part), windows.cut(step, part), kind))
    return _Stats(*np.concatenate(parts, axis=1))


def _window_numbers(value: NDArray[np.float32], step: NDArray[np.float32], kind: Kind) -> FloatArray:
    """Fields of `_Stats`, (fields, n), of n windows."""
    deviation = _deviation(value)[1]
    share = np.isfinite(value).mean(axis=1)
    numbers = [
        share,
        *(_quantile(value, q) for q in (0.5, 0.1, 0.9)),
        deviation,
        _quantile(step, 0.5),
    ]
    if kind is Kind.OPTICAL:
        with np.errstate(invalid="ignore", divide="ignore"):
            bright = value > BRIGHT_WHITE
            mean, spread = _deviation(np.where(bright, value, np.nan))
            of_valid = [(value > at).mean(axis=1) / share for at in (OVERCAST_WHITE, SATURATED_WHITE)]
            numbers += [
                bright.mean(axis=1) / share,
                spread / mean,
                _quantile(np.where(bright, step, np.nan), 0.5) / spread,
                *of_valid,
            ]
    else:
        numbers += [np.full(len(value), np.nan)] * 5
    return np.stack(numbers).astype(np.float64)


def _dark_and_smooth(optical: _Stats) -> BoolArray:
    """Which tiles look like open water in the optical image, (N,)."""
    dark: BoolArray = (
        (optical.median < DARK_WHITE)
        & (optical.step < SMOOTH_CONTRAST * optical.median)
        & (optical.p90 < SMOOTH_SPREAD * optical.p10)
    )
    return dark


def _dark_and_noisy(sar: _Stats, overlap: BoolArray) -> BoolArray:
    """Which tiles look like open water in the SAR image, (N,)."""
    noise: BoolArray = sar.deviation < NOISE_SPREAD * sar.step
    medians = sar.median[overlap]
    if medians.size and np.ptp(medians) > DARK_DB:
        # Where a whole scene is alike, dB up to a constant cannot tell what is dark: noise alone decides.
        noise &= sar.median < np.percentile(medians, 90) - DARK_DB
    return noise


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """One image in overview, and the numbers of its tiles there."""

    plane: NDArray[np.float32]
    kind: Kind
    white: float
    factor: float
    """Pixels of the grid per pixel of the plane."""
    windows: _Windows
    stats: _Stats

    @classmethod
    def of(
        cls, tiles: Sequence[Tile], plane: NDArray[np.float32], kind: Kind, white: float, factor: float
    ) -> _Seen:
        windows = _Windows.of(tiles, plane.shape, factor)
        return cls(plane, kind, white, factor, windows, _measure(plane, windows, kind, white))

    @property
    def too_small(self) -> bool:
        """Whether the tiles have too few pixels to tell water, cloud or structure."""
        return min(self.windows.size) < MIN_SIDE_PX

    def coarse(self, tiles: Sequence[Tile]) -> _Seen:
        """See the same in pixels that the limits of cloud and structure were learnt in."""
        by = math.ceil(CLOUD_FACTOR / self.factor)
        if by == 1:
            return self
        return _Seen.of(tiles, _averaged(self.plane, by), self.kind, self.white, self.factor * by)


def _clouded(seen: _Seen, other: _Seen) -> BoolArray:
    """Which tiles of an image are under cloud, (N,).

    Brightness that the other image, if that is SAR, has as well lies on the ground: snow, not cloud.
    """
    if seen.kind is not Kind.OPTICAL or seen.too_small:
        return np.zeros(len(seen.windows.row), np.bool_)
    cloud = _cloud(seen.stats, clipped=seen.white == 1.0, factor=seen.factor)
    if other.kind is Kind.SAR and cloud.any():
        at = np.flatnonzero(cloud)
        known = _correlation(seen.windows.only(at), seen.plane, other.plane)
        cloud[at] = ~(known >= KNOWS_GROUND)  # NaN knows nothing
    return cloud


def _has_structure(seen: _Seen) -> BoolArray:
    """Which tiles show more than noise and slow changes, (N,); all where they are too small to tell."""
    if seen.too_small:
        return np.ones(len(seen.windows.row), np.bool_)
    stats = seen.stats
    structured: BoolArray = stats.deviation >= STRUCTURE * stats.step
    return (
        structured & (stats.step >= FAINT_CONTRAST * stats.median)
        if seen.kind is Kind.OPTICAL
        else structured
    )


def _usable(seen: _Seen) -> NDArray[np.float64]:
    """Share of each tile, (N,), that can be matched: valid pixels, and fine holes between them."""
    windows = seen.windows
    side = round(HOLE_PX / seen.factor) // 2 * 2 + 1
    good = np.isfinite(seen.plane)
    if side == 1 or good.all():
        return seen.stats.valid
    # Closing fills what is narrow and has valid pixels on both sides; a straight edge stays where it is.
    square = np.ones((side, side), np.bool_)
    closed = binary_erosion(binary_dilation(good, square), square, border_value=1)
    dense = uniform_filter(good.astype(np.float32), 2 * side + 1) >= HOLE_VALID
    usable = (good | (closed & dense)).astype(np.float32)
    step = max(1, BATCH_PX // (windows.size[0] * windows.size[1]))
    parts = [
        windows.cut(usable, slice(begin, begin + step)).mean(axis=1)
        for begin in range(0, len(windows.row), step)
    ]
    return np.concatenate(parts).astype(np.float64)


def _averaged(plane: NDArray[np.float32], by: int) -> NDArray[np.float32]:
    """Average squares of `by` x `by` pixels; NaN where fewer than `HOLE_VALID` of them are valid."""
    rows, cols = plane.shape
    padded = np.pad(plane, ((0, -rows % by), (0, -cols % by)), constant_values=np.nan)
    square = padded.reshape(padded.shape[0] // by, by, padded.shape[1] // by, by)
    count = np.isfinite(square).sum(axis=(1, 3))
    mean = np.nansum(square, axis=(1, 3)) / np.maximum(count, 1)
    averaged: NDArray[np.float32] = np.where(count >= HOLE_VALID * by**2, mean, np.nan).astype(np.float32)
    return averaged


def _correlation(
    windows: _Windows, first: NDArray[np.float32], second: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Absolute correlation of two planes in each window, (N,); NaN where one is flat or missing."""
    found = np.full(len(windows.row), np.nan)
    for n in range(len(found)):
        found[n] = absolute_correlation(
            *(windows.cut(plane, slice(n, n + 1))[0].astype(np.float64) for plane in (first, second))
        )
    return found


def absolute_correlation(first: FloatArray, second: FloatArray) -> float:
    """Correlation of two windows of one shape where both are valid, either sign; NaN where one is flat."""
    both = np.isfinite(first) & np.isfinite(second)
    if both.any() and first[both].std() > 0 and second[both].std() > 0:
        return float(abs(np.corrcoef(first[both], second[both])[0, 1]))
    return math.nan


def _cloud(optical: _Stats, *, clipped: bool, factor: float) -> BoolArray:
    """Which tiles are under broken cloud or overcast, (N,)."""
    variation = BROKEN_VARIATION[1 if clipped else 0]
    broken = (
        (optical.bright >= BROKEN_SHARE[0])
        & (optical.bright < BROKEN_SHARE[1])
        & (optical.p90 > BROKEN_SPREAD * optical.p10)
        & (optical.bright_variation > variation)
        & (optical.bright_step < BROKEN_STEP * np.sqrt(factor))
        & (optical.step < BROKEN_CONTRAST * np.sqrt(factor) * optical.median)
    )
    # 8 bit cannot tell snow from cloud, reflectance can; but clipped, neither leaves much to match.
    broken &= optical.saturated >= BROKEN_CORE if clipped else optical.overcast < BROKEN_SNOW
    overcast = (optical.overcast >= OVERCAST_SHARE) & (optical.step < OVERCAST_CONTRAST * optical.median)
    cloud: BoolArray = broken | overcast
    return cloud | (optical.saturated >= SATURATED_SHARE) if clipped else cloud


def _neighbour_step(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Absolute difference to the mean of the four neighbours; NaN at the edge."""
    step = np.full_like(plane, np.nan)
    around = plane[:-2, 1:-1] + plane[2:, 1:-1] + plane[1:-1, :-2] + plane[1:-1, 2:]
    step[1:-1, 1:-1] = np.abs(plane[1:-1, 1:-1] - around / 4)
    return step


def _quantile(value: NDArray[np.float32], q: float) -> NDArray[np.float32]:
    """Quantile of each row's valid values; one sort, where `nanquantile` loops over rows in Python."""
    ordered = np.sort(value, axis=1)  # NaN last
    count = np.isfinite(value).sum(axis=1)
    at = np.clip(np.rint(q * (count - 1)).astype(np.int64), 0, None)
    found: NDArray[np.float32] = ordered[np.arange(len(value)), at]
    return found


def _deviation(value: NDArray[np.float32]) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of each row's valid values; NaN where there is none."""
    valid = np.isfinite(value)
    count = valid.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(valid, value, 0).sum(axis=1, dtype=np.float64) / count
        spread = np.where(valid, (value - mean[:, None]) ** 2, 0).sum(axis=1, dtype=np.float64) / count
    return mean, np.sqrt(spread)
