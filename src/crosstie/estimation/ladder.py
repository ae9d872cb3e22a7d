"""Identity < translation < affine: the simplest model that predicts held-out blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crosstie.estimation.fit import Fit, Frame, Loss, block_covariance, fit_cauchy, precision
from crosstie.estimation.select import Candidates, Consensus, cauchy, cell_index, determines
from crosstie.types import Error, Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.estimation.settings import EstimationSettings
    from crosstie.types import FloatArray

MIN_BLOCKS = 4
"""Smallest number of blocks: with fewer, too little is left to predict one from the others."""


@dataclass(frozen=True, slots=True, eq=False)
class Rung:
    """A model, fitted to all used points and evaluated on held-out points."""

    fit: Fit
    design: FloatArray
    """(N, k) of the used points."""
    residual_px: FloatArray
    """(N, 2) residuals of the fit to all points."""
    held_out_px: FloatArray
    """(N, 2) residuals of the fits without the point's block."""

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
    `min_gain_of_affine`, and its standard error stays within `max_standard_error_px` and well below itself.
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
    translation = _rung(Model.TRANSLATION, used, frame, block, fold, weight, loss)
    if translation is None:
        return None
    if highest is not Model.AFFINE or not spreads(used, tile_px=tile_px, settings=settings):
        return Ladder(translation, translation)
    affine = _rung(Model.AFFINE, used, frame, block, fold, weight, loss)
    if affine is None or affine.standard_error_px > settings.max_standard_error_px:
        return Ladder(translation, translation)
    significant = affine.significance >= settings.min_significance
    gains = is_gain(
        translation.rmse_px, affine.rmse_px, share=settings.min_gain_of_affine, floor_px=settings.min_gain_px
    )
    return Ladder(affine if gains and significant else translation, affine)


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


def _rung(
    model: Model,
    used: Candidates,
    frame: Frame,
    block: NDArray[np.int64],
    fold: NDArray[np.int64],
    weight: FloatArray,
    loss: Loss,
) -> Rung | None:
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
    covariance = block_covariance(design, residual, weight, loss, block)
    return Rung(Fit(model, beta, covariance), design, residual, held_out)


def rmse(residual: FloatArray) -> float:
    """Root mean square length of residuals (N, 2)."""
    return float(np.sqrt((residual**2).sum(axis=1).mean()))


def error(residual_px: FloatArray, pixel_m: float) -> Error:
    """RMSE and circular error of residuals (N, 2); NaN for N = 0."""
    if len(residual_px) == 0:
        return Error(rmse_m=float("nan"), ce90_m=float("nan"))
    lengths = np.hypot(residual_px[:, 0], residual_px[:, 1])
    return Error(rmse_m=rmse(residual_px) * pixel_m, ce90_m=float(np.quantile(lengths, 0.9)) * pixel_m)
