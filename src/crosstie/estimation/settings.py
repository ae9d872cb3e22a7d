"""The limits of estimation. All of them can be set."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from crosstie.errors import SettingsError


@dataclass(frozen=True, slots=True)
class EstimationSettings:
    """Which tie points count, when a model is accepted, when a correction is refused."""

    min_confidence: float = 0.3
    """Smallest confidence of a candidate tie point, 0..1."""
    min_tie_points: int = 8
    """Smallest number of candidates, and of candidates that agree, for a correction."""
    min_used_share_of_planned: float = 0.02
    """Smallest number of used tie points, as a share of the planned tiles, 0..1: a corner that matched cannot
    stand for a whole scene."""
    search_radius_px: float = 32.0
    """Search radius of the matcher, px; wrong offsets are assumed to be uniform within it."""
    min_consensus_share: float = 0.5
    """Smallest share of the candidates that must agree, weighted by confidence, 0..1. From 0.5 on no second
    group can be larger."""
    max_false_alarms: float = 1e-4
    """Largest expected number of groups that agree as well by chance, if all offsets were random."""
    ransac_trials: int = 500
    """Number of RANSAC hypotheses from three points, and maximum number from single points."""
    seed: int = 0
    """Seed of the random draws; the same seed gives the same result."""
    start_threshold_px: float = 4.0
    """Largest residual that supports a hypothesis, px. Wide, because relief is not an error of the match."""
    min_threshold_px: float = 1.0
    """Smallest final threshold, px."""
    max_threshold_px: float = 8.0
    """Largest final threshold, px; a quarter of the search radius at most. A wide threshold costs little: 5 %
    of random offsets are within that quarter. A narrow one would discard mountains."""
    threshold_sigmas: float = 5.0
    """Final threshold, in robust standard deviations per axis of the residuals."""
    cauchy_sigmas: float = 4.0
    """Scale of the Cauchy loss, in the same unit: close to least squares for relief, robust against the
    outliers that remain."""
    folds: int = 10
    """Number of folds of the cross-validation."""
    min_gain_over_identity: float = 0.05
    """Smallest gain of a correction, as a share of the RMSE without correction."""
    min_gain_of_affine: float = 0.02
    """Smallest gain of the affine over the translation, as a share of the translation's cross-validated
    RMSE."""
    min_gain_px: float = 0.01
    """Smallest gain of any model over a simpler one, px. Without it rounding errors would choose the model of
    clean data."""
    min_significance: float = 2.5
    """Smallest RMS length of the correction over the used points, in standard errors."""
    min_affine_points: int = 12
    """Smallest number of used points for an affine; fewer give a translation."""
    max_standard_error_px: float = 1.5
    """Largest standard error of the correction at any used point, on the worse axis, px."""
    max_rotation_deg: float = 1.0
    """Largest rotation of a correction, degrees; a larger one is refused."""
    max_scale: float = 0.01
    """Largest change of scale in any direction and largest shear, as a share; larger ones are refused."""
    max_rmse_px: float = 5.0
    """Largest cross-validated RMSE of a correction, px. Relief of 2.8 px per axis gives 4 px."""
    max_aligned_rmse_px: float = 2.0
    """Largest RMSE without correction at which a pair counts as already aligned, px."""
    min_terrain_coherence: float = 0.3
    """Correlation of the residuals of adjacent tiles from which they count as relief, 0..1; the tiles
    share no pixel."""

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
