"""How well the dates of one track lie on one another, measured without the matcher: S1 against S1.

A classical matcher (correlation of grey values) measures each date of a track against each other date: one
tile of 192 px. The offset of a date against the track is the mean over its partners. What correction leaves
of it is the scatter of the corrected stack. The measure has an error of its own, seen in two ways: how far
its own pairs contradict each other, and how far the upper and the lower half of the image do.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measuring import SEARCH_PX, SIZE_PX, Plane
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1] / "matcher"))

from classical import plain_zncc

WINDOW_PX = SIZE_PX + 2 * SEARCH_PX
SMALL_PX, NEAR_PX = 96, 16
"""Tile and search range of the halves of an image."""

Offsets = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TrackStack:
    """What a classical matcher says of the dates of one track, px."""

    dates: tuple[str, ...]
    offset_px: Offsets
    """(D, 2) of each date against the mean of the track."""
    contradiction_px: Offsets
    """(2,) standard deviation of a date's offset, from what its pairs leave."""
    halves_px: Offsets
    """(2,) the same, from what the upper and the lower half of the image say."""

    def scatter_px(self, corrections: Mapping[str, NDArray[np.float64]] | None = None) -> Offsets:
        """(2,) standard deviation per axis of what is left when each date's offset is taken off."""
        left = self.offset_px
        if corrections is not None:
            left = left - np.array([corrections[date] for date in self.dates])
        return (left - left.mean(axis=0)).std(axis=0, ddof=1)


def measured_stack(planes: Mapping[str, Plane], dates: Sequence[str]) -> TrackStack:
    """Measure every date of a track against every other; planes are of 256 x 256 px."""
    images = [np.nan_to_num(planes[date]) for date in dates]
    whole = _between(images, [(0, 0)], SIZE_PX, SEARCH_PX)
    half = SMALL_PX + 2 * NEAR_PX
    upper, lower = (_between(images, [(row, 0), (row, half)], SMALL_PX, NEAR_PX) for row in (0, half))
    offset = whole.mean(axis=1)
    apart = upper.mean(axis=1) - lower.mean(axis=1)
    left = whole - (offset[:, None] - offset[None])
    # A pair of two dates stands twice in the table. N dates fix N - 1 of the N (N - 1) / 2 pairs.
    count = len(dates)
    free = count * (count - 1) / 2 - (count - 1)
    pair = np.sqrt((left**2).sum(axis=(0, 1)) / 2 / free)
    return TrackStack(
        dates=tuple(dates),
        offset_px=offset,
        contradiction_px=pair / np.sqrt(count),
        halves_px=apart.std(axis=0, ddof=1) / 2,
    )


def _between(images: Sequence[Plane], starts: Sequence[tuple[int, int]], size: int, near: int) -> Offsets:
    """(D, D, 2) offset of date a minus that of date b, the mean over tiles; 0 on the diagonal."""
    found = np.zeros((len(images), len(images), 2))
    side = size + 2 * near
    for a, b in itertools.combinations(range(len(images)), 2):
        offsets = []
        for row, col in starts:
            first, second = (images[n][row : row + side, col : col + side] for n in (b, a))
            offsets.append(plain_zncc(first[near : near + size, near : near + size], second).offset_px)
        found[a, b] = np.mean(offsets, axis=0)
        found[b, a] = -found[a, b]
    return found
