"""Tie points of one pair in, correction, covariance and verdict out. Pure: arrays and numbers only.

settings   the limits, with their units and why they stand where they stand
fit        the frame (centred, scaled coordinates), the robust fit, its covariance
select     which tie points agree with one another, and could that be chance?
ladder     identity < translation < affine, by cross-validation over spatial blocks
verdict    the whole walk, and what becomes of the pair
field      a displacement field where relief is more than an affine can follow
one_thread linear algebra of a pair, which threads would only slow down

Of many pairs together:

adjustment     an archive as one network: one position a scene, wrong pairs by name
systematic     what scenes have in common: constant, height, platform, track, processor, drift, season
static_field   the field that all dates of a track share, and hidden dates carried by it
change_points  what moved, under a set rate of false alarms
"""

from __future__ import annotations

from crosstie.estimation.settings import EstimationSettings
from crosstie.estimation.verdict import estimate

__all__ = ["EstimationSettings", "estimate"]
