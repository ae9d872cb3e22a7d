"""The values that the parts exchange: frozen, and checked when they are made.

Axis order: arrays are (band, row, col); points are (x, y), easting first. Pixel (0, 0) begins at its
outer corner. **Offset = position in the secondary minus position in the reference, of the same ground
feature.** A correction maps secondary map coordinates to reference map coordinates.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Self

import numpy as np
from odc.geo.geobox import GeoBox

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]
    IntArray = NDArray[np.int64]
    Plane = NDArray[np.float32]


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


class VerdictCode(StrEnum):
    """Result of a pair, in one word."""

    CORRECTED = "corrected"
    ALREADY_ALIGNED = "already_aligned"
    UNRELIABLE = "unreliable"


class Reason(StrEnum):
    """Why a pair is unreliable; `sentence` says it in words."""

    NO_OVERLAP = "no_overlap"
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
        return _SENTENCES[self]


_SENTENCES = {
    Reason.NO_OVERLAP: "The two images share no valid pixels on the ground.",
    Reason.TOO_FEW_TIE_POINTS: "Too few tiles gave an offset that can be trusted.",
    Reason.CLOUDED: "Most of the optical image is bright and blurred, as clouds are.",
    Reason.WATER: "Most of the overlap is open water, where nothing can be matched.",
    Reason.NO_TEXTURE: "Most of the overlap is flat: there is nothing to match.",
    Reason.RESIDUAL_TOO_LARGE: "The offsets scatter too widely around the best correction.",
    Reason.INCONSISTENT_OFFSETS: "The offsets do not agree with one another on any correction.",
    Reason.NOT_BETTER_THAN_IDENTITY: "No correction leaves a smaller cross-validated error than none at all.",
    Reason.OFFSET_BEYOND_SEARCH: "No offset was found within the search; the images may be farther apart.",
    Reason.TERRAIN_NOT_AFFINE: "The offsets follow the terrain; an affine cannot describe them.",
    Reason.IMPLAUSIBLE_CORRECTION: "The best correction rotates, scales or shears more than a sensor can.",
}


@dataclass(frozen=True, slots=True)
class SceneRef:
    """One scene of a catalog: what pairing and reading need of it."""

    id: str
    """Identifier in the catalog."""
    kind: Kind
    acquired_utc: datetime
    """Middle of the acquisition, UTC."""
    footprint_wkt: str
    """Outline as WKT in EPSG:4326."""
    hrefs: tuple[str, ...]
    """URL or path of the raster; several if each band is a file of its own."""
    platform: str | None = None
    """`sentinel-1a`, `sentinel-2b`, ..."""
    cloud_cover_pct: float | None = None
    """Cloud cover, 0..100; None if the catalog does not say, as for all fields below."""
    collection: str | None = None
    """Id of its collection."""
    product_type: str | None = None
    """`GRD`, `RTC`, `L1C` or `L2A`; any other as the catalog writes it."""
    orbit_state: str | None = None
    """`ascending` or `descending`."""
    relative_orbit: int | None = None
    """Track, from 1."""
    mgrs_tile: str | None = None
    """Sentinel-2 tile, `31UFS`."""
    processing_baseline: str | None = None
    """Version of the processor, such as `05.10`."""
    created_utc: datetime | None = None
    """When the product was made."""

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("a scene needs an id, got an empty one")
        if not self.hrefs:
            raise ValueError(f"scene {self.id}: needs at least one href")
        if self.acquired_utc.tzinfo is None:
            raise ValueError(f"scene {self.id}: acquired_utc must carry a time zone, got {self.acquired_utc}")


@dataclass(frozen=True, slots=True)
class ScenePair:
    """Two scenes of one place: the reference stays, the secondary is corrected."""

    reference: SceneRef
    secondary: SceneRef

    @property
    def key(self) -> str:
        """Stable text made of the two ids; a valid name of a folder or an object."""
        return pair_key(self.reference.id, self.secondary.id)


def pair_key(reference_id: str, secondary_id: str) -> str:
    """Make the folder name of a pair: readable, at most 180 characters, unique for the two ids."""
    parts = [re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") for text in (reference_id, secondary_id)]
    key = "__".join(parts)
    exact = f"{reference_id}__{secondary_id}"
    if key == exact and len(key) <= 180:
        return key
    digest = hashlib.sha256(exact.encode()).hexdigest()[:10]
    return f"{key[:169]}-{digest}"


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """A square window of the common grid; its tie point lies at the centre."""

    row: int
    """First row in the grid, px."""
    col: int
    """First column in the grid, px."""
    size_px: int
    """Rows and columns, px."""

    def __post_init__(self) -> None:
        if self.size_px <= 0:
            raise ValueError(f"tile size must be positive, got {self.size_px}")

    @property
    def roi(self) -> tuple[slice, slice]:
        """(rows, cols), to index an array of the grid."""
        return slice(self.row, self.row + self.size_px), slice(self.col, self.col + self.size_px)

    @property
    def centre_px(self) -> tuple[float, float]:
        """(x, y) of the centre in pixels of the grid, outer corner of the first pixel = (0, 0)."""
        return self.col + self.size_px / 2, self.row + self.size_px / 2


@dataclass(frozen=True, slots=True, eq=False)
class TiePoints:
    """Tie points as columns of equal length N."""

    xy_m: FloatArray
    """(N, 2) positions in the reference, metres of the grid's CRS."""
    offset_m: FloatArray
    """(N, 2) position in the secondary minus position in the reference, metres."""
    sigma_m: FloatArray
    """(N,) standard deviation of the offset per axis, metres."""
    confidence: FloatArray
    """(N,) calibrated probability that the offset is within 1 px, 0..1."""
    row: NDArray[np.int64]
    """(N,) first row of the tile in the common grid, px."""
    col: NDArray[np.int64]
    """(N,) first column of the tile in the common grid, px."""

    def __post_init__(self) -> None:
        n = len(self.xy_m)
        shapes = {
            "xy_m": (n, 2),
            "offset_m": (n, 2),
            "sigma_m": (n,),
            "confidence": (n,),
            "row": (n,),
            "col": (n,),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {getattr(self, name).shape}")

    def __len__(self) -> int:
        return len(self.xy_m)

    def keep(self, mask: BoolArray) -> Self:
        """Select the points where `mask` (N,) is True."""
        return replace(
            self,
            xy_m=self.xy_m[mask],
            offset_m=self.offset_m[mask],
            sigma_m=self.sigma_m[mask],
            confidence=self.confidence[mask],
            row=self.row[mask],
            col=self.col[mask],
        )

    @classmethod
    def empty(cls) -> Self:
        """Make a table without points."""
        return cls(
            xy_m=np.zeros((0, 2)),
            offset_m=np.zeros((0, 2)),
            sigma_m=np.zeros(0),
            confidence=np.zeros(0),
            row=np.zeros(0, np.int64),
            col=np.zeros(0, np.int64),
        )

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """Join tables; the points are ordered by tile (row, then col), whatever the order of `parts`."""
        if not parts:
            return cls.empty()
        row = np.concatenate([p.row for p in parts])
        col = np.concatenate([p.col for p in parts])
        order = np.lexsort((col, row))
        return cls(
            xy_m=np.concatenate([p.xy_m for p in parts])[order],
            offset_m=np.concatenate([p.offset_m for p in parts])[order],
            sigma_m=np.concatenate([p.sigma_m for p in parts])[order],
            confidence=np.concatenate([p.confidence for p in parts])[order],
            row=row[order],
            col=col[order],
        )


@dataclass(frozen=True, slots=True)
class Error:
    """Size of the residuals of the tie points that a fit kept."""

    rmse_m: float
    """Root mean square of their lengths, metres; NaN without points."""
    ce90_m: float
    """Circular error, 90 %: nine in ten are no longer than this, metres."""


IDENTITY_AFFINE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""In rasterio's order: x' = a x + b y + c, y' = d x + e y + f."""


@dataclass(frozen=True, slots=True, eq=False)
class AffineCorrection:
    """An affine in map coordinates, from (x, y) of the secondary to corrected (x, y), metres."""

    model: Model
    """Which of the parameters were fitted."""
    affine: tuple[float, float, float, float, float, float]
    """(a, b, c, d, e, f) in rasterio's order."""
    covariance: FloatArray
    """(6, 6) of (a, b, c, d, e, f); zero rows and columns for parameters that the model holds fixed."""

    def apply(self, xy_m: FloatArray) -> FloatArray:
        """Correct positions (N, 2) of the secondary, metres."""
        a, b, c, d, e, f = self.affine
        matrix = np.array([[a, b], [d, e]])
        moved: FloatArray = np.asarray(xy_m, np.float64) @ matrix.T + np.array([c, f])
        return moved

    @classmethod
    def identity(cls) -> Self:
        """Make the correction that changes nothing."""
        return cls(model=Model.IDENTITY, affine=IDENTITY_AFFINE, covariance=np.zeros((6, 6)))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of a pair, and the reasons if it is unreliable."""

    code: VerdictCode
    """`corrected`, `already_aligned` or `unreliable`."""
    reasons: tuple[Reason, ...] = ()
    """Why it is unreliable; empty otherwise."""

    def __post_init__(self) -> None:
        if (self.code is VerdictCode.UNRELIABLE) != bool(self.reasons):
            raise ValueError(f"{self.code} with reasons {self.reasons}: 'unreliable' and only it has reasons")

    def __str__(self) -> str:
        return f"{self.code} ({', '.join(self.reasons)})" if self.reasons else str(self.code)


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """Correction, verdict and errors, estimated from the tie points of one pair."""

    verdict: Verdict
    """Whether the correction is applied; if not, why."""
    correction: AffineCorrection
    """What to apply: the identity unless the verdict is `corrected`."""
    fitted: AffineCorrection
    """The model with the most parameters that the points determine, applied or not; for diagnosis, and to
    compare runs that chose different models."""
    used: BoolArray
    """(N,) True for tie points that the fit kept."""
    residual_m: FloatArray
    """(N, 2) residual of each offset after `correction`, metres."""
    error_before: Error
    """Error of the uncorrected secondary at the used points."""
    error_after: Error
    """Error of the corrected secondary at the used points, cross-validated."""
    median_offset_m: tuple[float, float] = field(default=(float("nan"), float("nan")))
    """Median offset (x, y) of the used points, metres."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made a result, so that it can be reproduced."""

    versions: tuple[tuple[str, str], ...]
    """(package, version), crosstie first."""
    weights_sha256: str
    settings_hash: str
    created_utc: datetime
    seconds: float
    """Wall time from reading the headers to the verdict."""


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """All that is known about a pair after the verdict, before products are written."""

    pair_key: str
    run_key: str
    reference_id: str
    reference_hrefs: tuple[str, ...]
    secondary_id: str
    secondary_hrefs: tuple[str, ...]
    grid: GeoBox | None
    """The common grid; None if the images do not overlap."""
    planned: int
    """Number of tiles worth matching."""
    points: TiePoints
    """Tie points of all matched tiles."""
    estimate: Estimate
    provenance: Provenance
