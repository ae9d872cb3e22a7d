"""The matcher in use: two planes and tiles in, offsets with sigma and confidence out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from crosstie.matcher.calibration import Calibration
from crosstie.matcher.correlate import correlate
from crosstie.matcher.network import HALO_PX, STRIDE_PX, MatchingNetwork
from crosstie.matcher.normalise import WINDOW_PX, normalise
from crosstie.matcher.peak import Peaks, find_peaks
from crosstie.matcher.weights import load as load_weights
from crosstie.types import Kind

Plane = NDArray[np.float32]

BATCH = 8
"""Tiles correlated at once: enough to keep two cores busy, small enough to stay in their cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """One row per tile, in the order they were given."""

    offset_px: NDArray[np.float64]
    """(N, 2) dx, dy: position in the secondary minus position in the reference."""
    sigma_px: NDArray[np.float64]
    """(N,) standard deviation per axis."""
    confidence: NDArray[np.float64]
    """(N,) probability that the offset is within 1 px."""


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Dense features of one plane."""

    values: Tensor
    """(1, 16, rows, cols), 0 where invalid."""
    valid: Tensor
    """(1, 1, rows, cols), 1.0 where good."""


@dataclass(frozen=True, slots=True, eq=False)
class Matcher:
    """A loaded network. Build one per process with `load`; calls do not change it."""

    network: MatchingNetwork
    calibration: Calibration
    weights_sha256: str
    device: str

    @classmethod
    def load(cls, path: Path | None = None, *, sha256: str | None = None, device: str = "auto") -> Self:
        """Load verified weights (the shipped ones by default).

        Parameters
        ----------
        device : `cpu`, `cuda`, `cuda:1`, or `auto`: CUDA where there is one

        Raises
        ------
        WeightsError : weights missing, or not the expected ones
        """
        loaded = load_weights(path, sha256)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(loaded.network.to(device), loaded.calibration, loaded.sha256, device)

    @property
    def halo_px(self) -> int:
        """Context round a tile that its features and their normalisation see, a multiple of the stride."""
        return math.ceil((HALO_PX + WINDOW_PX // 2) / STRIDE_PX) * STRIDE_PX

    @torch.inference_mode()
    def features(self, plane: Plane, kind: Kind) -> Features:
        """Dense features of a plane (rows, cols), NaN where invalid."""
        normalised, valid = normalise(plane)
        rows, cols = plane.shape
        # Whole strides, by repeating the edge.
        pad = (0, -cols % STRIDE_PX, 0, -rows % STRIDE_PX)
        x = F.pad(torch.from_numpy(normalised)[None, None], pad, mode="replicate").to(self.device)
        values = self.network.features(x.contiguous(memory_format=torch.channels_last), kind)
        mask = torch.from_numpy(valid.astype(np.float32))[None, None].to(self.device)
        return Features(values[..., :rows, :cols].contiguous(), mask)

    @torch.inference_mode()
    def match(
        self,
        reference: Plane,
        secondary: Plane,
        rows: NDArray[np.int64],
        cols: NDArray[np.int64],
        *,
        size_px: int,
        search_px: int,
        reference_kind: Kind,
        secondary_kind: Kind,
    ) -> Matches:
        """Measure the offset of each tile.

        Parameters
        ----------
        reference, secondary : (rows, cols) on one grid, NaN where invalid, with `search_px + halo_px` of
            context round the tiles; what the images do not cover is NaN
        rows, cols : (N,) first row and column of each tile in the two arrays, px
        size_px, search_px : side of the tiles, and how far an offset may reach per axis
        """
        low, high = search_px, size_px + search_px
        if len(rows) and (
            min(rows.min(), cols.min()) < low
            or rows.max() + high > reference.shape[0]
            or cols.max() + high > reference.shape[1]
        ):
            raise ValueError(f"tiles need {search_px} px of context on every side in {reference.shape}")
        left = self.features(reference, reference_kind)
        right = self.features(secondary, secondary_kind)
        scale = self.network.logit_scale(size_px).to(self.device)
        peaks = [
            find_peaks(surface, scale)
            for surface in _surfaces(left, right, rows, cols, size_px=size_px, search_px=search_px)
        ]
        return self._judge(peaks, size_px=size_px, search_px=search_px)

    def _judge(self, peaks: list[Peaks], *, size_px: int, search_px: int) -> Matches:
        if not peaks:
            return Matches(np.zeros((0, 2)), np.zeros(0), np.zeros(0))
        offset = torch.cat([p.offset_px for p in peaks]).double().cpu().numpy()
        spread = torch.cat([p.spread_px for p in peaks]).double().cpu().numpy()
        evidence = torch.cat([p.evidence for p in peaks]).double().cpu().numpy()
        confidence = self.calibration.confidence(evidence, size_px)
        # A maximum on the rim is the flank of a peak that lies outside: never to be believed.
        rim = np.abs(offset).max(axis=1) >= search_px - 0.5
        return Matches(
            offset_px=offset,
            sigma_px=self.calibration.sigma_px(evidence, spread, size_px),
            confidence=np.where(rim, 0.0, confidence),
        )

    @torch.inference_mode()
    def offset_probability(
        self,
        reference: Plane,
        secondary: Plane,
        *,
        search_px: int,
        reference_kind: Kind,
        secondary_kind: Kind,
    ) -> Plane:
        """Probability of each offset of the middle of a patch, (2 search + 1, 2 search + 1); sums to one.

        Parameters
        ----------
        reference, secondary : square patches (side, side), NaN where invalid; the template is what is left
            of the reference after `search_px` on every side
        """
        size = reference.shape[0] - 2 * search_px
        left = self.features(reference, reference_kind)
        right = self.features(secondary, secondary_kind)
        start = np.array([search_px])
        (surface,) = _surfaces(left, right, start, start, size_px=size, search_px=search_px)
        logits = surface[0].flatten() * self.network.logit_scale(size).to(self.device)
        probability: Plane = torch.softmax(logits, 0).reshape(surface.shape[1:]).cpu().numpy()
        return probability


def _surfaces(
    reference: Features,
    secondary: Features,
    rows: NDArray[np.int64],
    cols: NDArray[np.int64],
    *,
    size_px: int,
    search_px: int,
) -> Iterator[Tensor]:
    """Correlation surfaces (B, 2R + 1, 2R + 1) of the tiles, in batches and in order."""

    def cut(features: Tensor, batch: list[tuple[int, int]], margin: int) -> Tensor:
        side = size_px + 2 * margin
        return torch.cat([features[..., r - margin :, c - margin :][..., :side, :side] for r, c in batch])

    places = list(zip(rows.tolist(), cols.tolist(), strict=True))
    for start in range(0, len(places), BATCH):
        batch = places[start : start + BATCH]
        template_valid = cut(reference.valid, batch, 0)
        search_valid = cut(secondary.valid, batch, search_px)
        masks = () if template_valid.all() and search_valid.all() else (template_valid, search_valid)
        yield correlate(cut(reference.values, batch, 0), cut(secondary.values, batch, search_px), *masks)
