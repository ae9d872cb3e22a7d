"""How far an offset changes when the same ground is measured again on moved pixels. Needs no truth.

The secondary is shifted by a known fraction of pixels (Fourier) and measured again. The difference of the two
offsets, less that shift, is the error of the matcher itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import fourier_shift

from crosstie.matcher.network import MatchingNetwork
from crosstie.matcher.peak import find_peaks
from crosstie.matcher.similarity import logits
from crosstie.matcher.training.held_out import CROPS_AT_ONCE, Draws, MeasuredTiles
from crosstie.matcher.training.placement import place_and_correlate, to_tensor
from crosstie.matcher.training.samples import TrainingScene, draw_batch, locally_normalised
from crosstie.types import Kind

REACH_PX = 4.0
"""Largest known shift per axis; fractions matter, not distance."""


def shifted(plane: NDArray[np.floating], shift_px: tuple[float, float]) -> NDArray[np.float32]:
    """The plane (rows, cols) with what it shows moved by (dx, dy) px, NaN where it was NaN.

    Exact for what the grid can hold (a shift of phases); edges wrap round, so cut them off.
    """
    valid = np.isfinite(plane)
    filled = np.where(valid, plane, plane[valid].mean() if valid.any() else 0)
    moved = np.fft.ifft2(fourier_shift(np.fft.fft2(filled), shift_px[::-1])).real
    return np.where(valid, moved, np.nan).astype(np.float32)


@torch.no_grad()
def measure_closure(
    network: MatchingNetwork,
    scenes: Sequence[TrainingScene],
    draws: Draws,
    *,
    sizes_px: Sequence[int],
    batches: int,
    seed: int = 54321,
    device: str = "cpu",
) -> MeasuredTiles:
    """Measure `batches` x 8 crops twice; `error_px` is the closure error, evidence that of the first time."""
    columns: list[tuple[NDArray[np.float64], ...]] = []
    for i in range(batches):
        shift_px = np.random.default_rng((seed, i, 1)).uniform(-REACH_PX, REACH_PX, 2)
        still, moved = (
            draw_batch(
                scenes, np.random.default_rng((seed, i)), size=CROPS_AT_ONCE, crop_px=draws.crop_px,
                jitter_px=draws.jitter_px, augmented=False, prepare=prepare,
            )
            for prepare in (locally_normalised, partial(_moved_sar, shift_px=tuple(shift_px)))
        )  # fmt: skip
        reference = network.features(to_tensor(still.reference, device), Kind.OPTICAL)
        truth = torch.from_numpy(still.truth_px).to(device)
        found = []
        for batch in (still, moved):
            secondary = network.features(to_tensor(batch.secondary, device), Kind.SAR)
            rng = np.random.default_rng((seed, i, 2))  # the same templates both times
            for size in sizes_px:
                similarity, _ = place_and_correlate(
                    reference, secondary, truth, rng, size_px=size, search_px=draws.search_px
                )
                found.append(find_peaks(similarity, logits(network, similarity, size)))
        for size, first, second in zip(sizes_px, found[: len(sizes_px)], found[len(sizes_px) :], strict=True):
            difference = (second.offset_px - first.offset_px).double().cpu().numpy() - shift_px
            columns.append(
                (
                    first.evidence.double().cpu().numpy(),
                    first.spread_px.double().cpu().numpy(),
                    difference,
                    np.full(len(difference), size),
                )
            )
    evidence, spread, error, sizes = (np.concatenate(column) for column in zip(*columns, strict=True))
    return MeasuredTiles(evidence, spread, error, sizes.astype(np.int64))


def _moved_sar(
    plane: NDArray[np.floating], kind: Kind, *, shift_px: tuple[float, float]
) -> NDArray[np.float32]:
    """Network input; a SAR plane is shifted first."""
    return locally_normalised(shifted(plane, shift_px) if kind is Kind.SAR else plane, kind)
