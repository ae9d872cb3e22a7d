"""Settings of the `s2m2` configuration: the published method, and one switch for each mend of it.

Gai & Li, "Semi-supervised Multiscale Matching for SAR-Optical Image", arXiv 2508.07812 (2025).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Width = Literal["published", "small"]

DEEP_CELL_PX = 8
"""Ground pixels that one cell of the deep heatmap stands for."""


@dataclass(frozen=True, slots=True)
class S2M2Settings:
    """What the network is, how its heatmaps are made, and how they are labelled and read.

    The values named first are the mends. The defaults are those of `mended()`; an ablation turns one back
    with `dataclasses.replace`.
    """

    width: Width = "published"
    """`small` has a quarter of the channels, groups and heads: it trains on two cores."""
    peak: Literal["sub_pixel", "integer"] = "sub_pixel"
    """The vertex of the surface around its maximum, or the maximum's own cell."""
    deep_cells: Literal["multiples_of_8", "stretched"] = "multiples_of_8"
    """Where a deep cell lies: at the offset it was computed for, or spread evenly over the shallow heatmap
    (9 over 65 px, 7.22 px each: up to 3.5 px off). Holds for labels and predictions."""
    prediction_upsampling: Literal["bilinear", "nearest"] = "bilinear"
    """How the deep heatmap is enlarged for a prediction; a pseudo-target always uses bilinear."""
    normalisation: Literal["windowed_ncc", "min_max"] = "windowed_ncc"
    """Zero-mean normalised cross-correlation over each window, or raw correlation stretched to 0..1 between
    the extremes of the whole padded map. Both per channel, then averaged over channels."""
    transform: Literal["circular", "linear"] = "circular"
    """Length of the FFT: that of the search area (256) or the sum of both less one (447). The valid window
    is the same; `min_max` alone sees the padding round it, and so changes with the length."""
    inputs: Literal["local_contrast", "raw"] = "local_contrast"
    """Standard deviations from the mean of the neighbourhood, or grey values 0..255."""
    prediction: Literal["combined", "deep", "shallow"] = "combined"
    """The surface that is searched: the product of both heatmaps, or one alone (for ablations)."""
    enhancement: bool = True
    """Whether features pass the cross-modal feature enhancement (off for an ablation)."""
    independence: bool = True
    """Whether the network hands out what the mutual independence loss needs. Without enhancement nothing
    is separated and there is no such loss whatever is said here."""

    @classmethod
    def published(cls, width: Width = "published") -> S2M2Settings:
        """The method as published, without any mend."""
        return cls(
            width=width,
            peak="integer",
            deep_cells="stretched",
            prediction_upsampling="nearest",
            normalisation="min_max",
            transform="linear",
            inputs="raw",
        )

    @classmethod
    def mended(cls, width: Width = "published") -> S2M2Settings:
        """All mends on."""
        return cls(width=width)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the backbone at strides 1, 2, 4, 8, 16."""
        return tuple(c // self._divisor for c in (32, 64, 128, 256, 512))

    @property
    def groups(self) -> int:
        """Groups of every normalisation: as many as the first level has channels."""
        return 32 // self._divisor

    @property
    def heads(self) -> int:
        """Attention heads; both widths have 4 channels a head in the shallow, 32 in the deep module."""
        return 8 // self._divisor

    @property
    def _divisor(self) -> int:
        return {"published": 1, "small": 4}[self.width]
