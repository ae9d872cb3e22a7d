"""Training samples: augmented crops of a scene pair with their true offsets. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from crosstie.matcher.normalise import normalise
from crosstie.matcher.training.augment import augment_optical, augment_sar, luminance
from crosstie.types import Kind

if TYPE_CHECKING:
    from crosstie.types import Plane

TRUTH_LATTICE_PX = 8
"""Spacing of the true offsets that travel with a crop."""

CROP_MARGIN_PX = 32
"""Raw pixels read around a crop, so that it is normalised as in the whole scene (half of `WINDOW_PX`)."""

PixelT = TypeVar("PixelT", bound=np.generic)


Prepare = Callable[[NDArray[np.floating], Kind], NDArray[np.float32]]
"""Plane (rows, cols), NaN where invalid -> network input (rows, cols)."""


def locally_normalised(plane: NDArray[np.floating], kind: Kind) -> Plane:  # noqa: ARG001
    """Input of the `crosstie` configuration, whatever the kind of image."""
    return normalise(plane)[0]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingScene:
    """A pair on a common pixel grid whose true offsets are known."""

    optical_rgb: NDArray[np.uint8]
    """(3, rows, cols)"""
    optical_valid: NDArray[np.bool_]
    """(rows, cols)"""
    sar_db: NDArray[np.float16]
    """(rows, cols), NaN where invalid"""
    truth_px: NDArray[np.float32]
    """(2, nodes, nodes) dx, dy: what the optical shows at p, the SAR shows at p + (dx, dy); NaN unknown"""
    truth_step_px: float
    """Node k lies at pixel coordinate k * step (outer corner of the first pixel = 0)."""
    centres_px: NDArray[np.float64]
    """(N, 2) x, y of the places that samples are drawn around."""


@dataclass(frozen=True, slots=True, eq=False)
class CropBatch:
    """Normalised crops and their true offsets."""

    reference: NDArray[np.float32]
    """(B, 1, P, P) optical"""
    secondary: NDArray[np.float32]
    """(B, 1, P, P) SAR"""
    truth_px: NDArray[np.float32]
    """(B, 2, P / 8, P / 8) offset between the two crops at the lattice ((i + 0.5) * 8); NaN unknown"""


def draw_batch(
    scenes: Sequence[TrainingScene],
    rng: np.random.Generator,
    *,
    size: int,
    crop_px: int,
    jitter_px: int,
    augmented: bool = True,
    prepare: Prepare = locally_normalised,
) -> CropBatch:
    """Draw `size` crops, each scene as often as it has places."""
    weights = np.array([len(s.centres_px) for s in scenes], np.float64)
    picks = rng.choice(len(scenes), size=size, p=weights / weights.sum())
    drawn = [
        draw_sample(
            scenes[i], rng, crop_px=crop_px, jitter_px=jitter_px, augmented=augmented, prepare=prepare
        )
        for i in picks
    ]
    reference, secondary, truth = (np.stack(column) for column in zip(*drawn, strict=True))
    return CropBatch(reference[:, None], secondary[:, None], truth)


def draw_sample(
    scene: TrainingScene,
    rng: np.random.Generator,
    *,
    crop_px: int,
    jitter_px: int,
    augmented: bool,
    prepare: Prepare = locally_normalised,
) -> tuple[Plane, Plane, Plane]:
    """Draw one crop: normalised optical and SAR (P, P) and the offsets between them (2, P / 8, P / 8)."""
    for _ in range(50):
        sample = _try_sample(
            scene, rng, crop_px=crop_px, jitter_px=jitter_px, augmented=augmented, prepare=prepare
        )
        if sample is not None:
            return sample
    raise ValueError("50 draws gave no crop with known offsets; check the truth field and the places")


def _try_sample(
    scene: TrainingScene,
    rng: np.random.Generator,
    *,
    crop_px: int,
    jitter_px: int,
    augmented: bool,
    prepare: Prepare,
) -> tuple[Plane, Plane, Plane] | None:
    """One draw of `draw_sample`; None where the crop leaves the scene, or too little is valid or known."""
    rows, cols = scene.sar_db.shape
    full = crop_px + 2 * CROP_MARGIN_PX
    x, y = scene.centres_px[rng.integers(len(scene.centres_px))] + rng.uniform(-96, 96, 2)
    col, row = int(x) - full // 2, int(y) - full // 2
    truth = truth_at(scene, x, y)
    if not np.isfinite(truth).all():
        return None
    jump = np.rint(truth).astype(int) + rng.integers(-jitter_px, jitter_px + 1, 2)
    if min(row, col, row + jump[1], col + jump[0]) < 0:
        return None
    if max(row, row + jump[1]) + full > rows or max(col, col + jump[0]) + full > cols:
        return None
    rgb = scene.optical_rgb[:, row : row + full, col : col + full].astype(np.float32) / np.float32(255)
    valid = scene.optical_valid[row : row + full, col : col + full]
    sar = scene.sar_db[row + jump[1] :, col + jump[0] :][:full, :full].astype(np.float32)
    if valid.mean() < 0.8 or np.isfinite(sar).mean() < 0.8:
        return None
    optical = augment_optical(rgb, rng) if augmented else luminance(rgb)
    if augmented:
        sar = augment_sar(sar, rng)
    optical = np.where(valid, optical, np.nan)
    inner = slice(CROP_MARGIN_PX, CROP_MARGIN_PX + crop_px)
    reference = prepare(optical, Kind.OPTICAL)[inner, inner]
    secondary = prepare(sar, Kind.SAR)[inner, inner]

    nodes = (np.arange(crop_px // TRUTH_LATTICE_PX) + 0.5) * TRUTH_LATTICE_PX
    yy, xx = np.meshgrid(row + CROP_MARGIN_PX + nodes, col + CROP_MARGIN_PX + nodes, indexing="ij")
    offset = truth_at(scene, xx, yy) - jump[:, None, None]
    if augmented:
        reference, secondary, offset = _flip(reference, secondary, offset, rng)
    return np.ascontiguousarray(reference), np.ascontiguousarray(secondary), offset.astype(np.float32)


def turned(image: NDArray[PixelT], symmetry: int) -> NDArray[PixelT]:
    """One of the eight symmetries of the square on the last two axes."""
    image = np.rot90(image, symmetry % 4, axes=(-2, -1))
    return np.ascontiguousarray(image if symmetry < 4 else image.swapaxes(-2, -1))


def truth_at(scene: TrainingScene, x: NDArray[np.float64] | float, y: NDArray[np.float64] | float) -> Plane:
    """Offset (2, ...) dx, dy at pixel coordinates, bilinear between nodes; NaN beside an unknown node."""
    coordinates = np.array([np.asarray(y), np.asarray(x)], np.float64) / scene.truth_step_px
    shape = coordinates.shape[1:]
    flat = coordinates.reshape(2, -1)
    planes = [map_coordinates(p, flat, order=1, mode="constant", cval=np.nan) for p in scene.truth_px]
    return np.stack(planes).reshape(2, *shape).astype(np.float32)


def _flip(
    reference: NDArray[np.float32], secondary: Plane, offset: Plane, rng: np.random.Generator
) -> tuple[Plane, Plane, Plane]:
    """One of the eight symmetries of the square, offsets turned along with the pixels."""
    if rng.random() < 0.5:
        reference, secondary, offset = reference[:, ::-1], secondary[:, ::-1], offset[:, :, ::-1].copy()
        offset[0] *= -1
    if rng.random() < 0.5:
        reference, secondary, offset = reference[::-1], secondary[::-1], offset[:, ::-1].copy()
        offset[1] *= -1
    if rng.random() < 0.5:
        reference, secondary, offset = reference.T, secondary.T, offset[::-1].transpose(0, 2, 1)
    return reference, secondary, offset
