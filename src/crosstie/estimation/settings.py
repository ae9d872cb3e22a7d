"""The limits of estimation. Every one can be set; none is hidden in the code."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from crosstie.errors import SettingsError


@dataclass(frozen=True, slots=True)
class EstimationSettings:
    """When a tie point counts, when a model is worth it, when a correction is refused."""

    min_confidence: float = 0.3
    """Tie points below are no candidates, 0..1."""
    min_tie_points: int = 8
    """Fewer candidates, or fewer that agree, give no correction."""
    min_used_share_of_planned: float = 0.02
    """Used points per planned tile: a corner that matched cannot speak for a whole scene."""
    search_radius_px: float = 32.0
    """How far the matcher searches: a wrong offset lies anywhere within +- this, px."""
    min_consensus_share: float = 0.5
    """Share of the candidates, weighted by confidence, that must agree: no second group can be as large."""
    max_false_alarms: float = 1e-4
    """Expected number of agreements as good as this one among offsets drawn at random."""
    ransac_trials: int = 500
    """Hypotheses from three points; as many again at most come from single points."""
    seed: int = 0
    """Of the random draws, so that a run can be repeated."""
    start_threshold_px: float = 4.0
    """Farthest residual that supports a hypothesis, px; wide, for relief is no error."""
    min_threshold_px: float = 1.0
    """The final threshold is no smaller, px."""
    max_threshold_px: float = 8.0
    """The final threshold is no larger, px, nor than a quarter of the search radius. Wide is cheap:
    of random offsets 5 % fall within that quarter, while a tight one fits plains and forgets mountains."""
    threshold_sigmas: float = 5.0
    """Final threshold in robust standard deviations (per axis) of the residuals."""
    cauchy_sigmas: float = 4.0
    """Scale of the Cauchy loss in the same unit: near least squares for relief, deaf to what leaked in."""
    folds: int = 10
    """Folds of the cross-validation."""
    min_gain_over_identity: float = 0.05
    """A correction that lowers the cross-validated RMSE by a smaller share does not matter."""
    min_gain_of_affine: float = 0.02
    """Share of the translation's cross-validated RMSE that the affine must save."""
    min_gain_px: float = 0.01
    """No rung is climbed for less, px: without it, rounding errors would choose the model of clean data."""
    min_significance: float = 2.5
    """RMS length of the correction over the used points in units of its own standard error."""
    min_affine_points: int = 12
    """Fewer used points give a translation."""
    max_standard_error_px: float = 1.5
    """Standard error of the correction (worst axis) at the worst used point, px."""
    max_rotation_deg: float = 1.0
    """A larger rotation is refused, degrees."""
    max_scale: float = 0.01
    """Largest change of length in any direction, and largest shear, as a share."""
    max_rmse_px: float = 5.0
    """Cross-validated RMSE of a correction; relief of 2.8 px per axis gives 4 px."""
    max_aligned_rmse_px: float = 2.0
    """RMSE up to which an uncorrected secondary passes as already aligned, px."""
    min_terrain_coherence: float = 0.3
    """Correlation of residuals of tiles beside one another, without a common pixel, that shows terrain."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if not math.isfinite(value) or value < 0:
                raise SettingsError(f"estimation.{f.name} must be a finite number >= 0, got {value}")
        for name in ("min_confidence", "min_used_share_of_planned", "min_consensus_share"):
            if getattr(self, name) > 1:
                share = getattr(self, name)
                raise SettingsError(f"estimation.{name} is a share and must be <= 1, got {share}")
        least = {"min_tie_points": 3, "min_affine_points": 4, "ransac_trials": 1, "folds": 2}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise SettingsError(f"estimation.{name} must be at least {low}, got {getattr(self, name)}")
        if not 0 < self.min_threshold_px <= self.start_threshold_px <= self.max_threshold_px:
            raise SettingsError(
                "estimation: needs 0 < min_threshold_px <= start_threshold_px <= max_threshold_px, got "
                f"{self.min_threshold_px}, {self.start_threshold_px}, {self.max_threshold_px}"
            )
        if self.search_radius_px == 0:
            raise SettingsError("estimation.search_radius_px must be positive, got 0")

    @property
    def widest_px(self) -> float:
        """Largest threshold that still tells agreement from chance, px."""
        return min(self.max_threshold_px, self.search_radius_px / 4)
