"""Losses of the `s2m2` configuration on heatmaps: against a known offset, and against a pseudo-target."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from crosstie.matcher.s2m2.heatmaps import S2M2Heatmaps, deep_cell
from crosstie.matcher.s2m2.settings import S2M2Settings

SHALLOW_SCALE = 30.0
"""1 / temperature of the shallow heatmap against a label."""

DEEP_SCALE = 100.0
"""1 / temperature of the deep heatmap against a label."""

PSEUDO_SCALE = 80.0
"""1 / temperature of the shallow heatmap against a pseudo-target."""


def supervised_loss(heatmaps: S2M2Heatmaps, offset_px: Tensor, settings: S2M2Settings) -> Tensor:
    """Cross-entropy of both heatmaps against the cells that hold the true offsets, added.

    Parameters
    ----------
    offset_px : Tensor
        (B, 2) true (dx, dy); the label is the nearest whole pixel.

    Raises
    ------
    ValueError
        An offset lies outside the heatmaps, or is not finite.
    """
    nearest = offset_px.round()
    radius = heatmaps.radius_px
    if not bool((nearest.abs() <= radius).all()):
        raise ValueError(
            f"offsets up to {float(offset_px.abs().max()):g} px do not fit heatmaps of +-{radius} px; "
            "leave such pairs out or cut larger chips"
        )
    shallow_cell = nearest.long() + radius
    return _cross_entropy_of_cell(heatmaps.shallow, shallow_cell, SHALLOW_SCALE) + _cross_entropy_of_cell(
        heatmaps.deep, deep_cell(nearest, heatmaps, settings), DEEP_SCALE
    )


def pseudo_loss(heatmaps: S2M2Heatmaps, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy of the shallow heatmap against pseudo-targets.

    Parameters
    ----------
    target : Tensor
        (B, 65, 65) each summing to one; a row of zeros asks nothing of its pair.
    weight : Tensor | None
        (B,) by which the term of each pair is multiplied; the mean is over all pairs, so that a batch of
        doubtful pairs moves little.
    """
    log_p = torch.log_softmax(PSEUDO_SCALE * heatmaps.shallow.float().flatten(1), dim=1)
    terms = -(target.detach().flatten(1) * log_p).sum(dim=1)
    return terms.mean() if weight is None else (weight * terms).mean()


def shift_target(target: Tensor, shift_px: Tensor) -> Tensor:
    """The target of a view in which the secondary was moved by a known shift.

    What leaves the heatmap is dropped and the rest brought back to a sum of one; where nothing is left, the
    target is zero.

    Parameters
    ----------
    target : Tensor
        (B, 65, 65) probabilities in the teacher's view.
    shift_px : Tensor
        (B, 2) whole (dx, dy): offset in the student's view minus offset in the teacher's.
    """
    b, side, _ = target.shape
    cells = torch.arange(side, device=target.device)
    col = cells - shift_px[:, :1].long()  # (B, 65): the column that a column takes its values from
    row = cells - shift_px[:, 1:].long()
    inside = ((row >= 0) & (row < side))[:, :, None] & ((col >= 0) & (col < side))[:, None, :]
    batch = torch.arange(b, device=target.device)[:, None, None]
    moved = target[batch, row.clamp(0, side - 1)[:, :, None], col.clamp(0, side - 1)[:, None, :]] * inside
    return moved / moved.sum(dim=(1, 2), keepdim=True).clamp_min(1e-12)


def _cross_entropy_of_cell(heatmap: Tensor, cell: Tensor, scale: float) -> Tensor:
    """Of a heatmap (B, side, side) against true cells (B, 2) as (column, row)."""
    index = cell[:, 1] * heatmap.shape[-1] + cell[:, 0]
    return F.cross_entropy(scale * heatmap.float().flatten(1), index)
