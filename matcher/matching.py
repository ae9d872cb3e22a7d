"""The matcher in use: two planes and tiles in, offsets with sigma and confidence out."""

from __future__ import annotations

import math
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
from crosstie.matcher.lattice import CELL_PX, correlate_tiles
from crosstie.matcher.network import HALO_PX, STRIDE_PX, MatchingNetwork, fuse
from crosstie.matcher.normalise import WINDOW_PX, normalise
from crosstie.matcher.peak import Peaks, find_peaks
from crosstie.matcher.weights import load as load_weights
from crosstie.types import Kind

Plane = NDArray[np.float32]


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

    def cut(self, row: int, col: int, side: int) -> Tensor:
        """Features (1, 16, side, side) of the window that begins at (row, col)."""
        return self.values[..., row : row + side, col : col + side]

    def mask(self, row: int, col: int, side: int) -> Tensor:
        """Validity (1, 1, side, side) of the same window."""
        return self.valid[..., row : row + side, col : col + side]


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
        network = fuse(loaded.network).to(device)
        return cls(network, loaded.calibration, loaded.sha256, device)

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
        values = self.network.features(x.contiguous(memory_format=torch.channels_last), kind).float()
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
        surfaces = _surfaces(left, right, rows.tolist(), cols.tolist(), size_px=size_px, search_px=search_px)
        # Offsets are secondary minus reference: the bias of SAR against optical changes sign with the roles.
        sign = (secondary_kind is Kind.SAR) - (reference_kind is Kind.SAR)
        bias_px = sign * self.calibration.bias_px
        return self._judge(find_peaks(surfaces, scale), bias_px, size_px=size_px, search_px=search_px)

    def _judge(self, peaks: Peaks, bias_px: NDArray[np.float64], *, size_px: int, search_px: int) -> Matches:
        offset = peaks.offset_px.double().cpu().numpy()
        spread = peaks.spread_px.double().cpu().numpy()
        evidence = peaks.evidence.double().cpu().numpy()
        confidence = self.calibration.confidence(evidence, size_px)
        # A maximum on the rim is the flank of a peak that lies outside: never to be believed.
        rim = (np.abs(offset) >= search_px - 0.5).any(axis=1)
        return Matches(
            offset_px=offset - bias_px,
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
        surface = correlate(
            left.cut(search_px, search_px, size),
            right.values,
            left.mask(search_px, search_px, size),
            right.valid,
        )
        logits = surface[0].flatten() * self.network.logit_scale(size).to(self.device)
        probability: Plane = torch.softmax(logits, 0).reshape(surface.shape[1:]).cpu().numpy()
        return probability


def _surfaces(
    reference: Features,
    secondary: Features,
    rows: list[int],
    cols: list[int],
    *,
    size_px: int,
    search_px: int,
) -> Tensor:
    """Correlation surfaces (N, 2R + 1, 2R + 1) of the tiles, in order."""
    side = size_px + 2 * search_px
    surfaces = torch.empty((len(rows), 2 * search_px + 1, 2 * search_px + 1), device=reference.values.device)
    whole = []
    for n, (row, col) in enumerate(zip(rows, cols, strict=True)):
        template_valid = reference.mask(row, col, size_px)
        search_valid = secondary.mask(row - search_px, col - search_px, side)
        if size_px % CELL_PX == 0 and bool(template_valid.all()) and bool(search_valid.all()):
            whole.append(n)
            continue
        surfaces[n] = correlate(
            reference.cut(row, col, size_px),
            secondary.cut(row - search_px, col - search_px, side),
            template_valid,
            search_valid,
        )[0]
    if whole:
        surfaces[whole] = correlate_tiles(
            reference.values[0],
            secondary.values[0],
            [rows[n] for n in whole],
            [cols[n] for n in whole],
            size_px=size_px,
            search_px=search_px,
        )
    return surfaces
