"""The matcher in use: two planes and tiles in, offsets with sigma and confidence out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from crosstie.matcher.calibration import Calibration
from crosstie.matcher.correlate import correlate
from crosstie.matcher.cpu_encoders import CpuEncoders
from crosstie.matcher.lattice import CELL_PX, correlate_tiles, shares_cells
from crosstie.matcher.network import (
    COARSEST_STRIDE_PX,
    DEEP_STRIDE_PX,
    HALO_PX,
    DenseFeatures,
    MatchingNetwork,
    fuse,
)
from crosstie.matcher.normalise import WINDOW_PX, fill_holes, normalise
from crosstie.matcher.peak import Peaks, find_peaks
from crosstie.matcher.similarity import Similarity, deep_reach, logits
from crosstie.matcher.weights import load as load_weights
from crosstie.types import Kind

if TYPE_CHECKING:
    from crosstie.types import Plane

DEEP_BATCH = 64
"""Tiles whose deep similarity is computed at once."""


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
class Level:
    """Features of one plane at one stride."""

    values: Tensor
    """(1, C, rows, cols), 0 where invalid."""
    valid: Tensor
    """(1, 1, rows, cols), 1.0 where good."""

    def cut(self, row: int, col: int, side: int) -> Level:
        """The window that begins at (row, col), in pixels of this level."""
        window = ..., slice(row, row + side), slice(col, col + side)
        return Level(self.values[window], self.valid[window])

    @property
    def whole(self) -> bool:
        """Whether every cell is good."""
        return bool(self.valid.all())


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Dense features of one plane."""

    shallow: Level
    """16 channels, stride 1"""
    deep: Level
    """32 channels, stride 8"""


@dataclass(frozen=True, slots=True, eq=False)
class Matcher:
    """A loaded network. Build one per process with `load`; calls do not change it."""

    network: MatchingNetwork
    """Gives the temperatures of the similarities, and where there is CUDA the features."""
    calibration: Calibration
    weights_sha256: str
    device: str
    on_cpu: CpuEncoders | None
    """Give the features on a CPU."""

    @classmethod
    def load(cls, path: Path | None = None, *, sha256: str | None = None, device: str = "auto") -> Self:
        """Load verified weights (the shipped ones by default).

        Parameters
        ----------
        device : str
            `cpu`, `cuda`, `cuda:1`, or `auto`: CUDA where there is one.

        Raises
        ------
        WeightsError
            The weights are missing, or not the expected ones.
        """
        loaded = load_weights(path, sha256)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls.of(loaded.network, loaded.calibration, weights_sha256=loaded.sha256, device=device)

    @classmethod
    def of(
        cls, network: MatchingNetwork, calibration: Calibration, *, weights_sha256: str, device: str
    ) -> Self:
        """Take a network into use. It is changed: its normalisations are folded (`network.fuse`).

        On a CPU as many threads work as torch is set to (`torch.set_num_threads`) at this moment.
        """
        network = fuse(network)
        on_cpu = None
        if device == "cpu":
            tensors = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
            on_cpu = CpuEncoders.of(tensors, threads=torch.get_num_threads())
        return cls(network.to(device), calibration, weights_sha256, device, on_cpu)

    @property
    def halo_px(self) -> int:
        """Context round a tile that its features and their normalisation see, a multiple of the stride."""
        return math.ceil((HALO_PX + WINDOW_PX // 2) / COARSEST_STRIDE_PX) * COARSEST_STRIDE_PX

    @torch.inference_mode()
    def features(self, plane: Plane, kind: Kind, within: tuple[slice, slice] | None = None) -> Features:
        """Dense features of a plane (rows, cols), NaN where invalid.

        Parameters
        ----------
        within : tuple[slice, slice] | None
            Part of the plane whose features are wanted. What lies around it still counts in the
            normalisation.
        """
        normalised, valid = normalise(plane)
        normalised = fill_holes(normalised, valid)
        if within is not None:
            normalised, valid = np.ascontiguousarray(normalised[within]), np.ascontiguousarray(valid[within])
        rows, cols = valid.shape
        # Whole strides, by repeating the edge.
        pad_rows, pad_cols = -rows % COARSEST_STRIDE_PX, -cols % COARSEST_STRIDE_PX
        whole = np.pad(normalised, ((0, pad_rows), (0, pad_cols)), mode="edge")
        shallow, deep = self._encode(whole, kind)
        mask = torch.from_numpy(valid.astype(np.float32))[None, None].to(self.device)
        # A cell is good where most of its pixels are.
        cells = F.avg_pool2d(F.pad(mask, (0, pad_cols, 0, pad_rows)), DEEP_STRIDE_PX) >= 0.5
        return Features(
            Level(shallow[..., :rows, :cols].contiguous(), mask),
            Level(deep.contiguous(), cells.float()),
        )

    def _encode(self, plane: NDArray[np.float32], kind: Kind) -> DenseFeatures:
        """Features of a normalised plane (H, W) of whole strides."""
        if self.on_cpu is not None:
            return DenseFeatures(*map(torch.from_numpy, self.on_cpu.features(plane, kind)))
        x = torch.from_numpy(plane)[None, None].to(self.device)
        return self.network.features(x.contiguous(memory_format=torch.channels_last), kind)

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
        reference, secondary : Plane
            (rows, cols) on one grid, NaN where invalid, with `search_px + halo_px` of context round the
            tiles; what the images do not cover is NaN.
        rows, cols : NDArray[np.int64]
            (N,) first row and column of each tile in the two arrays, px.
        size_px, search_px : int
            Side of the tiles, and how far an offset may reach per axis.
        """
        low, high = search_px, size_px + search_px
        if len(rows) and (
            min(rows.min(), cols.min()) < low
            or rows.max() + high > reference.shape[0]
            or cols.max() + high > reference.shape[1]
        ):
            raise ValueError(f"tiles need {search_px} px of context on every side in {reference.shape}")
        # The network sees less far than the normalisation, so it gets a smaller part.
        reach = HALO_PX + search_px
        within = (
            _visible_span(rows, size_px, reach, reference.shape[0]),
            _visible_span(cols, size_px, reach, reference.shape[1]),
        )
        left = self.features(reference, reference_kind, within)
        right = self.features(secondary, secondary_kind, within)
        similarity = measure_similarity(
            left,
            right,
            (rows - within[0].start).tolist(),
            (cols - within[1].start).tolist(),
            size_px=size_px,
            search_px=search_px,
        )
        # Offsets are secondary minus reference: the bias of SAR against optical changes sign with the roles.
        sign = (secondary_kind is Kind.SAR) - (reference_kind is Kind.SAR)
        bias_px = sign * self.calibration.bias_px
        return self._judge(
            find_peaks(similarity, logits(self.network, similarity, size_px)),
            bias_px,
            size_px=size_px,
            search_px=search_px,
        )

    def _judge(self, peaks: Peaks, bias_px: NDArray[np.float64], *, size_px: int, search_px: int) -> Matches:
        """Offsets without the bias, with their sigma and confidence."""
        offset = peaks.offset_px.double().cpu().numpy()
        spread = peaks.spread_px.double().cpu().numpy()
        evidence = peaks.evidence.double().cpu().numpy()
        confidence = self.calibration.confidence(evidence, size_px)
        # A maximum on the rim is the flank of a peak outside the search: it gets no confidence.
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
        reference, secondary : Plane
            Square patches (side, side), NaN where invalid; the template is what is left of the reference
            after `search_px` on every side.
        """
        size = reference.shape[0] - 2 * search_px
        left = self.features(reference, reference_kind)
        right = self.features(secondary, secondary_kind)
        similarity = measure_similarity(
            left, right, [search_px], [search_px], size_px=size, search_px=search_px
        )
        surface = logits(self.network, similarity, size)[0]
        probability: Plane = torch.softmax(surface.flatten(), 0).reshape(surface.shape).cpu().numpy()
        return probability


def _visible_span(starts: NDArray[np.int64], size_px: int, reach: int, length: int) -> slice:
    """What tiles can see along an axis, in whole strides from the origin of the array."""
    if len(starts) == 0:
        return slice(0, length)
    first = (int(starts.min()) - reach) // COARSEST_STRIDE_PX * COARSEST_STRIDE_PX
    last = -(-(int(starts.max()) + size_px + reach) // COARSEST_STRIDE_PX) * COARSEST_STRIDE_PX
    return slice(max(0, first), min(length, last))


def measure_similarity(
    reference: Features,
    secondary: Features,
    rows: list[int],
    cols: list[int],
    *,
    size_px: int,
    search_px: int,
) -> Similarity:
    """Deep and shallow similarity of N tiles, in order, that begin at (rows, cols) px."""
    return Similarity(
        _shallow(reference.shallow, secondary.shallow, rows, cols, size_px=size_px, search_px=search_px),
        _deep(reference.deep, secondary.deep, rows, cols, size_px=size_px, search_px=search_px),
    )


def _shallow(
    reference: Level, secondary: Level, rows: list[int], cols: list[int], *, size_px: int, search_px: int
) -> Tensor:
    """(N, 2R + 1, 2R + 1)."""
    side = size_px + 2 * search_px
    found = torch.empty((len(rows), 2 * search_px + 1, 2 * search_px + 1), device=reference.values.device)
    templates = [reference.cut(row, col, size_px) for row, col in zip(rows, cols, strict=True)]
    searches = [
        secondary.cut(row - search_px, col - search_px, side) for row, col in zip(rows, cols, strict=True)
    ]
    lattice: list[int] = []
    if size_px % CELL_PX == 0:
        lattice = [n for n in range(len(rows)) if templates[n].whole and searches[n].whole]
        if not shares_cells([rows[n] for n in lattice], [cols[n] for n in lattice], size_px, search_px):
            lattice = []
    for n in sorted(set(range(len(rows))) - set(lattice)):
        found[n] = _correlate_levels(templates[n], searches[n])[0]
    if lattice:
        found[lattice] = correlate_tiles(
            reference.values[0],
            secondary.values[0],
            [rows[n] for n in lattice],
            [cols[n] for n in lattice],
            size_px=size_px,
            search_px=search_px,
        )
    return found


def _deep(
    reference: Level, secondary: Level, rows: list[int], cols: list[int], *, size_px: int, search_px: int
) -> Tensor:
    """(N, 2K + 1, 2K + 1); the tiles begin at the nearest cell, the same in both images."""
    reach = deep_reach(search_px)
    height, width = reference.values.shape[-2:]
    # Whole cells reach a little farther than the search: where the image ends before, the template shrinks.
    size = min(round(size_px / DEEP_STRIDE_PX), height - 2 * reach, width - 2 * reach)
    side = size + 2 * reach
    found = []
    for start in range(0, len(rows), DEEP_BATCH):
        places = [
            (
                _nearest_cell(row, reach, height - size - reach),
                _nearest_cell(col, reach, width - size - reach),
            )
            for row, col in zip(
                rows[start : start + DEEP_BATCH], cols[start : start + DEEP_BATCH], strict=True
            )
        ]
        template = _stack([reference.cut(row, col, size) for row, col in places])
        search = _stack([secondary.cut(row - reach, col - reach, side) for row, col in places])
        found.append(_correlate_levels(template, search))
    none = torch.empty((0, 2 * reach + 1, 2 * reach + 1), device=reference.values.device)
    return torch.cat([none, *found])


def _nearest_cell(start_px: int, least: int, most: int) -> int:
    """The deep cell nearest to a pixel, within limits."""
    return max(least, min(round(start_px / DEEP_STRIDE_PX), most))


def _stack(levels: list[Level]) -> Level:
    """Windows of equal size as one batch."""
    return Level(torch.cat([level.values for level in levels]), torch.cat([level.valid for level in levels]))


def _correlate_levels(template: Level, search: Level) -> Tensor:
    """Correlate windows; with masks only where something is invalid, as masks cost time."""
    if template.whole and search.whole:
        return correlate(template.values, search.values)
    return correlate(template.values, search.values, template.valid, search.valid)
