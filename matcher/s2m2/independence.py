"""Mutual independence loss: shared and specific features should carry no information about each other.

It needs no labels: it is the mutual information of what the enhancement keeps and what it removed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from crosstie.matcher.s2m2.enhancement import FeatureParts

HISTOGRAM_BINS = 32
"""Bins of each histogram over 0..1."""

SIGMA = 1 / HISTOGRAM_BINS
"""Standard deviation of the Gaussian by which a value is shared among bins: one bin, so that a value always
has a slope towards the bins beside it."""

EMPTY_PROBABILITY = 1e-12
"""Probability below which a cell of the joint histogram counts as empty."""

AVERAGED_PX = 8
"""Features are averaged over squares of this side, in cells of their own grid."""


def independence_loss(pairs: Sequence[FeatureParts]) -> Tensor:
    """Mean mutual information, in nats, of enhanced and removed features over modalities, levels and passes.

    Gradients reach the enhanced features alone: what was removed is taken as it is. Zero without pairs.
    """
    if not pairs:
        return torch.zeros(())
    informations = [
        mutual_information(_averaged_values(p.enhanced), _averaged_values(p.removed.detach())) for p in pairs
    ]
    return torch.stack(informations).mean()


def mutual_information(a: Tensor, b: Tensor) -> Tensor:
    """Mutual information of paired values in 0..1, (B, N) each: nats, estimated in each row, then averaged.

    Rows are kept apart, so that the figure of a pair of images does not depend on its batch. Like every
    estimate from counts it is a little above zero for independent values: about 0.01 at N = 4,000.
    """
    with torch.autocast(a.device.type, enabled=False):  # counts of thousands need more than 8 bits
        a_bins, b_bins = _soft_bins(a), _soft_bins(b)
        joint = a_bins.transpose(1, 2) @ b_bins / a.shape[1]
    independent = joint.sum(2, keepdim=True) * joint.sum(1, keepdim=True)
    information = joint * (torch.log(joint + EMPTY_PROBABILITY) - torch.log(independent + EMPTY_PROBABILITY))
    return information.sum(dim=(1, 2)).mean()


def _averaged_values(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N) averaged values within 0..1."""
    # A map that 8 does not divide ends in smaller squares, each averaged over what it has.
    averaged = F.avg_pool2d(features.float(), AVERAGED_PX, ceil_mode=True)
    return averaged.clamp(0, 1).flatten(1)


def _soft_bins(values: Tensor) -> Tensor:
    """Share of each value (B, N) in each bin: (B, N, HISTOGRAM_BINS), summing to one."""
    centres = (torch.arange(HISTOGRAM_BINS, device=values.device) + 0.5) / HISTOGRAM_BINS
    return torch.softmax(-((values[..., None] - centres) ** 2) / (2 * SIGMA**2), dim=-1)
