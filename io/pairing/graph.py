"""A graph of pairs that makes a strong network: near partners, and a few that bridge seasons and tracks.

Each scene chooses among the scenes of the other kind that were acquired *before* it. So a new scene adds its
own few pairs, and changes no choice of the others. Half of its partners are the nearest in time, where little
has changed on the ground. The other half are drawn by a hash of the two ids: pairs drawn at random tie a
network together over all its length, and a hash draws the same ones in every run. Beyond these it takes on
each earlier scene that has a single pair until then, which no other pair would control.

Scenes of one kind are paired in the same way where that is asked for: the earlier one is the reference.
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
    partners: int,
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
        (K,) place as a number, the tile of the optical scene: a wide scene chooses partners for each.
    ids : Objects
        (N,) id of each scene.
    partners : int
        How many partners a scene chooses at each place.

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
    near = _first_of_each(owner, partners - partners // 2, pairs.gap_us, index.by_id[partner])
    drawn = np.zeros(len(pairs), bool)
    rest = np.flatnonzero(~near)
    lot = _lots(ids, later[rest], partner[rest])
    drawn[rest] = _first_of_each(owner[rest], partners // 2, lot, index.by_id[partner[rest]])
    chosen = np.flatnonzero(_with_single_ones(near | drawn, later, partner, place))
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


def _with_single_ones(chosen: BoolArray, later: IntArray, partner: IntArray, place: IntArray) -> BoolArray:
    """Add pairs (K,) with earlier scenes that have one pair alone at a place when the later scene comes.

    In order of time, so that what a scene adds depends on earlier scenes alone.
    """
    _, node = np.unique(
        np.stack([np.concatenate([later, partner]), np.tile(place, 2)], axis=1), axis=0, return_inverse=True
    )
    own, other = node.reshape(2, -1)
    order = np.lexsort((place, later))
    bounds = np.flatnonzero(np.diff(own[order], prepend=-1))
    degree = np.zeros(len(node), np.int64)
    found = chosen.copy()
    for group in np.split(order, bounds[1:]) if len(order) else []:
        found[group] |= degree[other[group]] == 1
        taken = group[found[group]]
        degree[other[taken]] += 1
        degree[own[taken[:1]]] += len(taken)
    return found


def same_kind_candidates(
    index: SceneIndex, rows: IntArray, series: IntArray, pass_id: IntArray, rules: PairingRules, gap_us: int
) -> tuple[CandidatePairs, FloatArray]:
    """Pairs of scenes of one kind that show the same ground in the same way, and their overlap (K,).

    Parameters
    ----------
    index : SceneIndex
        All scenes, oldest first.
    rows : IntArray
        Rows of the scenes of one kind, oldest first.
    series : IntArray
        (N,) tile or track of each scene as a number; -1 where it is not known, and nothing is paired.
    pass_id : IntArray
        (N,) pass of each scene; slices of one pass are one date.
    rules : PairingRules
        Smallest overlap.
    gap_us : int
        Longest time between the two, microseconds.

    Returns
    -------
    tuple of CandidatePairs and FloatArray
        The earlier scene is `a`.
    """
    known = rows[series[rows] >= 0]
    found = []
    for pairs in index.candidates(known, known, gap_us):
        alike = (series[pairs.a] == series[pairs.b]) & (pass_id[pairs.a] != pass_id[pairs.b])
        found.append(overlapping(index, pairs.take((pairs.a < pairs.b) & alike), rules))
    joined = CandidatePairs.joined([pairs for pairs, _ in found])
    return joined, np.concatenate([np.zeros(0), *(share for _, share in found)])


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
