"""What the sigmas of pairs leave out: noise that all pairs have, however sharp their peaks.

A matcher's sigma tells sharp peaks from blunt ones. What differs between two dates on the ground (shadows,
leaves, tides) moves sharp peaks as well, and a network without it leans on a few pairs that seem perfect.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

from crosstie.estimation.adjustment.adjust import adjust
from crosstie.estimation.adjustment.network import (
    ADJUSTMENT_DEFAULTS,
    MEAN_OF_REFERENCES,
    Adjustment,
    AdjustmentSettings,
    Datum,
    Edges,
)
from crosstie.estimation.adjustment.reliability import NO_CONTROL

if TYPE_CHECKING:
    from crosstie.types import FloatArray

NOISE_ROUNDS = 10
"""Of adjusting and looking at the scatter, at most: the first rounds weigh sharp pairs far too much."""

NOISE_SETTLED = 0.01
"""A round that changes both parts by a smaller share is the last."""


@dataclass(frozen=True, slots=True)
class PairNoise:
    """Variance of a pair per axis: (factor * its own sigma)^2 + common_m^2."""

    factor: float
    common_m: float
    """Metres."""


def seen_noise(found: Adjustment) -> PairNoise:
    """Fit both parts to the residuals of the edges kept, by likelihood, each by its redundancy.

    Needs pairs of unlike sigma to tell the two apart; the result holds for pairs of that kind in any case.

    References
    ----------
    Koch (1999), Parameter estimation and hypothesis testing in linear models, 2nd ed.
    """
    controlled = found.adjusted.kept & (found.adjusted.redundancy > NO_CONTROL)
    variance = 1 / np.diagonal(found.edges.information[controlled, :2, :2], axis1=1, axis2=2).mean(axis=1)
    free = 2 * found.adjusted.redundancy[controlled]
    square = (found.adjusted.residual_m[controlled, :2] ** 2).sum(axis=1)
    if free.sum() < found.settings.min_degrees_of_freedom:
        return PairNoise(1.0, 0.0)
    return fitted_noise(variance, free, square)


def fitted_noise(variance: FloatArray, free: FloatArray, square: FloatArray) -> PairNoise:
    """Fit both parts by likelihood.

    Parameters
    ----------
    variance : FloatArray
        (E,) what each edge says of itself, per number that it measures.
    free : FloatArray
        (E,) degrees of freedom that its residual has.
    square : FloatArray
        (E,) squared length of its residual.
    """
    start = np.log(np.maximum([np.median(square / free / variance), np.median(square / free)], 1e-12)) / 2

    def lack_of_fit(logs: np.ndarray) -> float:
        model = np.exp(2 * logs[0]) * variance + np.exp(2 * logs[1])
        return float((free * np.log(model) + square / model).sum())

    best = minimize(lack_of_fit, start, method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-3})
    factor, common = np.exp(best.x)
    return PairNoise(float(factor), float(common))


def with_noise(edges: Edges, noise: PairNoise) -> Edges:
    """Edges whose x and y are as unsure as `noise` says; a linear part is scaled as the factor says."""
    information = edges.information / noise.factor**2
    identity = np.eye(edges.size)
    identity[2:] = 0
    loosened = np.linalg.solve(np.eye(edges.size) + noise.common_m**2 * information @ identity, information)
    return replace(edges, information=(loosened + loosened.transpose(0, 2, 1)) / 2)


def adjust_with_seen_noise(
    edges: Edges, *, datum: Datum = MEAN_OF_REFERENCES, settings: AdjustmentSettings = ADJUSTMENT_DEFAULTS
) -> tuple[Adjustment, PairNoise]:
    """`adjust` with the sigmas that the network itself shows. Robust in the same way; errors as `adjust`."""
    noise, found = PairNoise(1.0, 0.0), adjust(edges, datum=datum, settings=settings)
    for _ in range(NOISE_ROUNDS):
        # Residuals against the sigmas that came in: the fit is of those, not of the last round's.
        before, noise = noise, seen_noise(replace(found, edges=edges))
        found = adjust(with_noise(edges, noise), datum=datum, settings=settings)
        moved = abs(noise.factor - before.factor), abs(noise.common_m - before.common_m)
        if moved[0] <= NOISE_SETTLED * noise.factor and moved[1] <= NOISE_SETTLED * noise.common_m:
            break
    return found, noise
