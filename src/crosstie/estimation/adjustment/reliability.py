"""Internal reliability: how far each edge is controlled by the others, and which are wrong.

An edge between two scenes has the adjusted variance H of their difference from all edges that are kept. Out
of it come its share of redundancy, the test that it is wrong, and the smallest error that the test would see.

References
----------
Baarda (1968), A testing procedure for use in geodetic networks.
Teunissen (2006), Testing theory: an introduction, 2nd ed.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import chi2, ncx2

if TYPE_CHECKING:
    from crosstie.types import BoolArray, FloatArray, IntArray

NO_CONTROL = 1e-6
"""Redundancy below which an edge is a bridge: without it the network falls apart, so nothing checks it."""

CONTROLLED = 1e-3
"""Redundancy from which an edge counts as controlled by others."""

TIE = 1e-6
"""Tests that differ by a smaller share are the same: no data can tell the two edges apart."""


def redundancy(information: FloatArray, spread: FloatArray, kept: BoolArray) -> FloatArray:
    """(E,) share of redundancy, 0..1, mean over what the edge measures.

    Parameters
    ----------
    information : FloatArray
        (E, k, k) information of the measured differences.
    spread : FloatArray
        (E, k, k) variance H of the adjusted differences; NaN where no kept edges connect the two scenes.
    kept : BoolArray
        (E,) True for edges in use. A rejected edge gets the value that it would have if it were used.
    """
    inside = np.einsum("eij,eji->e", information, np.nan_to_num(spread))
    told = np.maximum((np.diagonal(information, axis1=1, axis2=2) > 0).sum(axis=1), 1)
    share = 1 - inside / told
    out = ~kept
    if out.any():
        identity = np.eye(information.shape[1])
        let_in = np.linalg.inv(identity + np.nan_to_num(spread[out]) @ information[out])
        untold = information.shape[1] - told[out]
        share[out] = (np.trace(let_in, axis1=1, axis2=2) - untold) / told[out]
    share[np.isnan(spread).any(axis=(1, 2))] = 0
    clipped: FloatArray = np.clip(share, 0, 1)
    return clipped


def of_errors(information: FloatArray, spread: FloatArray, kept: BoolArray) -> FloatArray:
    """(E, k, k) information on an error of each edge alone: its quadratic form is a noncentrality."""
    inside = information - information @ spread @ information
    identity = np.eye(information.shape[1])
    outside = np.linalg.solve(identity + information @ spread, information)
    matrix = np.where(kept[:, None, None], inside, outside)
    symmetric: FloatArray = (matrix + matrix.transpose(0, 2, 1)) / 2
    return symmetric


def statistics(
    residual: FloatArray, information: FloatArray, spread: FloatArray, kept: BoolArray, controlled: BoolArray
) -> FloatArray:
    """(E,) chi-square of each edge being wrong; 0 where it is not controlled, NaN where nothing ties it.

    An edge that is kept is tested by its residual, one that is left out by how far the rest misses it.
    """
    score = np.einsum("eij,ej->ei", information, residual)
    matrix = of_errors(information, spread, kept)
    told = matrix[:, :2, :2].copy()
    statistic = np.einsum("ei,eij,ej->e", residual, matrix, residual)
    inside = kept & controlled
    if inside.any():
        # Of an edge that measures less than all numbers the rest of the matrix is 0: a pseudo-inverse.
        whole = matrix.shape[1] == told.shape[1]
        back = np.linalg.inv(matrix[inside]) if whole else np.linalg.pinv(matrix[inside], 1e-9, True)
        statistic[inside] = np.einsum("ei,eij,ej->e", score[inside], back, score[inside])
    statistic[kept & ~controlled] = 0
    statistic[np.isnan(told).any(axis=(1, 2))] = np.nan
    return np.asarray(statistic, np.float64)


def noncentrality(false_alarm: float, power: float, size: int) -> float:
    """Baarda's lambda_0: how far from 0 the test must be to be seen with `power`."""
    critical = chi2.isf(false_alarm, size)
    found: float = brentq(lambda value: ncx2.sf(critical, size, value) - power, 1e-3, 1e4)
    return found


def detectable(
    information: FloatArray, spread: FloatArray, kept: BoolArray, controlled: BoolArray, threshold: float
) -> FloatArray:
    """(E,) smallest shift that the test would see, in the direction where it sees least, metres."""
    least = np.full(len(information), np.inf)
    if controlled.any():
        matrix = of_errors(information[controlled], spread[controlled], kept[controlled])[:, :2, :2]
        weakest = np.maximum(np.linalg.eigvalsh(matrix)[:, 0], 0)
        with np.errstate(divide="ignore"):
            least[controlled] = np.sqrt(threshold / weakest)
    return least


def worst(statistic: FloatArray, candidate: BoolArray, i: IntArray, j: IntArray, n: int) -> BoolArray:
    """(E,) candidates that no other candidate at either of their scenes beats; ties are all named."""
    value = np.where(candidate, statistic, 0.0)
    highest = np.zeros(n)
    np.maximum.at(highest, i, value)
    np.maximum.at(highest, j, value)
    named: BoolArray = candidate & (value >= (1 - TIE) * np.maximum(highest[i], highest[j]))
    return named


def contradicted(kept: BoolArray, bridge: BoolArray, i: IntArray, j: IntArray, n: int) -> BoolArray:
    """(E,) bridges that an edge left out contradicts: one of the two is wrong, and no data can say which."""
    out = np.zeros(len(i), np.bool_)
    if not bridge.any():
        return out
    firm = kept & ~bridge
    graph = coo_array((np.ones(firm.sum(), np.int8), (i[firm], j[firm])), shape=(n, n))
    _, group = connected_components(graph, directed=False)
    neighbours: dict[int, list[tuple[int, int]]] = {}
    for edge in np.flatnonzero(bridge):
        a, b = int(group[i[edge]]), int(group[j[edge]])
        neighbours.setdefault(a, []).append((b, int(edge)))
        neighbours.setdefault(b, []).append((a, int(edge)))
    against = ~kept & (group[i] != group[j])
    for start, stop in {(int(a), int(b)) for a, b in zip(group[i[against]], group[j[against]], strict=True)}:
        out[_path(neighbours, start, stop)] = True
    return out


def _path(neighbours: dict[int, list[tuple[int, int]]], start: int, stop: int) -> list[int]:
    """Bridges from one group to another; none where no bridges lead there."""
    came: dict[int, tuple[int, int]] = {start: (start, -1)}
    queue = deque([start])
    while queue and stop not in came:
        here = queue.popleft()
        for there, edge in neighbours.get(here, []):
            if there not in came:
                came[there] = (here, edge)
                queue.append(there)
    edges, here = [], stop
    while here in came and here != start:
        here, edge = came[here]
        edges.append(edge)
    return edges
