"""Scenes in, pairs out: which secondary belongs to which reference. Pure; reads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import shapely

from crosstie.io.pairing.choose import Chosen, best_of_tiles, choose, passes_of
from crosstie.io.pairing.left_out import DAY_US, reasons
from crosstie.io.pairing.neighbours import SceneIndex
from crosstie.io.pairing.plan import PairPlan, gap_days, left_out_frame, plan_frame
from crosstie.io.pairing.rules import PairingRules
from crosstie.io.pairing.versions import newest
from crosstie.io.scenes.overlap import Ground
from crosstie.io.scenes.table import LeftOut, Scenes
from crosstie.types import Kind, ScenePair

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.types import SceneRef

    IntArray = NDArray[np.int64]

__all__ = ["LeftOut", "PairPlan", "PairingRules", "gap_days", "left_out_frame", "pair_scenes", "plan_frame"]


def pair_scenes(scenes: Sequence[SceneRef], rules: PairingRules | None = None) -> PairPlan:
    """Choose the secondaries of every reference.

    Of the secondaries close enough in time and place, a reference gets those of the largest overlap (in steps
    of 5 %), among these the closest in time, among these the first by id. A secondary may serve several
    references. Of several versions of one acquisition the newest is taken. Areas are those on the ground,
    over the antimeridian and at the poles too.

    Parameters
    ----------
    scenes : as `find_scenes` gives them, or any list; their order changes nothing
    """
    rules = rules or PairingRules()
    given = Scenes.of(scenes)
    left_out = list(given.left_out)
    table, ground = _usable(given, left_out)
    field = _field(table, ground)
    is_secondary = table.is_sar == (rules.secondary is Kind.SAR)
    references, secondaries = np.flatnonzero(~is_secondary), np.flatnonzero(is_secondary)

    chosen, fitting = _choose(table, field, references, secondaries, rules)
    if rules.best_n_per_tile is not None:
        chosen = _best_of_tiles(table, field, chosen, rules, left_out)
    chosen_a, chosen_b = np.unique(chosen.near.a), np.unique(chosen.near.b)
    lone = np.setdiff1d(references, fitting)
    left_out += reasons(table, field, lone, secondaries, rules, partner=rules.secondary)
    lone = np.setdiff1d(secondaries, chosen_b)
    left_out += reasons(table, field, lone, references, rules, partner=rules.secondary.other)
    return _plan(table, chosen, np.union1d(chosen_a, chosen_b), left_out)


def _usable(given: Scenes, left_out: list[LeftOut]) -> tuple[Scenes, Ground]:
    """Scenes with an area, the newest of their kind, oldest first, and where they lie."""
    area = shapely.area(given.outline)  # NaN where there is none
    flat = ~(area > 0)
    why = "its footprint is no area: mend its geometry in the catalog"
    left_out += [LeftOut(given.id[n], "no footprint", why) for n in np.flatnonzero(flat)]
    kept = np.flatnonzero(~flat)
    ids = given.id.tolist()
    order = sorted(kept.tolist(), key=lambda n: (given.acquired_us[n], ids[n]))
    table = replace(given.take(np.array(order, np.int64)), left_out=())
    ground = Ground.of(_areal(table.outline))
    keep, older = newest(table, ground)
    left_out += older
    return (table, ground) if keep.all() else (table.take(keep), ground.take(np.flatnonzero(keep)))


def _areal(outlines: NDArray[np.object_]) -> NDArray[np.object_]:
    """Polygons alone: mending an outline may leave lines and points beside them."""
    found = outlines.copy()
    for n in np.flatnonzero(shapely.get_type_id(outlines) == shapely.GeometryType.GEOMETRYCOLLECTION):
        found[n] = shapely.union_all([part for part in shapely.get_parts(outlines[n]) if part.area > 0])
    return found


def _field(table: Scenes, ground: Ground) -> SceneIndex:
    numbers: dict[bytes, int] = {}
    outline_id = [numbers.setdefault(wkb, len(numbers)) for wkb in shapely.to_wkb(table.outline)]
    by_id = np.empty(len(table), np.int64)
    ids = table.id.tolist()
    by_id[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    return SceneIndex(table.acquired_us, ground, np.array(outline_id, np.int64), by_id)


def _choose(
    table: Scenes, field: SceneIndex, references: IntArray, secondaries: IntArray, rules: PairingRules
) -> tuple[Chosen, IntArray]:
    """Chosen combinations, and the references that had any to choose from."""
    pass_id = passes_of(table)
    parts, fitting = [], [np.zeros(0, np.int64)]
    groups = 0
    for near in field.near(references, secondaries, round(rules.max_days * DAY_US)):
        chosen, fits = choose(field, near, pass_id, rules)
        parts.append(replace(chosen, group=chosen.group + groups))
        groups += len(near)
        fitting.append(np.unique(fits.a))
    return Chosen.joined(parts), np.concatenate(fitting)


def _best_of_tiles(
    table: Scenes, field: SceneIndex, chosen: Chosen, rules: PairingRules, left_out: list[LeftOut]
) -> Chosen:
    """Keep the best pairs of each tile; references that lose all of theirs are listed."""
    most = rules.best_n_per_tile or 1
    optical = chosen.near.a if rules.secondary is Kind.SAR else chosen.near.b
    numbers: dict[object, int] = {}
    named = [tile if tile is not None else n for n, tile in enumerate(table.mgrs_tile)]
    tile = np.array([numbers.setdefault(name, len(numbers)) for name in named], np.int64)
    good = best_of_tiles(chosen, tile[optical], field, most)
    for n in np.setdiff1d(chosen.near.a, chosen.near.a[good]).tolist():
        where = f"tile {table.mgrs_tile[n]}" if table.mgrs_tile[n] is not None else "its tile"
        why = f"{where} has better pairs (best_n_per_tile is {most})"
        left_out.append(LeftOut(table.id[n], "better pair of the tile", why))
    return chosen.take(good)


def _plan(table: Scenes, chosen: Chosen, rows: IntArray, left_out: list[LeftOut]) -> PairPlan:
    refs = dict(zip(rows.tolist(), table.refs(rows), strict=True))
    pairs = [
        (ScenePair(refs[a], refs[b]), share)
        for a, b, share in zip(
            chosen.near.a.tolist(), chosen.near.b.tolist(), chosen.share.tolist(), strict=True
        )
    ]
    pairs.sort(key=lambda item: item[0].key)
    return PairPlan(
        tuple(pair for pair, _ in pairs),
        tuple(share for _, share in pairs),
        tuple(sorted(left_out, key=lambda out: (out.scene, out.rule, out.why))),
    )
