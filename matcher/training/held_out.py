"""A network measured on places that it never learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from crosstie.matcher.network import DenseFeatures, MatchingNetwork
from crosstie.matcher.peak import find_peaks
from crosstie.matcher.similarity import logits
from crosstie.matcher.training.placement import place_and_correlate, to_tensor
from crosstie.matcher.training.samples import TrainingScene, draw_batch
from crosstie.types import Kind

CROPS_AT_ONCE = 8
"""Crops of a batch."""


@dataclass(frozen=True, slots=True)
class Draws:
    """How crops are drawn, px."""

    crop_px: int
    search_px: int
    jitter_px: int


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredTiles:
    """Evidence and error of N tiles."""

    evidence: NDArray[np.float64]
    """(N, 3) of `peak.find_peaks`"""
    spread_px: NDArray[np.float64]
    """(N,)"""
    error_px: NDArray[np.float64]
    """(N, 2) measured minus true offset; infinite for unrelated pairs"""
    size_px: NDArray[np.int64]
    """(N,) side of the template"""

    def figures(self, size_px: int) -> dict[str, float]:
        """Median error and share within 1 and 2 px of the templates of one size."""
        return shares(np.hypot(*self.error_px[self.size_px == size_px].T), size_px)


def shares(error_px: NDArray[np.float64], size_px: int) -> dict[str, float]:
    """Median and share within 1 and 2 px of errors (N,) of templates of one size, named after it."""
    return {
        f"median_{size_px}": float(np.median(error_px)),
        f"cmr1_{size_px}": float((error_px <= 1).mean()),
        f"cmr2_{size_px}": float((error_px <= 2).mean()),
    }


@torch.no_grad()
def measure(
    network: MatchingNetwork,
    scenes: Sequence[TrainingScene],
    draws: Draws,
    *,
    sizes_px: Sequence[int],
    batches: int,
    seed: int = 12345,
    augmented: bool = False,
    unrelated: bool = False,
    device: str = "cpu",
) -> MeasuredTiles:
    """Match `batches` x 8 crops of `scenes`, known extra shifts included; the same draws for the same seed.

    `unrelated` pairs each reference with the secondary of another crop: such pairs must get no confidence.
    """
    columns: list[tuple[NDArray[np.float64], ...]] = []
    for i in range(batches):
        rng = np.random.default_rng((seed, i))
        batch = draw_batch(
            scenes,
            rng,
            size=CROPS_AT_ONCE,
            crop_px=draws.crop_px,
            jitter_px=draws.jitter_px,
            augmented=augmented,
        )
        reference = network.features(to_tensor(batch.reference, device), Kind.OPTICAL)
        secondary = network.features(to_tensor(batch.secondary, device), Kind.SAR)
        if unrelated:
            secondary = DenseFeatures(*(level.roll(1, dims=0) for level in secondary))
        truth = torch.from_numpy(batch.truth_px).to(device)
        for size in sizes_px:
            similarity, target = place_and_correlate(
                reference, secondary, truth, rng, size_px=size, search_px=draws.search_px
            )
            peaks = find_peaks(similarity, logits(network, similarity, size))
            error = peaks.offset_px - target
            error = torch.where(torch.isfinite(error), error, torch.nan)
            known = torch.isfinite(error).all(1)
            if unrelated:
                error = torch.full_like(error, torch.inf)
            row = (peaks.evidence, peaks.spread_px, error, torch.full_like(peaks.spread_px, size))
            columns.append(tuple(column[known].double().cpu().numpy() for column in row))
    evidence, spread, errors, sizes = (np.concatenate(column) for column in zip(*columns, strict=True))
    return MeasuredTiles(evidence, spread, errors, sizes.astype(np.int64))
