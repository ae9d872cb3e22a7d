"""A graph of pairs that makes a strong network: near partners, and a few that bridge seasons and tracks.

Each scene chooses among the scenes of the other kind that were acquired *before* it. So a new scene adds its
own few pairs, and changes no choice of the others. Half of its partners are the nearest in time, where little
has changed on the ground. The other half are drawn by a hash of the two ids: pairs drawn at random tie a
network together over all its length, and a hash draws the same ones in every run.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from crosstie.io.pairing.choose import ChosenPairs
from crosstie.io.pairing.neighbours import CandidatePairs, SceneIndex, rank_within

if TYPE_CHECKING:
    from crosstie.io.pairing.rules import PairingRules
    from crosstie.types import BoolArray, FloatArray, IntArray, Objects


def overlapping(
    index: SceneIndex, candidates: CandidatePairs, rules: PairingRules
) -> tuple[CandidatePairs, FloatArray]:
    """Candidates that overlap enough, and the share (K,) by which they do."""
    share = index.overlap(candidates)
    enough = share >= rules.min_overlap
    return candidates.take(enough), share[enough]


def choose_network(
    index: SceneIndex,
    fits: CandidatePairs,
    share: FloatArray,
    *,
    pass_id: IntArray,
    place: IntArray,
    ids: Objects,
    rules: PairingRules,
) -> ChosenPairs:
    """Choose the pairs of a network.

    Parameters
    ----------
    index : SceneIndex
        All scenes, oldest first.
    fits : CandidatePairs
        (K,) pairs of a reference and a secondary that are near in time and overlap enough.
    share : FloatArray
        (K,) overlap.
    pass_id : IntArray
        (N,) pass of each scene; of the slices of one pass the one that covers most is taken.
    place : IntArray
        (K,) tile of the optical scene, as a number: a wide scene chooses partners for each place.
    ids : Objects
        (N,) id of each scene.
    rules : PairingRules
        How many partners.

    Returns
    -------
    ChosenPairs
        The chosen pairs; each is a group of its own.
    """
    whole = _largest_slices(fits, share, pass_id, index)
    pairs, share, place = fits.take(whole), share[whole], place[whole]
    # Rows are in order of time, and of two scenes of one moment the later id is the later row.
    later, partner = np.maximum(pairs.a, pairs.b), np.minimum(pairs.a, pairs.b)
    _, owner = np.unique(np.stack([later, place], axis=1), axis=0, return_inverse=True)
    owner = owner.reshape(-1)
    near = _first_of_each(owner, rules.partners - rules.partners // 2, pairs.gap_us, index.by_id[partner])
    drawn = np.zeros(len(pairs), bool)
    rest = np.flatnonzero(~near)
    lot = _lots(ids, later[rest], partner[rest])
    drawn[rest] = _first_of_each(owner[rest], rules.partners // 2, lot, index.by_id[partner[rest]])
    chosen = np.flatnonzero(near | drawn)
    return ChosenPairs(pairs.take(chosen), share[chosen], np.arange(len(chosen)))


def _largest_slices(
    fits: CandidatePairs, share: FloatArray, pass_id: IntArray, index: SceneIndex
) -> IntArray:
    """Rows of `fits`: of each two passes that meet, the pair of slices that have most in common."""
    order = np.lexsort((index.by_id[fits.b], index.by_id[fits.a], -share, pass_id[fits.b], pass_id[fits.a]))
    a, b = pass_id[fits.a][order], pass_id[fits.b][order]
    # An optical scene is a pass of its own, so tiles of one overflight stay apart.
    first = np.concatenate([[True], (np.diff(a) != 0) | (np.diff(b) != 0)])[: len(order)]
    return np.sort(order[first])


def _first_of_each(owner: IntArray, most: int, *by: IntArray) -> BoolArray:
    """Whether each entry is among the first `most` of its owner, in the order of `by`."""
    order = np.lexsort((*reversed(by), owner))
    good = np.zeros(len(owner), bool)
    good[order[rank_within(owner[order]) < most]] = True
    return good


def _lots(ids: Objects, owner: IntArray, partner: IntArray) -> IntArray:
    """(K,) a number of each pair that looks drawn at random, and hangs on the two ids alone."""
    texts = (f"{ids[a]} {ids[b]}" for a, b in zip(owner.tolist(), partner.tolist(), strict=True))
    lots = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") for text in texts]
    return np.array(lots, np.int64)
