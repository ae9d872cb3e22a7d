"""From similarities to an offset with sub-pixel digits, a spread and the evidence for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from crosstie.matcher.similarity import Similarity, spread

RIVAL_RADIUS_PX = 4
"""A second peak closer than this is the same peak."""

NEAR_RADIUS_PX = 2.0
"""Radius of the probability mass that counts as 'at the peak'."""


@dataclass(frozen=True, slots=True, eq=False)
class Peaks:
    """Per surface; offsets in pixels, (dx, dy)."""

    offset_px: Tensor
    """(B, 2) sub-pixel position of the maximum."""
    spread_px: Tensor
    """(B,) standard deviation per axis of the probability around the maximum."""
    evidence: Tensor
    """(B, 3), in the order of `crosstie.matcher.calibration.EVIDENCE`"""


def find_peaks(similarity: Similarity, logit: Tensor) -> Peaks:
    """Locate the offset of each of B templates.

    Deep and shallow similarity together choose the peak. Its sub-pixel position comes from the shallow one
    alone: the slope of the broad deep one would pull it aside. The network is trained so that
    softmax(scale * r) is a Gaussian around the truth. Then log p = scale * r is a paraboloid there, and its
    vertex, fitted by least squares to the 3 x 3 neighbourhood, is unbiased.

    Parameters
    ----------
    similarity : Similarity
        Similarities of B templates.
    logit : Tensor
        (B, 2R + 1, 2R + 1) of each whole offset, of both levels together (`similarity.logits`).
    """
    shallow = similarity.shallow
    _, height, width = shallow.shape
    device = shallow.device
    radius = (width - 1) // 2
    logit = logit.flatten(1)
    index = logit.argmax(dim=1)
    # A vertex needs neighbours: a maximum on the rim is fitted one pixel inside.
    row, col = _climb(shallow, *_off_the_rim(index // width, index % width, height, width))
    row, col = _off_the_rim(row, col, height, width)
    patch = _patches(shallow, row, col)
    offset = torch.stack((col, row), dim=1) + vertex(patch) - radius

    rows = torch.arange(height, device=device)[:, None].expand(height, width).reshape(-1)
    cols = torch.arange(width, device=device)[None, :].expand(height, width).reshape(-1)
    distance2 = (cols[None] - radius - offset[:, :1]) ** 2 + (rows[None] - radius - offset[:, 1:]) ** 2
    p = torch.softmax(logit, dim=1)
    near = distance2 <= NEAR_RADIUS_PX**2
    mass = (p * near).sum(1)
    spread_px = torch.sqrt((p * near * distance2).sum(1) / mass.clamp_min(1e-9) / 2)
    rival = distance2 <= RIVAL_RADIUS_PX**2
    deep = spread(similarity.deep, radius).flatten(1)
    deep_at_peak = deep.gather(1, (row * width + col)[:, None])[:, 0]
    evidence = torch.stack(
        (
            torch.log10((1 - mass).clamp(1e-6, 1)),
            logit.max(dim=1).values - logit.masked_fill(rival, -torch.inf).max(dim=1).values,
            deep_at_peak - deep.max(dim=1).values,
        ),
        dim=1,
    )
    return Peaks(offset_px=offset, spread_px=spread_px, evidence=evidence)


def _off_the_rim(row: Tensor, col: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The nearest position that has neighbours on all sides."""
    return row.clamp(1, height - 2), col.clamp(1, width - 2)


def _climb(surface: Tensor, row: Tensor, col: Tensor) -> tuple[Tensor, Tensor]:
    """The best of the 3 x 3 round each place."""
    best = _patches(surface, row, col).reshape(len(surface), 9).argmax(dim=1)
    return row + best // 3 - 1, col + best % 3 - 1


def _patches(surface: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """(B, 3, 3) round each place of (B, height, width)."""
    step = torch.arange(-1, 2, device=surface.device)
    batch = torch.arange(len(surface), device=surface.device)[:, None, None]
    patches: Tensor = surface[batch, (row[:, None] + step)[:, :, None], (col[:, None] + step)[:, None, :]]
    return patches


def vertex(z: Tensor) -> Tensor:
    """(dx, dy) of the extremum of the least-squares paraboloid through (B, 3, 3), within +-1 px; (B, 2)."""
    gx = (z[:, :, 2] - z[:, :, 0]).sum(1) / 6
    gy = (z[:, 2] - z[:, 0]).sum(1) / 6
    gxx = (z[:, :, 2] - 2 * z[:, :, 1] + z[:, :, 0]).sum(1) / 3
    gyy = (z[:, 2] - 2 * z[:, 1] + z[:, 0]).sum(1) / 3
    gxy = (z[:, 2, 2] - z[:, 2, 0] - z[:, 0, 2] + z[:, 0, 0]) / 4
    det = gxx * gyy - gxy**2
    ok = (det > 1e-12) & (gxx < 0)
    det = torch.where(ok, det, torch.ones_like(det))
    dx = torch.where(ok, (gxy * gy - gyy * gx) / det, torch.zeros_like(det))
    dy = torch.where(ok, (gxy * gx - gxx * gy) / det, torch.zeros_like(det))
    return torch.stack((dx, dy), dim=1).clamp(-1, 1)
