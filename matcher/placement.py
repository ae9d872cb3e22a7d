"""Templates placed at random in a batch of crops: the step that training and held-out checks share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from crosstie.matcher.correlate import correlate


def to_tensor(array: np.ndarray[Any, np.dtype[np.float32]], device: str) -> Tensor:
    """Array -> tensor on the device, channels last: the layout that convolutions are fastest in."""
    return torch.from_numpy(array).to(device, memory_format=torch.channels_last)


def place(
    reference: Tensor,
    secondary: Tensor,
    truth_px: Tensor,
    rng: np.random.Generator,
    *,
    size_px: int,
    search_px: int,
) -> tuple[Tensor, Tensor]:
    """Correlate one randomly placed template per crop.

    Parameters
    ----------
    reference, secondary : (B, C, P, P) features
    truth_px : (B, 2, L, L) true offsets on a lattice that spans the crop, NaN where unknown

    Returns
    -------
    surface : (B, 2 search + 1, 2 search + 1) correlation
    target : (B, 2) true offset at the centre of the template, NaN where unknown
    """
    crop = reference.shape[-1]
    row, col = rng.integers(search_px, crop - search_px - size_px + 1, 2)
    template = reference[..., row : row + size_px, col : col + size_px]
    side = size_px + 2 * search_px
    window = secondary[..., row - search_px :, col - search_px :][..., :side, :side]
    # Lattice node i lies at (i + 0.5) / L of the crop, which is what align_corners=False assumes.
    centre = torch.tensor([col + size_px / 2, row + size_px / 2], device=truth_px.device) / crop * 2 - 1
    grid = centre.to(torch.float32).expand(truth_px.shape[0], 1, 1, 2)
    target = F.grid_sample(truth_px, grid, mode="bilinear", align_corners=False)[:, :, 0, 0]
    return correlate(template, window), target
