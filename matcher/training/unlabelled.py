"""Two views of pairs whose offset is unknown: the teacher labels one, the student learns from the other.

Both views show the same ground. The strong view is changed as a sensor or a season might change it, and its
secondary is moved by a known number of pixels. So a student that only repeats the teacher's answer is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crosstie.matcher.training.augment import augment_optical, augment_sar, one_plane
from crosstie.matcher.training.samples import CROP_MARGIN_PX, Prepare, locally_normalised, turned
from crosstie.types import Kind

if TYPE_CHECKING:
    from crosstie.types import Plane


@dataclass(frozen=True, slots=True, eq=False)
class UnlabelledScene:
    """A pair on one pixel grid whose offset is unknown."""

    optical: NDArray[np.uint8]
    """(bands, rows, cols); three bands are red, green, blue"""
    optical_valid: NDArray[np.bool_]
    """(rows, cols)"""
    sar_db: NDArray[np.float16]
    """(rows, cols), NaN where invalid"""
    centres_px: NDArray[np.float64]
    """(N, 2) x, y of the places that samples are drawn around."""


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """Normalised crops (B, 1, P, P) of the same ground, twice."""

    weak_reference: NDArray[np.float32]
    weak_secondary: NDArray[np.float32]
    strong_reference: NDArray[np.float32]
    strong_secondary: NDArray[np.float32]
    extra_px: NDArray[np.float32]
    """(B, 2) dx, dy: offset in the strong view minus offset in the weak view, whole pixels, known"""


def draw_views(
    scenes: Sequence[UnlabelledScene],
    rng: np.random.Generator,
    *,
    size: int,
    crop_px: int,
    jitter_px: int,
    prepare: Prepare = locally_normalised,
) -> Views:
    """Draw `size` pairs of views, each scene as often as it has places."""
    weights = np.array([len(s.centres_px) for s in scenes], np.float64)
    picks = rng.choice(len(scenes), size=size, p=weights / weights.sum())
    drawn = [
        _draw_views_of_one(scenes[i], rng, crop_px=crop_px, jitter_px=jitter_px, prepare=prepare)
        for i in picks
    ]
    weak_r, weak_s, strong_r, strong_s, extra = (np.stack(column) for column in zip(*drawn, strict=True))
    return Views(weak_r[:, None], weak_s[:, None], strong_r[:, None], strong_s[:, None], extra)


def _draw_views_of_one(
    scene: UnlabelledScene,
    rng: np.random.Generator,
    *,
    crop_px: int,
    jitter_px: int,
    prepare: Prepare,
) -> tuple[Plane, Plane, Plane, Plane, Plane]:
    """Weak and strong view of one pair, and the known movement between them."""
    for _ in range(50):
        patch = _patch(scene, rng, side=crop_px + 2 * jitter_px)
        if patch is not None:
            break
    else:
        raise ValueError(
            f"50 draws gave no valid patch of {crop_px + 2 * jitter_px} px; check the images and the places"
        )
    bands, valid, sar = patch
    side = valid.shape[0]
    start = (side - crop_px) // 2
    # A smaller image than asked for leaves less room to move in.
    room = min(jitter_px, start)
    weak_jump, strong_jump = rng.integers(-room, room + 1, (2, 2))

    def cut(plane: Plane, kind: Kind, jump: NDArray[np.int64]) -> Plane:
        row, col = start + int(jump[1]), start + int(jump[0])
        return prepare(plane, kind)[row : row + crop_px, col : col + crop_px]

    still = np.zeros(2, np.int64)
    plain = one_plane(bands)
    changed = augment_optical(bands, rng)
    return (
        cut(np.where(valid, plain, np.nan), Kind.OPTICAL, still),
        cut(sar, Kind.SAR, weak_jump),
        cut(np.where(valid, changed, np.nan), Kind.OPTICAL, still),
        cut(augment_sar(sar, rng), Kind.SAR, strong_jump),
        (weak_jump - strong_jump).astype(np.float32),
    )


def _patch(
    scene: UnlabelledScene, rng: np.random.Generator, *, side: int
) -> tuple[Plane, NDArray[np.bool_], Plane] | None:
    """Bands, validity and dB of a square round one place, turned at random; None where it is mostly void."""
    rows, cols = scene.sar_db.shape
    full = min(side + 2 * CROP_MARGIN_PX, rows, cols)
    x, y = scene.centres_px[rng.integers(len(scene.centres_px))] + rng.uniform(-96, 96, 2)
    row = int(np.clip(y - full / 2, 0, rows - full))
    col = int(np.clip(x - full / 2, 0, cols - full))
    window = slice(row, row + full), slice(col, col + full)
    valid, sar = scene.optical_valid[window], scene.sar_db[window].astype(np.float32)
    if valid.mean() < 0.8 or np.isfinite(sar).mean() < 0.8:
        return None
    bands = scene.optical[(slice(None), *window)].astype(np.float32) / np.float32(255)
    symmetry = int(rng.integers(8))
    return turned(bands, symmetry), turned(valid, symmetry), turned(sar, symmetry)
