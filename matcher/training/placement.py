"""Templates placed at random in a batch of crops; training and held-out checks share this step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from crosstie.matcher.correlate import correlate
from crosstie.matcher.network import DEEP_STRIDE_PX, DenseFeatures
from crosstie.matcher.similarity import Similarity


def to_tensor(array: np.ndarray[Any, np.dtype[np.float32]], device: str) -> Tensor:
    """Array -> tensor on the device, channels last: the layout that convolutions are fastest in."""
    return torch.from_numpy(array).to(device, memory_format=torch.channels_last)


def place_and_correlate(
    reference: DenseFeatures,
    secondary: DenseFeatures,
    truth_px: Tensor,
    rng: np.random.Generator,
    *,
    size_px: int,
    search_px: int,
) -> tuple[Similarity, Tensor]:
    """Correlate one randomly placed template per crop.

    Parameters
    ----------
    reference, secondary : DenseFeatures
        Features of crops (B, 1, P, P).
    truth_px : Tensor
        (B, 2, L, L) true offsets on a lattice that spans the crop, NaN where unknown.
    size_px, search_px : int
        Multiples of the deep stride.

    Returns
    -------
    similarity : Similarity
        Of the B templates.
    target_px : Tensor
        (B, 2) true offset at the centre of the template, NaN where unknown.
    """
    crop = reference.shallow.shape[-1]
    step = DEEP_STRIDE_PX
    row, col = (
        int(n) * step for n in rng.integers(search_px // step, (crop - search_px - size_px) // step + 1, 2)
    )
    shallow = _correlate_window(reference.shallow, secondary.shallow, row, col, size_px, search_px)
    deep = _correlate_window(
        reference.deep, secondary.deep, row // step, col // step, size_px // step, search_px // step
    )
    # Lattice node i lies at (i + 0.5) / L of the crop, which is what align_corners=False assumes.
    centre = torch.tensor([col + size_px / 2, row + size_px / 2], device=truth_px.device) / crop * 2 - 1
    grid = centre.to(torch.float32).expand(truth_px.shape[0], 1, 1, 2)
    target = F.grid_sample(truth_px, grid, mode="bilinear", padding_mode="border", align_corners=False)[
        :, :, 0, 0
    ]
    return Similarity(shallow, deep), target


def _correlate_window(
    reference: Tensor, secondary: Tensor, row: int, col: int, size: int, search: int
) -> Tensor:
    """Correlate one template of each crop with its search area."""
    template = reference[..., row : row + size, col : col + size]
    side = size + 2 * search
    return correlate(template, secondary[..., row - search :, col - search :][..., :side, :side])
