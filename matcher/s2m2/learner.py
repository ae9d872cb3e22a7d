"""What the `s2m2` configuration learns from: with the safeguards of `crosstie`, or as published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crosstie.matcher.peak import NEAR_RADIUS_PX
from crosstie.matcher.s2m2.heatmaps import S2M2Heatmaps, predict, pseudo_target, upsample_deep
from crosstie.matcher.s2m2.independence import independence_loss
from crosstie.matcher.s2m2.losses import DEEP_SCALE, SHALLOW_SCALE, pseudo_loss, shift_target, supervised_loss
from crosstie.matcher.s2m2.network import S2M2Network, network_input
from crosstie.matcher.s2m2.settings import S2M2Settings
from crosstie.matcher.training.examples import EXAMPLES, SEED, Example, probability
from crosstie.matcher.training.held_out import CROPS_AT_ONCE, Draws, shares
from crosstie.matcher.training.placement import to_tensor
from crosstie.matcher.training.samples import CropBatch, TrainingScene, draw_batch
from crosstie.matcher.training.unlabelled import Views
from crosstie.types import Kind


@dataclass(frozen=True, slots=True)
class S2M2Learner:
    """Losses of the `s2m2` configuration, on the middle of each crop."""

    settings: S2M2Settings = field(default_factory=S2M2Settings.mended)
    template_px: int = 192
    search_px: int = 32
    guarded: bool = True
    """Whether a slow teacher labels an unchanged view, the student learns from a changed and moved one, and
    doubtful labels are left out. Unguarded, as published, the network labels the very view it learns from."""
    least_confidence: float = 0.6
    """Guarded: pseudo-targets with less probability within 2 px of their peak are not learnt from."""

    def build(self) -> S2M2Network:
        return S2M2Network(self.settings)

    @property
    def least_crop_px(self) -> int:
        """Crops of labelled pairs must be as large, px."""
        return self.template_px + 2 * self.search_px

    def prepare(self, plane: NDArray[np.floating], kind: Kind) -> NDArray[np.float32]:
        """Network input (rows, cols) from luminance 0..1 or dB; raw input is grey values of 0..255."""
        if self.settings.inputs == "raw":
            plane = plane * 255 if kind is Kind.OPTICAL else _grey(plane)
        return network_input(plane, self.settings)

    def labelled_loss(
        self,
        network: S2M2Network,
        batch: CropBatch,
        rng: np.random.Generator,  # noqa: ARG002
        device: str,
    ) -> Tensor:
        """Supervised loss of the pairs whose truth is known, and the independence loss of all."""
        heatmaps = self._heatmaps(network, batch.reference, batch.secondary, device)
        truth = middle(batch.truth_px)
        known = np.isfinite(truth).all(1) & (np.abs(truth) < self.search_px - 1).all(1)
        loss = independence_loss(heatmaps.pairs)
        if known.any():
            index = torch.from_numpy(np.flatnonzero(known)).to(device)
            chosen = S2M2Heatmaps(heatmaps.deep[index], heatmaps.shallow[index])
            loss = loss + supervised_loss(chosen, torch.from_numpy(truth[known]).to(device), self.settings)
        return loss

    def unlabelled_loss(
        self,
        network: S2M2Network,
        teacher: S2M2Network,
        views: Views,
        rng: np.random.Generator,  # noqa: ARG002
        device: str,
    ) -> tuple[Tensor, float]:
        """Loss against pseudo-targets, with the independence loss; and the share of pairs learnt from."""
        if not self.guarded:
            heatmaps = self._heatmaps(network, views.weak_reference, views.weak_secondary, device)
            target = pseudo_target(heatmaps, self.settings)
            return pseudo_loss(heatmaps, target) + independence_loss(heatmaps.pairs), 1.0
        with torch.no_grad():
            seen = self._heatmaps(teacher, views.weak_reference, views.weak_secondary, device)
            target = pseudo_target(seen, self.settings)
            confidence = mass_at_peak(target, predict(seen, self.settings))
            weight = torch.where(confidence >= self.least_confidence, confidence, 0)
            target = shift_target(target, torch.from_numpy(views.extra_px).to(device))
        heatmaps = self._heatmaps(network, views.strong_reference, views.strong_secondary, device)
        loss = pseudo_loss(heatmaps, target, weight) + independence_loss(heatmaps.pairs)
        return loss, float((weight > 0).float().mean())

    @torch.no_grad()
    def offsets(
        self, network: S2M2Network, optical: NDArray[np.float32], sar: NDArray[np.float32], device: str
    ) -> NDArray[np.float32]:
        """Offsets (B, 2) of the middles of prepared chips (B, 1, n, n)."""
        found: NDArray[np.float32] = (
            predict(self._heatmaps(network, optical, sar, device), self.settings).cpu().numpy()
        )
        return found

    @torch.no_grad()
    def figures(
        self, network: S2M2Network, scenes: Sequence[TrainingScene], draws: Draws, device: str
    ) -> dict[str, float]:
        """Median error and CMR@1/2 (px) of the template; always the same draws."""
        errors = []
        for i in range(8):
            batch = draw_batch(
                scenes, np.random.default_rng((12345, i)), size=CROPS_AT_ONCE, crop_px=draws.crop_px,
                jitter_px=draws.jitter_px, augmented=False, prepare=self.prepare,
            )  # fmt: skip
            # One at a time: a pair of published width holds more than a gigabyte.
            for n in range(CROPS_AT_ONCE):
                one = slice(n, n + 1)
                found = self.offsets(network, batch.reference[one], batch.secondary[one], device)
                errors.append(found[0] - middle(batch.truth_px)[n])
        error = np.hypot(*np.array(errors).T)
        return shares(error[np.isfinite(error)], self.template_px)

    @torch.no_grad()
    def examples(
        self, network: S2M2Network, scenes: Sequence[TrainingScene], draws: Draws, device: str
    ) -> list[Example]:
        """A few crops; always the same."""
        batch = draw_batch(
            scenes, np.random.default_rng(SEED), size=EXAMPLES, crop_px=draws.crop_px,
            jitter_px=min(draws.jitter_px, self.search_px // 2), augmented=False, prepare=self.prepare,
        )  # fmt: skip
        truth = middle(batch.truth_px)
        found = []
        for n in range(EXAMPLES):
            reference, secondary = batch.reference[n : n + 1], batch.secondary[n : n + 1]
            heatmaps = self._heatmaps(network, reference, secondary, device)
            deep = DEEP_SCALE * upsample_deep(heatmaps, self.settings, "bilinear")
            offset = predict(heatmaps, self.settings)[0]
            found.append(
                Example(
                    template=_middle_of(reference, self.template_px)[0, 0],
                    search=_middle_of(secondary, self.least_crop_px)[0, 0],
                    deep=probability(deep)[0],
                    shallow=probability(SHALLOW_SCALE * heatmaps.shallow)[0],
                    combined=pseudo_target(heatmaps, self.settings)[0].float().cpu().numpy(),
                    truth_px=(float(truth[n, 0]), float(truth[n, 1])),
                    found_px=(float(offset[0]), float(offset[1])),
                )
            )
        return found

    def _heatmaps(
        self, network: S2M2Network, optical: NDArray[np.float32], sar: NDArray[np.float32], device: str
    ) -> S2M2Heatmaps:
        """Heatmaps of the middles of chips (B, 1, n, n), in bfloat16."""
        side = min(optical.shape[-1], self.template_px + 2 * self.search_px)
        with torch.autocast(device.partition(":")[0], dtype=torch.bfloat16):
            heatmaps: S2M2Heatmaps = network(
                to_tensor(_middle_of(optical, side), device),
                to_tensor(_middle_of(sar, side - 2 * self.search_px), device),
            )
        return heatmaps


def mass_at_peak(target: Tensor, offset_px: Tensor) -> Tensor:
    """Probability (B,) of a heatmap (B, 2R + 1, 2R + 1) within 2 px of an offset (B, 2)."""
    axis = torch.arange(target.shape[-1], device=target.device) - (target.shape[-1] - 1) // 2
    dx2 = (axis[None] - offset_px[:, :1]) ** 2
    dy2 = (axis[None] - offset_px[:, 1:]) ** 2
    near = dy2[:, :, None] + dx2[:, None, :] <= NEAR_RADIUS_PX**2
    return (target * near).sum(dim=(1, 2))


def middle(truth_px: NDArray[np.float32]) -> NDArray[np.float32]:
    """Offsets (B, 2) at the middle of a lattice (B, 2, L, L)."""
    half = truth_px.shape[-1] // 2
    low = (truth_px.shape[-1] - 1) // 2
    window = slice(low, half + 1)
    mean: NDArray[np.float32] = truth_px[:, :, window, window].mean(axis=(2, 3))
    return mean


def _middle_of(images: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """The middle square of images (..., n, n)."""
    start = (images.shape[-1] - side) // 2
    return np.ascontiguousarray(images[..., start : start + side, start : start + side])


def _grey(db: NDArray[np.floating]) -> NDArray[np.floating]:
    """Values as 8-bit pictures show them: as they are where they fit, else scaled by the 99th percentile."""
    values: NDArray[np.floating] = 10 ** (db / 10)
    high = float(np.nanpercentile(values, 99)) if np.isfinite(values).any() else 1.0
    grey: NDArray[np.floating] = np.clip(
        values * (1.0 if 16 < high <= 255 else 200 / max(high, 1e-9)), 0, 255
    )
    return grey
