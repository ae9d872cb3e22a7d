"""What estimation makes of the tie points of a pair."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from crosstie.codes import Model, Reason, VerdictCode

if TYPE_CHECKING:
    from crosstie.types import BoolArray, FloatArray


@dataclass(frozen=True, slots=True)
class Error:
    """Size of the residuals of the tie points that a fit kept."""

    rmse_m: float
    """Root mean square of their lengths, metres; NaN without points."""
    ce90_m: float
    """Circular error, 90 %: nine in ten are no longer than this, metres."""


UNKNOWN_ERROR = Error(float("nan"), float("nan"))

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
