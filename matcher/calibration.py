"""Evidence of a correlation peak -> calibrated confidence and sigma.

Confidence is a logistic regression on the evidence (Platt 1999). It is fitted on places that the network
never learnt from, with unrelated pairs among them, so that nonsense gets a confidence near zero. Sigma is the
scatter of an offset when the same ground is measured again on moved pixels: a log-linear model, fitted on the
same places and scaled so that 68 % of the scatter lies within one sigma. Differences between the two images
themselves (relief, speckle, season) are not part of sigma: the fit estimates them from its residuals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

if TYPE_CHECKING:
    from crosstie.types import BoolArray, FloatArray, IntArray

EVIDENCE = ("log10_mass_outside", "logit_lead", "deep_gap")
"""Of each template: logarithm of the probability that is not at the peak; lead over the second peak, in
logits of both levels together; how far the deep correlation at the peak is below its maximum (0 where the
levels agree). Correlations themselves are left out: they differ between sensors more than they tell."""

CONFIDENCE_TERMS = (*EVIDENCE, "log2_size", "bias")
"""Terms that the weights of the confidence belong to, in order."""

SIGMA_TERMS = ("log_spread", "log10_mass_outside", "log2_size", "bias")
"""Terms that the weights of the logarithm of sigma belong to, in order."""


ONE_SIGMA = 0.6827
"""Share of a normal distribution within one standard deviation."""

SIGMA_RANGE_PX = (0.002, 10.0)
"""Smallest and largest sigma that is stated."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Turns the evidence of a peak into confidence and sigma, and holds the bias of the network."""

    confidence_weights: FloatArray
    """(5,) in the order of `CONFIDENCE_TERMS`."""
    sigma_weights: FloatArray
    """(4,) in the order of `SIGMA_TERMS`; sigma in px per axis."""
    bias_px: FloatArray
    """(2,) dx, dy that the network adds to every offset of SAR against optical; it is subtracted."""

    def confidence(self, evidence: FloatArray, size_px: int) -> FloatArray:
        """Probability (N,) that an offset is within 1 px, from evidence (N, 3) of `peak.find_peaks`."""
        return confidence(evidence, np.full(len(evidence), size_px), self.confidence_weights)

    def sigma_px(self, evidence: FloatArray, spread_px: FloatArray, size_px: int) -> FloatArray:
        """Standard deviation (N,) of a repeated measurement per axis, px."""
        sizes_px = np.full(len(evidence), size_px)
        log_sigma = _sigma_terms(evidence, spread_px, sizes_px) @ self.sigma_weights
        return np.asarray(np.exp(np.clip(log_sigma, *np.log(SIGMA_RANGE_PX))))


def confidence(evidence: FloatArray, sizes_px: IntArray, weights: FloatArray) -> FloatArray:
    """Probability (N,) that an offset is within 1 px, by weights of `fit_confidence`."""
    logit = _confidence_terms(evidence, sizes_px) @ weights
    return np.asarray(1 / (1 + np.exp(-np.clip(logit, -30, 30))))


def fit_confidence(evidence: FloatArray, right: BoolArray, sizes_px: IntArray) -> FloatArray:
    """Weights (5,) of the confidence, from N measured offsets.

    Parameters
    ----------
    evidence : FloatArray
        (N, 3) of `peak.find_peaks`.
    right : BoolArray
        (N,) whether the offset is within 1 px of the truth.
    sizes_px : IntArray
        (N,) side of each template.
    """
    target = right.astype(np.float64)
    terms = _confidence_terms(evidence, sizes_px)
    # Each term is scaled to one for the optimiser and the small ridge; undone in the weights.
    scale = np.maximum(terms.std(axis=0), 1e-6)
    scale[-1] = 1

    def loss(w: FloatArray) -> tuple[float, FloatArray]:
        z = (terms / scale) @ w
        value = np.logaddexp(0, z) - target * z
        slope = 1 / (1 + np.exp(-z)) - target
        return float(value.mean() + 1e-4 * w @ w), (terms / scale).T @ slope / len(z) + 2e-4 * w

    found: FloatArray = minimize(loss, np.zeros(terms.shape[1]), jac=True, method="L-BFGS-B").x / scale
    return found


def fit_sigma(
    evidence: FloatArray, spread_px: FloatArray, closure_px: FloatArray, sizes_px: IntArray
) -> FloatArray:
    """Weights (4,) of the logarithm of sigma, from N offsets that were measured twice.

    Parameters
    ----------
    evidence, spread_px : FloatArray
        (N, 3) and (N,) of the first measurement.
    closure_px : FloatArray
        (N, 2) difference of both measurements less the known movement between them.
    sizes_px : IntArray
        (N,) side of each template.
    """
    same_peak = (
        np.hypot(closure_px[:, 0], closure_px[:, 1]) <= 1
    )  # a wrong peak is covered by the confidence, not by sigma
    terms = _sigma_terms(evidence, spread_px, sizes_px)[same_peak]
    error = np.abs(closure_px[same_peak])
    # Absolute deviations: closure errors have long tails, and a few tiles must not set the scale of all.
    size = error.mean(axis=1)

    def likelihood(w: FloatArray) -> tuple[float, FloatArray]:
        log_scale = np.clip(terms @ w, -8, 3)
        ratio = size * np.exp(-log_scale)
        return float((log_scale + ratio).mean() + 1e-4 * w @ w), terms.T @ (1 - ratio) / len(ratio) + 2e-4 * w

    start = np.array([0.0, 0, 0, np.log(max(float(size.mean()), 1e-3))])
    weights: FloatArray = minimize(likelihood, start, jac=True, method="L-BFGS-B").x
    weights[-1] += np.log(np.quantile(error / np.exp(terms @ weights)[:, None], ONE_SIGMA))
    return weights


def expected_calibration_error(confidence: FloatArray, good: BoolArray, *, bins: int = 10) -> float:
    """Mean gap between confidence and hit rate over equal-width bins, weighted by their counts.

    Naeini, Cooper & Hauskrecht (2015), AAAI, equation 2.
    """
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(confidence[which == b].mean() - good[which == b].mean()) * (which == b).mean()
        for b in range(bins)
        if (which == b).any()
    ]
    return float(sum(gaps))


def _confidence_terms(evidence: FloatArray, sizes_px: IntArray) -> FloatArray:
    """Columns (N, 5) in the order of `CONFIDENCE_TERMS`."""
    return np.column_stack((evidence, np.log2(sizes_px / 128), np.ones(len(evidence))))


def _sigma_terms(evidence: FloatArray, spread_px: FloatArray, sizes_px: IntArray) -> FloatArray:
    """Columns (N, 4) in the order of `SIGMA_TERMS`."""
    log_spread = np.log(np.maximum(spread_px, 1e-3))
    return np.column_stack((log_spread, evidence[:, 0], np.log2(sizes_px / 128), np.ones(len(evidence))))
