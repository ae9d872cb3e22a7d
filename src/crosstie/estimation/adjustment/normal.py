"""Normal equations of a network of differences: solved sparse, and inverted where it is asked for.

Scenes that share no edge are eliminated first, each by itself: in an archive of two sensors that is all of
the larger one. What is left is small enough to be dense, and gives the wanted elements of the inverse back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy import linalg, sparse

if TYPE_CHECKING:
    from crosstie.types import BoolArray, FloatArray, IntArray

MAX_DENSE = 16_000
"""Unknowns left after elimination: 2 GiB of their inverse."""

CHUNK_BYTES = 64 * 2**20
MIRROR_STEP = 512


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """Which of n unknown scenes are eliminated; edges (E,) lead from `i` to `j`, -1 where an end is held."""

    n: int
    i: IntArray
    j: IntArray
    eliminated: BoolArray
    """(n,) no two of them share an edge."""
    place: IntArray
    """(n,) place among the eliminated, or among the rest."""

    @classmethod
    def of(cls, n: int, i: IntArray, j: IntArray) -> Self:
        """Eliminate scenes of few edges first, as many as share none."""
        inner = (i >= 0) & (j >= 0)
        graph = sparse.coo_array((np.ones(inner.sum(), np.int8), (i[inner], j[inner])), shape=(n, n)).tocsr()
        graph = (graph + graph.T).tocsr()
        pointers, neighbours = graph.indptr, graph.indices
        eliminated, blocked = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        for node in np.argsort(np.diff(pointers), kind="stable"):
            if not blocked[node]:
                eliminated[node] = True
                blocked[neighbours[pointers[node] : pointers[node + 1]]] = True
        place = np.where(eliminated, np.cumsum(eliminated), np.cumsum(~eliminated)) - 1
        return cls(n, i, j, eliminated, place)


@dataclass(frozen=True, slots=True, eq=False)
class Normal:
    """Factorised normal matrix: blocks (b, b), one a scene and one an edge."""

    structure: Structure
    weight: FloatArray
    """(E, b, b)"""
    inverse_diagonal: FloatArray
    """(eliminated, b, b)"""
    carry: sparse.csr_array
    """(eliminated * b, rest * b): what the eliminated take from the rest."""
    factor: FloatArray
    """(rest * b, rest * b) Cholesky factor in its lower triangle; the upper one is not used."""

    @classmethod
    def of(cls, structure: Structure, weight: FloatArray, prior: FloatArray) -> Self:
        """Assemble and factorise.

        Parameters
        ----------
        structure : Structure
            Scenes and edges.
        weight : FloatArray
            (E, b, b) weight of each edge; 0 leaves an edge out.
        prior : FloatArray
            (b, b) weight with which every scene is held at 0.

        Raises
        ------
        ValueError
            Too many scenes are tied together for a dense rest.
        numpy.linalg.LinAlgError
            Some scene is tied to nothing that is held.
        """
        s, b = structure, weight.shape[1]
        diagonal = _diagonal(s, weight, prior)
        rest = int((~s.eliminated).sum())
        if rest * b > MAX_DENSE:
            raise ValueError(
                f"{s.n} scenes tied together leave {rest * b} unknowns, more than {MAX_DENSE}; "
                "adjust places, or years, apart"
            )
        inverse = np.asarray(np.linalg.inv(diagonal[s.eliminated]), np.float64)
        across, one, other = _crossing(s)
        blocks = np.where(across[:, None, None], -weight, 0.0)[across]
        carry = _sparse(one, other, inverse[one] @ blocks, (len(inverse), rest))
        back = _sparse(other, one, blocks.transpose(0, 2, 1), (rest, len(inverse)))
        dense = np.negative((back @ carry).toarray())
        here = np.arange(rest)
        view = dense.reshape(rest, b, rest, b)
        view[here, :, here, :] += diagonal[~s.eliminated]
        inner = (s.i >= 0) & (s.j >= 0) & ~across
        first, second = s.place[s.i[inner]], s.place[s.j[inner]]
        for n, edge in enumerate(np.flatnonzero(inner)):
            view[first[n], :, second[n], :] -= weight[edge]
            view[second[n], :, first[n], :] -= weight[edge]
        # The transpose is in LAPACK's order and symmetric: no copy of what may be 2 GiB.
        factor, failed = (
            linalg.lapack.dpotrf(dense.T, lower=1, clean=0, overwrite_a=1) if rest else (dense, 0)
        )
        if failed:
            raise np.linalg.LinAlgError("some scene is tied to nothing that is held")
        return cls(s, weight, inverse, carry, np.asarray(factor, np.float64))

    def solve(self, right: FloatArray) -> FloatArray:
        """(n, b, m) unknowns of right-hand sides (n, b, m)."""
        s, (_, b, m) = self.structure, right.shape
        out, rest = np.empty_like(right), ~s.eliminated
        own = self.inverse_diagonal @ right[s.eliminated]
        lower = right[rest].reshape(-1, m) - self.carry.T @ right[s.eliminated].reshape(-1, m)
        if len(lower):
            lower = linalg.cho_solve((self.factor, True), lower, check_finite=False)
        out[rest] = lower.reshape(-1, b, m)
        out[s.eliminated] = own - (self.carry @ lower).reshape(-1, b, m)
        return out

    def cofactors(self) -> tuple[FloatArray, FloatArray]:
        """Elements of the inverse: (n, b, b) of each scene, (E, b, b) of the two ends (i, j) of each edge.

        Every wanted element between an eliminated scene and the rest is a row of `carry` times the dense
        inverse (Takahashi, Fagan & Chin 1973).
        """
        s, b = self.structure, self.weight.shape[1]
        rest = len(self.factor) // b
        dense = _inverse(self.factor)
        view = dense.reshape(rest, b, rest, b)
        of_scene, of_edge = np.zeros((s.n, b, b)), np.zeros((len(s.i), b, b))
        here = np.arange(rest)
        of_scene[~s.eliminated] = view[here, :, here, :]
        across, one, other = _crossing(s)
        inner = (s.i >= 0) & (s.j >= 0) & ~across
        of_edge[inner] = view[s.place[s.i[inner]], :, s.place[s.j[inner]], :]
        order = np.argsort(one, kind="stable")
        crossing = np.empty((len(one), b, b))
        step = max(1, CHUNK_BYTES // max(8 * b * b * rest, 1))
        for start in range(0, len(self.inverse_diagonal), step):
            stop = min(start + step, len(self.inverse_diagonal))
            now = order[np.searchsorted(one[order], start) : np.searchsorted(one[order], stop)]
            rows = -(self.carry[start * b : stop * b] @ dense).reshape(stop - start, b, rest, b)
            crossing[now] = rows[one[now] - start, :, other[now], :]
        weight = -self.weight[across]
        own = self.inverse_diagonal.copy()
        np.add.at(own, one, -crossing @ (self.inverse_diagonal[one] @ weight).transpose(0, 2, 1))
        of_scene[s.eliminated] = own
        flipped = ~s.eliminated[s.i[across]]
        of_edge[across] = np.where(flipped[:, None, None], crossing.transpose(0, 2, 1), crossing)
        return of_scene, of_edge


def assembled(
    structure: Structure, weight: FloatArray, prior: FloatArray
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Normal matrix (n * b, n * b) of what `Normal.of` takes, and the inverse of its diagonal blocks."""
    s = structure
    diagonal, here = _diagonal(s, weight, prior), np.arange(s.n)
    inner = (s.i >= 0) & (s.j >= 0)
    rows = np.concatenate([here, s.i[inner], s.j[inner]])
    cols = np.concatenate([here, s.j[inner], s.i[inner]])
    blocks = np.concatenate([diagonal, -weight[inner], -weight[inner]])
    inverse = np.asarray(np.linalg.inv(diagonal), np.float64)
    return _sparse(rows, cols, blocks, (s.n, s.n)), _sparse(here, here, inverse, (s.n, s.n))


def _diagonal(s: Structure, weight: FloatArray, prior: FloatArray) -> FloatArray:
    """(n, b, b): what the edges (E, b, b) of each scene sum to."""
    diagonal = np.tile(prior, (s.n, 1, 1)).astype(np.float64)
    for end in (s.i, s.j):
        np.add.at(diagonal, end[end >= 0], weight[end >= 0])
    return diagonal


def _crossing(s: Structure) -> tuple[BoolArray, IntArray, IntArray]:
    """Edges between an eliminated scene and the rest: mask, and the places of the two."""
    inner = (s.i >= 0) & (s.j >= 0)
    across = np.zeros_like(inner)
    across[inner] = s.eliminated[s.i[inner]] != s.eliminated[s.j[inner]]
    first, second = s.i[across], s.j[across]
    leads = s.eliminated[first]
    return across, s.place[np.where(leads, first, second)], s.place[np.where(leads, second, first)]


def _sparse(rows: IntArray, cols: IntArray, blocks: FloatArray, shape: tuple[int, int]) -> sparse.csr_array:
    b = blocks.shape[1]
    within = np.arange(b)
    row = np.broadcast_to((rows[:, None] * b + within)[:, :, None], blocks.shape)
    col = np.broadcast_to((cols[:, None] * b + within)[:, None, :], blocks.shape)
    entries = (blocks.ravel(), (row.ravel(), col.ravel()))
    return sparse.coo_array(entries, shape=(shape[0] * b, shape[1] * b)).tocsr()


def _inverse(factor: FloatArray) -> FloatArray:
    """Whole inverse of a matrix from its lower Cholesky factor."""
    if not len(factor):
        return factor
    inverse, failed = linalg.lapack.dpotri(factor, lower=1)
    if failed:
        raise np.linalg.LinAlgError("some scene is tied to nothing that is held")
    for start in range(0, len(inverse), MIRROR_STEP):
        stop = start + MIRROR_STEP
        inverse[:start, start:stop] = inverse[start:stop, :start].T
        corner = inverse[start:stop, start:stop]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T
    return np.asarray(inverse.T, np.float64)
