"""How the errors of tie points hang together, and what a fit to them is therefore worth.

The error of a tile is noise, which tiles share as far as they share pixels, and relief, which varies smoothly
over the ground. Hundreds of tiles of a small scene can be worth a handful of independent ones. How much is
relief, and how far it reaches, is read off the residuals by restricted maximum likelihood, which allows for
what the fit has taken out of them; all answers that the residuals cannot tell apart count.

References
----------
Harville (1977), Maximum likelihood approaches to variance component estimation.
Cressie (1993), Statistics for Spatial Data, sections 1.3 and 2.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.linalg import solve_triangular
from scipy.spatial import cKDTree

from crosstie.estimation.field.kriging import OWN_NOISE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.types import FloatArray

RELIEF_LENGTHS_TILES = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0)
"""Correlation lengths of the relief that are tried, tiles."""

RELIEF_SHARES = (0.03, 0.1, 0.3, 0.6, 0.9, 0.97, 0.99)
"""Shares of the variance that are tried for the relief, besides none."""

FLAT = 0.5
"""Share of scenes without relief: what is assumed before the residuals are asked."""

MOST_POINTS = 300
"""Points that the likelihood looks at; more of them change no answer that matters."""

TOGETHER = 4
"""Points that are taken together where they are too many, so that near and far pairs are both among them."""

LEAST_PROBABILITY = 1e-3
"""Answers less probable than this are dropped."""

WIDEST_LATTICE = 256
"""Cells a side of the lattice on which the variance of a fit is summed up."""


@dataclass(frozen=True, slots=True, eq=False)
class Correlation:
    """One answer to what the errors have in common."""

    probability: float
    length_px: float
    """Correlation length of the relief, px."""
    relief_share: float
    """Share of the variance that is relief, 0..1."""
    variance_px2: FloatArray
    """(2, 2) of x and y, of noise and relief together."""


@dataclass(frozen=True, slots=True, eq=False)
class Correlations:
    """All answers that the residuals leave open; their probabilities add up to 1."""

    answers: tuple[Correlation, ...]
    tile_px: int

    def covariance(self, estimator: FloatArray, corner_px: NDArray[np.int64]) -> FloatArray:
        """Covariance (2k, 2k) of coefficients that are sums of offsets: of x, then of y, px^2.

        Parameters
        ----------
        estimator : FloatArray
            (k, N) share of each point in each coefficient.
        corner_px : IntArray
            (N, 2) first (row, col) of each tile.
        """
        on = _Lattice.of(corner_px, tile_px=self.tile_px)
        shares = on.spectra(estimator)
        noise = on.product(shares, overlap(*on.lag_px, self.tile_px))
        noise = (1 - OWN_NOISE) * noise + OWN_NOISE * estimator @ estimator.T
        distance = np.hypot(*on.lag_px)
        k = len(estimator)
        total = np.zeros((2 * k, 2 * k))
        for length_px in sorted({answer.length_px for answer in self.answers}):
            relief = on.product(shares, smooth(distance, length_px))
            for answer in self.answers:
                if answer.length_px == length_px:
                    mixed = answer.relief_share * relief + (1 - answer.relief_share) * noise
                    total += answer.probability * np.kron(answer.variance_px2, mixed)
        covariance: FloatArray = (total + total.T) / 2
        return covariance


def overlap(rows_px: FloatArray, cols_px: FloatArray, tile_px: int) -> FloatArray:
    """Share of its pixels that a tile has in common with one so many rows and columns away."""
    share: FloatArray = np.maximum(1 - rows_px / tile_px, 0) * np.maximum(1 - cols_px / tile_px, 0)
    return share


def smooth(distance_px: FloatArray, length_px: float) -> FloatArray:
    """Correlation of the relief at two places: Matern, 5/2, of six families the likeliest on real scenes."""
    z = np.sqrt(5) / length_px * distance_px
    correlation: FloatArray = (1 + z + z**2 / 3) * np.exp(-z)
    return correlation


def correlations(
    design: FloatArray,
    offset: FloatArray,
    corner_px: NDArray[np.int64],
    *,
    tile_px: int,
) -> Correlations:
    """Ask the residuals of a fit what they have in common.

    Parameters
    ----------
    design : FloatArray
        (N, k) columns of the fullest model.
    offset : FloatArray
        (N, 2) measured offsets, px.
    corner_px : IntArray
        (N, 2) first (row, col) of each tile.
    tile_px : int
        Side of the tiles, px.
    """
    seen = _near_and_far(corner_px)
    design, offset, corner = design[seen], offset[seen], corner_px[seen]
    rows, cols = (np.abs(axis[:, None] - axis[None, :]).astype(np.float64) for axis in corner.T)
    noise = (1 - OWN_NOISE) * overlap(rows, cols, tile_px) + OWN_NOISE * np.eye(len(corner))
    distance = np.hypot(rows, cols)
    tried: list[tuple[float, float]] = [(RELIEF_LENGTHS_TILES[0] * tile_px, 0.0)]
    scores = [_restricted_likelihood(noise, design, offset)]
    for length in RELIEF_LENGTHS_TILES:
        relief = smooth(distance, length * tile_px)
        for share in RELIEF_SHARES:
            tried.append((length * tile_px, share))
            scores.append(_restricted_likelihood(share * relief + (1 - share) * noise, design, offset))
    # No relief is one answer as each of its lengths is.
    log = np.array([score for score, _ in scores])
    before = np.full(len(log), (1 - FLAT) / (len(log) - 1))
    before[0] = FLAT
    probability = before * np.exp(log - log.max())
    probability /= probability.sum()
    probability = np.where(probability < LEAST_PROBABILITY, 0, probability)
    probability /= probability.sum()
    return Correlations(
        tuple(
            Correlation(float(p), length, share, variance)
            for p, (length, share), (_, variance) in zip(probability, tried, scores, strict=True)
            if p > 0
        ),
        tile_px,
    )


def _restricted_likelihood(
    correlation: FloatArray, design: FloatArray, offset: FloatArray
) -> tuple[float, FloatArray]:
    """Logarithm of the likelihood of what the design leaves of offsets (N, 2), and their variance (2, 2)."""
    n, k = design.shape
    root = np.linalg.cholesky(correlation + 1e-6 * np.eye(n))
    white = solve_triangular(root, np.hstack([design, offset]), lower=True, check_finite=False)
    basis, triangle = np.linalg.qr(white[:, :k])
    left = white[:, k:] - basis @ (basis.T @ white[:, k:])
    # 1e-12: offsets without any error have a likelihood as well.
    variance = left.T @ left / max(n - k, 1) + 1e-12 * np.eye(2)
    log = -(n - k) / 2 * np.linalg.slogdet(variance)[1]
    log -= 2 * np.log(np.diag(root)).sum() + 2 * np.log(np.abs(np.diag(triangle))).sum()
    return float(log), variance


def _near_and_far(corner_px: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of all points, or of `MOST_POINTS` in groups of neighbours all over the scene."""
    n = len(corner_px)
    if n <= MOST_POINTS:
        return np.arange(n)
    seeds = np.random.default_rng(0).permutation(n)[: MOST_POINTS // TOGETHER]
    _, index = cKDTree(corner_px).query(corner_px[seeds], k=TOGETHER)
    return np.unique(index)


@dataclass(frozen=True, slots=True, eq=False)
class _Lattice:
    """The cells that the points lie in: sums over all pairs of points are products of spectra there."""

    cell: NDArray[np.int64]
    """(N, 2) row and column of each point's cell."""
    shape: tuple[int, int]
    """Rows and columns with the room that lags need."""
    lag_px: tuple[FloatArray, FloatArray]
    """Distance (rows, cols) that each cell stands for as a lag, px."""

    @classmethod
    def of(cls, corner_px: NDArray[np.int64], *, tile_px: int) -> _Lattice:
        from_first = corner_px - corner_px.min(axis=0)
        steps = np.diff(np.unique(from_first))
        step = int(steps.min(initial=tile_px))
        edge = max(min(step, tile_px), int(np.ceil((from_first.max() + 1) / WIDEST_LATTICE)))
        cell = np.rint(from_first / edge).astype(np.int64)
        rows, cols = (next_fast_len(2 * int(last) + 1, real=True) for last in cell.max(axis=0))
        lags = (np.minimum(np.arange(size), size - np.arange(size)) * float(edge) for size in (rows, cols))
        row, col = np.meshgrid(*lags, indexing="ij")
        return cls(cell, (rows, cols), (row, col))

    def spectra(self, value: FloatArray) -> NDArray[np.complex128]:
        """Spectra (k, rows, cols) of values (k, N) that are summed up in their cells."""
        grid = np.zeros((len(value), *self.shape))
        for plane, row in zip(grid, value, strict=True):
            np.add.at(plane, (self.cell[:, 0], self.cell[:, 1]), row)
        spectrum: NDArray[np.complex128] = rfft2(grid)
        return spectrum

    def product(self, spectrum: NDArray[np.complex128], correlation: FloatArray) -> FloatArray:
        """Sum (k, k) of value x correlation x value over all pairs of points."""
        kernel = rfft2(correlation).real
        k = len(spectrum)
        summed = np.zeros((k, k))
        for i in range(k):
            for j in range(i, k):
                # The middle of the circular correlation: lag 0 of one value with the smoothed other.
                at_zero = irfft2(spectrum[i] * kernel * spectrum[j].conj(), s=self.shape)[0, 0]
                summed[i, j] = summed[j, i] = float(at_zero)
        return summed
