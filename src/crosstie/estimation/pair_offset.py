"""What a pair measured, as one affine with its covariance, from the tie points that its fit kept.

Products hold the covariance of what is applied, and none where nothing is. A network needs that of what was
measured, applied or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from crosstie.estimation.fit import (
    Fit,
    Frame,
    Loss,
    block_covariance,
    fit_cauchy,
    precision,
    robust_sigma_px,
)
from crosstie.estimation.ladder import MIN_BLOCKS, blocks
from crosstie.estimation.select import determines
from crosstie.estimation.settings import EstimationSettings
from crosstie.types import Model

if TYPE_CHECKING:
    from crosstie.types import AffineCorrection, FloatArray, TiePoints

TILE_STRIDES = 3
"""Side of a tile in strides, about: tiles of 192 px every 64 px, or less dense ones that overlap less."""

LEAST_SCATTER_M = 0.01
"""Of residuals, metres: simulated points may have none."""


def measured_affine(used: TiePoints, model: Model) -> AffineCorrection | None:
    """Fit a model to the tie points of a pair that its fit kept, and give its covariance.

    Parameters
    ----------
    used : TiePoints
        Points that the fit kept.
    model : Model
        Translation or affine; points on one line give a translation.

    Returns
    -------
    AffineCorrection or None
        From the secondary to the reference; None where the points are too few for a covariance.
    """
    if len(used) < 2:
        return None
    s_m = used.xy_m + used.offset_m
    frame = Frame.around(s_m, 1.0)
    design = frame.design(s_m, model)
    if model is not Model.AFFINE or not determines(design):
        model = Model.TRANSLATION
        design = frame.design(s_m, model)
    start = np.zeros((design.shape[1], 2))
    start[-1] = -np.median(used.offset_m, axis=0)
    scatter = max(robust_sigma_px(used.offset_m + design @ start), LEAST_SCATTER_M)
    loss = Loss(EstimationSettings().cauchy_sigmas * scatter)
    weight = precision(used.sigma_m, scatter)
    beta = fit_cauchy(design, used.offset_m, weight, loss, start=start)
    residual = used.offset_m + design @ beta
    return frame.correction(Fit(model, beta, _covariance(used, design, residual, weight, loss)))


def offset_at(affine: FloatArray, covariance: FloatArray, xy_m: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Offsets at one position that affine corrections stand for, and their covariances.

    Parameters
    ----------
    affine : FloatArray
        (N, 6) of (a, b, c, d, e, f), from the secondary to the reference.
    covariance : FloatArray
        (N, 6, 6)
    xy_m : FloatArray
        (2,) position in the secondary, metres.

    Returns
    -------
    tuple of FloatArray
        (N, 2) offsets, metres, and (N, 2, 2) covariances, m^2.
    """
    design = np.kron(np.eye(2), np.array([*xy_m, 1.0]))
    spread = design @ covariance @ design.T
    return xy_m - affine @ design.T, (spread + spread.transpose(0, 2, 1)) / 2


def _covariance(
    used: TiePoints, design: FloatArray, residual: FloatArray, weight: FloatArray, loss: Loss
) -> FloatArray:
    """(2k, 2k) by blocks of tiles that overlap; of few blocks by the points alone."""
    corner = np.stack([used.row, used.col], axis=1)
    stride = _stride_px(corner)
    block = blocks(corner, tile_px=TILE_STRIDES * stride, stride_px=stride)
    if block.max() + 1 >= max(MIN_BLOCKS, design.shape[1] + 2):
        covariance = block_covariance(design, residual, weight, loss, block)
        if np.isfinite(covariance).all():
            return covariance
    free = max(len(used) - design.shape[1], 1)
    scatter2 = max(float((residual**2).sum()) / (2 * free), LEAST_SCATTER_M**2)
    plain: FloatArray = np.kron(np.eye(2), np.linalg.pinv(design.T @ design) * scatter2)
    return plain


def _stride_px(corner: np.ndarray) -> int:
    steps = np.concatenate([np.diff(np.unique(corner[:, axis])) for axis in (0, 1)])
    return int(steps.min()) if len(steps) else 1
