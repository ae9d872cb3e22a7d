"""Which scenes come near which: time first, boxes second, exact overlaps last and of few.

Scenes stand in order of time and are compared a stretch at a time, so that a whole archive never stands
against itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from crosstie.io.scenes.overlap import Ground, overlaps, search_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.types import BoolArray, FloatArray

    IntArray = NDArray[np.int64]

BATCH = 2048
"""Scenes compared at once; bounds the memory, changes no result."""

STRETCH_US = 5 * 86_400_000_000
"""Shortest stretch of time for which one spatial index is made, microseconds."""

FOREVER_US = np.iinfo(np.int64).max // 4


@dataclass(frozen=True, slots=True, eq=False)
class NearScenes:
    """Combinations (K,) of scenes by their rows, as columns."""

    a: IntArray
    b: IntArray
    gap_us: IntArray
    """Time between the two, not negative."""

    def __len__(self) -> int:
        return len(self.a)

    def take(self, which: BoolArray | IntArray) -> NearScenes:
        return NearScenes(self.a[which], self.b[which], self.gap_us[which])


@dataclass(frozen=True, slots=True, eq=False)
class SceneIndex:
    """All scenes (N,), oldest first, and what of them is compared."""

    moment_us: IntArray
    ground: Ground
    outline_id: IntArray
    """Equal for equal outlines, so that an overlap is computed once for all dates of a place."""
    by_id: IntArray
    """Place of each in the order of the ids."""

    def overlap(self, which: NearScenes) -> FloatArray:
        """Common area of each combination as a share of the smaller outline, 0..1."""
        a, b = self.outline_id[which.a], self.outline_id[which.b]
        _, first, back = np.unique(a * len(self.outline_id) + b, return_index=True, return_inverse=True)
        share: FloatArray = overlaps(self.ground, self.ground, which.a[first], which.b[first])[back]
        return share

    def near(self, a: IntArray, b: IntArray, reach_us: int) -> Iterator[NearScenes]:
        """Combinations of rows of `a` with rows of `b` whose boxes meet and whose gap is at most `reach_us`.

        Both oldest first. In parts: each holds all combinations of some rows of `a`, in order of these rows,
        of the gap, and of the id.
        """
        start = 0
        while start < len(a):
            # one index serves a stretch as long as the reach, for it has to look that far to both sides
            end_us = min(int(self.moment_us[a[start]]) + max(reach_us, STRETCH_US), FOREVER_US)
            end = int(np.searchsorted(self.moment_us[a], end_us, side="right"))
            rows = a[start:end]
            low = np.searchsorted(self.moment_us[b], self.moment_us[rows[0]] - reach_us, side="left")
            high = np.searchsorted(self.moment_us[b], self.moment_us[rows[-1]] + reach_us, side="right")
            yield from self._meeting(rows, b[low:high], reach_us)
            start = end

    def _meeting(self, a: IntArray, b: IntArray, reach_us: int) -> Iterator[NearScenes]:
        boxes, whose = search_boxes(self.ground.outlines[b])
        tree = shapely.STRtree(boxes)
        for first in range(0, len(a), BATCH):
            rows = a[first : first + BATCH]
            asked, asker = search_boxes(self.ground.outlines[rows])
            i, j = tree.query(asked)
            i, j = rows[asker[i]], b[whose[j]]
            gap_us = np.abs(self.moment_us[i] - self.moment_us[j])
            found = NearScenes(i, j, gap_us).take(gap_us <= reach_us)
            found = found.take(np.lexsort((self.by_id[found.b], found.gap_us, found.a)))
            if self.ground.several[rows].any() or self.ground.several[b].any():
                # parts of one outline meet parts of another more than once
                again = (np.diff(found.a) == 0) & (np.diff(found.b) == 0)
                found = found.take(np.concatenate([[True], ~again]) if len(found) else np.zeros(0, bool))
            yield found


def rank_within(owner: IntArray) -> IntArray:
    """Place of each in its group, from 0; groups stand together and ascend."""
    rank: IntArray = np.arange(len(owner)) - np.searchsorted(owner, owner)
    return rank
