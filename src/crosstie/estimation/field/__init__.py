"""The displacement field of a pair: relief, which no affine follows, as far as its tie points show it."""

from __future__ import annotations

from crosstie.estimation.field.fit import fit_field
from crosstie.estimation.field.settings import FieldSettings

__all__ = ["FieldSettings", "fit_field"]
