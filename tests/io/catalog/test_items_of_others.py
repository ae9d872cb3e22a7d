"""Items as other people write them: numbers that cannot be, parts that are missing, forms that are wrong."""

from __future__ import annotations

import json
import logging
import math
import re
from pathlib import Path
from typing import Any

import pytest
import shapely
import shapely.affinity
from stac_site import as_table, stac_item

from crosstie.errors import CatalogError
from crosstie.io.catalog.search import SceneQuery, find_scenes
from crosstie.io.pairing.pair_scenes import pair_scenes
from crosstie.io.scenes.table import Scenes
from crosstie.types import Kind

Json = dict[str, Any]

STAC_ITEMS = Path(__file__).parents[4] / "shared" / "data" / "stac_items"
"""Real items of several makers; none where the data is not there."""


def results(folder: Path, *items: Any) -> Path:
    """A file of search results."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


def polygon(*points: tuple[float, float]) -> Json:
    return {"type": "Polygon", "coordinates": [[*points, points[0]]]}


def reasons(scenes: Scenes) -> dict[str, str]:
    return {out.scene: out.why for out in scenes.left_out}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        # UTM, a box and a slanted outline
        (
            {"geometry": polygon((550e3, 5.55e6), (8e5, 5.55e6), (8e5, 5.75e6), (550e3, 5.75e6))},
            "longitude 800000",
        ),
        ({"geometry": polygon((56e4, 5.56e6), (79e4, 5.6e6), (76e4, 5.76e6))}, "longitude 790000"),
        ({"geometry": None, "bbox": [53e4, 556e4, 79e4, 576e4]}, "longitude 790000"),
        # web mercator near the equator, and close to the Greenwich meridian
        ({"geometry": polygon((4e5, -5e4), (7e5, -5e4), (7e5, 15e4))}, "longitude 700000"),
        ({"geometry": polygon((100, -5e4), (300, -5e4), (300, 15e4))}, "latitude 150000"),
        # a slip of the pen in one vertex
        ({"geometry": polygon((11, 48), (12, 48), (12, 500), (11, 49))}, "latitude 500"),
        ({"geometry": polygon((11, 48), (12, 48), (12, 49), (51234, 49))}, "longitude 51234"),
        ({"geometry": polygon((11, -90.5), (12, -89), (12, -88))}, "latitude -90.5"),
    ],
)
def test_a_footprint_that_is_not_in_degrees_is_left_out_with_the_number(
    changes: Json, said: str, tmp_path: Path
):
    scenes = find_scenes(results(tmp_path, stac_item("far", **changes), stac_item("near")))
    assert [scene.id for scene in scenes] == ["near"]
    assert reasons(scenes) == {"far": f"its footprint is not in degrees ({said})"}


@pytest.mark.parametrize("west", [-355.0, 175.5, 359.0])
def test_longitudes_of_one_turn_are_degrees(west: float, tmp_path: Path):
    item = stac_item("x", geometry=polygon((west, 0), (west + 1, 0), (west + 1, 1), (west, 1)))
    (scene,) = find_scenes(results(tmp_path, item))
    left, south, right, north = shapely.from_wkt(scene.footprint_wkt).bounds
    assert (south, north) == (0, 1)
    turned = (west + 180) % 360 - 180
    assert (left, right) == pytest.approx((turned, turned + 1))


@pytest.mark.parametrize(
    "bbox", [[math.nan, 1, 2, 3], [True, 48, 12, 49], [11, 48, 12, 10**400], ["11", 48, 12, 49]]
)
def test_a_box_of_no_numbers_is_none(bbox: list[Any], tmp_path: Path):
    scenes = find_scenes(results(tmp_path, stac_item("x", geometry=None, bbox=bbox)))
    assert reasons(scenes) == {"x": "it has neither geometry nor bbox that can be read"}


@pytest.mark.parametrize("value", [10**400, -1, math.inf, "59", [59], True])
def test_properties_that_cannot_be_are_as_if_not_said(value: object, tmp_path: Path):
    items = (
        stac_item("sar", sat__relative_orbit=value),
        stac_item("msi", collection="sentinel-2-l2a", eo__cloud_cover=value),
    )
    found = {scene.id: scene for scene in find_scenes(results(tmp_path, *items))}
    assert found["sar"].relative_orbit is None
    assert found["msi"].cloud_cover_pct is None


def without(item: Json, *parts: str) -> Json:
    return {name: value for name, value in item.items() if name not in parts}


@pytest.mark.parametrize(
    ("bad", "known_as", "why"),
    [
        (stac_item("bad") | {"properties": None}, "bad", "its properties are null"),
        (stac_item("bad") | {"properties": ["datetime"]}, "bad", 'its properties are ["datetime"]'),
        (stac_item("bad") | {"assets": None}, "bad", "its assets are null"),
        (stac_item("bad") | {"assets": [{"href": "a.tif"}]}, "bad", 'its assets are [{"href": "a.tif"}]'),
        (without(stac_item("bad"), "assets"), "bad", "it has no assets"),
        (stac_item("bad") | {"id": 12345}, "12345", "its id is 12345"),
        (stac_item("bad") | {"id": None}, "item 2 of", "its id is null"),
        (stac_item("bad") | {"collection": {"id": "x"}}, "bad", 'its collection is {"id": "x"}'),
        (None, "item 2 of", "it is null"),
        ("https://example.com/item.json", "item 2 of", 'it is "https://example.com/item.json"'),
        ([stac_item("bad")], "item 2 of", "it is [{"),
    ],
)
def test_what_is_no_item_is_told_and_the_others_are_read(
    bad: object, known_as: str, why: str, tmp_path: Path
):
    scenes = find_scenes(results(tmp_path, stac_item("a"), bad, stac_item("b")))
    assert [scene.id for scene in scenes] == ["a", "b"]
    (out,) = scenes.left_out
    assert out.rule == "no STAC item"
    assert out.scene.startswith(known_as)
    assert out.why.startswith(f"not a STAC item: {why}")


def test_a_catalogue_of_no_items_at_all_is_an_error_of_one_line(tmp_path: Path):
    with pytest.raises(CatalogError, match=r"holds 2 .* none is: item 1 of .* it is null") as caught:
        find_scenes(results(tmp_path, None, {"id": 3}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("features", [None, {"0": {}}, "none"])
def test_search_results_without_a_list_are_an_error(features: object, tmp_path: Path):
    path = results(tmp_path)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    with pytest.raises(CatalogError, match="without a list of features"):
        find_scenes(path)


@pytest.mark.parametrize("lacking", [("type",), ("type", "stac_version")])
def test_a_file_that_does_not_say_its_type_is_told_by_what_it_has(
    lacking: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "item.json").write_text(json.dumps(without(stac_item("x"), *lacking)))
    links = [{"rel": "item", "href": "item.json"}]
    top = {"type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": "d", "links": links}
    (tmp_path / "catalog.json").write_text(json.dumps(without(top, *lacking)))
    with caplog.at_level(logging.WARNING):
        assert [scene.id for scene in find_scenes(tmp_path / "catalog.json")] == ["x"]
    told = [message for message in caplog.messages if "read as a" in message]
    assert len(told) == (2 if "stac_version" in lacking else 0)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"platform": "SENTINEL-1C"}, Kind.SAR),
        ({"platform": ["Sentinel 1A"]}, Kind.SAR),
        ({"constellation": "sentinel_2"}, Kind.OPTICAL),
        ({"platform": "S2B"}, Kind.OPTICAL),
        ({"mission": "sentinel-2"}, Kind.OPTICAL),
        ({"instruments": ["C-SAR"]}, Kind.SAR),
        ({"instruments": "MSI"}, Kind.OPTICAL),
        ({"sar:instrument_mode": "IW"}, Kind.SAR),
        ({"s2:product_type": "S2MSI2A"}, Kind.OPTICAL),
        ({"platform": "landsat-8"}, None),
        ({"platform": "sentinel-3a"}, None),
        ({"platform": "sentinel-5p", "instruments": ["msi"]}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("collection", ["of-our-own", "s1-and-s2-corrected"])
def test_items_of_any_collection_are_told_by_what_they_say(
    said: Json, kind: Kind | None, collection: str, tmp_path: Path
):
    assets = {"vh": {"href": "s3://one/a.tif"}, "visual": {"href": "s3://one/b.tif"}}
    item = stac_item("x", collection=collection, assets=assets)
    item["properties"] = {"datetime": "2025-06-12T10:00:00Z", **said}
    as_file = list(find_scenes(results(tmp_path, item)))
    assert [scene.kind for scene in as_file] == ([] if kind is None else [kind])
    if not any(isinstance(value, list) for value in said.values()):
        assert list(find_scenes(as_table(tmp_path / "items.parquet", [item]))) == as_file


@pytest.mark.parametrize("name", ["sentinel1-rtc-aws", "sentinel-2-c1-l1c", "SENTINEL_1_GRD_COG"])
def test_the_name_of_a_collection_is_a_hint_where_items_say_nothing(name: str, tmp_path: Path):
    assets = {"vh": {"href": "s3://one/a.tif"}, "visual": {"href": "s3://one/b.tif"}}
    item = stac_item("x", collection=name, assets=assets)
    item["properties"] = {"datetime": "2025-06-12T10:00:00Z"}
    (scene,) = find_scenes(results(tmp_path, item))
    assert scene.kind is (Kind.OPTICAL if "2" in name[:10] else Kind.SAR)


def test_collections_and_assets_that_are_named_are_the_only_ones(tmp_path: Path):
    assets = {name: {"href": f"s3://one/{name}.tif"} for name in ("vh", "vv", "mine")}
    items = [
        stac_item("a", collection="ours", platform="sentinel-1a", assets=assets),
        stac_item("b", assets=assets),
        stac_item("c", collection="ours", platform="sentinel-1a", assets={"vh": assets["vh"]}),
    ]
    query = SceneQuery(sar_collections=("ours",), sar_assets=("mine", "vv"))
    scenes = find_scenes(results(tmp_path, *items), query)
    assert [(scene.id, scene.hrefs) for scene in scenes] == [("a", ("s3://one/mine.tif",))]
    assert reasons(scenes) == {
        "c": "no SAR asset called mine, vv; it has: vh; catalog.sar_assets names which to read"
    }


@pytest.mark.parametrize("href", ["https://[x", "//[::1/a.tif", "s3://[", "https://[x].zarr/a"])
def test_an_address_that_is_none_is_left_out(href: str, tmp_path: Path):
    bad = stac_item("bad", assets={"vh": {"href": href}})
    scenes = find_scenes(results(tmp_path, bad, stac_item("good")))
    assert [scene.id for scene in scenes] == ["good"]
    assert "is no address" in reasons(scenes)["bad"]


def test_a_zarr_store_is_named_as_what_is_not_read(tmp_path: Path):
    item = stac_item(
        "x",
        collection="sentinel-2-l2a",
        assets={"TCI_10m": {"href": "https://example.com/a.zarr/quality/r10m"}},
    )
    assert "but Zarr stores, which are not read" in reasons(find_scenes(results(tmp_path, item)))["x"]
    item["assets"]["B04"] = {"href": "s3://one/b.jp2"}
    (scene,) = find_scenes(results(tmp_path, item))
    assert scene.hrefs == ("s3://one/b.jp2",)


@pytest.mark.parametrize(
    ("product", "why"), [("SLC", "slant range"), ("RAW", "before focusing"), ("OCN", "wind and waves")]
)
def test_what_is_no_image_on_the_ground_is_left_out(product: str, why: str, tmp_path: Path):
    item = stac_item("x", collection="any", platform="sentinel-1a", sar__product_type=product)
    scenes = find_scenes(results(tmp_path, item))
    assert [(out.rule, why in out.why) for out in scenes.left_out] == [("product type", True)]
    assert len(scenes) == 0


def test_a_catalogue_without_scenes_says_what_it_holds(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    item = stac_item("x", collection="landsat-c2-l2", platform="landsat-9", assets={"red": {"href": "a.tif"}})
    optical = stac_item("y", collection="sentinel-2-l2a")
    with caplog.at_level(logging.WARNING):
        find_scenes(results(tmp_path, item))
    held = "its 1 items are of collection landsat-c2-l2, platform landsat-9, with assets red"
    assert caplog.messages == [f"the catalog gave no scene: {held}"]
    plan = pair_scenes(find_scenes(results(tmp_path, optical, item)))
    (out,) = plan.left_out
    assert out.why.startswith(
        "the catalog gave no SAR scene at all: its 2 items are of collection sentinel-2-l2a,"
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"assets": {"visual": {"href": "http://tiles.test/tci.tif"}}},
        {"assets": {"thumbnail": {"href": "a.png"}}},
        {"geometry": polygon((500000, 5.1e6), (600000, 5.1e6), (600000, 5.2e6)), "bbox": None},
    ],
    ids=["plain http", "no image", "metres"],
)
def test_a_scene_is_not_told_that_there_is_no_partner_where_the_partner_cannot_be_used(
    wrong: Json, tmp_path: Path
):
    optical = {**stac_item("o", collection="sentinel-2-l2a"), **wrong}
    echo = stac_item("e", collection="sentinel-1-grd")
    told = {out.scene: out.why for out in pair_scenes(find_scenes(results(tmp_path, optical, echo))).left_out}
    assert set(told) == {"o", "e"}
    assert told["e"].startswith("the catalog gave no optical scene that can be used: its 2 items are of")


@pytest.mark.real
@pytest.mark.parametrize("name", sorted(path.name for path in STAC_ITEMS.glob("*.json")))
def test_real_items_of_several_makers_pair_where_they_are_of_one_place_and_time(name: str, tmp_path: Path):
    """Each is moved, with its own outline's size, over one scene of the other kind."""
    item = json.loads((STAC_ITEMS / name).read_text())
    sar = name.startswith("S1")
    assert item["assets"]
    outline = shapely.geometry.shape(item["geometry"])
    if outline.bounds[2] - outline.bounds[0] > 180:  # cut at the antimeridian
        outline = shapely.union_all(shapely.transform(outline, lambda xy: xy + (xy[:, :1] < 0) * [360, 0]))
    moved = shapely.affinity.translate(outline, -60.0 - outline.centroid.x, -5.0 - outline.centroid.y)
    for asset in item["assets"].values():
        asset["href"] = f"https://example.com/{asset['href'].rpartition('/')[2]}"
    item |= {"geometry": shapely.geometry.mapping(moved), "bbox": list(moved.bounds)}
    when = {"datetime": "2025-06-12T10:00:00Z", "start_datetime": None, "end_datetime": None}
    item["properties"] |= when
    box = moved.envelope
    other = stac_item(
        "other",
        collection="sentinel-2-l2a" if sar else "sentinel-1-grd",
        geometry=shapely.geometry.mapping(box),
        bbox=list(box.bounds),
    )
    plan = pair_scenes(find_scenes(results(tmp_path, item, other)))
    if "_SL1_" in name:
        assert {out.rule: out.why for out in plan.left_out}["product type"].startswith("it is SLC")
        return
    (pair,) = plan.pairs
    read = (pair.secondary if sar else pair.reference).hrefs[0].lower()
    assert re.search(r"vh|hv" if sar else r"tci", read)


def test_files_of_one_folder_may_differ_in_their_columns(tmp_path: Path):
    """Each program writes the properties and assets that its items have, and no others."""
    folder = tmp_path / "tables"
    folder.mkdir()
    first = stac_item("a", assets={"vv": {"href": "s3://one/vv.tif"}})
    second = stac_item(
        "b",
        collection="sentinel-2-l2a",
        eo__cloud_cover=12,
        assets={"visual": {"href": "s3://one/tci.tif", "title": "TCI"}},
    )
    third = stac_item("c", eo__cloud_cover=12.5, assets={"vh": {"href": "s3://one/vh.tif"}})
    for item in (first, second, third):
        as_table(folder / f"{item['id']}.parquet", [item])
    scenes = find_scenes(folder)
    assert {scene.id: scene.hrefs[0] for scene in scenes} == {
        "a": "s3://one/vv.tif",
        "b": "s3://one/tci.tif",
        "c": "s3://one/vh.tif",
    }
    assert {scene.id: scene.cloud_cover_pct for scene in scenes}["b"] == 12
