"""What a translation leaves unsaid: a rotation, scale and shear that the points neither prove nor exclude."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from crosstie.estimation.fit import Fit, Frame
    from crosstie.types import FloatArray

TYPICAL_LINEAR = 1e-3
"""Standard deviation of each of the four numbers of A - 1 over deliveries: 0.06 degrees, 0.1 %."""

LINEAR = [0, 1, 3, 4]
"""Rows of the linear part in the covariance of an affine: (ux, uy) of x, then of y."""


def evidence(fit: Fit, numbers: list[int]) -> float:
    """Squared length of coefficients, counted as in the covariance, in their variances (chi-squared)."""
    part = fit.beta.T.ravel()[numbers]
    covariance = fit.covariance[np.ix_(numbers, numbers)]
    return float(part @ np.linalg.solve(covariance, part))


def unsaid_px2(affine: Fit | None, frame: Frame, s_m: FloatArray, *, margin_m: float) -> FloatArray:
    """Mean square (2, 2) of what the linear part does at the corners of the scene, px^2.

    What is known before (deliveries are straight, within `TYPICAL_LINEAR`) and what the points say are
    weighted by their variances.

    Parameters
    ----------
    affine : Fit or None
        Fit of the affine; None where the points do not determine one.
    frame : Frame
        The frame of the fit.
    s_m : FloatArray
        (N, 2) used positions in the secondary, metres.
    margin_m : float
        From the outermost positions to the corners of the scene, metres: half a tile.
    """
    prior = np.eye(4) * (TYPICAL_LINEAR * frame.scale_m / frame.pixel_m) ** 2
    middle, covariance = np.zeros(4), prior
    if affine is not None:
        seen = affine.covariance[np.ix_(LINEAR, LINEAR)]
        gain = np.linalg.solve(seen + prior, prior).T
        middle = gain @ affine.beta[:2].T.ravel()
        covariance = prior - gain @ prior
    second = (np.outer(middle, middle) + covariance).reshape(2, 2, 2, 2)
    low, high = s_m.min(axis=0) - margin_m, s_m.max(axis=0) + margin_m
    corners = np.array([[x, y] for x in (low[0], high[0]) for y in (low[1], high[1])])
    u = (corners - frame.centre_m) / frame.scale_m
    square: FloatArray = np.einsum("ci,aibj,cj->ab", u, second, u) / len(u)
    return square
