"""The network of an archive as values: pairs of scenes as edges, and what an adjustment makes of them.

A scene's **position** is where it shows the ground minus where the datum says that the ground lies; the
correction to apply is its negative. A pair measures position of the secondary minus that of the reference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from crosstie.errors import SettingsError
from crosstie.types import AffineCorrection, Model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crosstie.types import BoolArray, FloatArray, IntArray, StrArray

TRANSLATION, AFFINE = 2, 6
"""Numbers per scene: (x, y), or (x, y, and the growth of x and y with u and with v)."""


@dataclass(frozen=True, slots=True, eq=False)
class AffineFrame:
    """Coordinates in which an affine is split into shift and linear part: u = (position - centre) / scale."""

    centre_m: tuple[float, float]
    """Middle of the place in its map coordinates, metres."""
    scale_m: float
    """About half the width of the place, metres: the linear part is the change of the shift over it."""

    def jacobian(self) -> FloatArray:
        """(6, 6) of (a, b, c, d, e, f) by (x, y, x per u, x per v, y per u, y per v)."""
        (cx, cy), s = self.centre_m, self.scale_m
        jacobian = np.zeros((6, 6))
        jacobian[0, 2] = jacobian[1, 3] = jacobian[3, 4] = jacobian[4, 5] = 1 / s
        jacobian[2] = (1, 0, -cx / s, -cy / s, 0, 0)
        jacobian[5] = (0, 1, 0, 0, -cx / s, -cy / s)
        return jacobian


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """Measured pairs, as columns of equal length E."""

    reference: StrArray
    """(E,) id of the reference scene."""
    secondary: StrArray
    """(E,) id of the secondary scene."""
    offset_m: FloatArray
    """(E, k) position in the secondary minus position in the reference, metres. k = 2: (x, y); k = 6: also
    x per u, x per v, y per u, y per v, with u and v of `AffineFrame`."""
    information: FloatArray
    """(E, k, k) inverse of the covariance, 1 / m^2; zero for what a pair does not measure."""

    def __post_init__(self) -> None:
        e, k = self.offset_m.shape
        shapes = {"reference": (e,), "secondary": (e,), "information": (e, k, k)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {getattr(self, name).shape}")
        if k not in (TRANSLATION, AFFINE):
            raise ValueError(f"offset_m must have 2 or 6 columns, got {k}")
        if not (np.isfinite(self.offset_m).all() and np.isfinite(self.information).all()):
            raise ValueError("offset_m and information must be finite; leave out what was not measured")
        if (self.reference == self.secondary).any():
            name = self.reference[self.reference == self.secondary][0]
            raise ValueError(f"{name} is paired with itself; leave that edge out")
        if e and np.linalg.eigvalsh(self.information[:, :2, :2]).min() <= 0:
            raise ValueError("information must be positive definite in x and y: a sigma must be above 0")

    def __len__(self) -> int:
        return len(self.offset_m)

    @property
    def size(self) -> int:
        """Numbers per scene, 2 or 6."""
        return int(self.offset_m.shape[1])

    def keep(self, mask: BoolArray) -> Self:
        """Only the edges where `mask` (E,) is True."""
        return replace(
            self,
            reference=self.reference[mask],
            secondary=self.secondary[mask],
            offset_m=self.offset_m[mask],
            information=self.information[mask],
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """All edges of `parts`, in their order; all of one size."""
        return cls(
            reference=np.concatenate([p.reference for p in parts]),
            secondary=np.concatenate([p.secondary for p in parts]),
            offset_m=np.concatenate([p.offset_m for p in parts]),
            information=np.concatenate([p.information for p in parts]),
        )

    @classmethod
    def of_shifts(
        cls,
        reference: Sequence[str] | StrArray,
        secondary: Sequence[str] | StrArray,
        offset_m: FloatArray,
        *,
        covariance: FloatArray,
    ) -> Self:
        """Edges of translations.

        Parameters
        ----------
        reference, secondary : Sequence[str] or StrArray
            (E,) scene ids.
        offset_m : FloatArray
            (E, 2) offsets, metres.
        covariance : FloatArray
            (E, 2, 2) covariances, m^2, or (E,) standard deviations per axis, metres.
        """
        covariance = np.asarray(covariance, np.float64)
        if covariance.ndim == 1:
            if not (covariance > 0).all():
                raise ValueError("a sigma must be above 0")
            information = np.eye(2) / covariance[:, None, None] ** 2
        else:
            information = np.asarray(np.linalg.inv(covariance), np.float64)
        return cls(_names(reference), _names(secondary), np.asarray(offset_m, np.float64), information)

    @classmethod
    def of_corrections(
        cls,
        reference: Sequence[str] | StrArray,
        secondary: Sequence[str] | StrArray,
        corrections: Sequence[AffineCorrection],
        frame: AffineFrame,
    ) -> Self:
        """Edges of the corrections of pairs; a translation does not measure the linear part.

        Corrections are added where they should be applied one after the other. What that costs is the
        linear part of one times the shift of the other: below 0.01 px at a stretch of 0.001 and 5 px.
        """
        jacobian = frame.jacobian()
        back = np.linalg.inv(jacobian)
        unit = np.array([1.0, 0, 0, 0, 1.0, 0])
        offset, information = (
            np.zeros((len(corrections), AFFINE)),
            np.zeros((len(corrections), AFFINE, AFFINE)),
        )
        for n, correction in enumerate(corrections):
            offset[n] = -back @ (np.array(correction.affine) - unit)
            covariance = back @ correction.covariance @ back.T
            known = slice(None) if correction.model is Model.AFFINE else slice(TRANSLATION)
            information[n, known, known] = np.linalg.inv(covariance[known, known])
        return cls(_names(reference), _names(secondary), offset, information)


def _names(ids: Sequence[str] | StrArray) -> StrArray:
    return np.asarray(ids, dtype=np.str_)


@dataclass(frozen=True, slots=True)
class Datum:
    """Definition of position 0: `scene`, or `fixed`, or, if both are empty, the mean of the references."""

    references: tuple[str, ...] = ()
    """Scenes of the reference sensor, whose mean position is 0. Empty: all scenes that were a reference."""
    scene: str | None = None
    """The one scene whose position is 0."""
    fixed: tuple[tuple[str, tuple[float, ...]], ...] = ()
    """(scene, its position in metres): held fixed, without uncertainty."""

    def __post_init__(self) -> None:
        if self.scene is not None and self.fixed:
            raise ValueError("a datum is one scene or given scenes held fixed, not both")


@dataclass(frozen=True, slots=True)
class AdjustmentSettings:
    """When an edge is rejected."""

    false_alarm: float = 1e-3
    """Share of the correct edges that are rejected (Baarda's alpha)."""
    power: float = 0.8
    """Probability of detecting the smallest detectable error of an edge."""
    min_degrees_of_freedom: float = 10.0
    """With fewer, the scatter does not change the sigmas that were given."""
    huber_sigmas: float = 1.5
    """Huber limit of the robust start, in standard deviations per axis."""
    linear_prior_m: float = 10.0
    """Prior sigma of the movement by the linear part of a scene at `AffineFrame.scale_m` from the centre,
    metres. Scenes that only translations reach stay solvable. Only for affines."""
    max_rounds: int = 50
    """Maximum number of rounds of testing and rejecting."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if not math.isfinite(value) or value <= 0:
                raise SettingsError(f"adjustment.{f.name} must be a finite number above 0, got {value}")
        for name in ("false_alarm", "power"):
            if getattr(self, name) >= 1:
                raise SettingsError(f"adjustment.{name} must be below 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, eq=False)
class AdjustedScenes:
    """One position per scene, as columns of equal length N, ordered by id."""

    id: StrArray
    """(N,)"""
    position_m: FloatArray
    """(N, k) metres in the datum of its part; NaN where no reliable edge connects the scene to another."""
    covariance: FloatArray
    """(N, k, k) m^2, scaled by the observed scatter; NaN as above, 0 where held fixed."""
    part: IntArray
    """(N,) index into `Adjustment.parts`."""
    edges: IntArray
    """(N,) edges kept."""

    def __len__(self) -> int:
        return len(self.id)

    @property
    def correction_m(self) -> FloatArray:
        """(N, 2) correction to add to the scene's coordinates, metres; at the frame's centre for affines."""
        correction: FloatArray = -self.position_m[:, :2]
        return correction

    @property
    def sigma_m(self) -> FloatArray:
        """(N, 2) standard deviation per axis, metres."""
        variance = np.diagonal(self.covariance, axis1=1, axis2=2)[:, :2]
        sigma: FloatArray = np.sqrt(np.maximum(variance, 0))  # 0 of the one scene that is the datum, rounded
        return sigma

    def index(self, scene: str) -> int:
        """Row of a scene.

        Raises
        ------
        KeyError
            It is in no edge.
        """
        row = int(np.searchsorted(self.id, scene))
        if row == len(self.id) or self.id[row] != scene:
            raise KeyError(f"{scene} is in none of the {len(self.id)} scenes of the network")
        return row

    def correction(self, scene: str, frame: AffineFrame | None = None) -> AffineCorrection:
        """Express the correction of a scene as an affine; `frame` is needed where the edges were affines."""
        row = self.index(scene)
        k = self.position_m.shape[1]
        if k == AFFINE:
            if frame is None:
                raise ValueError("edges were affines: give the frame they were taken apart in")
            jacobian, model = frame.jacobian(), Model.AFFINE
        else:
            jacobian, model = np.zeros((6, TRANSLATION)), Model.TRANSLATION
            jacobian[2, 0] = jacobian[5, 1] = 1
        a, b, c, d, e, f = np.array([1.0, 0, 0, 0, 1.0, 0]) - jacobian @ self.position_m[row]
        return AffineCorrection(
            model=model,
            affine=(float(a), float(b), float(c), float(d), float(e), float(f)),
            covariance=jacobian @ self.covariance[row] @ jacobian.T,
        )


@dataclass(frozen=True, slots=True, eq=False)
class AdjustedEdges:
    """Result of each edge, in the order in which they were given; columns of equal length E."""

    residual_m: FloatArray
    """(E, k) measured minus adjusted, metres; NaN where the two scenes are in different parts."""
    kept: BoolArray
    """(E,) False where the edge is rejected."""
    redundancy: FloatArray
    """(E,) share of an error of this edge that appears in its own residual, 0 (no control) .. 1."""
    statistic: FloatArray
    """(E,) test statistic of an error in this edge; chi-square with k degrees of freedom if there is none."""
    detectable_m: FloatArray
    """(E,) smallest error that the test detects with the given power, metres; inf without control."""


@dataclass(frozen=True, slots=True)
class GlobalTest:
    """Whether the scatter of the kept edges agrees with their covariances."""

    chi_square: float
    degrees_of_freedom: float
    probability: float
    """Two-sided probability of a scatter at least as far off, if the covariances are correct."""
    sigma_factor: float
    """Factor by which the given sigmas must be multiplied to be correct; the result is scaled by it."""

    @property
    def sentence(self) -> str:
        if self.degrees_of_freedom < 1:
            return "No edge controls another: nothing can be tested."
        held = "as large as" if self.probability >= 0.01 else "not what"
        says = "the sigmas say" if self.probability < 0.01 else "the sigmas say it should be"
        return (
            f"The scatter of the edges is {held} {says}: sigmas times {self.sigma_factor:.2f} hold "
            f"(chi-square {self.chi_square:.0f} with {self.degrees_of_freedom:.0f} degrees of freedom)."
        )


@dataclass(frozen=True, slots=True)
class NetworkPart:
    """Scenes that are connected by kept edges."""

    scenes: int
    edges: int
    """Kept."""
    datum: str
    """Sentence that says which scenes define position 0."""
    tied: bool
    """Whether its datum is the requested one; False where the part has a datum of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Adjustment:
    """A solved network; `extend` adds edges to it."""

    edges: Edges
    datum: Datum
    settings: AdjustmentSettings
    scenes: AdjustedScenes
    adjusted: AdjustedEdges
    test: GlobalTest
    parts: tuple[NetworkPart, ...]

    @property
    def rejected(self) -> list[tuple[str, str]]:
        """(reference, secondary) of each rejected edge."""
        out = ~self.adjusted.kept
        return [
            (str(r), str(s))
            for r, s in zip(self.edges.reference[out], self.edges.secondary[out], strict=True)
        ]


ADJUSTMENT_DEFAULTS = AdjustmentSettings()
MEAN_OF_REFERENCES = Datum()
