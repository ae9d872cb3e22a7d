"""Whether the measurements of a network agree on anything, or are noise about 0.

Each edge is told by the others: the share of it that they explain is the gain, below 0 where 0 would be
nearer. The same is asked of the measurements turned at random, each by itself: as long as before in their own
sigmas, they agree on nothing. So the chance holds for pairs of any noise, whatever they say of it, as long as
it is as likely in one direction as in another.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from crosstie.estimation.adjustment import reliability
from crosstie.estimation.adjustment.normal import CHUNK_BYTES, Normal, Structure
from crosstie.estimation.adjustment.robust import differences, gathered

if TYPE_CHECKING:
    from crosstie.types import FloatArray, IntArray

MOST_DRAWS = 10_000
"""Chances below one in so many are not told."""

DRAWN_FROM = 20_250_602
"""The same place gives the same bytes."""


def agreement(
    ends: tuple[IntArray, IntArray], measured: FloatArray, weight: FloatArray, *, false_alarm: float
) -> tuple[float, float]:
    """Gain of telling each edge by the others, and the chance of so much where they agree on nothing.

    Parameters
    ----------
    ends : tuple of IntArray
        (E,) and (E,) numbers of the two scenes of each edge, from 0.
    measured : FloatArray
        (E, b) what each edge measures: second minus first.
    weight : FloatArray
        (E, b, b) its weight.
    false_alarm : float
        Chance that is to be told from smaller ones.

    Returns
    -------
    tuple of float and float
        Share of the sum of squares that is explained, and the chance. 0 and 1 where no edge controls another.
    """
    structure = _one_held(*ends)
    normal = Normal.of(structure, weight, np.zeros(weight.shape[1:]))
    redundancy = _redundancy(normal, weight)
    controlled = redundancy > reliability.CONTROLLED
    if not controlled.any():
        return 0.0, 1.0
    share = np.where(controlled, redundancy, 1.0)[:, None, None]
    draws = min(ceil(1 / false_alarm), MOST_DRAWS)
    rng, at_once = np.random.default_rng(DRAWN_FROM), max(1, CHUNK_BYTES // (8 * measured.size))
    found = np.empty(draws + 1)
    for start in range(0, draws + 1, at_once):
        tried = _turned(measured, weight, min(at_once, draws + 1 - start), rng)
        if start == 0:
            tried[:, :, 0] = measured
        unknown = normal.solve(gathered(weight @ tried, structure))
        told = ((tried - differences(unknown, structure)) / share)[controlled]
        left = np.einsum("ebm,ebm->m", told, weight[controlled] @ told)
        found[start : start + tried.shape[2]] = left
    whole = float(np.einsum("eb,ebc,ec->", measured[controlled], weight[controlled], measured[controlled]))
    chance = float((found <= found[0]).mean())
    return 1 - float(found[0]) / max(whole, 1e-12), chance


def _turned(measured: FloatArray, weight: FloatArray, draws: int, rng: np.random.Generator) -> FloatArray:
    """(E, b, draws) measurements of the same length in sigmas, in directions drawn at random."""
    root = np.linalg.cholesky(weight)
    length = np.sqrt(np.einsum("eb,ebc,ec->e", measured, weight, measured))
    drawn = rng.normal(size=(*measured.shape, draws))
    drawn *= length[:, None, None] / np.linalg.norm(drawn, axis=1, keepdims=True)
    turned: FloatArray = np.linalg.inv(root.transpose(0, 2, 1)) @ drawn
    return turned


def _one_held(i: IntArray, j: IntArray) -> Structure:
    """Structure of a network in which one scene of each part is held."""
    n = int(max(i.max(), j.max())) + 1
    _, part = connected_components(coo_array((np.ones(len(i), np.int8), (i, j)), shape=(n, n)), False)
    holding = np.zeros(n, np.bool_)
    holding[np.unique(part, return_index=True)[1]] = True
    free = np.where(holding, -1, np.cumsum(~holding) - 1)
    return Structure.of(int((~holding).sum()), free[i], free[j])


def _redundancy(normal: Normal, weight: FloatArray) -> FloatArray:
    of_scene, of_edge = normal.cofactors()
    s = normal.structure
    padded = np.concatenate([of_scene, np.zeros((1, *of_scene.shape[1:]))])
    spread = padded[s.i] + padded[s.j] - of_edge - of_edge.transpose(0, 2, 1)
    return reliability.redundancy(weight, spread, np.ones(len(weight), np.bool_))
