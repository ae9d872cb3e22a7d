"""The adjustment of an archive as one network: scenes are nodes, measured pairs are edges.

`adjust` solves one, `extend` adds scenes to one that is solved.
"""

from __future__ import annotations

from crosstie.estimation.adjustment.adjust import adjust, extend
from crosstie.estimation.adjustment.affines import AffineTest, SceneAffines, scene_affines
from crosstie.estimation.adjustment.network import (
    ADJUSTMENT_DEFAULTS,
    MEAN_OF_REFERENCES,
    AdjustedEdges,
    AdjustedScenes,
    Adjustment,
    AdjustmentSettings,
    AffineFrame,
    Datum,
    Edges,
    GlobalTest,
    NetworkPart,
)
from crosstie.estimation.adjustment.noise import adjust_with_seen_noise

__all__ = [
    "ADJUSTMENT_DEFAULTS",
    "MEAN_OF_REFERENCES",
    "AdjustedEdges",
    "AdjustedScenes",
    "Adjustment",
    "AdjustmentSettings",
    "AffineFrame",
    "AffineTest",
    "Datum",
    "Edges",
    "GlobalTest",
    "NetworkPart",
    "SceneAffines",
    "adjust",
    "adjust_with_seen_noise",
    "extend",
    "scene_affines",
]
