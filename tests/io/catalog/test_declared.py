"""Scale and offset that items declare: in each form that is in use, the same from every catalog."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stac_site import as_table, stac_item

from crosstie.io.catalog.search import SceneQuery, find_scenes

STAC_ITEMS = Path(__file__).parents[4] / "shared" / "data" / "stac_items"

BOA = {"scale": 0.0001, "offset": -0.1}
VERSION_2 = {"raster:scale": 0.0001, "raster:offset": -0.1}


def item(asset: dict[str, Any], *, name: str = "x", asset_name: str = "red", **properties: Any) -> Any:
    address = {"href": f"https://example.com/{name}.tif"}
    one = stac_item(name, collection="sentinel-2-l2a", assets={asset_name: address | asset})
    return one | {"properties": one["properties"] | properties}


def declared(folder: Path, *items: Any, query: SceneQuery | None = None) -> dict[str, object]:
    """What the scenes of items declare, by id; the same whether they lie in a file or in a table."""
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    by_file = find_scenes(folder / "items.json", query)
    assert list(find_scenes(as_table(folder / "items.parquet", items), query)) == list(by_file)
    return {scene.id: scene.declared for scene in by_file}


@pytest.mark.parametrize(
    ("asset", "expected"),
    [
        ({"raster:bands": [BOA]}, ((0.0001, -0.1),)),
        ({"raster:bands": [{"scale": 0.01, "data_type": "int16"}]}, ((0.01, 0.0),)),
        ({"raster:bands": [{"offset": -50, "nodata": 0}]}, ((1.0, -50.0),)),
        ({"raster:bands": [BOA, BOA, {"scale": 2.0}]}, ((0.0001, -0.1), (0.0001, -0.1), (2.0, 0.0))),
        # STAC 1.1 and version 2 of the extension: of each band, or of the asset for all bands
        ({"bands": [{"name": "B04", **VERSION_2}]}, ((0.0001, -0.1),)),
        (VERSION_2, ((0.0001, -0.1),)),
        ({"raster:scale": 0.0001, "bands": [{"name": "a", "raster:offset": -0.1}]}, ((0.0001, -0.1),)),
        ({"bands": [{"name": "B04"}], "raster:bands": [BOA]}, ((0.0001, -0.1),)),
        # a name that version 2 does not have in `bands`
        ({"bands": [{"name": "B04", "scale": 0.5}]}, ()),
        ({}, ()),
        ({"raster:bands": []}, ()),
        ({"raster:bands": [{"scale": 1, "offset": 0}]}, ()),
    ],
)
def test_each_form_is_read(asset: dict[str, Any], expected: object, tmp_path: Path):
    assert declared(tmp_path, item(asset)) == {"x": expected}


@pytest.mark.parametrize(
    "asset",
    [
        {"raster:bands": {"scale": 0.5}},
        {"raster:bands": [[0.5, -0.1]]},
        {"raster:bands": [BOA] * 65},
        {"raster:bands": [{"scale": "0.5"}]},
        {"raster:bands": [{"scale": True}]},
        {"raster:bands": [{"scale": 0.0}]},
        {"raster:bands": [{"scale": -1.0}]},
        {"raster:bands": [{"scale": 10**400}]},
        {"raster:bands": [{"scale": [0.5]}]},
        {"bands": "raster:scale"},
        {"raster:scale": "0.5"},
    ],
)
def test_what_cannot_be_meant_is_as_if_not_said(asset: dict[str, Any], tmp_path: Path):
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [item(asset)]}))
    (scene,) = find_scenes(path)
    assert scene.declared == ()


@pytest.mark.parametrize(
    ("applied", "expected"), [(True, (0.0001, 0.0)), (False, (0.0001, -0.1)), (None, (0.0001, -0.1))]
)
def test_an_offset_that_the_pixels_have_already_is_none(
    applied: object, expected: tuple[float, float], tmp_path: Path
):
    said = {"earthsearch:boa_offset_applied": applied}
    found = declared(
        tmp_path,
        item({"raster:bands": [BOA]}, name="one", **said),
        # of scenes that declare nothing it says nothing
        item({"raster:bands": [{"nodata": 0, "scale": None, "offset": None}]}, name="two", **said),
    )
    assert found == {"one": (expected,), "two": ()}


def test_only_what_is_said_of_the_asset_that_is_read_counts(tmp_path: Path):
    assets = {
        "B08": {"href": "https://example.com/nir.tif", "raster:bands": [{"scale": 3.0}]},
        "visual": {"href": "https://example.com/tci.tif"},
        "B04_red": {"href": "https://example.com/red.tif", "raster:bands": [{"scale": 2.0}]},
    }
    one = item({}) | {"assets": assets}
    assert declared(tmp_path, one) == {"x": ()}
    assert declared(tmp_path, one, query=SceneQuery(optical_assets=("B08",))) == {"x": ((3.0, 0.0),)}
    by_words = one | {"assets": {name: assets[name] for name in ("B08", "B04_red")}}
    assert declared(tmp_path, by_words) == {"x": ((2.0, 0.0),)}


@pytest.mark.parametrize(
    ("name", "asset", "expected"),
    [
        ("S2B_T33XWJ_20220413T150756_L2A", "red", ((0.0001, -0.1),)),
        ("S2B_T33XWJ_20220413T150756_L2A", "visual", ()),
        ("S2B_T01CCV_20191228T210521_L2A", "red", ((0.0001, 0.0),)),
        ("S2A_28QCH_20200714_0_L2A", "B04", ()),
        ("S1B_20161121_12SYJ_ASC", "gamma0_vh", ()),
    ],
)
def test_real_items_declare_it_of_the_asset_that_is_read(
    name: str, asset: str, expected: object, tmp_path: Path
):
    if not STAC_ITEMS.is_dir():
        pytest.skip(f"{STAC_ITEMS} is not there")
    real = json.loads((STAC_ITEMS / f"{name}.json").read_text())
    for one in real["assets"].values():
        one["href"] = f"https://example.com/{one['href'].rpartition('/')[2]}"
    path = tmp_path / "item.json"
    path.write_text(json.dumps(real))
    query = SceneQuery(optical_assets=(asset,), sar_assets=(asset,))
    assert [scene.declared for scene in find_scenes(path, query)] == [expected]
