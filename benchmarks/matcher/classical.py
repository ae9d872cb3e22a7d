"""Classical matchers as baselines: pure functions of a reference tile and the window it is searched in.

Each takes a tile (s, s) and a window of the secondary (s + 2R, s + 2R), finite everywhere, and gives the
offset (dx, dy) of the tile from the window's middle, in pixels: position in the secondary minus position in
the reference. R is told by the shapes. One thread. Where a choice was free, the one that scored best on the
benchmark's own tiles was kept, which flatters these methods: a baseline is to be beaten at its best.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude

Plane = NDArray[np.float32]

SAR_SIGMA_PX = 0.7
"""Smoothing (Gaussian) of the secondary before its grey levels are binned: tames speckle, moves nothing."""

BINS = 32
"""Grey levels of either image at full resolution, each as frequent as the other."""

FEW_BINS = 16
"""The same at the coarse step, and for tiles below `FEW_BELOW_PX`: a quarter of the joint histogram's cells,
so less chance in each. At 64 px 61 instead of 56 % of the tiles come within 2 px."""

FEW_BELOW_PX = 128

COARSE_PIXELS = 4096
"""Pixels of the tile that the coarse step looks at, at least: of a tile of 256 px every fourth per axis. With
`CLIMBS` the result is that of all pixels, within a tile or two in 400."""

CLIMBS = 6
"""Coarse peaks that are climbed from; the highest summit wins."""

LEVELS = 4096
"""Grey levels that values are rounded to before they are ranked."""

LOCAL_SIGMA_PX = 8.0
"""Width of the Gaussian mean that local contrast is taken from."""

GRADIENT_SIGMA_PX = 1.5
"""Width of the Gaussian whose derivative measures the gradient."""


WHITE_SIGMA_PX = 1.5
"""Blur of the surface of phase correlation: a whitened peak is one pixel wide or split over a few."""


class Found(NamedTuple):
    """Where a tile was found."""

    offset_px: tuple[float, float]
    """(dx, dy), sub-pixel."""
    score: float
    """Of the whole-pixel maximum, in the method's own unit; larger is better."""


Method = Callable[[Plane, Plane], Found]


def mutual_information(reference: Plane, secondary: Plane) -> Found:
    """Windowed mutual information of equal-population grey levels (score in nats).

    Every second shift on a sample of the tile's pixels, then hill climbing with all pixels, then a parabola
    through the summit, per axis.

    References
    ----------
    Viola & Wells (1997), IJCV 24(2); Suri & Reinartz (2010), IEEE TGRS 48(2), for SAR against optical.
    """
    size, radius = _sizes(reference, secondary)
    bins = BINS if size >= FEW_BELOW_PX else FEW_BINS
    smooth = gaussian_filter(secondary, SAR_SIGMA_PX, mode="nearest")
    tile, window = _levels(reference, bins), _levels(smooth, bins)
    starts = _coarse_peaks(tile // (bins // FEW_BINS), window // (bins // FEW_BINS), size, radius)
    tile = tile * bins
    pixels = np.empty_like(tile)
    known: dict[tuple[int, int], float] = {}

    def at(dy: int, dx: int) -> float:
        if max(abs(dy), abs(dx)) > radius:
            return -np.inf
        if (dy, dx) not in known:
            row, col = radius + dy, radius + dx
            np.add(tile, window[row : row + size, col : col + size], out=pixels)
            joint = np.bincount(pixels.ravel(), minlength=bins**2)
            known[dy, dx] = float(_information(joint.reshape(1, bins, bins))[0])
        return known[dy, dx]

    dy, dx = max((_climb(at, start) for start in starts), key=lambda place: at(*place))
    sub_x = _vertex(at(dy, dx - 1), at(dy, dx), at(dy, dx + 1))
    sub_y = _vertex(at(dy - 1, dx), at(dy, dx), at(dy + 1, dx))
    return Found((dx + sub_x, dy + sub_y), at(dy, dx))


def local_mutual_information(reference: Plane, secondary: Plane) -> Found:
    """Mutual information after both images have lost their local mean.

    Large bright and dark areas, whose statistics change with every shift, no longer outweigh detail: lost
    less often on water and at 64 px (`ombria`: 78 instead of 67 % within 5 px), less sharp at 192 px.
    """
    return mutual_information(_local_contrast(reference), _local_contrast(secondary))


def gradient_zncc(reference: Plane, secondary: Plane) -> Found:
    """Zero-mean normalised cross-correlation of roots of gradient magnitudes (score -1..1).

    The root keeps the few strongest edges, which the other sensor may not see, from deciding alone.
    """
    return plain_zncc(gradient(reference), gradient(secondary))


def plain_zncc(reference: Plane, secondary: Plane) -> Found:
    """Zero-mean normalised cross-correlation of the pixels: for two images of one sensor (score -1..1)."""
    size, radius = _sizes(reference, secondary)
    tile = reference - reference.mean()
    window = secondary - secondary.mean()
    top = _correlation(tile, window)[: 2 * radius + 1, : 2 * radius + 1]
    energy = _box_sum(window**2, size) - _box_sum(window, size) ** 2 / size**2
    surface = top / np.sqrt(np.maximum(energy * (tile**2).sum(), 1e-20))
    return _summit(surface)


def phase_correlation(reference: Plane, secondary: Plane) -> Found:
    """Phase correlation of roots of gradient magnitudes: the spectrum's amplitudes are all made one.

    The tile is compared with the middle of the window under a taper (Hann), so shifts that are not small
    against the tile cost it most of its overlap.
    """
    size, radius = _sizes(reference, secondary)
    tile, window = gradient(reference), gradient(secondary)
    n = size + 2 * radius
    padded = np.zeros((n, n), np.float32)
    padded[radius : radius + size, radius : radius + size] = (tile - tile.mean()) * _hann(size)
    cross = rfft2(padded).conj() * rfft2((window - window.mean()) * _hann(n))
    cross /= np.maximum(np.abs(cross), 1e-20)
    surface = gaussian_filter(np.fft.fftshift(irfft2(cross, s=(n, n))), WHITE_SIGMA_PX, mode="wrap")
    middle = n // 2
    part = slice(middle - radius, middle + radius + 1)
    return _summit(surface[part, part])


METHODS: dict[str, Method] = {
    "mi": mutual_information,
    "mi_local": local_mutual_information,
    "zncc": gradient_zncc,
    "phase": phase_correlation,
}


def _sizes(reference: Plane, secondary: Plane) -> tuple[int, int]:
    """(side of the tile, search radius), px."""
    size = reference.shape[0]
    radius, odd = divmod(secondary.shape[0] - size, 2)
    if reference.shape != (size, size) or secondary.shape != (size + 2 * radius,) * 2 or odd or radius < 1:
        raise ValueError(f"a tile {reference.shape} cannot be searched in {secondary.shape}; want (s + 2R)")
    return size, radius


def _levels(plane: Plane, bins: int) -> NDArray[np.intp]:
    """Grey level 0..bins - 1 of each pixel, all levels as frequent as ties allow."""
    low, high = float(plane.min()), float(plane.max())
    fine = ((plane - low) * ((LEVELS - 1) / max(high - low, 1e-12))).astype(np.intp)
    count = np.bincount(fine.ravel(), minlength=LEVELS)
    rank = np.cumsum(count) - count / 2
    return np.minimum(rank * (bins / plane.size), bins - 1).astype(np.intp)[fine]


def _coarse_peaks(
    tile: NDArray[np.intp], window: NDArray[np.intp], size: int, radius: int
) -> list[tuple[int, int]]:
    """(dy, dx) of the highest maxima over every second shift, a neighbourhood apart, on `FEW_BINS` levels."""
    step = max(1, int(size / COARSE_PIXELS**0.5))
    sample = np.ascontiguousarray(tile[::step, ::step]) * FEW_BINS
    pixels = np.empty_like(sample)
    shifts = range(-radius, radius + 1, 2)
    surface = np.empty((len(shifts), len(shifts)))
    joint = np.empty((len(shifts), FEW_BINS**2), np.intp)
    for i, dy in enumerate(shifts):
        rows = window[radius + dy : radius + dy + size : step]
        for j, dx in enumerate(shifts):
            np.add(sample, rows[:, radius + dx : radius + dx + size : step], out=pixels)
            joint[j] = np.bincount(pixels.ravel(), minlength=FEW_BINS**2)
        surface[i] = _information(joint.reshape(-1, FEW_BINS, FEW_BINS))
    peaks = []
    for _ in range(CLIMBS):
        i, j = np.unravel_index(surface.argmax(), surface.shape)
        peaks.append((shifts[int(i)], shifts[int(j)]))
        surface[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2] = -np.inf
    return peaks


def _information(joint: NDArray[np.intp]) -> NDArray[np.float64]:
    """Mutual information (K,) in nats of joint histograms (K, bins, bins) of one and the same count."""
    count = int(joint[0].sum())
    table = _n_log_n(count)
    both = table[joint].sum((1, 2))
    information: NDArray[np.float64] = (
        np.log(count) + (both - table[joint.sum(1)].sum(1) - table[joint.sum(2)].sum(1)) / count
    )
    return information


_TABLES: dict[int, NDArray[np.float64]] = {}


def _n_log_n(count: int) -> NDArray[np.float64]:
    """N log n of every whole number to `count`: looked up, for the logarithm is most of an entropy's cost."""
    if count not in _TABLES:
        n = np.arange(count + 1)
        _TABLES[count] = n * np.log(np.maximum(n, 1))
    return _TABLES[count]


def _climb(at: Callable[[int, int], float], place: tuple[int, int]) -> tuple[int, int]:
    """Go to the highest of the eight neighbours until none is higher."""
    while True:
        dy, dx = place
        best = max(((dy + i, dx + j) for i in (-1, 0, 1) for j in (-1, 0, 1)), key=lambda p: at(*p))
        if at(*best) <= at(dy, dx):
            return place
        place = best


def _local_contrast(plane: Plane) -> Plane:
    contrast: Plane = plane - gaussian_filter(plane, LOCAL_SIGMA_PX, mode="nearest")
    return contrast


def gradient(plane: Plane) -> Plane:
    """Root of the gradient's magnitude."""
    root: Plane = np.sqrt(gaussian_gradient_magnitude(plane, GRADIENT_SIGMA_PX, mode="nearest"))
    return root


def _correlation(tile: Plane, window: Plane) -> Plane:
    """sum_x tile(x) window(x + shift); the wrapped part lies beyond the shifts that are used."""
    n = next_fast_len(window.shape[0], real=True)
    product: Plane = irfft2(rfft2(tile, s=(n, n)).conj() * rfft2(window, s=(n, n)), s=(n, n))
    return product


def _box_sum(x: Plane, side: int) -> NDArray[np.float64]:
    total = np.pad(x.astype(np.float64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    sums: NDArray[np.float64] = (
        total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    )
    return sums


def _hann(n: int) -> Plane:
    ramp = np.hanning(n + 2)[1:-1].astype(np.float32)
    taper: Plane = ramp[:, None] * ramp
    return taper


def _summit(surface: NDArray[np.floating]) -> Found:
    """Sub-pixel maximum of a surface (2R + 1, 2R + 1)."""
    radius = surface.shape[0] // 2
    row, col = (int(i) for i in np.unravel_index(surface.argmax(), surface.shape))
    z = np.pad(surface, 1, constant_values=-np.inf)[row : row + 3, col : col + 3]
    dx, dy = _vertex(z[1, 0], z[1, 1], z[1, 2]), _vertex(z[0, 1], z[1, 1], z[2, 1])
    return Found((col - radius + dx, row - radius + dy), float(surface[row, col]))


def _vertex(left: float, middle: float, right: float) -> float:
    """Where the parabola through three neighbours peaks, -0.5..0.5; 0 at the rim of the search."""
    bend = left - 2 * middle + right
    return 0.5 * (left - right) / bend if np.isfinite(bend) and bend < 0 else 0.0
