"""The words that users type and products hold. Light to import: the command line needs them before numpy."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

Orbit = Literal["any", "ascending", "descending"]
"""Orbit direction of the SAR scenes."""

Slices = Literal["largest", "each"]
"""Which slices of one pass are paired."""

Graph = Literal["nearest", "network"]
"""Which pairs are worth registering: the best of each reference, or a network over all scenes."""

Order = Literal["newest", "oldest"]
"""Which references come first."""

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the optical plane (ITU-R BT.601); training must see what use will see."""


class Kind(StrEnum):
    """Kind of sensor. Each kind has its own reduction to one band and its own encoder."""

    OPTICAL = "optical"
    SAR = "sar"

    @property
    def other(self) -> Kind:
        return Kind.SAR if self is Kind.OPTICAL else Kind.OPTICAL


class Model(StrEnum):
    """Models of a correction, simplest first."""

    IDENTITY = "identity"
    TRANSLATION = "translation"
    AFFINE = "affine"


class ModelChoice(StrEnum):
    """Which part of a correction to apply."""

    AUTO = "auto"
    AFFINE = "affine"
    FIELD = "field"


class Kernel(StrEnum):
    """How values between pixels are found."""

    CUBIC = "cubic"
    LANCZOS = "lanczos"
    BILINEAR = "bilinear"
    NEAREST = "nearest"

    @property
    def radius_px(self) -> int:
        """Pixels of the source that count on either side of a position."""
        return {Kernel.CUBIC: 2, Kernel.LANCZOS: 3, Kernel.BILINEAR: 1, Kernel.NEAREST: 1}[self]


class VerdictCode(StrEnum):
    """Result of a pair, in one word."""

    CORRECTED = "corrected"
    ALREADY_ALIGNED = "already_aligned"
    UNRELIABLE = "unreliable"


class Reason(StrEnum):
    """Why a pair is unreliable; `sentence` says it in words."""

    NO_OVERLAP = "no_overlap"
    MASKED = "masked"
    TOO_FEW_TIE_POINTS = "too_few_tie_points"
    CLOUDED = "clouded"
    WATER = "water"
    NO_TEXTURE = "no_texture"
    RESIDUAL_TOO_LARGE = "residual_too_large"
    INCONSISTENT_OFFSETS = "inconsistent_offsets"
    NOT_BETTER_THAN_IDENTITY = "not_better_than_identity"
    OFFSET_BEYOND_SEARCH = "offset_beyond_search"
    TERRAIN_NOT_AFFINE = "terrain_not_affine"
    IMPLAUSIBLE_CORRECTION = "implausible_correction"

    @property
    def sentence(self) -> str:
        """The reason as a sentence."""
        return _REASON_SENTENCES[self]


_REASON_SENTENCES = {
    Reason.NO_OVERLAP: "The two images share no valid pixels on the ground.",
    Reason.MASKED: "Holes (nodata, masks) leave no tile with enough pixels that are valid in both images.",
    Reason.TOO_FEW_TIE_POINTS: "Too few tiles gave an offset that can be trusted.",
    Reason.CLOUDED: "Most of the optical image is bright and blurred, as clouds are, or masked as such.",
    Reason.WATER: "Most of the overlap is open water, where nothing can be matched.",
    Reason.NO_TEXTURE: "Most of the overlap is flat or mere noise: there is nothing to match.",
    Reason.RESIDUAL_TOO_LARGE: "The offsets scatter too widely around the best correction.",
    Reason.INCONSISTENT_OFFSETS: "The offsets do not agree with one another on any correction.",
    Reason.NOT_BETTER_THAN_IDENTITY: "No correction leaves a smaller cross-validated error than none at all.",
    Reason.OFFSET_BEYOND_SEARCH: "No offset was found within the search; the images may be farther apart.",
    Reason.TERRAIN_NOT_AFFINE: "The offsets follow the terrain; an affine cannot describe them.",
    Reason.IMPLAUSIBLE_CORRECTION: "The best correction rotates, scales or shears more than a sensor can.",
}
