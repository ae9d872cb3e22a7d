"""What the `crosstie` configuration learns from: offsets that are known, and offsets that a teacher finds.

The loss is the cross-entropy between the probability of each offset and a Gaussian around the true one.
Templates of several sizes are cut from the same dense features, so that one network serves all tile sizes.
Where the offset is unknown, a teacher (the slow average of the student) measures it with the largest template
on an unchanged view. Smaller templates on a changed and moved view must then find the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crosstie.matcher.network import COARSEST_STRIDE_PX, DEEP_STRIDE_PX, DenseFeatures, MatchingNetwork
from crosstie.matcher.peak import find_peaks
from crosstie.matcher.similarity import deep_logits, logits, shallow_logits, spread
from crosstie.matcher.training.examples import EXAMPLES, SEED, Example, probability
from crosstie.matcher.training.held_out import Draws, measure
from crosstie.matcher.training.placement import place_and_correlate, to_tensor
from crosstie.matcher.training.samples import CropBatch, TrainingScene, draw_batch, locally_normalised
from crosstie.matcher.training.unlabelled import Views
from crosstie.types import Kind

SAME_PEAK_PX = 2.0
"""Offsets of a pair shown upright and turned that differ by more per axis belong to different peaks."""


@dataclass(frozen=True, slots=True)
class CrosstieLearner:
    """Losses of the `crosstie` configuration."""

    search_px: int = 32
    sizes_px: tuple[int, ...] = (192, 128, 96, 64, 64)
    """Template sides; one loss term each, every step."""
    target_sigma_px: float = 0.8
    """Width of the Gaussian target; about the noise of the truth."""
    shallow_share: float = 0.5
    """Weight of the shallow similarity's own loss: sub-pixel digits come from it alone."""
    deep_share: float = 0.25
    """Weight of the deep similarity's own loss."""
    least_confidence: float = 0.6
    """Pseudo-labels with less of the teacher's probability within 2 px of its peak are not learnt from."""

    def build(self) -> MatchingNetwork:
        return MatchingNetwork()

    def prepare(self, plane: NDArray[np.floating], kind: Kind) -> NDArray[np.float32]:
        """Network input (rows, cols) from luminance or dB."""
        return locally_normalised(plane, kind)

    @property
    def least_crop_px(self) -> int:
        """Crops of labelled pairs must be as large, px."""
        return max(self.sizes_px) + 2 * self.search_px

    def labelled_loss(
        self, network: MatchingNetwork, batch: CropBatch, rng: np.random.Generator, device: str
    ) -> Tensor:
        """Mean cross-entropy over template sizes; templates with unknown truth carry no weight."""
        reference, secondary = _features(network, batch.reference, batch.secondary, device)
        truth = torch.from_numpy(batch.truth_px).to(device)
        weight = torch.ones(len(truth), device=device)
        return self._loss(network, reference, secondary, truth, weight, rng)

    def unlabelled_loss(
        self,
        network: MatchingNetwork,
        teacher: MatchingNetwork,
        views: Views,
        rng: np.random.Generator,
        device: str,
    ) -> tuple[Tensor, float]:
        """The same loss against what the teacher finds; and the share of pairs that it was sure of."""
        with torch.no_grad():
            found, weight = self.taught(teacher, views, rng, device)
            truth = found + torch.from_numpy(views.extra_px).to(device)
        size = views.weak_reference.shape[-1] - 2 * self.search_px
        reference, secondary = _features(network, views.strong_reference, views.strong_secondary, device)
        smaller = replace(self, sizes_px=tuple(s for s in self.sizes_px if s <= size))
        loss = smaller._loss(network, reference, secondary, truth[:, :, None, None], weight, rng)
        return loss, float((weight > 0).float().mean())

    def taught(
        self, teacher: MatchingNetwork, views: Views, rng: np.random.Generator, device: str
    ) -> tuple[Tensor, Tensor]:
        """Offsets (B, 2) that the teacher finds in the middles of the weak views, and how sure it is (B,).

        Each pair is measured upright and after half a turn. The true offset turns with the images; the bias
        of the teacher does not, and cancels. Otherwise the student would learn that bias as truth and pass it
        on. Without labels the offsets would drift by tenths of a pixel, which no closure shows.
        """
        size = views.weak_reference.shape[-1] - 2 * self.search_px
        offsets, sure = [], []
        for turn in (1, -1):
            optical, sar = (
                np.ascontiguousarray(view[..., ::turn, ::turn])
                for view in (views.weak_reference, views.weak_secondary)
            )
            reference, secondary = _features(teacher, optical, sar, device)
            nowhere = torch.full((len(views.extra_px), 2, 1, 1), torch.nan, device=device)
            similarity, _ = place_and_correlate(
                reference, secondary, nowhere, rng, size_px=size, search_px=self.search_px
            )
            found = find_peaks(similarity, logits(teacher, similarity, size))
            offsets.append(turn * found.offset_px)
            # Evidence 0 is log10 of the probability that is not at the peak.
            sure.append(1 - 10 ** found.evidence[:, 0])
        upright, turned = offsets
        confidence = torch.minimum(*sure)
        same_peak = (upright - turned).abs().amax(dim=1) <= SAME_PEAK_PX
        weight = torch.where(same_peak & (confidence >= self.least_confidence), confidence, 0)
        return (upright + turned) / 2, weight

    def figures(
        self, network: MatchingNetwork, scenes: Sequence[TrainingScene], draws: Draws, device: str
    ) -> dict[str, float]:
        """Median error and CMR@1/2 (px) at the largest and the smallest size; always the same draws."""
        sizes = (max(self.sizes_px), min(self.sizes_px))
        measured = measure(network, scenes, draws, sizes_px=sizes, batches=8, device=device)
        return {name: value for size in sizes for name, value in measured.figures(size).items()}

    @torch.no_grad()
    def examples(
        self, network: MatchingNetwork, scenes: Sequence[TrainingScene], draws: Draws, device: str
    ) -> list[Example]:
        """A few crops with one template each, of the middle size; always the same."""
        sizes = sorted(set(self.sizes_px))
        size, reach = sizes[len(sizes) // 2], self.search_px
        side = math.ceil((size + 2 * reach) / COARSEST_STRIDE_PX) * COARSEST_STRIDE_PX
        rng = np.random.default_rng(SEED)
        batch = draw_batch(
            scenes,
            rng,
            size=EXAMPLES,
            crop_px=side,
            jitter_px=min(draws.jitter_px, reach // 2),
            augmented=False,
        )
        reference, secondary = _features(network, batch.reference, batch.secondary, device)
        truth = torch.from_numpy(batch.truth_px).to(device)
        similarity, target = place_and_correlate(
            reference, secondary, truth, rng, size_px=size, search_px=reach
        )
        surfaces = (
            spread(deep_logits(network, similarity, size), reach),
            shallow_logits(network, similarity, size),
            logits(network, similarity, size),
        )
        maps = [probability(surface) for surface in surfaces]
        found = find_peaks(similarity, surfaces[-1]).offset_px.cpu().numpy()
        # Only one place is left for a template whose crop was not rounded up to whole strides.
        inner = slice(reach, reach + size)
        return [
            Example(
                template=batch.reference[n, 0, inner, inner],
                search=batch.secondary[n, 0, : size + 2 * reach, : size + 2 * reach],
                deep=maps[0][n],
                shallow=maps[1][n],
                combined=maps[2][n],
                truth_px=(float(target[n, 0]), float(target[n, 1])),
                found_px=(float(found[n, 0]), float(found[n, 1])),
            )
            for n in range(EXAMPLES)
        ]

    def _loss(
        self,
        network: MatchingNetwork,
        reference: DenseFeatures,
        secondary: DenseFeatures,
        truth_px: Tensor,
        weight: Tensor,
        rng: np.random.Generator,
    ) -> Tensor:
        """Weighted mean loss over template sizes; templates without a known offset are left out."""
        total = torch.zeros((), device=truth_px.device)
        for size in self.sizes_px:
            similarity, target = place_and_correlate(
                reference, secondary, truth_px, rng, size_px=size, search_px=self.search_px
            )
            within = torch.isfinite(target).all(1) & (target.abs() < self.search_px - 1).all(1) & (weight > 0)
            if not within.any():
                continue
            similarity, target = similarity.select(within), target[within]
            wanted = gaussian_target(target, self.search_px, self.target_sigma_px)
            cells = gaussian_target(target / DEEP_STRIDE_PX, self.search_px // DEEP_STRIDE_PX, 0.5)
            loss = _soft_cross_entropy(logits(network, similarity, size), wanted)
            loss = loss + self.shallow_share * _soft_cross_entropy(
                shallow_logits(network, similarity, size), wanted
            )
            loss = loss + self.deep_share * _soft_cross_entropy(deep_logits(network, similarity, size), cells)
            total = total + (loss * weight[within]).sum() / len(weight)
        return total / len(self.sizes_px)


def gaussian_target(offset: Tensor, radius: int, sigma: float) -> Tensor:
    """Probability (B, 2R + 1, 2R + 1) of each whole offset, a Gaussian round (B, 2) dx, dy; sums to one."""
    axis = torch.arange(-radius, radius + 1, device=offset.device)
    x = torch.exp(-0.5 * ((axis[None] - offset[:, :1]) / sigma) ** 2)
    y = torch.exp(-0.5 * ((axis[None] - offset[:, 1:]) / sigma) ** 2)
    product = y[:, :, None] * x[:, None, :]
    return product / product.sum(dim=(1, 2), keepdim=True)


def _soft_cross_entropy(logit: Tensor, target: Tensor) -> Tensor:
    """Of each of B targets."""
    return -(target.flatten(1) * torch.log_softmax(logit.flatten(1), dim=1)).sum(1)


def _features(
    network: MatchingNetwork, optical: np.ndarray, sar: np.ndarray, device: str
) -> tuple[DenseFeatures, DenseFeatures]:
    """Features of prepared optical and SAR crops."""
    # bfloat16 doubles the speed on CPUs and GPUs that know it; correlations stay in float32.
    with torch.autocast(device.partition(":")[0], dtype=torch.bfloat16):
        reference = network.features(to_tensor(optical, device), Kind.OPTICAL)
        secondary = network.features(to_tensor(sar, device), Kind.SAR)
    return reference, secondary
