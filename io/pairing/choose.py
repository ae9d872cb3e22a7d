"""Choose the secondaries of each reference: by overlap, then by time, then by id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crosstie.io.pairing.neighbours import NO_LIMIT_US, CandidatePairs, SceneIndex, rank_within

if TYPE_CHECKING:
    from crosstie.io.pairing.rules import PairingRules
    from crosstie.io.scenes.table import Scenes
    from crosstie.types import BoolArray, FloatArray, IntArray

OVERLAP_STEP = 0.05
"""Overlaps are compared in steps of this share. Within one step the time gap decides."""

FULL_STEPS = round(1 / OVERLAP_STEP)
"""The step of a complete overlap."""

PASS_GAP_US = 300_000_000
"""Longest time between two slices of one pass, microseconds: five minutes. The next pass of a satellite over
the same place is at least an hour and a half later."""


@dataclass(frozen=True, slots=True, eq=False)
class ChosenPairs:
    """Chosen pairs of rows (K,), as columns."""

    pairs: CandidatePairs
    share: FloatArray
    """Overlap, 0..1."""
    group: IntArray
    """Number that slices of one pass share if they are paired with one reference."""

    def take(self, which: BoolArray | IntArray) -> ChosenPairs:
        """Keep only these rows."""
        return ChosenPairs(self.pairs.take(which), self.share[which], self.group[which])

    @classmethod
    def joined(cls, parts: list[ChosenPairs]) -> ChosenPairs:
        """Put several one after another."""
        return cls(
            CandidatePairs.joined([part.pairs for part in parts]),
            np.concatenate([np.zeros(0), *(part.share for part in parts)]),
            np.concatenate([np.zeros(0, np.int64), *(part.group for part in parts)]),
        )


def passes_of(scenes: Scenes) -> IntArray:
    """Number the pass of each SAR scene, (N,). Each optical scene gets a number of its own."""
    pass_id = np.arange(len(scenes), dtype=np.int64)
    groups: dict[tuple[object, object], int] = {}
    rows = np.flatnonzero(scenes.is_sar & np.array([name is not None for name in scenes.platform], bool))
    keys = zip(scenes.platform[rows], scenes.product_type[rows], strict=True)
    code = np.array([groups.setdefault(key, len(groups)) for key in keys], np.int64)
    order = np.lexsort((scenes.acquired_us[rows], code))
    moments = scenes.acquired_us[rows][order]
    begins = np.concatenate(
        [[True], (np.diff(code[order]) != 0) | (np.diff(moments) > PASS_GAP_US)]
    )[: len(order)]  # fmt: skip
    pass_id[rows[order]] = rows[order][begins][np.cumsum(begins) - 1] if len(order) else 0
    return pass_id


def choose_partners(
    index: SceneIndex, candidates: CandidatePairs, pass_id: IntArray, rules: PairingRules
) -> tuple[ChosenPairs, CandidatePairs]:
    """Choose the secondaries of every reference among the candidates.

    Exact overlaps take time, so the nearest in time are computed first. When a reference has its number of
    complete overlaps, nothing farther away in time can be better.

    Returns
    -------
    ChosenPairs
        The chosen pairs.
    CandidatePairs
        All candidates that were found to overlap enough.
    """
    limit_us = np.full(len(index.moment_us), NO_LIMIT_US, np.int64)
    fits, shares = [], []
    left, tries = candidates, 2
    known = ChosenPairs.joined([])
    while len(left):
        rank = rank_within(left.a)
        now = left.take(rank < tries)
        share = index.overlap(now)
        enough = share >= rules.min_overlap
        fits.append(now.take(enough))
        shares.append(share[enough])
        known = _grouped(CandidatePairs.joined(fits), np.concatenate(shares), pass_id, index)
        _limit(limit_us, known, rules)
        left = left.take((rank >= tries) & (left.gap_us <= limit_us[left.a]))
        tries *= 2
    return _best(known, index, rules), known.pairs


def best_of_tiles(chosen: ChosenPairs, tile: IntArray, index: SceneIndex, most: int) -> BoolArray:
    """Say whether each chosen pair is among the `most` best of its tile. Slices of one pass count as one.

    Parameters
    ----------
    chosen : ChosenPairs
        (K,) pairs.
    tile : IntArray
        (K,) the tile of each pair, as a number.
    index : SceneIndex
        The scenes of the pairs.
    most : int
        Maximum number of pairs of a tile.

    Returns
    -------
    BoolArray
        (K,) True for the pairs to keep.
    """
    first, group_gap, step = _groups(chosen, each=True)
    a, b = chosen.pairs.a[first], chosen.pairs.b[first]
    order = np.lexsort((index.by_id[b], index.by_id[a], group_gap, -step, tile[first]))
    rank = np.empty(len(order), np.int64)
    rank[order] = rank_within(tile[first][order])
    good = rank < most
    return good[np.searchsorted(chosen.group[first], chosen.group)]


def _grouped(pairs: CandidatePairs, share: FloatArray, pass_id: IntArray, index: SceneIndex) -> ChosenPairs:
    """Sort by reference and pass, with the best slice of each pass first, and number these groups."""
    step = np.round(share / OVERLAP_STEP)
    order = np.lexsort((index.by_id[pairs.b], pairs.gap_us, -step, pass_id[pairs.b], pairs.a))
    pairs, share = pairs.take(order), share[order]
    new = (np.diff(pairs.a) != 0) | (np.diff(pass_id[pairs.b]) != 0)
    return ChosenPairs(pairs, share, np.concatenate([[0], np.cumsum(new)])[: len(pairs)].astype(np.int64))


def _groups(known: ChosenPairs, *, each: bool) -> tuple[IntArray, IntArray, FloatArray]:
    """First row, gap and overlap step of each group: of its best slice, or (`each`) of all its slices."""
    first = np.flatnonzero(np.concatenate([[True], np.diff(known.group) != 0])[: len(known.group)])
    if not len(first):
        return first, np.zeros(0, np.int64), np.zeros(0)
    if not each:
        return first, known.pairs.gap_us[first], np.round(known.share[first] / OVERLAP_STEP)
    together = np.minimum(np.add.reduceat(known.share, first), 1.0)
    gap = np.minimum.reduceat(known.pairs.gap_us, first)
    return first, gap, np.round(together / OVERLAP_STEP)


def _limit(limit_us: IntArray, known: ChosenPairs, rules: PairingRules) -> None:
    """Lower each reference's largest useful gap: beyond it nothing can be better than what it has."""
    first, gap, step = _groups(known, each=rules.slices == "each")
    whole = step >= FULL_STEPS
    a, gap = known.pairs.a[first][whole], gap[whole]
    order = np.lexsort((gap, a))
    last = order[rank_within(a[order]) == rules.best_n - 1]
    # where each slice of a pass makes a pair, those after the nearest still follow
    limit_us[a[last]] = gap[last] + (PASS_GAP_US if rules.slices == "each" else 0)


def _best(known: ChosenPairs, index: SceneIndex, rules: PairingRules) -> ChosenPairs:
    each = rules.slices == "each"
    first, gap, step = _groups(known, each=each)
    a = known.pairs.a[first]
    order = np.lexsort((index.by_id[known.pairs.b[first]], gap, -step, a))
    good = np.zeros(len(first), bool)
    good[order[rank_within(a[order]) < rules.best_n]] = True
    if not each:
        return known.take(first[good])
    return known.take(good[known.group])
