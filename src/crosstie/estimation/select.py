"""Find the tie points that agree with one another, and test whether that could be chance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crosstie.estimation.fit import (
    SIGMA_FLOOR_PX,
    Frame,
    Loss,
    fit_cauchy,
    precision,
    robust_sigma_px,
    solve,
)
from crosstie.types import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.estimation.settings import EstimationSettings
    from crosstie.types import BoolArray, FloatArray

MAX_SCORED = 2000
"""Points that hypotheses are scored on; more of them name the same winner."""

SEED_LINEAR = 0.06
"""Largest entry of A - 1 of a hypothesis, 3.4 degrees: thrice what is plausible, so that an implausible
truth is found and named, while noise has no free hand."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What may vote: columns of length N in pixels, in an order that does not depend on the caller's."""

    s_m: FloatArray
    """(N, 2) position in the secondary, metres."""
    offset_px: FloatArray
    """(N, 2)"""
    sigma_px: FloatArray
    confidence: FloatArray
    corner_px: NDArray[np.int64]
    """(N, 2) first (row, col) of the tile in the grid."""

    def __len__(self) -> int:
        return len(self.s_m)

    def keep(self, mask: BoolArray) -> Candidates:
        return Candidates(
            self.s_m[mask],
            self.offset_px[mask],
            self.sigma_px[mask],
            self.confidence[mask],
            self.corner_px[mask],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Consensus:
    """The largest agreement among the candidates."""

    kept: BoolArray
    """(N,) candidates within the threshold."""
    threshold_px: float
    sigma_px: float
    """Robust scatter of the kept points around the fit, per axis: noise and relief."""
    share: float
    """Share of the candidates that is kept, weighted by confidence."""
    false_alarms: float
    """Expected number of such agreements by chance."""


def consensus(
    candidates: Candidates, frame: Frame, *, model: Model, tile_px: int, settings: EstimationSettings
) -> Consensus:
    """Find the largest group of candidates that one plausible model explains.

    RANSAC with a truncated loss (Torr & Zisserman 2000), then refits with a threshold that follows the
    scatter, so that relief is kept as long as it is one cloud. The seed is fixed: no luck between runs.
    """
    design = frame.design(candidates.s_m, model)
    beta = _ransac(candidates, design, frame, model=model, settings=settings)
    kept, threshold, sigma = _reselect(candidates, design, beta, settings)
    return Consensus(
        kept=kept,
        threshold_px=threshold,
        sigma_px=sigma,
        share=float(candidates.confidence[kept].sum() / candidates.confidence.sum()),
        false_alarms=false_alarms(
            kept,
            cells=cell_index(candidates.corner_px, edge_px=max(tile_px // 2, 1)),
            sample=design.shape[1],
            chance=min(math.pi * threshold**2 / (2 * settings.search_radius_px) ** 2, 1.0),
        ),
    )


def cell_index(corner_px: NDArray[np.int64], *, edge_px: int) -> NDArray[np.int64]:
    """(N,) number of the square cell of the grid that each tile's first pixel lies in, 0 .. G - 1."""
    _, index = np.unique(corner_px // edge_px, axis=0, return_inverse=True)
    return np.asarray(index, np.int64).reshape(-1)


def false_alarms(kept: BoolArray, *, cells: NDArray[np.int64], sample: int, chance: float) -> float:
    """Expected number of agreements this large if every offset were drawn at random.

    Counts cells, not points, because tiles that share most of their pixels can share one wrong peak. A cell
    counts if more than half of its points agree.

    Parameters
    ----------
    kept : BoolArray
        (N,) True for points that agree.
    cells : IntArray
        (N,) cell of each point, 0 .. n - 1; every cell has a point.
    sample : int
        Number of points that determine the model: 1 for a translation, 3 for an affine.
    chance : float
        Probability that a random offset is within the threshold.

    References
    ----------
    Moisan & Stival (2004), A probabilistic criterion to detect rigid point matches.
    """
    size = np.bincount(cells)
    n, k = len(size), int((2 * np.bincount(cells, weights=kept) > size).sum())
    if k <= sample:
        return math.inf
    log = math.log(n - sample) + _log_choose(n, k) + _log_choose(k, sample) + (k - sample) * math.log(chance)
    return math.exp(min(log, 700.0))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _ransac(
    candidates: Candidates, design: FloatArray, frame: Frame, *, model: Model, settings: EstimationSettings
) -> FloatArray:
    """Coefficients (k, 2) that most candidates support."""
    rng = np.random.default_rng(settings.seed)
    offset, n, k = candidates.offset_px, len(candidates), design.shape[1]
    single = rng.permutation(n)[: settings.ransac_trials]
    beta = np.zeros((len(single), k, 2))
    beta[:, -1] = -offset[single]
    if model is Model.AFFINE:
        triple = rng.integers(0, n, (settings.ransac_trials, 3))
        # Twice the area of the triangle in units of the spread: thin ones extrapolate wildly.
        triple = triple[np.abs(np.linalg.det(design[triple])) > 0.1]
        solved = np.linalg.solve(design[triple], -offset[triple])
        sane = np.abs(frame.linear_part(solved)).max(axis=(1, 2), initial=0) <= SEED_LINEAR
        beta = np.concatenate([beta, solved[sane]])
    scored = rng.permutation(n)[:MAX_SCORED]
    threshold = min(settings.start_threshold_px, settings.widest_px)
    cost = _costs(candidates, design, beta, scored, threshold)
    best = beta[np.argsort(cost, kind="stable")[:8]]
    # A hypothesis from three noisy points is coarse: improve the best few before choosing (Chum et al. 2003).
    polished = np.stack([_polish(candidates, design, b, threshold) for b in best])
    pool = np.concatenate([polished, best])
    chosen: FloatArray = pool[np.argmin(_costs(candidates, design, pool, scored, threshold))]
    return chosen


def _costs(
    candidates: Candidates, design: FloatArray, beta: FloatArray, scored: NDArray[np.int64], threshold: float
) -> FloatArray:
    """(H,) truncated squared residual of hypotheses (H, k, 2), weighted by confidence."""
    residual = candidates.offset_px[scored] + design[scored] @ beta
    truncated = np.minimum((residual**2).sum(axis=2) / threshold**2, 1.0)
    cost: FloatArray = truncated @ candidates.confidence[scored]
    return cost


def _polish(candidates: Candidates, design: FloatArray, beta: FloatArray, threshold: float) -> FloatArray:
    for _ in range(3):
        near = _lengths(candidates.offset_px + design @ beta) <= threshold
        if not determines(design[near]):
            return beta
        beta = solve(design[near], candidates.offset_px[near], candidates.confidence[near])
    return beta


def _reselect(
    candidates: Candidates, design: FloatArray, beta: FloatArray, settings: EstimationSettings
) -> tuple[BoolArray, float, float]:
    """Refit and reselect until no candidate changes side: (kept, threshold px, sigma px)."""
    threshold = min(settings.start_threshold_px, settings.widest_px)
    residual = candidates.offset_px + design @ beta
    kept = _lengths(residual) <= threshold
    for _ in range(30):
        if not determines(design[kept]):
            break
        sigma = robust_sigma_px(residual[kept])
        weight = precision(candidates.sigma_px[kept], sigma)
        loss = cauchy(sigma, settings)
        beta = fit_cauchy(design[kept], candidates.offset_px[kept], weight, loss, start=beta)
        residual = candidates.offset_px + design @ beta
        threshold = min(
            max(settings.threshold_sigmas * robust_sigma_px(residual[kept]), settings.min_threshold_px),
            settings.widest_px,
        )
        before, kept = kept, _lengths(residual) <= threshold
        if np.array_equal(before, kept):
            break
    return kept, threshold, robust_sigma_px(residual[kept]) if kept.any() else math.nan


def cauchy(sigma_px: float, settings: EstimationSettings) -> Loss:
    """Loss for residuals that scatter by `sigma_px`."""
    return Loss(scale_px=settings.cauchy_sigmas * max(sigma_px, SIGMA_FLOOR_PX))


def determines(design: FloatArray) -> bool:
    """Whether positions with this design (N, k) fix the model's coefficients; False on one line."""
    if len(design) < design.shape[1]:
        return False
    return bool(np.linalg.cond(design.T @ design) < 1e6)


def _lengths(residual: FloatArray) -> FloatArray:
    length: FloatArray = np.hypot(residual[:, 0], residual[:, 1])
    return length
