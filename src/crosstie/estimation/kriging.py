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

CHUNK = 2000
"""Places that are solved at once: about 100 MiB."""


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

    def common_noise(self, apart_px: FloatArray) -> FloatArray:
        """Correlation of the noise of two tiles: the share of their pixels that is common; (..., 2) px."""
        common = np.maximum(1 - np.abs(apart_px) / self.tile_px, 0)
        correlation: FloatArray = (1 - OWN_NOISE) * common[..., 0] * common[..., 1]
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


def predict(
    samples: Samples, at_px: FloatArray, neighbour: NDArray[np.int64], covariance: Covariance
) -> tuple[FloatArray, FloatArray]:
    """Relief at places from their neighbours.

    Parameters
    ----------
    samples : N samples
    at_px : (M, 2), px of the grid
    neighbour : (M, k) of `neighbours`
    covariance : of relief and noise

    Returns
    -------
    (M, 2) relief, px, and (M,) its error variance per axis in units of the relief's variance, 0 to 1
    """
    # Number N, "no neighbour", is a sample that is infinitely far away and says nothing.
    centre = np.vstack([samples.centre_px, [[1e9, 1e9]]])
    offset = np.vstack([samples.offset_px, [[0.0, 0.0]]])
    noise = np.sqrt(covariance.noise / np.append(samples.weight, 1.0))
    relief, variance = np.empty((len(at_px), 2)), np.empty(len(at_px))
    for start in range(0, len(at_px), CHUNK):
        part = slice(start, start + CHUNK)
        index = neighbour[part]
        place = centre[index]
        missing: BoolArray = index == len(samples)
        apart = place[:, :, None] - place[:, None, :]
        own = noise[index]
        matrix = covariance.relief(np.hypot(apart[..., 0], apart[..., 1]))
        matrix += own[:, :, None] * own[:, None, :] * covariance.common_noise(apart)
        diagonal = np.arange(index.shape[1])
        matrix[:, diagonal, diagonal] += OWN_NOISE * own**2 + 1e-8 + 1e3 * missing
        to = place - at_px[part, None]
        towards = np.where(missing, 0.0, covariance.relief(np.hypot(to[..., 0], to[..., 1])))
        share = np.linalg.solve(matrix, towards[:, :, None])[:, :, 0]
        relief[part] = np.einsum("mk,mka->ma", share, offset[index])
        variance[part] = 1 - (share * towards).sum(axis=1)
    return relief, np.clip(variance, 0.0, 1.0)
