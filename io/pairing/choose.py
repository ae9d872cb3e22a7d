"""Which secondaries a reference gets: by overlap, then by time, then by id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crosstie.io.pairing.neighbours import FOREVER_US, NearScenes, SceneIndex, rank_within

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.io.pairing.rules import PairingRules
    from crosstie.io.scenes.table import Scenes
    from crosstie.types import FloatArray

    IntArray = NDArray[np.int64]

OVERLAP_STEP = 0.05
"""Overlaps that differ by less are taken for equal, and the time gap decides."""

FULL = round(1 / OVERLAP_STEP)
"""No overlap counts for more."""

PASS_GAP_US = 300_000_000
"""Slices of one pass follow one another within five minutes; the next pass of a satellite over a place comes
an hour and a half later at the earliest."""


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """Chosen combinations (K,), as columns."""

    near: NearScenes
    share: FloatArray
    group: IntArray
    """Equal for slices of one pass that go with one reference."""

    def take(self, which: NDArray[np.bool_] | IntArray) -> Chosen:
        return Chosen(self.near.take(which), self.share[which], self.group[which])

    @classmethod
    def joined(cls, parts: list[Chosen]) -> Chosen:
        """All of several, one after another."""
        none = np.zeros(0, np.int64)
        return cls(
            NearScenes(
                *(
                    np.concatenate([none, *(getattr(p.near, name) for p in parts)])
                    for name in NearScenes.__slots__
                )
            ),
            np.concatenate([np.zeros(0), *(part.share for part in parts)]),
            np.concatenate([none, *(part.group for part in parts)]),
        )


def passes_of(scenes: Scenes) -> IntArray:
    """Number (N,) of the pass in which each SAR scene was taken; each optical scene has one of its own."""
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


def choose(
    field: SceneIndex, near: NearScenes, pass_id: IntArray, rules: PairingRules
) -> tuple[Chosen, NearScenes]:
    """Choose for every reference of `near`, and return also all combinations that were found to fit.

    Exact overlaps are dear, so the nearest in time go first; once a reference has its number of whole
    overlaps, nothing farther away in time can be better.
    """
    limit_us = np.full(len(field.moment_us), FOREVER_US, np.int64)
    fits, shares = [], []
    left, tries = near, 2
    known = Chosen.joined([])
    while len(left):
        rank = rank_within(left.a)
        now = left.take(rank < tries)
        share = field.overlap(now)
        enough = share >= rules.min_overlap
        fits.append(now.take(enough))
        shares.append(share[enough])
        known = _grouped(_joined(fits), np.concatenate(shares), pass_id, field)
        _limit(limit_us, known, rules)
        left = left.take((rank >= tries) & (left.gap_us <= limit_us[left.a]))
        tries *= 2
    return _best(known, field, rules), known.near


def best_of_tiles(chosen: Chosen, tile: IntArray, field: SceneIndex, most: int) -> NDArray[np.bool_]:
    """Whether each of the chosen is among the `most` best of its tile; slices of one pass count as one.

    `tile` is that of each of the chosen, as a number.
    """
    first, group_gap, step = _groups(chosen, each=True)
    a, b = chosen.near.a[first], chosen.near.b[first]
    order = np.lexsort((field.by_id[b], field.by_id[a], group_gap, -step, tile[first]))
    rank = np.empty(len(order), np.int64)
    rank[order] = rank_within(tile[first][order])
    good = rank < most
    return good[np.searchsorted(chosen.group[first], chosen.group)]


def _joined(parts: list[NearScenes]) -> NearScenes:
    return NearScenes(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in NearScenes.__slots__)
    )


def _grouped(near: NearScenes, share: FloatArray, pass_id: IntArray, field: SceneIndex) -> Chosen:
    """Sort by reference and pass, the best slice of each pass first, and number these groups."""
    step = np.round(share / OVERLAP_STEP)
    order = np.lexsort((field.by_id[near.b], near.gap_us, -step, pass_id[near.b], near.a))
    near, share = near.take(order), share[order]
    new = (np.diff(near.a) != 0) | (np.diff(pass_id[near.b]) != 0)
    return Chosen(near, share, np.concatenate([[0], np.cumsum(new)])[: len(near)].astype(np.int64))


def _groups(known: Chosen, *, each: bool) -> tuple[IntArray, IntArray, FloatArray]:
    """First row, gap and overlap step of each group: of its best slice, or of all its slices together."""
    first = np.flatnonzero(np.concatenate([[True], np.diff(known.group) != 0])[: len(known.group)])
    if not len(first):
        return first, np.zeros(0, np.int64), np.zeros(0)
    if not each:
        return first, known.near.gap_us[first], np.round(known.share[first] / OVERLAP_STEP)
    together = np.minimum(np.add.reduceat(known.share, first), 1.0)
    gap = np.minimum.reduceat(known.near.gap_us, first)
    return first, gap, np.round(together / OVERLAP_STEP)


def _limit(limit_us: IntArray, known: Chosen, rules: PairingRules) -> None:
    """Note for each reference beyond which gap nothing can be better than what it has."""
    first, gap, step = _groups(known, each=rules.slices == "each")
    whole = step >= FULL
    a, gap = known.near.a[first][whole], gap[whole]
    order = np.lexsort((gap, a))
    last = order[rank_within(a[order]) == rules.best_n - 1]
    # with every slice of a pass wanted, those after the nearest are still to come
    limit_us[a[last]] = gap[last] + (PASS_GAP_US if rules.slices == "each" else 0)


def _best(known: Chosen, field: SceneIndex, rules: PairingRules) -> Chosen:
    each = rules.slices == "each"
    first, gap, step = _groups(known, each=each)
    a = known.near.a[first]
    order = np.lexsort((field.by_id[known.near.b[first]], gap, -step, a))
    good = np.zeros(len(first), bool)
    good[order[rank_within(a[order]) < rules.best_n]] = True
    if not each:
        return known.take(first[good])
    return known.take(good[known.group])
