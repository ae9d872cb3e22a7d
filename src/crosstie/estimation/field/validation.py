"""What held-out ground says of a field: how smooth, which points to trust, how good, and where.

A tie point is predicted only from tiles that share no pixel with its own, so that neither noise nor a wrong
peak that overlapping tiles have in common can speak for itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crosstie.estimation.field.kriging import Covariance, Layout, Samples, krige, krige_laid_out
from crosstie.estimation.fit import SIGMA_FLOOR_PX
from crosstie.estimation.select import cell_index

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.types import FloatArray

LENGTHS_TILES = (1.0, 2.0, 4.0, 8.0)
"""Correlation lengths that are tried, tiles."""

NOISES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Shares of noise that are tried."""

FREEDOM = 2.0
"""Degrees of freedom of Student's t: what is wrong is wrong by any amount."""

LEAST_WEIGHT = 1e-3

TRUSTED = 0.5
"""Weight from which a point counts as used."""

CHI2_MEDIAN = 1.3862943611198906
"""Of two degrees of freedom, 2 ln 2."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Every sample next to what tiles without a common pixel say of its place."""

    relief_px: FloatArray
    """(N, 2) predicted."""
    left_px: FloatArray
    """(N, 2) measured less predicted."""
    variance: FloatArray
    """(N,) predicted, of `left_px` per axis, in units of the relief's."""
    amplitude_px2: float
    """Variance of the relief per axis, such that half the residuals are as long as they should be."""

    @property
    def z2(self) -> FloatArray:
        """(N,) squared length in standard deviations per axis; 2 on average if all were normal."""
        z2: FloatArray = (self.left_px**2).sum(axis=1) / (self.amplitude_px2 * self.variance)
        return z2

    @property
    def log_score(self) -> FloatArray:
        """(N,) logarithm of the density (Student's t) that was given to what was measured."""
        tail = (FREEDOM + 2) / 2 * np.log1p(self.z2 / FREEDOM)
        score: FloatArray = -np.log(self.amplitude_px2 * self.variance) - tail
        return score


def hold_out(samples: Samples, apart: NDArray[np.int64], covariance: Covariance) -> HeldOut:
    """Predict all samples from neighbours `apart` (N, k), which share no pixel with them."""
    relief, gap = krige(samples, samples.centre_px, apart, covariance)
    return _held_out(samples.offset_px, relief, gap + covariance.noise)


def _held_out(measured_px: FloatArray, relief: FloatArray, variance: FloatArray) -> HeldOut:
    left = measured_px - relief
    typical = float(np.median((left**2).sum(axis=1) / variance)) / CHI2_MEDIAN
    return HeldOut(relief, left, variance, max(typical, SIGMA_FLOOR_PX**2))


def reweighted(
    samples: Samples, apart: NDArray[np.int64], covariance: Covariance, *, rounds: int
) -> tuple[Samples, HeldOut]:
    """Trust each sample as far as tiles without a common pixel confirm it: clusters cannot help themselves.

    References
    ----------
    Lange, Little & Taylor (1989), Robust statistical modeling using the t distribution.
    """
    held = hold_out(samples, apart, covariance)
    for _ in range(rounds):
        weight = (FREEDOM + 2) / (FREEDOM + held.z2)
        samples = samples.trusted(np.clip(weight, LEAST_WEIGHT, 1.0))
        held = hold_out(samples, apart, covariance)
    return samples, held


@dataclass(frozen=True, slots=True)
class SmoothnessChoice:
    """The smoothness that held-out ground asks for."""

    covariance: Covariance
    rivals: tuple[Covariance, ...]
    """All that held-out ground cannot tell from the best."""


def choose(
    samples: Samples, apart: NDArray[np.int64], *, tile_px: int, most: int, rng: np.random.Generator
) -> SmoothnessChoice:
    """Choose length and noise by the score of held-out tiles.

    Of all that score within one standard error of the best the one that calls most of the scatter noise:
    what is not proven relief is none (the one-standard-error rule).

    References
    ----------
    Breiman, Friedman, Olshen & Stone (1984), Classification and Regression Trees, section 3.4.3.
    Gneiting & Raftery (2007), Strictly proper scoring rules, prediction, and estimation.
    """
    which = np.sort(rng.permutation(len(samples))[:most])
    block = cell_index(samples.centre_px[which].astype(np.int64), edge_px=2 * tile_px)
    tried = [Covariance(length * tile_px, noise, tile_px) for length in LENGTHS_TILES for noise in NOISES]
    layout = Layout.of(samples, samples.centre_px[which], apart[which], tile_px=tile_px)
    held = []
    for covariance in tried:
        relief, gap = krige_laid_out(layout, samples, covariance)
        held.append(_held_out(samples.offset_px[which], relief, gap + covariance.noise))
    score = np.array([h.log_score for h in held])
    best = int(score.mean(axis=1).argmax())
    equal = [
        number
        for number, row in enumerate(score)
        if (score[best] - row).mean() <= block_standard_error(score[best] - row, block)
    ]
    noise = [held[number].amplitude_px2 * tried[number].noise for number in equal]
    return SmoothnessChoice(tried[equal[int(np.argmax(noise))]], tuple(tried[number] for number in equal))


def block_standard_error(value: FloatArray, block: NDArray[np.int64]) -> float:
    """Of the mean of values (N,) that are correlated within blocks (N,) numbered 0 .. G - 1."""
    groups = int(block.max()) + 1
    if groups < 2:
        return float("inf")
    total = np.bincount(block, weights=value - value.mean())
    return float(np.sqrt((total**2).sum() * groups / (groups - 1))) / len(value)


@dataclass(frozen=True, slots=True)
class Gain:
    """Mean squared length that the field takes off, px^2, at places it has not seen."""

    affine_px2: float
    field_px2: float
    standard_error_px2: float

    @property
    def px2(self) -> float:
        return self.affine_px2 - self.field_px2


def truncated(left_px: FloatArray, limit_px: float) -> FloatArray:
    """(N,) squared length of (N, 2), no more than the limit's: wrong points count the same for all models."""
    length2: FloatArray = np.minimum((left_px**2).sum(axis=1), limit_px**2)
    return length2


def gain(samples: Samples, held: HeldOut, *, tile_px: int, sigmas: float) -> Gain:
    """Compare field and affine over all samples, trusted or not: trust was measured on the field."""
    limit = sigmas * float(np.sqrt(held.amplitude_px2 * np.median(held.variance)))
    before, after = truncated(samples.offset_px, limit), truncated(held.left_px, limit)
    block = cell_index(samples.centre_px.astype(np.int64), edge_px=2 * tile_px)
    return Gain(float(before.mean()), float(after.mean()), block_standard_error(before - after, block))


TYPICAL_LIMIT = 18.0
"""Largest z2 that tells of the field, not of a wrong match. Relief lies along the look direction: where a
residual is all along one axis, 1 in 66 normal ones is longer, in any direction 1 in 8,000."""


def typical_z2(held: HeldOut) -> float:
    """Mean squared length of the residuals in standard deviations, wrong matches aside."""
    z2 = held.z2
    return float(z2[z2 <= TYPICAL_LIMIT].mean())
