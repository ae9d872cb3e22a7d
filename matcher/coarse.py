"""The offset of a whole scene, exact to a few pixels: spots spread over the scene vote on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

VOTE_SIGMA_PX = 4.0
"""Votes this far apart still agree: relief and rotation move the spots of one scene by several pixels."""

ENOUGH_VOTES = 4.0
"""Of 300 sets of 25 spots of pure noise in +-72 px, fewer than one reaches as many (a test simulates it)."""


@dataclass(frozen=True, slots=True)
class CoarseOffset:
    """Offset of the scene to within the fine search, px."""

    dx_px: int
    dy_px: int
    votes: float
    """Spots that agree."""
    spots: int
    """Spots that were asked."""

    @property
    def reliable(self) -> bool:
        """Whether more spots agree than noise explains."""
        return self.votes >= min(ENOUGH_VOTES, max(1.5, 0.5 * self.spots))


def vote_on_offset(probabilities: Sequence[NDArray[np.float32]]) -> CoarseOffset:
    """Find the offset that most spots agree on.

    Each spot spreads one vote over all offsets. The votes are blurred and added. A spot without texture
    spreads its vote thinly and hardly counts; a wrong spot finds no other that agrees.

    Parameters
    ----------
    probabilities : Sequence[NDArray[np.float32]]
        For each spot (2R + 1, 2R + 1), the probability of each offset; each sums to one.
    """
    if not probabilities:
        return CoarseOffset(0, 0, 0.0, 0)
    peak_of_one_vote = 1 / (2 * np.pi * VOTE_SIGMA_PX**2)
    total = gaussian_filter(np.sum(probabilities, axis=0, dtype=np.float64), VOTE_SIGMA_PX, mode="constant")
    row, col = np.unravel_index(int(total.argmax()), total.shape)
    radius = (total.shape[0] - 1) // 2
    votes = float(total[row, col] / peak_of_one_vote)
    return CoarseOffset(int(col) - radius, int(row) - radius, votes, len(probabilities))
