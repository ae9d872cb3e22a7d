"""Robust fit of a displacement model, and its covariance.

Everything here is in pixels around the centre of the points: uncentred UTM coordinates lose digits
(Hartley & Zisserman 2004, section 4.4). `Frame` converts back to map coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from crosstie.types import AffineCorrection, Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.types import FloatArray

SIGMA_FLOOR_PX = 0.1
"""No tile is measured better than this; keeps weights finite where the data are clean."""

RAYLEIGH_MEDIAN = 1.1774100225154747
"""Median length of a residual in standard deviations per axis: sqrt(2 ln 2)."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Centred, scaled coordinates: u = (s - centre) / scale, offsets in pixels."""

    centre_m: FloatArray
    """(2,) mean position in the secondary, metres."""
    scale_m: float
    """RMS distance from it, metres: u is of size 1."""
    pixel_m: float

    @classmethod
    def around(cls, s_m: FloatArray, pixel_m: float) -> Self:
        """Frame of positions (N, 2) in the secondary, metres; N > 0."""
        centre = s_m.mean(axis=0)
        spread = float(np.sqrt(((s_m - centre) ** 2).sum(axis=1).mean()))
        return cls(centre_m=centre, scale_m=max(spread, pixel_m), pixel_m=pixel_m)

    def design(self, s_m: FloatArray, model: Model) -> FloatArray:
        """Columns of the model at positions (N, 2): (1,) for a translation, (ux, uy, 1) for an affine."""
        one = np.ones((len(s_m), 1))
        return np.hstack([(s_m - self.centre_m) / self.scale_m, one]) if model is Model.AFFINE else one

    def linear_part(self, beta: FloatArray) -> FloatArray:
        """(..., 3, 2) coefficients -> (..., 2, 2) matrix A - 1 of the map, without unit."""
        linear: FloatArray = np.swapaxes(beta[..., :2, :], -1, -2) * (self.pixel_m / self.scale_m)
        return linear

    def correction(self, fit: Fit) -> AffineCorrection:
        """Express a fit in raw map coordinates, covariance propagated exactly."""
        # theta = (ux->x, uy->x, 1->x, ux->y, uy->y, 1->y); rows of `jac` are a, b, c (then d, e, f).
        jac = np.zeros((3, 3))
        jac[0, 0] = jac[1, 1] = self.pixel_m / self.scale_m
        jac[2] = self.pixel_m * np.array([*(-self.centre_m / self.scale_m), 1.0])
        beta, free = np.zeros((3, 2)), np.zeros(6, np.bool_)
        if fit.model is Model.AFFINE:
            beta, free = fit.beta, np.ones(6, np.bool_)
        else:
            beta[2], free[[2, 5]] = fit.beta[0], True
        (a, b, c), (d, e, f) = (jac @ beta).T
        centred = np.zeros((6, 6))
        centred[np.ix_(free, free)] = fit.covariance
        full = np.kron(np.eye(2), jac)
        covariance = full @ centred @ full.T
        return AffineCorrection(
            model=fit.model,
            affine=(1 + float(a), float(b), float(c), float(d), 1 + float(e), float(f)),
            covariance=(covariance + covariance.T) / 2,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Displacement D = design @ beta, so that position in the secondary + D = position in the reference."""

    model: Model
    beta: FloatArray
    """(k, 2) coefficients of x and y, px; k = 1 for a translation, 3 for an affine."""
    covariance: FloatArray
    """(2k, 2k) of (beta[:, 0], beta[:, 1]), px^2."""

    def standard_error_px(self, design: FloatArray) -> FloatArray:
        """Of the displacement, (N, 2) per axis, px."""
        k = len(self.beta)
        variance = [
            np.einsum("ni,ij,nj->n", design, block, design)
            for block in (self.covariance[:k, :k], self.covariance[k:, k:])
        ]
        error: FloatArray = np.sqrt(np.maximum(np.stack(variance, axis=1), 0))
        return error


@dataclass(frozen=True, slots=True)
class Loss:
    """Cauchy loss of the length of a residual."""

    scale_px: float

    def weight(self, residual: FloatArray) -> FloatArray:
        """(N,) weight of residuals (N, 2) in the normal equations."""
        weight: FloatArray = 1 / (1 + (residual**2).sum(axis=1) / self.scale_px**2)
        return weight


def robust_sigma_px(residual: FloatArray) -> float:
    """Standard deviation per axis of residuals (N, 2), px, from their median length."""
    return float(np.median(np.hypot(residual[:, 0], residual[:, 1]))) / RAYLEIGH_MEDIAN


def precision(sigma_px: FloatArray, total_sigma_px: float) -> FloatArray:
    """Weights (N,) of points from their own noise and the relief that all of them share.

    Relief is the excess of `total_sigma_px`, the scatter around the fit, over the noise. Where relief
    dominates, all points have the same weight, however sharp their peaks are.
    """
    relief2 = max(total_sigma_px**2 - float(np.median(sigma_px**2)), 0.0)
    weight: FloatArray = 1 / (sigma_px**2 + relief2 + SIGMA_FLOOR_PX**2)
    return weight


def solve(design: FloatArray, offset: FloatArray, weight: FloatArray) -> FloatArray:
    """Weighted least squares of displacement = -offset; (k, 2) coefficients."""
    weighted = design * weight[:, None]
    beta = np.linalg.solve(weighted.T @ design, -weighted.T @ offset)
    return beta.astype(np.float64, copy=False)


def fit_cauchy(
    design: FloatArray, offset: FloatArray, weight: FloatArray, loss: Loss, *, start: FloatArray
) -> FloatArray:
    """Minimise the weighted Cauchy loss by reweighted least squares from a warm start.

    The loss is of the residual's length, not of each axis, so the result does not depend on the axes.

    Parameters
    ----------
    design : FloatArray
        (N, k) columns of the model.
    offset : FloatArray
        (N, 2) measured offsets, px.
    weight : FloatArray
        (N,) weights of the points.
    loss : Loss
        Cauchy loss of a residual.
    start : FloatArray
        (k, 2) coefficients to start from.

    Returns
    -------
    FloatArray
        (k, 2) coefficients, px.

    References
    ----------
    Holland & Welsch (1977), Robust regression using iteratively reweighted least squares.
    """
    beta = start
    for _ in range(50):
        new = solve(design, offset, weight * loss.weight(offset + design @ beta))
        step = float(np.abs(new - beta).max())
        beta = new
        if step < 1e-9:
            break
    return beta


def block_covariance(
    design: FloatArray,
    residual: FloatArray,
    weight: FloatArray,
    loss: Loss,
    block: NDArray[np.int64],
) -> FloatArray:
    """Covariance (2k, 2k) of a Cauchy fit whose residuals are correlated within blocks.

    The cluster-robust sandwich in its jackknife form, CR3: each block is left out in turn, to first order.
    Unlike the sandwich of Liang & Zeger (1986) it is not too optimistic for few blocks.

    Parameters
    ----------
    design : FloatArray
        (N, k) columns of the model.
    residual : FloatArray
        (N, 2) residuals of the fit, px.
    weight : FloatArray
        (N,) weights of the points.
    loss : Loss
        Loss of the fit.
    block : IntArray
        (N,) block of each point, 0 .. G - 1; every block has a point.

    References
    ----------
    Cameron & Miller (2015), A practitioner's guide to cluster-robust inference, section VI.B.
    """
    k, groups = design.shape[1], int(block.max()) + 1
    w = loss.weight(residual)
    score = (weight * w)[:, None, None] * residual[:, :, None] * design[:, None, :]
    # Second derivative of the loss by the residual: w 1 - 2 w^2 / c^2 r r^T (2 x 2 per point).
    curvature = w[:, None, None] * np.eye(2) - (2 * w**2 / loss.scale_px**2)[:, None, None] * (
        residual[:, :, None] * residual[:, None, :]
    )
    hessian = np.einsum("n,nab,ni,nj->naibj", weight, curvature, design, design).reshape(-1, 2 * k, 2 * k)
    scores, hessians = np.zeros((groups, 2 * k)), np.zeros((groups, 2 * k, 2 * k))
    np.add.at(scores, block, score.reshape(-1, 2 * k))
    np.add.at(hessians, block, hessian)
    moved = np.linalg.solve(hessians.sum(axis=0) - hessians, scores[:, :, None])[:, :, 0]
    covariance: FloatArray = (groups - 1) / groups * moved.T @ moved
    return covariance


def estimator(design: FloatArray, weight: FloatArray) -> FloatArray:
    """Share (k, N) of each displacement in the coefficients of a weighted fit."""
    weighted = design * weight[:, None]
    share = np.linalg.solve(weighted.T @ design, weighted.T)
    return share.astype(np.float64, copy=False)
