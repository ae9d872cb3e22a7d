"""Held-out crops to look at: template, search area, and the probability of each offset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from crosstie.types import Plane

EXAMPLES = 4
"""Number of crops; the same ones at each evaluation."""

SEED = 31_000
"""Seed of the draw of these crops."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One template of a held-out crop."""

    template: Plane
    """(size, size) of the optical image, as the network gets it"""
    search: Plane
    """(size + 2R, size + 2R) of the SAR image, the same ground in the middle"""
    deep: Plane
    """(2R + 1, 2R + 1) probability by the deep similarity alone; element (i, j) is offset (j - R, i - R)"""
    shallow: Plane
    """The same by the shallow similarity alone"""
    combined: Plane
    """The same by both"""
    truth_px: tuple[float, float]
    """True offset x, y; NaN unknown"""
    found_px: tuple[float, float]
    """Measured offset x, y"""


def probability(logit: Tensor) -> NDArray[np.float32]:
    """Of each offset, from logits (B, rows, cols) to arrays; each of the B sums to one."""
    p: NDArray[np.float32] = torch.softmax(logit.float().flatten(1), dim=1).reshape(logit.shape).cpu().numpy()
    return p
