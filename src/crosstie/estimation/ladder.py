"""Identity < translation < affine: the simplest model that predicts held-out blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import chdtri, stdtrit

from crosstie.estimation.correlation import Correlations, correlations
from crosstie.estimation.field.validation import block_standard_error, truncated
from crosstie.estimation.fit import (
    SIGMA_FLOOR_PX,
    Fit,
    Frame,
    Loss,
    block_covariance,
    estimator,
    fit_cauchy,
    precision,
    robust_sigma_px,
)
from crosstie.estimation.model_error import LINEAR, evidence, unsaid_px2
from crosstie.estimation.select import Candidates, Consensus, cauchy, cell_index, determines
from crosstie.types import Error, Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.estimation.settings import EstimationSettings
    from crosstie.types import FloatArray

MIN_BLOCKS = 4
"""Smallest number of blocks: with fewer, too little is left to predict one from the others."""

CHANCE = {Model.TRANSLATION: 0.01, Model.AFFINE: 0.001}
"""Share of scenes in which noise and relief alone may pass for a shift, or for a rotation, scale or shear. A
shift that is not there costs a fraction of a pixel, a turn moves the corners."""

MANY_BLOCKS = 12
"""Number of blocks of two tiles from which on a model can be judged by what it does to held-out ground alone:
it may then follow relief, for that is what lies there. With fewer, relief passes for a shift or a turn."""

FAR_SCATTERS = 3.0
"""Length from which a shift is no relief, in RMS lengths of what it leaves, whatever that has in common."""

MATCHER_BIAS_PX = 0.03
"""What a matcher adds by itself to all tiles of a scene, per axis; no residual shows it."""

TRUNCATED_SIGMAS = 4.0
"""Held-out residuals count up to this length when models are compared: wrong points decide nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Rung:
    """A model, fitted to all used points and evaluated on held-out points."""

    fit: Fit
    """Its covariance is that over the covered ground: relief is part of the ground."""
    design: FloatArray
    """(N, k) of the used points."""
    residual_px: FloatArray
    """(N, 2) residuals of the fit to all points."""
    held_out_px: FloatArray
    """(N, 2) residuals of the fits without the point's block."""
    anywhere: Fit
    """The fit with the covariance that holds of the position of the scene: relief, what the model leaves
    unsaid and what the matcher adds count as errors."""

    @property
    def rmse_px(self) -> float:
        return rmse(self.held_out_px)

    @property
    def standard_error_px(self) -> float:
        """Largest standard error of the displacement at any used point, on the worse axis, px."""
        return float(self.fit.standard_error_px(self.design).max())

    @property
    def significance(self) -> float:
        """RMS displacement over the used points in units of its RMS standard error."""
        noise = rmse(self.fit.standard_error_px(self.design))
        return rmse(self.design @ self.fit.beta) / max(noise, 1e-12)


@dataclass(frozen=True, slots=True, eq=False)
class Ladder:
    """Result of the choice between the models."""

    chosen: Rung
    """The simplest model that predicts."""
    fullest: Rung
    """The most complex model that the points determine; it does not depend on the choice."""
    proven: bool
    """Whether the chosen model gains by more than chance over no correction."""


def climb(
    used: Candidates,
    frame: Frame,
    found: Consensus,
    *,
    highest: Model,
    tile_px: int,
    stride_px: int,
    settings: EstimationSettings,
) -> Ladder | None:
    """Choose between translation and affine; None where the points are too few or too close to tell.

    The affine is taken where the points spread in two dimensions, it predicts left-out tiles better by
    `min_gain_of_affine` and by more than the standard error of that gain, its standard error stays within
    `max_standard_error_px`, and it is proven against the translation.
    """
    block = blocks(used.corner_px, tile_px=tile_px, stride_px=stride_px)
    if block.max() + 1 < MIN_BLOCKS:
        return None
    # The correction serves the ground that the points cover, so a model is judged on gaps of one tile, which
    # its neighbours surround. Wider gaps would ask it to extrapolate relief, which no affine can.
    gap = blocks(used.corner_px, tile_px=tile_px, stride_px=stride_px, widest_px=tile_px)
    fold = folds(gap, count=settings.folds)
    weight = precision(used.sigma_px, found.sigma_px)
    loss = cauchy(found.sigma_px, settings)
    shift = _trial(Model.TRANSLATION, used, frame, fold, weight, loss)
    if shift is None:
        return None
    full = None
    if highest is Model.AFFINE and spreads(used, tile_px=tile_px, settings=settings):
        full = _trial(Model.AFFINE, used, frame, fold, weight, loss)
    top = full or shift
    common = correlations(top.design, used.offset_px, used.corner_px, tile_px=tile_px)
    bias = MATCHER_BIAS_PX**2 * np.eye(2)
    affine = None if full is None else _rung(full, used, common, block, loss, weight, unseen_px2=bias)
    unsaid = unsaid_px2(
        None if affine is None else affine.anywhere, frame, used.s_m, margin_m=tile_px / 2 * frame.pixel_m
    )
    translation = _rung(shift, used, common, block, loss, weight, unseen_px2=bias + unsaid)
    scatter_px = max(found.sigma_px, robust_sigma_px(translation.residual_px), SIGMA_FLOOR_PX)
    shown = _Proof(gap, cell_index(used.corner_px, edge_px=2 * tile_px), TRUNCATED_SIGMAS * scatter_px)
    shifted = shown.holds(used.offset_px, translation, [0, 1])
    if affine is None or affine.standard_error_px > settings.max_standard_error_px:
        return Ladder(translation, translation, proven=shifted)
    gains = is_gain(
        translation.rmse_px, affine.rmse_px, share=settings.min_gain_of_affine, floor_px=settings.min_gain_px
    )
    significant = affine.significance >= settings.min_significance
    if gains and significant and shown.holds(translation.held_out_px, affine, LINEAR):
        return Ladder(affine, affine, proven=True)
    return Ladder(translation, affine, proven=shifted)


@dataclass(frozen=True, slots=True, eq=False)
class _Proof:
    """What a richer model is held against."""

    gap: NDArray[np.int64]
    """(N,) block of each point that was held out together."""
    wide: NDArray[np.int64]
    """(N,) block of two tiles of each point."""
    limit_px: float
    """Longest held-out residual that counts as it is: wrong points decide nothing."""

    def holds(self, simpler_px: FloatArray, richer: Rung, numbers: list[int]) -> bool:
        """Whether a model gains by more than chance over held-out residuals (N, 2) of a simpler one.

        `numbers` are those of its coefficients that the simpler one lacks. By the one-standard-error rule
        (Breiman et al. 1984, section 3.4.3). Where blocks of two tiles are few, either the gain must be
        sure by Student's t over them, or these coefficients longer than noise and relief explain, in all but
        `CHANCE` of scenes.
        """
        before, after = (truncated(left, self.limit_px) for left in (simpler_px, richer.held_out_px))
        gain, blocks_wide = before - after, int(self.wide.max()) + 1
        if gain.mean() <= block_standard_error(gain, self.gap):
            return False
        many = blocks_wide >= MANY_BLOCKS
        needed = 1.0 if many else float(stdtrit(max(blocks_wide - 1, 1), 1 - CHANCE[richer.fit.model]))
        if gain.mean() > needed * block_standard_error(gain, self.wide):
            return True
        return not many and (_is_long(richer.anywhere, numbers) or _is_far(richer))


def _is_long(fit: Fit, numbers: list[int]) -> bool:
    """Whether noise and relief explain these coefficients in `CHANCE` of scenes at most."""
    return evidence(fit, numbers) >= float(chdtri(len(numbers), CHANCE[fit.model]))


def _is_far(shift: Rung) -> bool:
    """Whether a translation moves the scene much farther than its points scatter."""
    moved = float(np.hypot(*shift.fit.beta[-1]))
    return shift.fit.model is Model.TRANSLATION and moved > FAR_SCATTERS * rmse(shift.residual_px)


def is_gain(before: float, after: float, *, share: float, floor_px: float) -> bool:
    """Whether an RMSE falls by more than a share of itself and by more than a floor, px."""
    return before - after > max(share * before, floor_px)


def spreads(points: Candidates, *, tile_px: int, settings: EstimationSettings) -> bool:
    """Whether points are enough, and wide enough across, to tell a rotation or scale from noise.

    Across = the standard deviation along the narrow axis of the cloud, at least half a tile.
    """
    if len(points) < settings.min_affine_points:
        return False
    narrow = np.linalg.eigvalsh(np.cov(points.corner_px.T.astype(np.float64), bias=True))[0]
    return bool(narrow >= (tile_px / 2) ** 2)


def blocks(
    corner_px: NDArray[np.int64], *, tile_px: int, stride_px: int, widest_px: int | None = None
) -> NDArray[np.int64]:
    """(N,) block of each tile, 0 .. G - 1: two tiles wide (or `widest_px`) where enough remain, else smaller.

    Points of two blocks have few pixels in common; one tile is the least that keeps it so, and only
    images of a few tiles go below.
    """
    index = cell_index(corner_px, edge_px=widest_px or 2 * tile_px)
    if index.max() + 1 >= 3 * MIN_BLOCKS:
        return index
    edge = tile_px
    index = cell_index(corner_px, edge_px=edge)
    while index.max() + 1 < MIN_BLOCKS and edge > stride_px:
        edge = max(edge // 2, 1)
        index = cell_index(corner_px, edge_px=edge)
    return index


def folds(block: NDArray[np.int64], *, count: int) -> NDArray[np.int64]:
    """(N,) fold of each point: whole blocks, as many in each fold; one block each where blocks are few."""
    groups = int(block.max()) + 1
    if groups < 2 * count:
        return block
    # Shuffled: dealt out row by row, a fold could become one column of the scene.
    fold: NDArray[np.int64] = np.random.default_rng(0).permutation(groups)[block] % count
    return fold


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """A model, fitted to all used points and to all folds but one."""

    model: Model
    beta: FloatArray
    design: FloatArray
    weight: FloatArray
    """(N,) of the points in the fit, by their noise and by their residuals."""
    residual_px: FloatArray
    held_out_px: FloatArray


def _trial(
    model: Model,
    used: Candidates,
    frame: Frame,
    fold: NDArray[np.int64],
    weight: FloatArray,
    loss: Loss,
) -> _Trial | None:
    """Fit a model to all used points and to all folds but one; None where a fold's rest lies on a line."""
    design, offset = frame.design(used.s_m, model), used.offset_px
    if not determines(design):
        return None
    start = np.zeros((design.shape[1], 2))
    start[-1] = -np.median(offset, axis=0)
    beta = fit_cauchy(design, offset, weight, loss, start=start)
    residual = offset + design @ beta
    held_out = np.empty_like(offset)
    for number in range(int(fold.max()) + 1):
        out = fold == number
        if not determines(design[~out]):
            return None
        seen = fit_cauchy(design[~out], offset[~out], weight[~out], loss, start=beta)
        held_out[out] = offset[out] + design[out] @ seen
    return _Trial(model, beta, design, weight * loss.weight(residual), residual, held_out)


def _rung(
    trial: _Trial,
    used: Candidates,
    common: Correlations,
    block: NDArray[np.int64],
    loss: Loss,
    weight: FloatArray,
    *,
    unseen_px2: FloatArray,
) -> Rung:
    """Add to a trial how sure it is, of the covered ground and of the position of the scene."""
    k = len(trial.beta)
    here = block_covariance(trial.design, trial.residual_px, weight, loss, block)
    anywhere = common.covariance(estimator(trial.design, trial.weight), used.corner_px)
    anywhere[np.ix_([k - 1, 2 * k - 1], [k - 1, 2 * k - 1])] += unseen_px2
    return Rung(
        fit=Fit(trial.model, trial.beta, here),
        design=trial.design,
        residual_px=trial.residual_px,
        held_out_px=trial.held_out_px,
        anywhere=Fit(trial.model, trial.beta, anywhere),
    )


def rmse(residual: FloatArray) -> float:
    """Root mean square length of residuals (N, 2)."""
    return float(np.sqrt((residual**2).sum(axis=1).mean()))


def error(residual_px: FloatArray, pixel_m: float) -> Error:
    """RMSE and circular error of residuals (N, 2); NaN for N = 0."""
    if len(residual_px) == 0:
        return Error(rmse_m=float("nan"), ce90_m=float("nan"))
    lengths = np.hypot(residual_px[:, 0], residual_px[:, 1])
    return Error(rmse_m=rmse(residual_px) * pixel_m, ce90_m=float(np.quantile(lengths, 0.9)) * pixel_m)
