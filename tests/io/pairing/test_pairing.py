from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import shapely
from pyproj import Geod

from crosstie.io.catalog.search import find_scenes
from crosstie.io.pairing.pair_scenes import PairingRules, PairPlan, pair_scenes, plan_frame
from crosstie.types import Kind, SceneRef

DAY0 = datetime(2025, 6, 1, 10, tzinfo=UTC)


def scene(
    name: str,
    kind: Kind = Kind.SAR,
    *,
    day: float = 0.0,
    box: tuple[float, float, float, float] = (11, 48, 12, 49),
    wkt: str | None = None,
) -> SceneRef:
    footprint = wkt or shapely.box(*box).wkt
    return SceneRef(name, kind, DAY0 + timedelta(days=day), footprint, (f"{name}.tif",))


def s2(name: str = "s2", **more: object) -> SceneRef:
    return scene(name, Kind.OPTICAL, **more)  # type: ignore[arg-type]


def keys(plan: PairPlan) -> list[tuple[str, str]]:
    return [(pair.reference.id, pair.secondary.id) for pair in plan.pairs]


@pytest.mark.real
def test_the_real_catalog_gives_the_three_true_pairs(real_data: Path):
    plan = pair_scenes(find_scenes(real_data / "scenes" / "catalog.json"))
    tiles = [(pair.reference.id.split("_")[5], pair.secondary.id.split("_")[-1]) for pair in plan.pairs]
    assert sorted(tiles) == [("T11SLT", "T11SLT"), ("T11SMT", "T11SMT"), ("T14RNT", "T14RNT")]
    assert plan.left_out == ()
    assert [pair.key for pair in plan.pairs] == sorted(pair.key for pair in plan.pairs)

    frame = plan_frame(plan).set_index("reference")
    assert frame.crs.to_epsg() == 4326
    np.testing.assert_allclose(frame.overlap_pct, 100, atol=1e-6)
    texas = frame.loc["S2A_MSIL1C_20201031T171451_N0209_R112_T14RNT_20201031T192356"]
    exact = (datetime(2020, 12, 4, 0, 35, 19, 500_000) - datetime(2020, 10, 31, 17, 14, 51)) / timedelta(
        days=1
    )
    assert texas.gap_days == pytest.approx(exact, abs=1e-9)


def test_overlap_goes_before_time_and_time_before_id():
    near_but_partly = scene("a", day=1, box=(11.5, 48, 12.5, 49))
    far_but_whole = scene("z", day=9)
    twin = scene("m", day=9)
    hardly_less = scene("y", day=2, box=(11.01, 48, 12.01, 49))  # 99 %: the same in steps of 5 %
    assert keys(pair_scenes([s2(), near_but_partly, far_but_whole])) == [("s2", "z")]
    assert keys(pair_scenes([s2(), far_but_whole, twin])) == [("s2", "m")]
    assert keys(pair_scenes([s2(), far_but_whole, hardly_less])) == [("s2", "y")]
    both = pair_scenes([s2(), near_but_partly, far_but_whole, twin], PairingRules(best_n=2))
    assert keys(both) == [("s2", "m"), ("s2", "z")]


def test_the_order_of_the_scenes_changes_nothing():
    rng = np.random.default_rng(4)
    scenes = [
        (scene if n % 2 else s2)(f"n{n}", day=float(rng.integers(40)), box=(x, 48, x + 1, 49))
        for n, x in enumerate(rng.uniform(10, 14, 60))
    ]
    plan = pair_scenes(scenes, PairingRules(max_days=5, best_n=3))
    assert plan.pairs
    assert plan.left_out
    for _ in range(3):
        shuffled = [scenes[i] for i in rng.permutation(len(scenes))]
        assert pair_scenes(shuffled, PairingRules(max_days=5, best_n=3)) == plan


@pytest.mark.parametrize("kind", list(Kind))
def test_the_kind_of_the_secondary_may_be_chosen(kind: Kind):
    (pair,) = pair_scenes([s2("o"), scene("s", day=3)], PairingRules(secondary=kind)).pairs
    assert pair.secondary.kind is kind
    assert pair.reference.kind is kind.other
    assert plan_frame(pair_scenes([s2("o"), scene("s", day=3)], PairingRules(secondary=kind))).gap_days[
        0
    ] == (3 if kind is Kind.SAR else -3)


def test_a_gap_of_exactly_the_limit_passes_and_one_microsecond_more_does_not():
    start = s2(day=1 / 3)  # a fraction that no float holds
    assert keys(pair_scenes([start, scene("s", day=60 + 1 / 3)])) == [("s2", "s")]
    late = pair_scenes([start, scene("s", day=60 + 1 / 3 + 1e-6 / 86400 * 1.1)])
    assert late.pairs == ()


def test_overlap_is_measured_on_the_ground_and_not_in_degrees():
    # of a footprint from 0 to 80 degrees north, the half up to 40 degrees holds 65 % of the ground
    wide, low = s2(box=(0, 0, 1, 80)), scene("s", box=(0, 0, 1, 40))
    beside = s2(box=(0, 0, 1, 40))
    geod = Geod(ellps="WGS84")
    truth = [
        abs(geod.geometry_area_perimeter(shapely.segmentize(shapely.box(0, 0, 1, top), 0.1))[0])
        for top in (40, 80)
    ]
    high = scene("h", box=(0, 39, 1, 79.5))
    frame = plan_frame(pair_scenes([beside, scene("t", box=(0, 20, 1, 80))]))
    upper = abs(geod.geometry_area_perimeter(shapely.segmentize(shapely.box(0, 20, 1, 40), 0.1))[0])
    assert frame.overlap_pct[0] == pytest.approx(100 * upper / min(truth[0], truth[1]), abs=0.05)
    assert keys(pair_scenes([wide, low, high])) == [("s2", "h")]  # both whole: same time, so by id


def test_every_scene_without_a_pair_is_named_with_the_value_that_left_it_out():
    scenes = [
        s2("paired"),
        scene("taken", day=2),
        scene("second-best", day=5),
        s2("too-early", day=-73, box=(0, 0, 1, 1)),
        scene("too-late", day=2, box=(0, 0, 1, 1)),
        s2("elsewhere", box=(50, 0, 51, 1)),
        s2("grazed", box=(70, 0, 71, 1)),
        scene("grazing", box=(70.96, 0, 71.96, 1)),
        scene("a-point", wkt="POINT (11 48)"),
        scene("taken", day=2),
    ]
    plan = pair_scenes(scenes)
    assert keys(plan) == [("paired", "taken")]
    assert {out.scene: out.why for out in plan.left_out} == {
        "second-best": "paired, its nearest, has a better partner (best_n is 1)",
        "too-early": "nearest SAR scene is 75.00 days away (max_days is 60)",
        "too-late": "nearest optical scene is 75.00 days away (max_days is 60)",
        "elsewhere": "no SAR scene overlaps it",
        "grazed": "largest overlap is 4.0% (min_overlap is 10%)",
        "grazing": "largest overlap is 4.0% (min_overlap is 10%)",
        "a-point": "its footprint is no area: correct its geometry in the catalog",
        "taken": "its id is listed more than once: the newest is taken",
    }
    assert dict(plan.by_rule()) == {
        "better partner": 1,
        "time gap": 2,
        "no partner": 1,
        "overlap": 2,
        "no footprint": 1,
        "listed twice": 1,
    }


def test_nothing_in_nothing_out():
    assert pair_scenes([]) == PairPlan()
    assert list(plan_frame(PairPlan()).columns) == [
        "pair_key",
        "reference",
        "secondary",
        "gap_days",
        "overlap_pct",
        "mgrs_tile",
        "geometry",
    ]
    assert [out.why for out in pair_scenes([s2()]).left_out] == ["the catalog gave no SAR scene at all"]


def test_the_antimeridian_and_bow_ties_are_no_trouble():
    split = shapely.MultiPolygon([shapely.box(179, -18, 180, -17), shapely.box(-180, -18, -179, -17)]).wkt
    frame = plan_frame(pair_scenes([s2(wkt=split), scene("s", box=(-180, -18, -179, -17))]))
    assert frame.overlap_pct[0] == pytest.approx(100, abs=1e-6)
    tie = "POLYGON ((11 48, 12 49, 12 48, 11 49, 11 48))"
    assert plan_frame(pair_scenes([s2(wkt=tie), scene("s")])).overlap_pct[0] == pytest.approx(100, abs=1e-6)


def test_the_fast_way_finds_what_trying_everything_finds():
    """Same pairs as a plain double loop over 60 x 60 scenes in one place."""
    rng = np.random.default_rng(7)
    rules = PairingRules(max_days=20, min_overlap=0.3)

    def draw(kind: Kind, n: int) -> SceneRef:
        x, y = rng.uniform(0, 1.5, 2)
        box = (x, y, x + 1, y + rng.uniform(0.5, 1))
        return scene(f"{kind}{n:02d}", kind, day=float(rng.uniform(0, 300)), box=box)

    optical, sar = ([draw(kind, n) for n in range(60)] for kind in (Kind.OPTICAL, Kind.SAR))
    expected = []
    for reference in optical:
        ranked = []
        for secondary in sar:
            a, b = (shapely.from_wkt(s.footprint_wkt) for s in (reference, secondary))
            share = a.intersection(b).area / min(a.area, b.area)  # near the equator degrees will do
            gap = abs(reference.acquired_utc - secondary.acquired_utc)
            if share >= 0.3 and gap <= timedelta(days=20):
                ranked.append((-round(share / 0.05), gap, secondary.id))
        expected += [(reference.id, min(ranked)[2])] if ranked else []
    plan = pair_scenes(optical + sar, rules)
    assert len(expected) > 20
    assert keys(plan) == sorted(expected)
    paired = {name for pair in keys(plan) for name in pair}
    assert paired | {out.scene for out in plan.left_out} == {s.id for s in optical + sar}


@pytest.mark.parametrize(
    "wrong",
    [{"max_days": -1}, {"max_days": float("inf")}, {"min_overlap": 0}, {"min_overlap": 2}, {"best_n": 0}],
)
def test_rules_of_nonsense_are_refused(wrong: dict[str, float]):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PairingRules(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kinds", "kept"),
    [(("L1C", "L2A"), ["b"]), (("L2A", "L1C"), ["a"]), (("L1C", "L1C"), ["b"]), (("L2A", None), ["a", "b"])],
)
def test_levels_of_one_optical_acquisition_are_one_scene(kinds: tuple[str, str], kept: list[str]):
    given = [
        replace(
            s2(name), platform="sentinel-2a", product_type=kind, mgrs_tile="32UPU", processing_baseline=base
        )
        for name, kind, base in zip("ab", kinds, ("05.10", "05.11"), strict=True)
    ]
    plan = pair_scenes([*given, scene("radar")], PairingRules(best_n=2))
    assert sorted({pair.reference.id for pair in plan.pairs}) == kept
    older = [out for out in plan.left_out if out.rule == "older version"]
    assert len(older) == 2 - len(kept)
    if set(kinds) == {"L1C", "L2A"}:
        assert older[0].why.endswith(
            "is L2A of the same acquisition, this is L1C (catalog.product_types chooses)"
        )
