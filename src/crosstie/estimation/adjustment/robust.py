"""A start that wrong edges do not pull: reweighted least squares on the length of the residual."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse.linalg import cg
from scipy.stats import chi2

from crosstie.estimation.adjustment.normal import Normal, assembled

if TYPE_CHECKING:
    from crosstie.estimation.adjustment.normal import Structure
    from crosstie.types import FloatArray

ROBUST_ROUNDS = 12
"""At most, of the convex loss, and as many of the one that forgets."""

ROBUST_SETTLED = 0.01
"""A round that moves no edge by more than this many sigmas is the last."""

CG_TOLERANCE, CG_ROUNDS = 1e-7, 3000


def differences(x: FloatArray, structure: Structure) -> FloatArray:
    """(E, b, m) of unknowns (n, b, m): end `j` minus end `i`, 0 where an end is held."""
    padded = np.concatenate([x, np.zeros((1, *x.shape[1:]))])
    difference: FloatArray = padded[structure.j] - padded[structure.i]
    return difference


def gathered(values: FloatArray, structure: Structure) -> FloatArray:
    """(n, b, m): what edges (E, b, m) sum to at each scene; the transpose of `differences`."""
    out = np.zeros((structure.n + 1, *values.shape[1:]))
    np.add.at(out, structure.j, values)
    np.add.at(out, structure.i, -values)
    return out[:-1]


def least_squares(
    structure: Structure, observed: FloatArray, weight: FloatArray, prior: FloatArray
) -> tuple[Normal, FloatArray]:
    """Factorised normal matrix and unknowns (n, b, m) of observed differences (E, b, m)."""
    normal = Normal.of(structure, weight, prior)
    return normal, normal.solve(gathered(weight @ observed, structure))


def _iterated(
    structure: Structure,
    observed: FloatArray,
    weight: FloatArray,
    prior: FloatArray,
    *,
    start: FloatArray | None,
) -> FloatArray:
    """Unknowns (n, b, m) by conjugate gradients: a start need not be exact, nor know its covariance."""
    matrix, inverse = assembled(structure, weight, prior)
    right = gathered(weight @ observed, structure)
    n, b, m = right.shape
    out = np.empty((n * b, m))
    for axis in range(m):
        guess = None if start is None else start[:, :, axis].ravel()
        out[:, axis], failed = cg(
            matrix, right[:, :, axis].ravel(), x0=guess, rtol=CG_TOLERANCE, maxiter=CG_ROUNDS, M=inverse
        )
        if failed:
            return least_squares(structure, observed, weight, prior)[1]
    return out.reshape(n, b, m)


def lengths(residual: FloatArray, weight: FloatArray) -> FloatArray:
    """(E,) length of residuals (E, b, m) in their own sigmas."""
    squared: FloatArray = np.einsum("ebm,ebc,ecm->e", residual, weight, residual)
    return np.sqrt(np.maximum(squared, 0))


def robust_residuals(
    structure: Structure,
    observed: FloatArray,
    weight: FloatArray,
    prior: FloatArray,
    *,
    size: int,
    huber_sigmas: float,
    redundancy: float,
) -> tuple[FloatArray, float]:
    """Residual lengths (E,) in sigmas of a robust fit, and the factor by which the sigmas are too small.

    Huber's loss first, which has one minimum; then the Danish method from there, which forgets what is far.

    Parameters
    ----------
    size : int
        Numbers that an edge measures.
    redundancy : float
        Share of an error that residuals show, on average: fits of few edges look too good.

    References
    ----------
    Huber (1964), Robust estimation of a location parameter.
    Krarup, Juhl & Kubik (1980), Götterdämmerung over least squares adjustment.
    """
    typical = np.sqrt(chi2.median(size) * max(redundancy, 0.05))
    factor, length = np.ones(len(observed)), np.zeros(len(observed))
    scale, x = 1.0, None
    for danish in (False, True):
        for _ in range(ROBUST_ROUNDS):
            new = _iterated(structure, observed, weight * factor[:, None, None], prior, start=x)
            length = lengths(observed - differences(new, structure), weight)
            scale = max(float(np.median(length)) / typical, 1e-6)
            cut = huber_sigmas * np.sqrt(size) * scale
            ratio = np.maximum(length / cut, 1.0)
            # Not to 0: a scene whose edges all are far must stay tied.
            factor = np.maximum(np.exp(1 - ratio**2), 1e-8) if danish else 1 / ratio
            moved = np.inf if x is None else lengths(differences(new - x, structure), weight).max(initial=0)
            x = new
            if moved < ROBUST_SETTLED * scale:
                break
    return length, scale
