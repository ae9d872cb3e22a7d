"""Simple kriging of what the trend leaves, each place from its own neighbours; everything in pixels.

The relief between the images is a random field of Matern type, 3/2: smooth, yet rough enough for land. The
noise of two tiles is as common to them as their pixels are. Both have the same shape on the two axes of an
offset, so one set of weights serves both, and the result turns with the axes.

References
----------
Cressie (1993), Statistics for Spatial Data, sections 3.2 and 3.6 (kriging of the signal without its noise).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.types import BoolArray, FloatArray

NEAREST = 20
"""Neighbours taken without a gap; beyond, ever fewer of them, for the long waves."""

FARTHER = np.unique(np.geomspace(NEAREST + 2, 200, 12).astype(np.int64))
"""Ranks of the others, by distance."""

OWN_NOISE = 0.05
"""Share of a tile's noise that not even a tile at the same place has; keeps the matrices regular."""

CHUNK = 256
"""Places that are solved at once: their arrays of 2 MiB stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Covariance:
    """How relief and noise vary, in units of the variance of the relief."""

    length_px: float
    """Correlation length of the relief, px."""
    noise: float
    """Variance of the noise of a tile, as a share of the relief's."""
    tile_px: int

    def relief(self, distance_px: FloatArray) -> FloatArray:
        """Correlation of the relief at two places."""
        d = np.sqrt(3) / self.length_px * distance_px
        correlation: FloatArray = (1 + d) * np.exp(-d)
        return correlation


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Tie points less the trend."""

    centre_px: FloatArray
    """(N, 2) centre of the tile, px of the grid."""
    offset_px: FloatArray
    """(N, 2) what the trend leaves, along the axes of the map."""
    weight: FloatArray
    """(N,) trust, 0 to 1: the variance of the noise is divided by it."""

    def __len__(self) -> int:
        return len(self.centre_px)

    def trusted(self, weight: FloatArray) -> Self:
        return replace(self, weight=weight)


def neighbours(samples: Samples, at_px: FloatArray, *, apart_px: float = 0.0) -> NDArray[np.int64]:
    """(M, k) samples to predict places (M, 2) from; N stands for none.

    `apart_px` leaves out the tiles whose centre is less than that away on both axes: those that share a
    pixel with a tile at the place.
    """
    n = len(samples)
    ranks = np.concatenate([np.arange(NEAREST), FARTHER])
    tree = cKDTree(samples.centre_px)
    if apart_px == 0:
        ranks = ranks[ranks < n]
        return np.asarray(tree.query(at_px, k=ranks + 1)[1], np.int64)
    # In chunks, for one tile can overlap very many others.
    return np.concatenate(
        [
            _apart(tree, samples.centre_px, at_px[start : start + CHUNK], apart_px, ranks)
            for start in range(0, len(at_px), CHUNK)
        ]
    )


def _apart(
    tree: cKDTree, centre_px: FloatArray, at_px: FloatArray, apart_px: float, ranks: NDArray[np.int64]
) -> NDArray[np.int64]:
    n = len(centre_px)
    inside = tree.query_ball_point(at_px, apart_px * (1 - 1e-9), p=np.inf, return_length=True)
    wanted = min(int(np.max(inside, initial=0)) + int(ranks[-1]) + 1, n)
    _, index = tree.query(at_px, k=np.arange(1, wanted + 1))
    free = np.abs(centre_px[index] - at_px[:, None]).max(axis=2) >= apart_px
    order = np.argsort(~free, axis=1, kind="stable")[:, ranks[ranks < wanted]]
    index = np.where(np.take_along_axis(free, order, 1), np.take_along_axis(index, order, 1), n)
    return np.asarray(index, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where places and their neighbours lie: what stays when smoothness and trust change."""

    index: NDArray[np.int64]
    """(M, k) neighbours; N stands for none."""
    missing: BoolArray
    """(M, k)"""
    apart_px: FloatArray
    """(M, k, k) distances between neighbours."""
    common: FloatArray
    """(M, k, k) correlation of their noise."""
    to_px: FloatArray
    """(M, k) distances from the place."""

    @classmethod
    def of(cls, samples: Samples, at_px: FloatArray, neighbour: NDArray[np.int64], *, tile_px: int) -> Self:
        """Lay out places (M, 2), px, and their neighbours (M, k)."""
        # A neighbour that is missing lies infinitely far away.
        place = np.vstack([samples.centre_px, [[1e9, 1e9]]])[neighbour]
        x, y = place[..., 0], place[..., 1]
        # Each axis by itself: half the time of one array with both.
        dx, dy = np.abs(x[:, :, None] - x[:, None, :]), np.abs(y[:, :, None] - y[:, None, :])
        overlap = np.maximum(1 - dx / tile_px, 0) * np.maximum(1 - dy / tile_px, 0)
        to = place - at_px[:, None]
        return cls(
            index=neighbour,
            missing=neighbour == len(samples),
            apart_px=np.sqrt(dx * dx + dy * dy),
            common=(1 - OWN_NOISE) * overlap,
            to_px=np.hypot(to[..., 0], to[..., 1]),
        )


def krige(
    samples: Samples, at_px: FloatArray, neighbour: NDArray[np.int64], covariance: Covariance
) -> tuple[FloatArray, FloatArray]:
    """Relief at places from their neighbours.

    Parameters
    ----------
    samples : Samples
        N tie points without the trend.
    at_px : FloatArray
        (M, 2) places, px of the grid.
    neighbour : IntArray
        (M, k) as `neighbours` gives them.
    covariance : Covariance
        Covariance of relief and noise.

    Returns
    -------
    FloatArray
        (M, 2) relief, px.
    FloatArray
        (M,) its error variance per axis in units of the relief's variance, 0 to 1.
    """
    relief, variance = np.empty((len(at_px), 2)), np.empty(len(at_px))
    for start in range(0, len(at_px), CHUNK):
        part = slice(start, start + CHUNK)
        layout = Layout.of(samples, at_px[part], neighbour[part], tile_px=covariance.tile_px)
        relief[part], variance[part] = krige_laid_out(layout, samples, covariance)
    return relief, variance


def krige_laid_out(layout: Layout, samples: Samples, covariance: Covariance) -> tuple[FloatArray, FloatArray]:
    """Do what `krige` does, for places that are already laid out."""
    own = np.sqrt(covariance.noise / np.append(samples.weight, 1.0))[layout.index]
    matrix = covariance.relief(layout.apart_px)
    matrix += own[:, :, None] * own[:, None, :] * layout.common
    diagonal = np.arange(own.shape[1])
    matrix[:, diagonal, diagonal] += OWN_NOISE * own**2 + 1e-8 + 1e3 * layout.missing
    towards = np.where(layout.missing, 0.0, covariance.relief(layout.to_px))
    share = np.linalg.solve(matrix, towards[:, :, None])[:, :, 0]
    offset = np.vstack([samples.offset_px, [[0.0, 0.0]]])[layout.index]
    relief: FloatArray = np.einsum("mk,mka->ma", share, offset)
    return relief, np.clip(1 - (share * towards).sum(axis=1), 0.0, 1.0)
