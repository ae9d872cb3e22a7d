"""Estimate the correction of a pair from its tie points, and decide whether it is applied."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from crosstie.estimation.fit import Frame
from crosstie.estimation.ladder import Ladder, Rung, climb, error, is_gain, rmse, spreads
from crosstie.estimation.one_thread import in_one_thread
from crosstie.estimation.select import Candidates, Consensus, consensus
from crosstie.estimation.settings import EstimationSettings
from crosstie.types import AffineCorrection, Estimate, Model, Reason, Verdict, VerdictCode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.types import BoolArray, FloatArray, TiePoints

ESTIMATION_DEFAULTS = EstimationSettings()

LEAST_CONFIDENCE = 1e-3
"""Weight of a candidate of confidence 0, where settings let one in: sums of weights stay positive."""


@in_one_thread
def estimate(
    points: TiePoints,
    *,
    planned: int,
    pixel_m: float,
    tile_px: int,
    stride_px: int,
    settings: EstimationSettings = ESTIMATION_DEFAULTS,
) -> Estimate:
    """Estimate one correction from the tie points of a pair, or say why there is none.

    A correction is applied only if it predicts held-out tie points better than no correction does. The same
    points give the same result to the bit, in any order.

    Parameters
    ----------
    points : TiePoints
        N tie points. Those with NaN or too little confidence are not used. `row` and `col` must be those of
        the tiles, because they say which tiles overlap.
    planned : int
        Number of tiles that were worth matching.
    pixel_m : float
        Pixel size of the common grid, metres.
    tile_px, stride_px : int
        Side of the tiles and step from tile to tile, px.
    settings : EstimationSettings
        The limits.

    Returns
    -------
    Estimate
        `residual_m` (N, 2) covers all points, relative to `correction`; a row is NaN where, and only where,
        the point's own position or offset is not finite. Errors and the median offset are NaN where no
        point was used.

    Raises
    ------
    ValueError
        Pixel, tile or stride is not positive.
    """
    if not (pixel_m > 0 and tile_px > 0 and stride_px > 0):
        raise ValueError(
            f"pixel_m, tile_px and stride_px must be positive, got {pixel_m}, {tile_px} and {stride_px}"
        )
    order = np.lexsort((*points.offset_m.T[::-1], *points.xy_m.T[::-1], points.col, points.row))
    index = order[_is_candidate(points, settings)[order]]
    least = max(settings.min_tie_points, math.ceil(settings.min_used_share_of_planned * planned))
    if len(index) < least:
        return _refused(points, Reason.TOO_FEW_TIE_POINTS)
    candidates = _candidates_in_px(points, index, pixel_m)
    frame = Frame.around(candidates.s_m, pixel_m)
    agreed = _agree(candidates, frame, tile_px=tile_px, settings=settings)
    if agreed is None:
        return _refused(points, Reason.INCONSISTENT_OFFSETS)
    found, highest = agreed
    if found.kept.sum() < least:
        return _refused(points, Reason.TOO_FEW_TIE_POINTS)
    used = candidates.keep(found.kept)
    ladder = climb(
        used, frame, found, highest=highest, tile_px=tile_px, stride_px=stride_px, settings=settings
    )
    if ladder is None or ladder.chosen.standard_error_px > settings.max_standard_error_px:
        return _refused(points, Reason.TOO_FEW_TIE_POINTS)
    rung = ladder.chosen
    chosen, fitted = (frame.correction(one.anywhere) for one in (rung, ladder.fullest))
    verdict = _judge(used, ladder, chosen, tile_px=tile_px, stride_px=stride_px, settings=settings)
    mask = np.zeros(len(points), np.bool_)
    mask[index[found.kept]] = True
    applied = chosen if verdict.code is VerdictCode.CORRECTED else AffineCorrection.identity()
    return _estimate(points, verdict, applied, fitted, mask, used, rung, pixel_m)


def _is_candidate(points: TiePoints, settings: EstimationSettings) -> BoolArray:
    finite = np.isfinite(points.xy_m).all(axis=1) & np.isfinite(points.offset_m).all(axis=1)
    finite &= np.isfinite(points.sigma_m) & np.isfinite(points.confidence)
    candidate: BoolArray = finite & (np.nan_to_num(points.confidence) >= settings.min_confidence)
    return candidate


def _candidates_in_px(points: TiePoints, index: NDArray[np.int64], pixel_m: float) -> Candidates:
    return Candidates(
        s_m=points.xy_m[index] + points.offset_m[index],
        offset_px=points.offset_m[index] / pixel_m,
        sigma_px=points.sigma_m[index] / pixel_m,
        confidence=np.maximum(points.confidence[index], LEAST_CONFIDENCE),
        corner_px=np.stack([points.row[index], points.col[index]], axis=1),
    )


def _agree(
    candidates: Candidates, frame: Frame, *, tile_px: int, settings: EstimationSettings
) -> tuple[Consensus, Model] | None:
    """Find points that agree beyond chance, on an affine or, where they are too few for it, on a shift."""
    models = [Model.TRANSLATION]
    if spreads(candidates, tile_px=tile_px, settings=settings):
        models.insert(0, Model.AFFINE)
    for model in models:
        found = consensus(candidates, frame, model=model, tile_px=tile_px, settings=settings)
        if found.share >= settings.min_consensus_share and found.false_alarms <= settings.max_false_alarms:
            return found, model
    return None


def _judge(
    used: Candidates,
    ladder: Ladder,
    fitted: AffineCorrection,
    *,
    tile_px: int,
    stride_px: int,
    settings: EstimationSettings,
) -> Verdict:
    before, rung = rmse(used.offset_px), ladder.chosen
    proven = ladder.proven and rung.significance >= settings.min_significance
    helps = proven and is_gain(
        before, rung.rmse_px, share=settings.min_gain_over_identity, floor_px=settings.min_gain_px
    )
    if helps:
        if not is_plausible(fitted, settings):
            return _unreliable(Reason.IMPLAUSIBLE_CORRECTION)
        if rung.rmse_px > settings.max_rmse_px:
            return _unreliable(Reason.RESIDUAL_TOO_LARGE)
        return Verdict(VerdictCode.CORRECTED)
    if before <= settings.max_aligned_rmse_px:
        return Verdict(VerdictCode.ALREADY_ALIGNED)
    smooth = coherence(used.corner_px, rung.residual_px, tile_px=tile_px, stride_px=stride_px)
    terrain = smooth >= settings.min_terrain_coherence
    return _unreliable(Reason.TERRAIN_NOT_AFFINE if terrain else Reason.NOT_BETTER_THAN_IDENTITY)


def _unreliable(reason: Reason) -> Verdict:
    return Verdict(VerdictCode.UNRELIABLE, (reason,))


@dataclass(frozen=True, slots=True)
class Shape:
    """What the linear part of an affine does to shapes."""

    rotation_deg: float
    stretch: tuple[float, float]
    """Largest and smallest ratio of lengths, after to before; their quotient less one is the shear."""


def shape_of(correction: AffineCorrection) -> Shape:
    """Take the linear part apart by singular values (polar decomposition)."""
    a, b, _, d, e, _ = correction.affine
    high, low = np.linalg.svd(np.array([[a, b], [d, e]]), compute_uv=False)
    return Shape(math.degrees(math.atan2(d - b, a + e)), (float(high), float(low)))


def is_plausible(correction: AffineCorrection, settings: EstimationSettings) -> bool:
    """Whether a sensor can be off by this much: rotation, scale and shear within the limits."""
    shape = shape_of(correction)
    high, low = shape.stretch
    return (
        abs(shape.rotation_deg) <= settings.max_rotation_deg
        and max(abs(high - 1), abs(low - 1), high / low - 1) <= settings.max_scale
    )


def coherence(
    corner_px: NDArray[np.int64], residual_px: FloatArray, *, tile_px: int, stride_px: int
) -> float:
    """Correlation of the residuals (N, 2) of tiles beside one another that share no pixel: 1 smooth, 0 noise.

    Noise of the matcher is common to tiles that overlap, and only to them; what tiles beside one another
    have in common lies on the ground. 0 where no two tiles lie so.
    """
    tree = cKDTree(corner_px)
    # With p = inf the distance is that of squares: two tiles overlap if, and only if, it is under a tile.
    pair = tree.query_pairs(max(1.25 * tile_px, stride_px), p=np.inf, output_type="ndarray")
    pair = pair[np.abs(corner_px[pair[:, 0]] - corner_px[pair[:, 1]]).max(axis=1) >= tile_px]
    power = float((residual_px**2).sum(axis=1).mean())
    if len(pair) == 0 or power == 0:
        return 0.0
    first, second = residual_px[pair[:, 0]], residual_px[pair[:, 1]]
    return float((first * second).sum(axis=1).mean()) / power


def _refused(points: TiePoints, reason: Reason) -> Estimate:
    """Nothing could be fitted."""
    nothing = AffineCorrection.identity()
    return Estimate(
        verdict=_unreliable(reason),
        correction=nothing,
        fitted=nothing,
        used=np.zeros(len(points), np.bool_),
        residual_m=_residual_m(points, AffineCorrection.identity()),
        error_before=error(np.zeros((0, 2)), 1.0),
        error_after=error(np.zeros((0, 2)), 1.0),
    )


def _estimate(
    points: TiePoints,
    verdict: Verdict,
    applied: AffineCorrection,
    fitted: AffineCorrection,
    mask: BoolArray,
    used: Candidates,
    rung: Rung,
    pixel_m: float,
) -> Estimate:
    before = error(used.offset_px, pixel_m)
    median_x, median_y = np.median(used.offset_px, axis=0) * pixel_m
    corrected = verdict.code is VerdictCode.CORRECTED
    return Estimate(
        verdict=verdict,
        correction=applied,
        fitted=fitted,
        used=mask,
        residual_m=_residual_m(points, applied),
        error_before=before,
        error_after=error(rung.held_out_px, pixel_m) if corrected else before,
        median_offset_m=(float(median_x), float(median_y)),
    )


def _residual_m(points: TiePoints, correction: AffineCorrection) -> FloatArray:
    """(N, 2) what is left of each offset, metres; NaN for points that are not finite."""
    finite = np.isfinite(points.xy_m).all(axis=1) & np.isfinite(points.offset_m).all(axis=1)
    left = np.full(points.offset_m.shape, np.nan)
    if correction.model is Model.IDENTITY:
        left[finite] = points.offset_m[finite]  # exact: the sum with a northing would round it
    else:
        xy_m = points.xy_m[finite]
        left[finite] = correction.apply(xy_m + points.offset_m[finite]) - xy_m
    return left
