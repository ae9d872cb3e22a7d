"""Make pairs of scenes: which secondary belongs to which reference. Reads no files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import shapely

from crosstie.io.pairing.choose import ChosenPairs, best_of_tiles, choose_partners, passes_of
from crosstie.io.pairing.graph import choose_network, overlapping, same_kind_candidates
from crosstie.io.pairing.left_out import DAY_US, explain_unpaired
from crosstie.io.pairing.neighbours import CandidatePairs, SceneIndex
from crosstie.io.pairing.plan import PairPlan, gap_days, left_out_frame, plan_frame
from crosstie.io.pairing.rules import PairingRules
from crosstie.io.pairing.versions import keep_newest
from crosstie.io.scenes.overlap import Ground
from crosstie.io.scenes.table import UNKNOWN, LeftOut, Scenes
from crosstie.types import Kind, ScenePair

if TYPE_CHECKING:
    from crosstie.types import IntArray, Objects, SceneRef

__all__ = ["LeftOut", "PairPlan", "PairingRules", "gap_days", "left_out_frame", "pair_scenes", "plan_frame"]


def pair_scenes(scenes: Sequence[SceneRef], rules: PairingRules | None = None) -> PairPlan:
    """Choose the secondaries of every reference.

    A reference gets the secondaries with the largest overlap among those that are close enough in time and
    place. Overlaps are compared in steps of 5 %; equal ones are sorted by time gap, then by id. A secondary
    may belong to several references. Of several versions of one acquisition the newest is used. Areas are
    measured on the ground, also across the antimeridian and at the poles.

    Parameters
    ----------
    scenes : sequence of SceneRef
        As `find_scenes` gives them, or any list; their order changes nothing.
    """
    rules = rules or PairingRules()
    given = Scenes.of(scenes)
    left_out = list(given.left_out)
    table, ground = _usable(given, left_out)
    index = _index_scenes(table, ground)
    is_secondary = table.is_sar == (rules.secondary is Kind.SAR)
    references, secondaries = np.flatnonzero(~is_secondary), np.flatnonzero(is_secondary)

    choose = _choose_network if rules.graph == "network" else _choose_pairs
    chosen, fitting = choose(table, index, references, secondaries, rules)
    if rules.best_n_per_tile is not None:
        chosen = _best_of_tiles(table, index, chosen, rules, left_out)
    if rules.graph == "network" and rules.same_kind:
        own = [_choose_same_kind(table, index, rows, rules) for rows in (references, secondaries)]
        chosen = ChosenPairs.joined([chosen, *own])
    in_pairs = np.union1d(chosen.pairs.a, chosen.pairs.b)
    lone = np.setdiff1d(references, np.union1d(fitting, in_pairs))
    left_out += explain_unpaired(table, index, lone, secondaries, rules, partner=rules.secondary)
    lone = np.setdiff1d(secondaries, in_pairs)
    left_out += explain_unpaired(table, index, lone, references, rules, partner=rules.secondary.other)
    return _make_plan(table, chosen, in_pairs, left_out)


def _usable(given: Scenes, left_out: list[LeftOut]) -> tuple[Scenes, Ground]:
    """Scenes with an area, without older versions, oldest first; and their outlines on the ground."""
    area = shapely.area(given.outline)  # NaN where there is none
    flat = ~(area > 0)
    why = "its footprint is no area: correct its geometry in the catalog"
    left_out += [LeftOut(given.id[n], "no footprint", why) for n in np.flatnonzero(flat)]
    kept = np.flatnonzero(~flat)
    ids = given.id.tolist()
    order = sorted(kept.tolist(), key=lambda n: (given.acquired_us[n], ids[n]))
    table = replace(given.take(np.array(order, np.int64)), left_out=tuple(left_out))
    ground = Ground.of(_areal(table.outline))
    keep, older = keep_newest(table, ground)
    left_out += older
    return (table, ground) if keep.all() else (table.take(keep), ground.take(np.flatnonzero(keep)))


def _areal(outlines: Objects) -> Objects:
    """Keep polygons only: repairing an outline may leave lines and points beside them."""
    found = outlines.copy()
    for n in np.flatnonzero(shapely.get_type_id(outlines) == shapely.GeometryType.GEOMETRYCOLLECTION):
        found[n] = shapely.union_all([part for part in shapely.get_parts(outlines[n]) if part.area > 0])
    return found


def _index_scenes(table: Scenes, ground: Ground) -> SceneIndex:
    numbers: dict[bytes, int] = {}
    outline_id = [numbers.setdefault(wkb, len(numbers)) for wkb in shapely.to_wkb(table.outline)]
    by_id = np.empty(len(table), np.int64)
    ids = table.id.tolist()
    by_id[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    return SceneIndex(table.acquired_us, ground, np.array(outline_id, np.int64), by_id)


def _choose_pairs(
    table: Scenes, index: SceneIndex, references: IntArray, secondaries: IntArray, rules: PairingRules
) -> tuple[ChosenPairs, IntArray]:
    """Chosen pairs, and the references that had candidates with enough overlap."""
    pass_id = passes_of(table)
    parts, fitting = [], [np.zeros(0, np.int64)]
    groups = 0
    for candidates in index.candidates(references, secondaries, round(rules.max_days * DAY_US)):
        chosen, fits = choose_partners(index, candidates, pass_id, rules)
        parts.append(replace(chosen, group=chosen.group + groups))
        groups += len(candidates)
        fitting.append(np.unique(fits.a))
    return ChosenPairs.joined(parts), np.concatenate(fitting)


def _choose_network(
    table: Scenes, index: SceneIndex, references: IntArray, secondaries: IntArray, rules: PairingRules
) -> tuple[ChosenPairs, IntArray]:
    """As `_choose_pairs`, for a network: a secondary chooses, too, so all candidates are needed at once."""
    found = [
        overlapping(index, candidates, rules)
        for candidates in index.candidates(references, secondaries, round(rules.max_days * DAY_US))
    ]
    fits = CandidatePairs.joined([pairs for pairs, _ in found])
    share = np.concatenate([np.zeros(0), *(shares for _, shares in found)])
    tile = _numbered(table.mgrs_tile)
    optical = fits.a if rules.secondary is Kind.SAR else fits.b
    chosen = choose_network(
        index,
        fits,
        share,
        pass_id=passes_of(table),
        place=tile[optical],
        ids=table.id,
        partners=rules.partners,
    )
    return chosen, np.unique(fits.a)


def _choose_same_kind(table: Scenes, index: SceneIndex, rows: IntArray, rules: PairingRules) -> ChosenPairs:
    """Pairs of scenes of one kind for a network: of one tile, or of one track."""
    tracks = [
        None if orbit == UNKNOWN else (orbit, state)
        for orbit, state in zip(table.relative_orbit.tolist(), table.orbit_state, strict=True)
    ]
    tile, track = _numbered(table.mgrs_tile), _numbered(tracks)
    series = np.where(table.is_sar, track, tile)
    pass_id = passes_of(table)
    fits, share = same_kind_candidates(index, rows, series, pass_id, rules, round(rules.max_days * DAY_US))
    return choose_network(
        index, fits, share, pass_id=pass_id, place=series[fits.a], ids=table.id, partners=rules.same_kind
    )


def _numbered(names: Iterable[object]) -> IntArray:
    """Number that equal names share; -1 for None."""
    numbers: dict[object, int] = {}
    return np.array(
        [-1 if name is None else numbers.setdefault(name, len(numbers)) for name in names], np.int64
    )


def _best_of_tiles(
    table: Scenes, index: SceneIndex, chosen: ChosenPairs, rules: PairingRules, left_out: list[LeftOut]
) -> ChosenPairs:
    """Keep the best pairs of each tile. References that lose all their pairs are added to `left_out`."""
    most = rules.best_n_per_tile or 1
    optical = chosen.pairs.a if rules.secondary is Kind.SAR else chosen.pairs.b
    numbers: dict[object, int] = {}
    named = [tile if tile is not None else n for n, tile in enumerate(table.mgrs_tile)]
    tile = np.array([numbers.setdefault(name, len(numbers)) for name in named], np.int64)
    good = best_of_tiles(chosen, tile[optical], index, most)
    for n in np.setdiff1d(chosen.pairs.a, chosen.pairs.a[good]).tolist():
        where = f"tile {table.mgrs_tile[n]}" if table.mgrs_tile[n] is not None else "its tile"
        why = f"{where} has better pairs (best_n_per_tile is {most})"
        left_out.append(LeftOut(table.id[n], "better pair of the tile", why))
    return chosen.take(good)


def _make_plan(table: Scenes, chosen: ChosenPairs, rows: IntArray, left_out: list[LeftOut]) -> PairPlan:
    refs = dict(zip(rows.tolist(), table.refs(rows), strict=True))
    pairs = [
        (ScenePair(refs[a], refs[b]), share)
        for a, b, share in zip(
            chosen.pairs.a.tolist(), chosen.pairs.b.tolist(), chosen.share.tolist(), strict=True
        )
    ]
    pairs.sort(key=lambda item: item[0].key)
    return PairPlan(
        tuple(pair for pair, _ in pairs),
        tuple(share for _, share in pairs),
        tuple(sorted(left_out, key=lambda out: (out.scene, out.rule, out.why))),
    )
