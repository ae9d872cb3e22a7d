"""The limits of a displacement field, with their units and reasons."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from crosstie.errors import SettingsError


@dataclass(frozen=True, slots=True)
class FieldSettings:
    """Which tie points count, when a field is offered, how far it reaches."""

    min_confidence: float = 0.3
    """Smallest confidence of a tie point that is used, 0..1."""
    min_points: int = 60
    """Smallest number of tie points for a field: fewer cannot tell relief from noise."""
    min_standard_errors: float = 2.0
    """Smallest gain over the affine, in standard errors of the gain."""
    min_gain: float = 0.1
    """Smallest gain over the affine, as a share of the affine's RMS error at held-out tiles, 0..1."""
    truncate_sigmas: float = 5.0
    """Limit of a residual, in robust standard deviations; longer ones count as this long."""
    reach_tiles: float = 3.0
    """Distance from the nearest used tie point at which the field has faded to the affine, tiles."""
    smooth_tiles: float = 1.5
    """Width (standard deviation) of the window in which field and affine are compared, tiles."""
    choose_points: int = 1000
    """Number of held-out tiles that choose the smoothness; more do not change the choice."""
    seed: int = 0
    """Seed of the draw of these tiles; the same seed gives the same result."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if not math.isfinite(value) or value < 0:
                raise SettingsError(f"field.{f.name} must be a finite number >= 0, got {value}")
        for name in ("min_confidence", "min_gain"):
            if getattr(self, name) > 1:
                raise SettingsError(f"field.{name} is a share and must be <= 1, got {getattr(self, name)}")
        for name, low in {
            "min_points": 12,
            "choose_points": 100,
            "reach_tiles": 1,
            "smooth_tiles": 0.5,
        }.items():
            if getattr(self, name) < low:
                raise SettingsError(f"field.{name} must be at least {low}, got {getattr(self, name)}")
        if self.truncate_sigmas == 0:
            raise SettingsError("field.truncate_sigmas must be positive, got 0")
