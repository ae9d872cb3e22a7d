"""Changes that a sensor, a season or a processor makes to an image without moving anything in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter, zoom

from crosstie.types import LUMINANCE

if TYPE_CHECKING:
    from crosstie.types import Plane


def luminance(rgb: Plane) -> Plane:
    """(3, rows, cols) -> (rows, cols)."""
    plane: Plane = np.tensordot(np.asarray(LUMINANCE, np.float32), rgb, axes=1).astype(np.float32)
    return plane


def one_plane(bands: Plane) -> Plane:
    """(bands, rows, cols) -> (rows, cols): luminance of three bands, mean of any other number."""
    if len(bands) == 3:
        return luminance(bands)
    mean: Plane = bands.mean(axis=0, dtype=np.float32)
    return mean


def augment_optical(bands: Plane, rng: np.random.Generator) -> Plane:
    """Other bands, gamma, noise, haze, clouds and holes on (bands, rows, cols) in 0..1 -> (rows, cols)."""
    plane: NDArray[np.floating] = one_plane(bands)
    mix = rng.random()
    if mix < 0.35:
        plane = np.tensordot(rng.dirichlet(np.full(len(bands), 0.7)).astype(np.float32), bands, axes=1)
    elif mix < 0.5 and len(bands) == 3:
        # Near infrared shows green fields bright that red shows dark: so may a difference of two bands.
        plane = np.tensordot(_difference(rng), bands, axes=1)
        low, high = float(plane.min()), float(plane.max())
        plane = (plane - low) / max(high - low, 1e-3)
    if rng.random() < 0.5:
        plane = np.clip(plane, 1e-3, 1) ** rng.uniform(0.5, 2.0)
    if rng.random() < 0.2:
        plane = gaussian_filter(plane, rng.uniform(0.4, 1.0))
    if rng.random() < 0.3:
        plane = plane + rng.normal(0, rng.uniform(0.002, 0.02), plane.shape)
    if rng.random() < 0.25:
        cover = _blobs(plane.shape, rng, share=rng.uniform(0.02, 0.25))
        plane = plane * (1 - cover) + cover * rng.uniform(0.7, 1.2) * max(float(plane.max()), 0.3)
    if rng.random() < 0.15:
        plane = np.where(_blobs(plane.shape, rng, share=rng.uniform(0.02, 0.2)) > 0.5, np.nan, plane)
    return plane.astype(np.float32)


def augment_sar(db: Plane, rng: np.random.Generator) -> Plane:
    """Other looks, other units and holes on dB (rows, cols), NaN where invalid."""
    plane: NDArray[np.floating] = db
    if rng.random() < 0.35:  # more speckle: as if taken with fewer looks (multiplicative gamma)
        looks = rng.uniform(2, 12)
        speckle = rng.gamma(looks, 1 / looks, plane.shape).astype(np.float32)
        plane = plane + 10 * np.log10(np.maximum(speckle, 1e-3))
    elif rng.random() < 0.3:  # less: as after multilooking
        power = uniform_filter(np.nan_to_num(10 ** (plane / 10), nan=0.0), int(rng.integers(2, 4)))
        plane = np.where(np.isfinite(plane), 10 * np.log10(np.maximum(power, 1e-3)), np.nan)
    unit = rng.random()
    if unit < 0.15:  # pictures stretched in amplitude or power, taken as they come
        plane = 10 ** (plane / 20)
    elif unit < 0.25:
        low, high = np.nanpercentile(plane, (1, 99))
        plane = np.clip(plane, low, high)
    if rng.random() < 0.15:
        plane = np.where(_blobs(plane.shape, rng, share=rng.uniform(0.02, 0.2)) > 0.5, np.nan, plane)
    return plane.astype(np.float32)


def _difference(rng: np.random.Generator) -> Plane:
    """Weights (3,) of red, green and blue: more of green, less of red, by chance."""
    weights = rng.dirichlet((1, 1, 1)) + np.array([-1.0, 1.0, 0.0]) * rng.uniform(0.3, 1.2)
    return weights.astype(np.float32)


def _blobs(shape: tuple[int, ...], rng: np.random.Generator, *, share: float) -> Plane:
    """Soft-edged clouds (rows, cols) in 0..1 that cover about `share` of the area."""
    coarse = rng.normal(size=(shape[0] // 16 + 2, shape[1] // 16 + 2))
    field = zoom(gaussian_filter(coarse, rng.uniform(0.8, 2.0)), 16, order=1)[: shape[0], : shape[1]]
    level = np.quantile(field, 1 - share)
    scale = float(field.std()) * 0.2 + 1e-6
    cover: Plane = (1 / (1 + np.exp(-(field - level) / scale))).astype(np.float32)
    return cover
