"""Two similarities of a template and its surroundings, deep and shallow, and both together.

The deep one has a cell every 8 px and sees far: it distinguishes a field from its neighbour. The shallow one
has a cell every pixel and is exact, but may pick a look-alike. Their product (the sum of their logits) errs
less often than either (Gai & Li 2025).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from crosstie.matcher.network import DEEP_STRIDE_PX, MatchingNetwork


@dataclass(frozen=True, slots=True, eq=False)
class Similarity:
    """Correlations (-1..1) of B templates with their surroundings up to R px."""

    shallow: Tensor
    """(B, 2R + 1, 2R + 1); element (i, j) belongs to the offset (dx, dy) = (j - R, i - R) px"""
    deep: Tensor
    """(B, 2K + 1, 2K + 1), K = ceil(R / 8); element (i, j) belongs to (8 (j - K), 8 (i - K)) px"""

    def select(self, index: Tensor) -> Similarity:
        """Of some templates only."""
        return Similarity(self.shallow[index], self.deep[index])


def deep_reach(search_px: int) -> int:
    """Cells of the deep similarity on each side that cover `search_px`."""
    return math.ceil(search_px / DEEP_STRIDE_PX)


def spread(deep: Tensor, search_px: int) -> Tensor:
    """Deep similarity (B, 2K + 1, 2K + 1) -> one value a pixel (B, 2R + 1, 2R + 1), bilinear.

    Cell k belongs to the offset of 8 k px, so the outermost centres are the corners of the finer grid.
    """
    side = 2 * DEEP_STRIDE_PX * deep_reach(search_px) + 1
    fine = F.interpolate(deep[:, None], size=(side, side), mode="bilinear", align_corners=True)[:, 0]
    cut = (side - (2 * search_px + 1)) // 2
    return fine[:, cut : side - cut, cut : side - cut]


def shallow_logits(network: MatchingNetwork, similarity: Similarity, size_px: int) -> Tensor:
    """(B, 2R + 1, 2R + 1), of the shallow similarity alone."""
    return similarity.shallow * network.logit_scale(size_px).to(similarity.shallow.device)


def deep_logits(network: MatchingNetwork, similarity: Similarity, size_px: int) -> Tensor:
    """(B, 2K + 1, 2K + 1), of the deep similarity alone."""
    return similarity.deep * network.deep_logit_scale(size_px).to(similarity.deep.device)


def logits(network: MatchingNetwork, similarity: Similarity, size_px: int) -> Tensor:
    """Logit (B, 2R + 1, 2R + 1) of each whole offset, deep and shallow together."""
    search_px = (similarity.shallow.shape[-1] - 1) // 2
    deep = spread(deep_logits(network, similarity, size_px), search_px)
    return shallow_logits(network, similarity, size_px) + deep
