"""Versions of one acquisition, slices of one pass, tiles, and the rules on what a scene is."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from stac_site import stac_item
from typer.testing import CliRunner

from crosstie.cli import app
from crosstie.io.catalog.search import SceneQuery, find_scenes
from crosstie.io.pairing.pair_scenes import PairingRules, PairPlan, pair_scenes
from crosstie.io.scenes.table import Scenes
from crosstie.types import Kind, SceneRef

DAY0 = datetime(2025, 6, 1, 10, tzinfo=UTC)


def scene(name: str, kind: Kind, *, seconds: float = 0.0, days: float = 0.0, **more: Any) -> SceneRef:
    box = more.pop("box", (11, 48, 12, 49))
    when = DAY0 + timedelta(days=days, seconds=seconds)
    return SceneRef(name, kind, when, shapely.box(*box).wkt, (f"{name}.tif",), **more)


def s1(name: str = "s1", **more: Any) -> SceneRef:
    return scene(name, Kind.SAR, **({"platform": "sentinel-1a", "product_type": "GRD"} | more))


def s2(name: str = "s2", **more: Any) -> SceneRef:
    given = {"platform": "sentinel-2a", "product_type": "L1C", "mgrs_tile": "32UPU"}
    return scene(name, Kind.OPTICAL, **(given | more))


def keys(plan: PairPlan) -> list[tuple[str, str]]:
    return [(pair.reference.id, pair.secondary.id) for pair in plan.pairs]


def why(plan: PairPlan) -> dict[str, str]:
    return {out.scene: out.why for out in plan.left_out}


MADE = datetime(2025, 7, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("older", "newer", "how"),
    [
        ({"processing_baseline": "02.09"}, {"processing_baseline": "05.00"}, "baseline 05.00 against 02.09"),
        ({"processing_baseline": "09.99"}, {"processing_baseline": "10.00"}, "baseline 10.00 against 09.99"),
        ({}, {"processing_baseline": "02.09"}, "baseline 02.09 against not said"),
        ({"created_utc": MADE}, {"created_utc": MADE + timedelta(hours=1)}, "made later"),
        ({}, {}, "of a later id"),
    ],
)
@pytest.mark.parametrize("seconds", [0.0, 2.0])
def test_of_two_versions_the_newer_is_taken_and_the_older_says_why(
    older: dict[str, Any], newer: dict[str, Any], how: str, seconds: float
):
    plan = pair_scenes([s1(), s2("a-old", **older), s2("b-new", seconds=seconds, **newer)])
    assert keys(plan) == [("b-new", "s1")]
    assert why(plan) == {"a-old": f"b-new is a newer version of the same acquisition ({how})"}


@pytest.mark.parametrize(
    "other",
    [
        {"product_type": "L3A"},
        {"mgrs_tile": "32UQU"},
        {"platform": "sentinel-2b"},
        {"seconds": 6.0},
        {"box": (11.6, 48, 12.6, 49)},  # one pass, cut in two within its tile
        {"platform": None},
    ],
)
def test_what_differs_in_more_than_its_making_is_no_version(other: dict[str, Any]):
    plan = pair_scenes([s1(box=(10, 47, 14, 50)), s2("one"), s2("two", **other)])
    assert {pair.reference.id for pair in plan.pairs} == {"one", "two"}


def test_a_reprocessed_slice_is_a_version_too_and_an_id_counts_once():
    again = s1("s1-again", created_utc=MADE)
    plan = pair_scenes(
        [s2(), s1("s1-first"), again, replace(again, collection="copy"), s1("s1-rtc", product_type="RTC")]
    )
    assert keys(plan) == [("s2", "s1-again")]
    assert [out.rule for out in plan.left_out] == ["listed twice", "older version", "better partner"]


def slices(**more: Any) -> list[SceneRef]:
    """Two slices of one pass, the second of which covers more of the tile; and a pass three days later."""
    return [
        s1("north", box=(10, 48.6, 13, 50), seconds=86_400, **more),
        s1("south", box=(10, 47, 13, 48.65), seconds=86_425, **more),
        s1("later", box=(10, 47.5, 13, 48.9), days=4, **more),
    ]


def test_of_the_slices_of_a_pass_the_largest_or_each_makes_a_pair():
    largest = pair_scenes([s2(), *slices()], PairingRules(best_n=2))
    assert keys(largest) == [("s2", "later"), ("s2", "south")]
    assert pair_scenes([s2(), *slices()]).pairs[0].secondary.id == "later"  # 90 % against 65 %
    # together the slices cover all of the tile
    each = pair_scenes([s2(), *slices()], PairingRules(slices="each"))
    assert keys(each) == [("s2", "north"), ("s2", "south")]
    assert each.overlap == pytest.approx((0.4, 0.65), abs=0.01)
    both = pair_scenes([s2(), *slices()], PairingRules(slices="each", best_n=2))
    assert len(both.pairs) == 3
    strict = pair_scenes([s2(), *slices()], PairingRules(slices="each", min_overlap=0.5))
    assert keys(strict) == [("s2", "later")]


def test_slices_of_no_known_satellite_are_scenes_of_their_own():
    plan = pair_scenes([s2(), *slices(platform=None)], PairingRules(best_n=3))
    assert len(plan.pairs) == 3


def test_a_tile_keeps_its_best_pairs_over_all_dates():
    references = [s2(f"s2-{day:02d}", days=day) for day in (0, 10, 20)]
    elsewhere = s2("other-tile", days=0, mgrs_tile="32UQU", box=(12, 48, 13, 49))
    secondaries = [s1(f"s1-{day:02d}", days=day, box=(10, 47, 14, 50)) for day in (3, 11, 25)]
    scenes = [*references, elsewhere, *secondaries]
    assert len(pair_scenes(scenes).pairs) == 4
    plan = pair_scenes(scenes, PairingRules(best_n_per_tile=1))
    assert keys(plan) == [("other-tile", "s1-03"), ("s2-10", "s1-11")]
    said = why(plan)
    assert said["s2-00"] == said["s2-20"] == "tile 32UPU has better pairs (best_n_per_tile is 1)"
    assert "best_n_per_tile is 1" in said["s1-25"]
    assert len(pair_scenes(scenes, PairingRules(best_n_per_tile=2)).pairs) == 3


def test_scenes_over_the_antimeridian_and_the_pole_find_each_other():
    uncut = "POLYGON ((179.4 -18, -179.6 -18, -179.6 -17, 179.4 -17, 179.4 -18))"
    round_pole = "POLYGON ((0 88, 90 88, 180 88, -90 88, 0 88))"
    cap = "POLYGON ((45 86, 135 86, -135 86, -45 86, 45 86))"
    fiji = [
        replace(s2("fiji"), footprint_wkt=uncut),
        replace(s1("fiji-s1"), footprint_wkt=shapely.box(-180, -19, -178, -16).wkt),
    ]
    pole = [
        replace(s2("pole", mgrs_tile="x"), footprint_wkt=round_pole),
        replace(s1("pole-s1", platform="sentinel-1c"), footprint_wkt=cap),
    ]
    plan = pair_scenes([*fiji, *pole])
    assert keys(plan) == [("fiji", "fiji-s1"), ("pole", "pole-s1")]
    assert plan.overlap == pytest.approx((0.4, 1.0), abs=0.01)


def test_the_choice_is_that_of_trying_everything_with_slices_tiles_and_many_dates():
    """Against a plain loop over all pairs, with the same ranking and none of the short cuts."""
    rng = np.random.default_rng(3)
    rules = PairingRules(max_days=15, min_overlap=0.2, best_n=2)
    optical = [
        s2(f"o{n:02d}", days=float(rng.uniform(0, 60)), mgrs_tile=f"t{n}", box=(x, 0, x + 1, 1))
        for n, x in enumerate(rng.uniform(0, 6, 30))
    ]
    sar = []
    for n, x in enumerate(rng.uniform(-1, 5, 40)):
        day, y = float(rng.uniform(0, 60)), float(rng.uniform(-1, 0.5))
        sar += [
            s1(f"r{n:02d}a", days=day, box=(x, y, x + 2, y + 1)),
            s1(f"r{n:02d}b", days=day, seconds=25, box=(x, y + 0.95, x + 2, y + 1.95)),
        ]
    expected = []
    for o in optical:
        passes: dict[str, tuple[float, timedelta, str]] = {}
        for r in sar:
            a, b = (shapely.from_wkt(item.footprint_wkt) for item in (o, r))
            share = a.intersection(b).area / min(a.area, b.area)  # at the equator degrees will do
            gap = abs(o.acquired_utc - r.acquired_utc)
            if share >= 0.2 and gap <= timedelta(days=15):
                rank = (-round(share / 0.05), gap, r.id)
                passes[r.id[:3]] = min(passes.get(r.id[:3], rank), rank)
        expected += [(o.id, rank[2]) for rank in sorted(passes.values())[:2]]
    assert len(expected) > 40
    assert keys(pair_scenes([*sar, *optical], rules)) == sorted(expected)


@pytest.mark.parametrize(
    ("query", "left", "reason"),
    [
        (SceneQuery(orbit="ascending"), {"down", "unsaid"}, "its orbit is descending"),
        (SceneQuery(tracks=(71,)), {"down", "unsaid"}, "its track is 107 (catalog.tracks: 71)"),
        (
            SceneQuery(platforms=("S1C",)),
            {"down", "unsaid"},
            "it is of sentinel-1a (catalog.platforms: S1C)",
        ),
        (SceneQuery(platforms=("S1A", "S2A")), {"up", "s2"}, "it is of sentinel-1c"),
        (SceneQuery(product_types=("L2A",)), {"s2"}, "it is L1C (catalog.product_types: L2A)"),
        (SceneQuery(product_types=("GRD", "L1C")), set(), ""),
        (SceneQuery(max_cloud_pct=10), {"s2"}, "30.0 % of it are cloud (catalog.max_cloud_pct is 10)"),
        (SceneQuery(), set(), ""),
    ],
)
def test_a_rule_leaves_out_by_name_what_is_something_else(
    query: SceneQuery, left: set[str], reason: str, tmp_path: Path
):
    items = [
        stac_item("up", sat__orbit_state="ascending", sat__relative_orbit=71, platform="sentinel-1c"),
        stac_item("down", sat__orbit_state="descending", sat__relative_orbit=107),
        stac_item("unsaid"),
        stac_item("s2", collection="sentinel-2-l1c", eo__cloud_cover=30),
        stac_item("s2-clear-or-not", collection="sentinel-2-l2a", platform="sentinel-2a"),
    ]
    file = tmp_path / "items.json"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    scenes = find_scenes(file, query)
    assert {out.scene for out in scenes.left_out} - {"s2-clear-or-not"} == left
    assert any(out.why.startswith(reason) for out in scenes.left_out) or not reason
    # and the plan says it again, beside its own reasons
    assert set(scenes.left_out) <= set(pair_scenes(scenes).left_out)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"tracks": (0,)}, "tracks"),
        ({"platforms": ("ERS-2",)}, "platforms"),
        ({"intersects": "POLYGON ((1 2"}, "intersects is not WKT"),
        ({"intersects": "POINT (500000 10)"}, "degrees"),
        ({"intersects": "POLYGON EMPTY"}, "empty"),
    ],
)
def test_a_query_of_nonsense_says_which(wrong: dict[str, Any], says: str):
    with pytest.raises(ValueError, match=says):
        SceneQuery(**wrong)


def test_many_scenes_need_no_object_each(monkeypatch: pytest.MonkeyPatch):
    """Of a thousand scenes only those in pairs become objects."""
    made = []
    columns = Scenes.of([s1(f"s1-{n:03d}", days=n) for n in range(1000)] + [s2()])
    refs = Scenes.refs
    monkeypatch.setattr(Scenes, "refs", lambda self, rows: made.extend(rows) or refs(self, rows))
    plan = pair_scenes(columns)
    assert len(plan.pairs) == 1
    assert len(made) == 2


def test_the_command_tells_the_plan_as_table_geojson_and_geoparquet(tmp_path: Path):
    import geopandas as gpd
    import pandas as pd

    items = [
        stac_item("s1"),
        stac_item(
            "s1-far", geometry=shapely.geometry.mapping(shapely.box(50, 0, 51, 1)), bbox=[50, 0, 51, 1]
        ),
        stac_item("s2", collection="sentinel-2-l2a"),
        stac_item("s2-cloudy", collection="sentinel-2-l2a", eo__cloud_cover=99),
    ]
    file = tmp_path / "items.json"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    common = ["pairs", "--catalog", str(file), "--max-cloud", "50"]

    table = CliRunner().invoke(app, common)
    assert table.exit_code == 0, table.output
    assert "s2__s1" in table.output
    assert "1 pair, 1 to do; 2 scenes left out; planned in" in table.output
    assert "1 left out: cloud" in table.output
    assert "left out: s1-far: no optical scene overlaps it" in table.output

    geojson = CliRunner().invoke(app, [*common, "--format", "geojson"])
    told = json.loads(geojson.stdout)
    assert [feature["properties"]["pair_key"] for feature in told["features"]] == ["s2__s1"]
    assert {out["scene"] for out in told["left_out"]} == {"s1-far", "s2-cloudy"}

    path = tmp_path / "plan.parquet"
    assert CliRunner().invoke(app, [*common, "--format", "geoparquet", "--to", str(path)]).exit_code == 0
    frame = gpd.read_parquet(path)
    assert frame.crs.to_epsg() == 4326
    assert frame.overlap_pct.tolist() == pytest.approx([100])
    assert set(pd.read_parquet(tmp_path / "plan.left_out.parquet").scene) == {"s1-far", "s2-cloudy"}
    assert CliRunner().invoke(app, [*common, "--format", "geoparquet"]).exit_code == 2


def test_where_many_are_left_out_they_are_counted_and_named_on_demand(tmp_path: Path):
    items = [stac_item(f"s1-{n:02d}") for n in range(21)]
    file = tmp_path / "items.json"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    command = ["pairs", "--catalog", str(file)]
    short = CliRunner().invoke(app, command).output
    assert "s1-00" not in short
    assert "(--left-out names them)" in short
    assert "20 left out: older version" in short  # all of one moment and place
    assert CliRunner().invoke(app, [*command, "--left-out"]).output.count("left out: s1-") == 21


def test_an_area_file_limits_the_search(tmp_path: Path):
    items = [stac_item("s1"), stac_item("s2", collection="sentinel-2-l2a")]
    file, area = tmp_path / "items.json", tmp_path / "area.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    command = [
        "pairs",
        "--catalog",
        str(file),
        "--area",
        str(area),
        "--orbit",
        "any",
        "--slices",
        "each",
    ]
    for box, count in (((11.9, 48.9, 13, 50), 1), ((13, 48, 14, 49), 0)):
        geometry = shapely.geometry.mapping(shapely.box(*box))
        area.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": {}}))
        assert f"{count} {'pair' if count == 1 else 'pairs'}, " in CliRunner().invoke(app, command).output
    area.write_text("no geojson")
    assert CliRunner().invoke(app, command).exit_code == 2
