"""Values at positions between pixels: where each pixel of a grid lies in a source, and what stands there.

GDAL's warp is not used: `rasterio.warp.reproject` ignores its `tolerance` (1.4.4) and is off by up to
0.08 px, which is more than a tie point may be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from scipy.ndimage import map_coordinates

if TYPE_CHECKING:
    from crosstie.types import FloatArray

Locate = Callable[["FloatArray", "FloatArray"], tuple["FloatArray", "FloatArray"]]
"""Map coordinates (x, y) of a grid -> (col, row) in pixels of a source, from its outer corner."""

NODE_PX = 32
"""Exact positions are computed this far apart. In between they are linear: over 320 m the ground departs from
its chord by 2 mm (L^2 / 8R), 0.0002 px."""


def apply(affine: Affine, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Move columns of coordinates by an affine; a place that is not finite stays without one."""
    with np.errstate(invalid="ignore"):
        return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f


def positions(geobox: GeoBox, locate: Locate) -> tuple[FloatArray, FloatArray]:
    """Place every pixel centre of a grid in a source: (col, row), each (rows, cols), in px of the source.

    Not finite where the grid's CRS and the source's do not meet.
    """
    rows, cols = geobox.shape
    at_row, at_col = _nodes(rows), _nodes(cols)
    col, row = _locate_all(geobox, locate, at_row, at_col)
    if not (np.isfinite(col).all() and np.isfinite(row).all()):
        # A node without a place would spoil its neighbours: each pixel for itself.
        return _locate_all(geobox, locate, _centres(rows), _centres(cols))
    down, across = _hat(at_row, rows), _hat(at_col, cols).T
    return down @ col @ across, down @ row @ across


def _locate_all(
    geobox: GeoBox, locate: Locate, at_row: FloatArray, at_col: FloatArray
) -> tuple[FloatArray, FloatArray]:
    px, py = np.meshgrid(at_col, at_row)
    col, row = locate(*apply(geobox.affine, px.ravel(), py.ravel()))
    return np.asarray(col).reshape(px.shape), np.asarray(row).reshape(px.shape)


def _centres(length: int) -> FloatArray:
    return np.arange(length, dtype=np.float64) + 0.5


def _nodes(length: int) -> FloatArray:
    """Pixel centres from the first to the last, `NODE_PX` apart or closer."""
    nodes: FloatArray = np.linspace(0.5, length - 0.5, max(2, -(-length // NODE_PX) + 1), dtype=np.float64)
    return nodes


def _hat(nodes: FloatArray, length: int) -> FloatArray:
    """Weights (length, nodes) of linear interpolation from nodes to pixel centres."""
    step = nodes[1] - nodes[0]
    if step == 0:  # one pixel
        return np.full((length, len(nodes)), 1 / len(nodes))
    weights: FloatArray = np.maximum(0, 1 - np.abs((_centres(length)[:, None] - nodes) / step))
    return weights


def sample(bands: NDArray[np.float32], col: FloatArray, row: FloatArray) -> NDArray[np.float32]:
    """Interpolate bands (B, rows, cols) bilinearly at positions (px from the outer corner).

    Bilinear and not cubic: cubic goes below zero beside a bright target, where power has no logarithm. NaN
    where less than half of the weight falls on valid pixels; the valid ones share the rest.
    """
    at = np.stack([row - 0.5, col - 0.5])  # scipy counts from the first pixel's centre
    at[:, ~np.isfinite(at).all(axis=0)] = -9.0
    valid = np.isfinite(bands).all(axis=0)
    end = np.array(valid.shape)[:, None, None] - 1
    if valid.all() and (at >= 0).all() and (at <= end).all():
        return np.stack([_linear(bands[n, :, :], at) for n in range(len(bands))])
    weight = _linear(np.asarray(valid, np.float32), at)
    kept = weight >= 0.5
    out = np.full((len(bands), *col.shape), np.nan, np.float32)
    filled: NDArray[np.float32] = np.where(valid, bands, np.float32(0))
    for plane, band in zip(out, filled, strict=True):
        np.divide(_linear(band, at), weight, out=plane, where=kept)
    return out


def _linear(band: NDArray[np.float32], at: FloatArray) -> NDArray[np.float32]:
    value: NDArray[np.float32] = map_coordinates(band, at, order=1, mode="grid-constant", cval=0.0)
    return value
