"""Explain why a scene is in no pair: the rule that left it out, and the value that decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crosstie.io.pairing.neighbours import NO_LIMIT_US, CandidatePairs, SceneIndex, rank_within
from crosstie.io.scenes.table import LeftOut, Scenes
from crosstie.types import Kind

if TYPE_CHECKING:
    from crosstie.io.pairing.rules import PairingRules
    from crosstie.types import FloatArray, IntArray

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True, eq=False)
class _Nearest:
    """The partner of each scene, nearest in time with enough overlap, as columns over all scenes (N,)."""

    partner: IntArray
    """Row of the partner; -1 where there is none."""
    gap_us: IntArray
    """Time between the two, microseconds."""
    share: FloatArray
    """Largest overlap with any scene that was tried, 0..1."""


def explain_unpaired(
    scenes: Scenes, index: SceneIndex, rows: IntArray, others: IntArray, rules: PairingRules, *, partner: Kind
) -> list[LeftOut]:
    """Say for each scene that is in no pair what kept it from a partner.

    Parameters
    ----------
    scenes : Scenes
        All scenes (N,), oldest first.
    index : SceneIndex
        Of the same scenes.
    rows : IntArray
        The scenes without a pair.
    others : IntArray
        The scenes that could have been their partners.
    rules : PairingRules
        The rules that were applied.
    partner : Kind
        Kind of `others`.

    Returns
    -------
    list of LeftOut
        One entry for each of `rows`.
    """
    if not len(rows):
        return []
    kind = "SAR" if partner is Kind.SAR else "optical"
    if not len(others):
        which = "that can be used" if scenes.left_out else "at all"
        why = f"the catalog gave no {kind} scene {which}" + (f": {scenes.seen}" if scenes.seen else "")
        return [LeftOut(scenes.id[n], "no partner", why) for n in rows]
    max_gap_us = round(rules.max_days * DAY_US)
    close = _nearest(index, rows, others, max_gap_us, rules.min_overlap)
    far = rows[close.partner[rows] < 0]
    ever = _nearest(index, far, others, NO_LIMIT_US, rules.min_overlap)
    found = []
    for n in rows.tolist():
        if close.partner[n] >= 0:
            found.append(_outdone(scenes, n, int(close.partner[n]), rules))
        elif ever.partner[n] >= 0:
            days = ever.gap_us[n] / DAY_US
            why = f"nearest {kind} scene is {days:.2f} days away (max_days is {rules.max_days:g})"
            found.append(LeftOut(scenes.id[n], "time gap", why))
        elif ever.share[n] > 0:
            why = f"largest overlap is {ever.share[n]:.1%} (min_overlap is {rules.min_overlap:.0%})"
            found.append(LeftOut(scenes.id[n], "overlap", why))
        else:
            found.append(LeftOut(scenes.id[n], "no partner", f"no {kind} scene overlaps it"))
    return found


def _outdone(scenes: Scenes, n: int, partner: int, rules: PairingRules) -> LeftOut:
    why = f"{scenes.id[partner]}, its nearest, has a better partner (best_n is {rules.best_n})"
    if rules.best_n_per_tile is not None:
        why = (
            f"{scenes.id[partner]}, its nearest, or its tile has a better pair (best_n is {rules.best_n},"
            f" best_n_per_tile is {rules.best_n_per_tile})"
        )
    return LeftOut(scenes.id[n], "better partner", why)


def _nearest(
    index: SceneIndex, rows: IntArray, others: IntArray, max_gap_us: int, min_overlap: float
) -> _Nearest:
    """Find the nearest partner of each row. Exact overlaps take time: the nearest in time are tried first."""
    count = len(index.moment_us)
    best = _Nearest(np.full(count, -1), np.full(count, NO_LIMIT_US), np.zeros(count))
    for candidates in index.candidates(rows, others, max_gap_us):
        left, tries = candidates, 1
        while len(left):
            rank = rank_within(left.a)
            now = left.take(rank < tries)
            share = index.overlap(now)
            np.maximum.at(best.share, now.a, share)
            _note(best, now.take(share >= min_overlap))
            left = left.take((rank >= tries) & (best.partner[left.a] < 0))
            tries *= 2
    return best


def _note(best: _Nearest, good: CandidatePairs) -> None:
    first = good.take(rank_within(good.a) == 0)  # in order of the gap
    fresh = first.take(best.partner[first.a] < 0)
    best.partner[fresh.a] = fresh.b
    best.gap_us[fresh.a] = fresh.gap_us
