"""Fitting a network's confidence, sigma and bias on places that it never learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from crosstie.matcher.calibration import (
    Calibration,
    confidence,
    expected_calibration_error,
    fit_confidence,
    fit_sigma,
)
from crosstie.matcher.network import MatchingNetwork
from crosstie.matcher.peak import find_peaks
from crosstie.matcher.similarity import logits
from crosstie.matcher.training.closure import measure_closure
from crosstie.matcher.training.held_out import CROPS_AT_ONCE, Draws, MeasuredTiles, measure
from crosstie.matcher.training.placement import place_and_correlate, to_tensor
from crosstie.matcher.training.samples import TrainingScene, draw_batch
from crosstie.types import Kind

RIGHT_PX = 1.0
"""Confidence is the probability of an offset within this of the truth."""

LABEL_NOISE_PX = 0.65
"""Error of labels made by a classical dense matcher: 0.5 to 1 px. A label error of this size must not count
as an error of the network; else the confidence on clean ground would be far too low. Labels in steep
terrain are worse, and the confidence stays cautious there."""

SAME_TURNED_PX = 1.5
"""An offset that, turned back, differs more from the others per axis comes from a false peak."""


def calibrate(
    network: MatchingNetwork,
    scenes: Sequence[TrainingScene],
    draws: Draws,
    *,
    label_noise_px: float = LABEL_NOISE_PX,
    batches: int = 60,
    sizes_px: Sequence[int] = (192, 128, 96, 64),
    device: str = "cpu",
) -> tuple[Calibration, float]:
    """Fit the calibration on held-out places and say how well it holds on other draws of them.

    A quarter as many unrelated pairs are added, so that nonsense earns no confidence.

    Parameters
    ----------
    scenes : Sequence[TrainingScene]
        Held-out labelled places.
    label_noise_px : float
        Error that is allowed for in the labels of `scenes`, px.

    Returns
    -------
    calibration : Calibration
        Confidence, sigma and bias of this network.
    error : float
        Expected calibration error on draws that were not used in the fit.
    """

    def judged(seed: int, count: int) -> tuple[MeasuredTiles, NDArray[np.bool_]]:
        run = partial(measure, network, scenes, draws, sizes_px=sizes_px, device=device)
        labelled = joined(
            run(batches=count, seed=seed), run(batches=max(1, count // 2), seed=seed + 1000, augmented=True)
        )
        unrelated = run(batches=max(1, count // 4), seed=seed + 2000, unrelated=True)
        right = (
            np.hypot(*labelled.error_px.T) <= RIGHT_PX + label_noise_px,
            np.zeros(len(unrelated.size_px), np.bool_),
        )
        return joined(labelled, unrelated), np.concatenate(right)

    known, right = judged(1, batches)
    again = measure_closure(
        network, scenes, draws, sizes_px=sizes_px, batches=max(1, batches // 2), device=device
    )
    calibration = Calibration(
        fit_confidence(known.evidence, right, known.size_px),
        fit_sigma(again.evidence, again.spread_px, again.error_px, again.size_px),
        turning_bias(network, scenes, draws, batches=max(1, batches // 2), device=device),
    )
    other, right = judged(2, max(1, batches // 2))
    given = confidence(other.evidence, other.size_px, calibration.confidence_weights)
    return calibration, expected_calibration_error(given, right)


def joined(*parts: MeasuredTiles) -> MeasuredTiles:
    """Several measurements as one."""
    return MeasuredTiles(
        np.concatenate([p.evidence for p in parts]),
        np.concatenate([p.spread_px for p in parts]),
        np.concatenate([p.error_px for p in parts]),
        np.concatenate([p.size_px for p in parts]),
    )


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

    The true offset of a crop turns with it, so over four quarter turns it sums to zero. The bias of the
    network does not turn: it is the mean of the four measured offsets.
    """
    means = []
    for i in range(batches):
        rng = np.random.default_rng((4, i))
        batch = draw_batch(
            scenes, rng, size=CROPS_AT_ONCE, crop_px=draws.crop_px, jitter_px=8, augmented=False
        )
        size = draws.crop_px - 2 * draws.search_px
        turned = []
        for quarter in range(4):
            optical, sar = (
                np.ascontiguousarray(np.rot90(image, quarter, axes=(2, 3)))
                for image in (batch.reference, batch.secondary)
            )
            reference = network.features(to_tensor(optical, device), Kind.OPTICAL)
            secondary = network.features(to_tensor(sar, device), Kind.SAR)
            nowhere = torch.full((CROPS_AT_ONCE, 2, 1, 1), torch.nan, device=device)
            similarity, _ = place_and_correlate(
                reference, secondary, nowhere, rng, size_px=size, search_px=draws.search_px
            )
            peaks = find_peaks(similarity, logits(network, similarity, size))
            turned.append(peaks.offset_px.double().cpu().numpy())
        means.append(added_by_itself(np.stack(turned)))
    found = np.concatenate(means)
    return np.asarray(np.median(found, axis=0)) if len(found) else np.zeros(2)


def added_by_itself(offsets_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bias (M, 2) in offsets (4, N, 2) of N pairs after 0 to 3 quarter turns (`np.rot90`), px.

    Turned back, the four offsets of a pair agree up to bias and noise. Pairs with a false peak do not agree
    and are left out.
    """
    back = np.stack([_turn_back(o, quarter) for quarter, o in enumerate(offsets_px)])
    agree = np.abs(back - np.median(back, axis=0)).max(axis=(0, 2)) <= SAME_TURNED_PX
    return np.asarray(offsets_px.mean(axis=0)[agree])


def _turn_back(offset_px: NDArray[np.float64], quarter: int) -> NDArray[np.float64]:
    """Offsets (N, 2) dx, dy measured on images turned by `np.rot90(.., quarter)`, in the unturned image."""
    x, y = offset_px.T
    return np.column_stack([(x, y), (-y, x), (-x, -y), (y, -x)][quarter])
