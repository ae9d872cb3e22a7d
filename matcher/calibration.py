"""Evidence of a correlation peak -> calibrated confidence and sigma.

Confidence is a logistic regression on the evidence (Platt 1999), fitted on places that the network never
learnt from, with unrelated pairs among them so that nonsense gets a confidence near zero. Sigma is a
log-linear model of the spread, fitted by maximum likelihood on the same places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Array = NDArray[np.float64]

EVIDENCE = ("peak", "lead", "log10_mass_outside", "logit_lead", "deep", "deep_gap")
"""Of each template: shallow correlation at the peak and its lead over the second peak; logarithm of the
probability outside the peak; lead in logits, deep and shallow together; deep correlation at the peak, and how
far that is below the deep maximum (0 where the two levels agree)."""

CONFIDENCE_TERMS = (*EVIDENCE, "log2_size", "bias")
"""What the weights of the confidence belong to."""

SIGMA_TERMS = ("log_spread", "log10_mass_outside", "log2_size", "bias")
"""What the weights of the logarithm of sigma belong to."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    confidence_weights: Array
    """(8,) in the order of `CONFIDENCE_TERMS`."""
    sigma_weights: Array
    """(4,) in the order of `SIGMA_TERMS`; sigma in px per axis."""
    bias_px: Array
    """(2,) dx, dy that the network adds to every offset of SAR against optical, to be taken off."""

    def confidence(self, evidence: Array, size_px: int) -> Array:
        """Probability (N,) that an offset is within 1 px, from evidence (N, 6) of `peak.find_peaks`."""
        logit = _confidence_terms(evidence, size_px) @ self.confidence_weights
        return np.asarray(1 / (1 + np.exp(-np.clip(logit, -30, 30))))

    def sigma_px(self, evidence: Array, spread_px: Array, size_px: int) -> Array:
        """Standard deviation (N,) of the offset per axis, px."""
        log_sigma = _sigma_terms(evidence, spread_px, size_px) @ self.sigma_weights
        return np.asarray(np.exp(np.clip(log_sigma, np.log(0.02), np.log(10))))


def fit_calibration(
    evidence: Array, spread_px: Array, error_px: Array, sizes_px: NDArray[np.int64]
) -> Calibration:
    """Fit on N measured offsets.

    Parameters
    ----------
    evidence : (N, 6) of `peak.find_peaks`
    spread_px : (N,)
    error_px : (N, 2) measured minus true offset; infinite where the pair shows two different places
    sizes_px : (N,) side of each template
    """
    distance = np.hypot(error_px[:, 0], error_px[:, 1])
    good = distance <= 1
    terms = np.concatenate([_confidence_terms(evidence[sizes_px == s], int(s)) for s in np.unique(sizes_px)])
    order = np.concatenate([np.flatnonzero(sizes_px == s) for s in np.unique(sizes_px)])
    target = good[order].astype(np.float64)
    # Each term is scaled to one for the optimiser and the small ridge; undone in the weights.
    scale = np.maximum(terms.std(axis=0), 1e-6)
    scale[-1] = 1

    def loss(w: Array) -> tuple[float, Array]:
        z = (terms / scale) @ w
        value = np.logaddexp(0, z) - target * z
        slope = 1 / (1 + np.exp(-z)) - target
        return float(value.mean() + 1e-4 * w @ w), (terms / scale).T @ slope / len(z) + 2e-4 * w

    confidence = minimize(loss, np.zeros(terms.shape[1]), jac=True, method="L-BFGS-B").x / scale

    near = distance <= 3  # a false peak is the confidence's business, not sigma's
    groups = [(int(s), near & (sizes_px == s)) for s in np.unique(sizes_px)]
    sigma_terms = np.concatenate([_sigma_terms(evidence[m], spread_px[m], s) for s, m in groups])
    squares = np.concatenate([(error_px[m] ** 2).sum(1) for _, m in groups])

    def likelihood(w: Array) -> tuple[float, Array]:
        log_sigma = np.clip(sigma_terms @ w, -5, 3)
        ratio = squares * np.exp(-2 * log_sigma)
        return float((2 * log_sigma + ratio / 2).mean() + 1e-3 * w @ w), (
            sigma_terms.T @ (2 - ratio) / len(ratio) + 2e-3 * w
        )

    start = np.array([0.0, 0, 0, np.log(0.6)])
    return Calibration(confidence, minimize(likelihood, start, jac=True, method="L-BFGS-B").x, np.zeros(2))


def expected_calibration_error(confidence: Array, good: NDArray[np.bool_], *, bins: int = 10) -> float:
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


def _confidence_terms(evidence: Array, size_px: int) -> Array:
    n = len(evidence)
    return np.column_stack((evidence, np.full(n, np.log2(size_px / 128)), np.ones(n)))


def _sigma_terms(evidence: Array, spread_px: Array, size_px: int) -> Array:
    n = len(evidence)
    log_spread = np.log(np.maximum(spread_px, 1e-3))
    return np.column_stack((log_spread, evidence[:, 2], np.full(n, np.log2(size_px / 128)), np.ones(n)))
