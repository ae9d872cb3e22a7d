"""From a correlation surface to an offset with sub-pixel digits, a spread and the evidence for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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
    """(B, 4): correlation at the peak, its lead over the second peak, the logarithm of the probability
    mass outside the peak, and the logit lead over the second peak."""


def find_peaks(correlation: Tensor, logit_scale: Tensor) -> Peaks:
    """Locate the maximum of each surface (B, 2R + 1, 2R + 1).

    The network is trained so that softmax(scale * r) is a Gaussian around the truth; then log p = scale * r
    is a paraboloid there, and its vertex, fitted by least squares to the 3 x 3 neighbourhood, is unbiased.
    """
    b, height, width = correlation.shape
    device = correlation.device
    radius = (width - 1) // 2
    flat = correlation.reshape(b, -1)
    peak, index = flat.max(dim=1)
    # A vertex needs neighbours: a maximum on the rim is fitted one pixel inside.
    row = (index // width).clamp(1, height - 2)
    col = (index % width).clamp(1, width - 2)
    shift = torch.arange(-1, 2, device=device)
    batch = torch.arange(b, device=device)[:, None, None]
    patch = correlation[batch, (row[:, None] + shift)[:, :, None], (col[:, None] + shift)[:, None, :]]
    vertex = _vertex(patch)
    offset = torch.stack((col, row), dim=1) + vertex - radius

    log_p = torch.log_softmax(flat * logit_scale, dim=1)
    rows = torch.arange(height, device=device)[:, None].expand(height, width).reshape(-1)
    cols = torch.arange(width, device=device)[None, :].expand(height, width).reshape(-1)
    dx = cols[None] - radius - offset[:, :1]
    dy = rows[None] - radius - offset[:, 1:]
    distance2 = dx**2 + dy**2
    p = log_p.exp()
    near = distance2 <= NEAR_RADIUS_PX**2
    mass = (p * near).sum(1)
    spread = torch.sqrt((p * near * distance2).sum(1) / mass.clamp_min(1e-9) / 2)
    rival = torch.where(distance2 <= RIVAL_RADIUS_PX**2, -2.0, flat).max(dim=1).values
    outside = torch.log10((1 - mass).clamp(1e-6, 1))
    evidence = torch.stack((peak, peak - rival, outside, (peak - rival) * logit_scale), dim=1)
    return Peaks(offset_px=offset, spread_px=spread, evidence=evidence)


def _vertex(z: Tensor) -> Tensor:
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
