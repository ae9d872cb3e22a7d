"""The plan of a run: the pairs, and the scenes left out with the reason; as a value and as tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from crosstie.io.scenes.table import LeftOut

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

    from crosstie.types import ScenePair

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class PairPlan:
    """The pairs to register, and the scenes left out with the reason."""

    pairs: tuple[ScenePair, ...] = ()
    """Sorted by key."""
    overlap: tuple[float, ...] = ()
    """Common area of each pair as a share of the smaller footprint, 0..1."""
    left_out: tuple[LeftOut, ...] = ()
    """Every scene that is in no pair, sorted by scene."""

    def first(self, limit: int | None) -> PairPlan:
        """Keep at most `limit` pairs; None keeps all."""
        return self if limit is None else PairPlan(self.pairs[:limit], self.overlap[:limit], self.left_out)

    def by_rule(self) -> list[tuple[str, int]]:
        """Rules, and how many scenes each left out, the most frequent first."""
        return sorted(
            Counter(out.rule for out in self.left_out).items(), key=lambda item: (-item[1], item[0])
        )


def gap_days(pair: ScenePair) -> float:
    """Date of the secondary minus date of the reference, days."""
    return (pair.secondary.acquired_utc - pair.reference.acquired_utc) / DAY


def plan_frame(plan: PairPlan) -> gpd.GeoDataFrame:
    """Make a table of the pairs.

    Returns
    -------
    GeoDataFrame
        pair_key, reference, secondary, gap_days (date of the secondary minus date of the reference),
        overlap_pct (of the smaller footprint), mgrs_tile, and geometry (common area, EPSG:4326).
    """
    import geopandas as gpd  # slow to import, and only files need it
    import pandas as pd
    import shapely

    def outlines(role: str) -> np.ndarray:
        return np.asarray(shapely.from_wkt([getattr(pair, role).footprint_wkt for pair in plan.pairs]))

    def text(values: list[str | None]) -> pd.Series:
        return pd.Series(values, dtype=object)

    tiles = [pair.reference.mgrs_tile or pair.secondary.mgrs_tile for pair in plan.pairs]
    return gpd.GeoDataFrame(
        {
            "pair_key": text([pair.key for pair in plan.pairs]),
            "reference": text([pair.reference.id for pair in plan.pairs]),
            "secondary": text([pair.secondary.id for pair in plan.pairs]),
            "gap_days": np.array([gap_days(pair) for pair in plan.pairs], np.float64),
            "overlap_pct": 100 * np.array(plan.overlap, np.float64),
            "mgrs_tile": text(tiles),
        },
        geometry=shapely.intersection(outlines("reference"), outlines("secondary")),
        crs="EPSG:4326",
    )


def left_out_frame(plan: PairPlan) -> pd.DataFrame:
    """Make a table of the scenes left out: scene, rule, why."""
    import pandas as pd

    return pd.DataFrame(
        {name: [getattr(out, name) for out in plan.left_out] for name in ("scene", "rule", "why")},
        dtype=object,
    )
