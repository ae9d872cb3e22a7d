"""Items as other people write them: numbers that cannot be, parts that are missing, forms that are wrong."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import shapely
from stac_site import stac_item

from crosstie.errors import CatalogError
from crosstie.io.catalog.search import find_scenes
from crosstie.io.scenes.table import Scenes

Json = dict[str, Any]


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
