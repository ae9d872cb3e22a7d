"""Scenes in, pairs out: which secondary belongs to which reference. Pure; reads nothing.

Time goes first, boxes second, exact outlines last, and scenes in order of time a batch at once, so that a
whole archive never stands against itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from crosstie.types import Kind, ScenePair, SceneRef

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.types import BoolArray, FloatArray

    IntArray = NDArray[np.int64]

EQUAL_AREA = "EPSG:6933"
"""Cylindrical equal-area projection of the world: one for all scenes, and true to area."""

BATCH = 512
"""References compared at once; bounds the memory, changes no result."""

OVERLAP_STEP = 0.05
"""Overlaps that differ by less are taken for equal, and the time gap decides."""

MICROSECOND, DAY = timedelta(microseconds=1), timedelta(days=1)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class PairingRules:
    """Which pairs are worth registering."""

    max_days: float = 60.0
    """Longest time between the two acquisitions, days."""
    min_overlap: float = 0.1
    """Smallest common area, as a share of the smaller footprint, 0..1."""
    best_n: int = 1
    """Most secondaries for one reference."""
    secondary: Kind = Kind.SAR
    """Kind that is corrected; the other kind is the reference."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_days < np.inf:
            raise ValueError(f"max_days must be a finite number and not negative, got {self.max_days}")
        if not 0 < self.min_overlap <= 1:
            raise ValueError(f"min_overlap must lie in 0..1 and above 0, got {self.min_overlap}")
        if self.best_n < 1:
            raise ValueError(f"best_n must be at least 1, got {self.best_n}")


@dataclass(frozen=True, slots=True)
class PairPlan:
    """What would be done, and what would not and why."""

    pairs: tuple[ScenePair, ...]
    """Sorted by key."""
    left_out: tuple[tuple[str, str], ...]
    """(scene id, reason in words), sorted; every scene that is in no pair."""


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """Scenes of one kind as columns, oldest first."""

    scenes: list[SceneRef]
    moment_us: IntArray
    """(N,) acquisition, whole microseconds since 1970, so that gaps are exact; ascending."""
    outlines: NDArray[np.object_]
    """(N,) footprints in `EQUAL_AREA`."""
    area: FloatArray
    """(N,) of the footprints, square metres."""
    outline_id: IntArray
    """(N,) equal for equal footprints, so that an overlap is computed once for all dates of a place."""

    def __len__(self) -> int:
        return len(self.scenes)


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """Combinations of two sides, as columns."""

    a: IntArray
    b: IntArray
    gap_days: FloatArray

    def take(self, which: BoolArray | IntArray) -> _Candidates:
        return _Candidates(self.a[which], self.b[which], self.gap_days[which])


def pair_scenes(scenes: Sequence[SceneRef], rules: PairingRules | None = None) -> PairPlan:
    """Choose the secondaries of every reference.

    Of the secondaries close enough in time and place, a reference gets those of the largest overlap (in steps
    of 5 %), among these the closest in time, among these the first by id. A secondary may serve several
    references.
    """
    rules = rules or PairingRules()
    left_out: list[tuple[str, str]] = []
    kept = _usable(scenes, left_out)
    secondaries = _side([s for s in kept if s.kind is rules.secondary])
    references = _side([s for s in kept if s.kind is not rules.secondary])

    found, share = _admissible(references, secondaries, rules)
    chosen = _best(secondaries, found, share, rules.best_n)
    pairs = [
        ScenePair(references.scenes[a], secondaries.scenes[b])
        for a, b in zip(found.a[chosen], found.b[chosen], strict=True)
    ]

    lone = np.setdiff1d(np.arange(len(references)), found.a)
    left_out += _why_alone(references, secondaries, lone, rules, partner=rules.secondary)
    lone = np.setdiff1d(np.arange(len(secondaries)), found.b)
    left_out += _why_alone(secondaries, references, lone, rules, partner=rules.secondary.other)
    fits = np.bincount(found.b, minlength=len(secondaries))
    for b in np.setdiff1d(found.b, found.b[chosen]):
        better = "1 reference it fits has a better partner"
        if fits[b] > 1:
            better = f"{fits[b]} references it fits have better partners"
        left_out.append((secondaries.scenes[b].id, f"{better} (best_n is {rules.best_n})"))
    return PairPlan(tuple(sorted(pairs, key=lambda pair: pair.key)), tuple(sorted(left_out)))


def plan_frame(plan: PairPlan) -> gpd.GeoDataFrame:
    """Table of the pairs: pair_key, reference, secondary, gap_days, overlap_pct, geometry.

    `gap_days` is the secondary's date minus the reference's; `overlap_pct` refers to the smaller footprint;
    `geometry` is the common ground, EPSG:4326.
    """
    outlines = [_lonlat([getattr(pair, role) for pair in plan.pairs]) for role in ("reference", "secondary")]
    flat = [outline.to_crs(EQUAL_AREA) for outline in outlines]
    common = flat[0].intersection(flat[1], align=False)
    smaller = np.minimum(flat[0].area, flat[1].area)
    gaps = [pair.secondary.acquired_utc - pair.reference.acquired_utc for pair in plan.pairs]
    return gpd.GeoDataFrame(
        {
            "pair_key": pd.Series([pair.key for pair in plan.pairs], dtype=object),
            "reference": pd.Series([pair.reference.id for pair in plan.pairs], dtype=object),
            "secondary": pd.Series([pair.secondary.id for pair in plan.pairs], dtype=object),
            "gap_days": np.array([gap / DAY for gap in gaps], np.float64),
            "overlap_pct": np.asarray(100 * common.area / smaller, np.float64),
        },
        geometry=outlines[0].intersection(outlines[1], align=False).to_numpy(),
        crs="EPSG:4326",
    )


def _usable(scenes: Sequence[SceneRef], left_out: list[tuple[str, str]]) -> list[SceneRef]:
    kept: dict[str, SceneRef] = {}
    outlines = shapely.make_valid(
        shapely.from_wkt([scene.footprint_wkt for scene in scenes], on_invalid="ignore")
    )
    for scene, outline in zip(scenes, outlines, strict=True):
        if outline is None or outline.area == 0:
            left_out.append((scene.id, "its footprint is no area: mend its geometry in the catalogue"))
        elif scene.id in kept:
            left_out.append((scene.id, "its id is listed more than once: the first is taken"))
        else:
            kept[scene.id] = scene
    return list(kept.values())


def _lonlat(scenes: Sequence[SceneRef]) -> gpd.GeoSeries:
    outlines = shapely.make_valid(shapely.from_wkt([scene.footprint_wkt for scene in scenes]))
    return gpd.GeoSeries(outlines, crs="EPSG:4326")


def _side(scenes: list[SceneRef]) -> _Side:
    scenes = sorted(scenes, key=lambda scene: (scene.acquired_utc, scene.id))
    distinct, outline_id = np.unique([scene.footprint_wkt for scene in scenes], return_inverse=True)
    # densified first: a long straight edge in degrees is not straight in metres
    lonlat = gpd.GeoSeries(shapely.make_valid(shapely.from_wkt(distinct)), crs="EPSG:4326")
    flat = lonlat.segmentize(0.5).to_crs(EQUAL_AREA).to_numpy()
    outlines = flat[outline_id]
    return _Side(
        scenes=scenes,
        moment_us=np.array([(scene.acquired_utc - EPOCH) // MICROSECOND for scene in scenes], np.int64),
        outlines=outlines,
        area=shapely.area(outlines),
        outline_id=outline_id.astype(np.int64),
    )


def _admissible(a: _Side, b: _Side, rules: PairingRules) -> tuple[_Candidates, FloatArray]:
    """All combinations that the rules allow, and their overlap shares."""
    found, shares = [], []
    for first in range(0, len(a), BATCH):
        rows = np.arange(first, min(first + BATCH, len(a)))
        # one microsecond wider than needed: the exact test follows
        reach_us = int(rules.max_days * (DAY / MICROSECOND)) + 1
        low = np.searchsorted(b.moment_us, a.moment_us[rows[0]] - reach_us, side="left")
        high = np.searchsorted(b.moment_us, a.moment_us[rows[-1]] + reach_us, side="right")
        near = _boxes_meet(a, b, rows, np.arange(low, high))
        near = near.take(near.gap_days <= rules.max_days)
        share = _overlap(a, b, near)
        enough = share >= rules.min_overlap
        found.append(near.take(enough))
        shares.append(share[enough])
    return _joined(found), np.concatenate([np.zeros(0), *shares])


def _boxes_meet(a: _Side, b: _Side, rows: IntArray, cols: IntArray) -> _Candidates:
    """Combinations whose bounding boxes meet, found by a spatial index."""
    i, j = gpd.GeoSeries(b.outlines[cols], crs=EQUAL_AREA).sindex.query(a.outlines[rows])
    i, j = rows[i], cols[j]
    return _Candidates(i, j, np.abs(a.moment_us[i] - b.moment_us[j]) / (DAY / MICROSECOND))


def _joined(parts: list[_Candidates]) -> _Candidates:
    return _Candidates(
        np.concatenate([np.zeros(0, np.int64), *(part.a for part in parts)]),
        np.concatenate([np.zeros(0, np.int64), *(part.b for part in parts)]),
        np.concatenate([np.zeros(0), *(part.gap_days for part in parts)]),
    )


def _overlap(a: _Side, b: _Side, which: _Candidates) -> FloatArray:
    """Common area of each combination as a share of the smaller footprint, 0..1."""
    ids = a.outline_id[which.a] * (len(b) + 1) + b.outline_id[which.b]
    _, first, back = np.unique(ids, return_index=True, return_inverse=True)
    i, j = which.a[first], which.b[first]
    common = shapely.area(shapely.intersection(a.outlines[i], b.outlines[j]))
    share: FloatArray = (common / np.minimum(a.area[i], b.area[j]))[back]
    return share


def _best(b: _Side, found: _Candidates, share: FloatArray, best_n: int) -> IntArray:
    """Positions in `found` of the `best_n` of each reference."""
    by_id = np.empty(len(b), np.int64)
    by_id[sorted(range(len(b)), key=lambda index: b.scenes[index].id)] = np.arange(len(b))
    step = np.round(share / OVERLAP_STEP)
    order = np.lexsort((by_id[found.b], found.gap_days, -step, found.a))
    owner = found.a[order]
    rank = np.arange(len(order)) - np.searchsorted(owner, owner)
    chosen: IntArray = order[rank < best_n]
    return chosen


def _why_alone(
    a: _Side, b: _Side, lone: IntArray, rules: PairingRules, *, partner: Kind
) -> list[tuple[str, str]]:
    """Say for each scene of `lone` (rows of `a`) which rule left it without any partner in `b`."""
    kind = "SAR" if partner is Kind.SAR else "optical"
    if not len(b):
        return [(a.scenes[row].id, f"the catalogue gave no {kind} scene at all") for row in lone]
    reasons = []
    for first in range(0, len(lone), BATCH):
        rows = lone[first : first + BATCH]
        gap, share = _nearest(a, b, rows, rules.min_overlap)
        for row, gap_days, largest in zip(rows, gap, share, strict=True):
            if np.isfinite(gap_days):
                why = f"nearest {kind} scene is {gap_days:.2f} days away (max_days is {rules.max_days:g})"
            elif largest > 0:
                why = f"largest overlap is {largest:.1%} (min_overlap is {rules.min_overlap:.0%})"
            else:
                why = f"no {kind} scene overlaps it"
            reasons.append((a.scenes[row].id, why))
    return reasons


def _nearest(a: _Side, b: _Side, rows: IntArray, min_overlap: float) -> tuple[FloatArray, FloatArray]:
    """Smallest gap (days, inf: none) to a scene that overlaps enough, and largest overlap, for each row.

    Exact areas are dear, so each row tries its nearest candidates first, twice as many in each round.
    """
    gap, share = np.full(len(a), np.inf), np.zeros(len(a))
    left = _boxes_meet(a, b, rows, np.arange(len(b)))
    left = left.take(np.lexsort((left.gap_days, left.a)))
    tries = 1
    while len(left.a):
        rank = np.arange(len(left.a)) - np.searchsorted(left.a, left.a)
        now = left.take(rank < tries)
        overlap = _overlap(a, b, now)
        np.maximum.at(share, now.a, overlap)
        enough = overlap >= min_overlap
        np.minimum.at(gap, now.a[enough], now.gap_days[enough])
        left = left.take((rank >= tries) & np.isinf(gap[left.a]))
        tries *= 2
    return gap[rows], share[rows]
