"""The limits of a displacement field, with their units and why they stand where they stand."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from crosstie.errors import SettingsError


@dataclass(frozen=True, slots=True)
class FieldSettings:
    """When a tie point counts, when a field is worth it, how far it reaches."""

    min_confidence: float = 0.3
    """Tie points below have no say, 0..1."""
    min_points: int = 60
    """Fewer cannot tell relief from noise: an affine takes what they give."""
    min_standard_errors: float = 2.0
    """How far the gain over the affine must stand above its own standard error."""
    min_gain: float = 0.1
    """Share of the affine's error (RMS, at held-out tiles) that the field must save."""
    truncate_sigmas: float = 5.0
    """Longest residual that counts, in robust standard deviations; all longer ones count the same."""
    reach_tiles: float = 3.0
    """Distance from the nearest point that is used at which the field has faded to the affine, tiles."""
    smooth_tiles: float = 1.5
    """Standard deviation of the window in which field and affine are compared, tiles."""
    choose_points: int = 1000
    """Held-out tiles that choose the smoothness; more of them choose the same."""
    seed: int = 0
    """Of the draw of those, so that a run can be repeated."""

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
