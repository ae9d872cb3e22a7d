"""What a network measures on places it never learnt from, against their truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from crosstie.matcher.calibration import (
    Calibration,
    expected_calibration_error,
    fit_calibration,
)
from crosstie.matcher.network import DenseFeatures, MatchingNetwork
from crosstie.matcher.peak import find_peaks
from crosstie.matcher.placement import place, to_tensor
from crosstie.matcher.samples import TrainingScene, draw_batch
from crosstie.matcher.similarity import logits
from crosstie.types import Kind

BATCH = 8


@dataclass(frozen=True, slots=True)
class Draws:
    """How crops are drawn, px."""

    crop_px: int
    search_px: int
    jitter_px: int


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """N tiles, each with what the matcher saw and how far off it was."""

    evidence: NDArray[np.float64]
    """(N, 6) of `peak.find_peaks`"""
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
) -> Measured:
    """Match `batches` x 8 crops of `scenes`, known extra shifts included; the same draws for the same seed.

    `unrelated` pairs each reference with the secondary of another crop: what the confidence must refuse.
    """
    columns: list[tuple[NDArray[np.float64], ...]] = []
    for i in range(batches):
        rng = np.random.default_rng((seed, i))
        batch = draw_batch(
            scenes, rng, size=BATCH, crop_px=draws.crop_px, jitter_px=draws.jitter_px, augmented=augmented
        )
        reference = network.features(to_tensor(batch.reference, device), Kind.OPTICAL)
        secondary = network.features(to_tensor(batch.secondary, device), Kind.SAR)
        if unrelated:
            secondary = DenseFeatures(*(level.roll(1, dims=0) for level in secondary))
        truth = torch.from_numpy(batch.truth_px).to(device)
        for size in sizes_px:
            similarity, target = place(
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
    return Measured(evidence, spread, errors, sizes.astype(np.int64))


def calibrate(
    network: MatchingNetwork,
    scenes: Sequence[TrainingScene],
    draws: Draws,
    *,
    batches: int = 60,
    sizes_px: Sequence[int] = (192, 128, 96, 64),
    device: str = "cpu",
) -> tuple[Calibration, float]:
    """Fit the calibration on held-out places and say how well it holds on other draws of them.

    A quarter as many unrelated pairs are added, so that nonsense earns no confidence.

    Returns
    -------
    calibration, expected calibration error on draws that were not fitted
    """

    def parts(seed: int, count: int) -> list[Measured]:
        run = partial(
            measure,
            network,
            scenes,
            draws,
            sizes_px=sizes_px,
            device=device,
        )
        return [
            run(batches=count, seed=seed),
            run(batches=count // 2, seed=seed + 1000, augmented=True),
            run(batches=count // 4, seed=seed + 2000, unrelated=True),
        ]

    calibration = replace(
        fit_calibration(*_columns(parts(1, batches))),
        bias_px=turning_bias(network, scenes, draws, batches=batches // 2, device=device),
    )
    evidence, _, error, sizes = _columns(parts(2, batches // 2))
    good = np.hypot(error[:, 0], error[:, 1]) <= 1
    confidence = np.zeros(len(good))
    for size in np.unique(sizes):
        confidence[sizes == size] = calibration.confidence(evidence[sizes == size], int(size))
    return calibration, expected_calibration_error(confidence, good)


@torch.no_grad()
def turning_bias(
    network: MatchingNetwork,
    scenes: Sequence[TrainingScene],
    draws: Draws,
    *,
    batches: int,
    device: str = "cpu",
) -> NDArray[np.float64]:
    """Offset (2,) dx, dy that the network itself adds, px. Needs no truth.

    The true offset of a crop turns with it, so over the four quarter turns of one crop it sums to zero; what
    the network adds does not turn, and is the mean of the four measured offsets.
    """
    means = []
    for i in range(batches):
        rng = np.random.default_rng((4, i))
        batch = draw_batch(scenes, rng, size=BATCH, crop_px=draws.crop_px, jitter_px=8, augmented=False)
        size = draws.crop_px - 2 * draws.search_px
        turned = []
        for quarter in range(4):
            optical, sar = (
                np.ascontiguousarray(np.rot90(image, quarter, axes=(2, 3)))
                for image in (batch.reference, batch.secondary)
            )
            reference = network.features(to_tensor(optical, device), Kind.OPTICAL)
            secondary = network.features(to_tensor(sar, device), Kind.SAR)
            nowhere = torch.full((BATCH, 2, 1, 1), torch.nan, device=device)
            similarity, _ = place(reference, secondary, nowhere, rng, size_px=size, search_px=draws.search_px)
            peaks = find_peaks(similarity, logits(network, similarity, size))
            turned.append(peaks.offset_px.double().cpu().numpy())
        offsets = np.stack(turned)
        # Turned back, the four agree but for the bias and the noise; a false peak does not.
        back = np.stack([_turn_back(o, quarter) for quarter, o in enumerate(offsets)])
        agree = (np.abs(back - np.median(back, axis=0)).max(axis=(0, 2))) <= 1.5
        means.append(offsets.mean(axis=0)[agree])
    found = np.concatenate(means)
    return np.asarray(np.median(found, axis=0)) if len(found) else np.zeros(2)


def _turn_back(offset_px: NDArray[np.float64], quarter: int) -> NDArray[np.float64]:
    """Offsets (N, 2) dx, dy measured on images turned by `np.rot90(.., quarter)`, in the unturned image."""
    x, y = offset_px.T
    return np.column_stack([(x, y), (-y, x), (-x, -y), (y, -x)][quarter])


def _columns(
    parts: list[Measured],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    return (
        np.concatenate([p.evidence for p in parts]),
        np.concatenate([p.spread_px for p in parts]),
        np.concatenate([p.error_px for p in parts]),
        np.concatenate([p.size_px for p in parts]),
    )
