"""Find scenes that are close in time and place: by time first, then by boxes, and last by exact overlaps.

Scenes are sorted by time and compared one period after another, so that a whole archive is never compared
with itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from crosstie.io.scenes.overlap import Ground, overlaps, search_boxes

if TYPE_CHECKING:
    from crosstie.types import BoolArray, FloatArray, IntArray

BATCH = 2048
"""Scenes compared at once. Limits the memory and changes no result."""

MIN_PERIOD_US = 5 * 86_400_000_000
"""Shortest period for which one spatial index is made, microseconds."""

NO_LIMIT_US = np.iinfo(np.int64).max // 4
"""A time gap that no two scenes reach; sums of a few do not overflow."""


@dataclass(frozen=True, slots=True, eq=False)
class CandidatePairs:
    """Pairs of scenes that may fit (K,), as columns."""

    a: IntArray
    """Row of the one scene."""
    b: IntArray
    """Row of the other scene."""
    gap_us: IntArray
    """Time between the two, microseconds, not negative."""

    def __len__(self) -> int:
        return len(self.a)

    def take(self, which: BoolArray | IntArray) -> CandidatePairs:
        """Keep only these rows."""
        return CandidatePairs(self.a[which], self.b[which], self.gap_us[which])

    @classmethod
    def joined(cls, parts: list[CandidatePairs]) -> CandidatePairs:
        """Put several one after another."""
        none = np.zeros(0, np.int64)
        return cls(
            np.concatenate([none, *(part.a for part in parts)]),
            np.concatenate([none, *(part.b for part in parts)]),
            np.concatenate([none, *(part.gap_us for part in parts)]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class SceneIndex:
    """All scenes (N,), oldest first, with the columns that are compared."""

    moment_us: IntArray
    """Acquisition, whole microseconds since 1970."""
    ground: Ground
    """Outlines on the ground."""
    outline_id: IntArray
    """Number that equal outlines share, so that an overlap is computed once for all dates of a place."""
    by_id: IntArray
    """Rank of each scene in the order of the ids."""

    def overlap(self, which: CandidatePairs) -> FloatArray:
        """Common area of each pair as a share of the smaller outline, (K,), 0..1."""
        a, b = self.outline_id[which.a], self.outline_id[which.b]
        _, first, back = np.unique(a * len(self.outline_id) + b, return_index=True, return_inverse=True)
        share: FloatArray = overlaps(self.ground, self.ground, which.a[first], which.b[first])[back]
        return share

    def candidates(self, a: IntArray, b: IntArray, max_gap_us: int) -> Iterator[CandidatePairs]:
        """Pair rows of `a` with rows of `b` whose boxes meet and whose time gap is small enough.

        Parameters
        ----------
        a : IntArray
            Rows, oldest first.
        b : IntArray
            Rows, oldest first.
        max_gap_us : int
            Longest time between the two, microseconds.

        Yields
        ------
        CandidatePairs
            All pairs of some rows of `a`, sorted by these rows, by the gap and by the id.
        """
        start = 0
        while start < len(a):
            # one index serves a period as long as the gap, because it must look that far to both sides
            end_us = min(int(self.moment_us[a[start]]) + max(max_gap_us, MIN_PERIOD_US), NO_LIMIT_US)
            end = int(np.searchsorted(self.moment_us[a], end_us, side="right"))
            rows = a[start:end]
            low = np.searchsorted(self.moment_us[b], self.moment_us[rows[0]] - max_gap_us, side="left")
            high = np.searchsorted(self.moment_us[b], self.moment_us[rows[-1]] + max_gap_us, side="right")
            yield from self._meeting(rows, b[low:high], max_gap_us)
            start = end

    def _meeting(self, a: IntArray, b: IntArray, max_gap_us: int) -> Iterator[CandidatePairs]:
        boxes, whose = search_boxes(self.ground.outlines[b])
        tree = shapely.STRtree(boxes)
        for first in range(0, len(a), BATCH):
            rows = a[first : first + BATCH]
            asked, asker = search_boxes(self.ground.outlines[rows])
            i, j = tree.query(asked)
            i, j = rows[asker[i]], b[whose[j]]
            gap_us = np.abs(self.moment_us[i] - self.moment_us[j])
            found = CandidatePairs(i, j, gap_us).take(gap_us <= max_gap_us)
            found = found.take(np.lexsort((self.by_id[found.b], found.gap_us, found.a)))
            if self.ground.several[rows].any() or self.ground.several[b].any():
                # two outlines of several parts may meet more than once
                again = (np.diff(found.a) == 0) & (np.diff(found.b) == 0)
                found = found.take(np.concatenate([[True], ~again]) if len(found) else np.zeros(0, bool))
            yield found


def rank_within(owner: IntArray) -> IntArray:
    """Rank of each entry in its group, from 0. The entries of a group follow one another; groups ascend."""
    rank: IntArray = np.arange(len(owner)) - np.searchsorted(owner, owner)
    return rank
