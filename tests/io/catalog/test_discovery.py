"""Equal scenes from every kind of catalog, whatever is in it and whatever is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stac_site import CORE, CQL2, Site, as_table, served, stac_item

from crosstie.errors import CatalogError
from crosstie.io.catalog.presets import PRESETS, preset_of
from crosstie.io.catalog.search import SceneQuery, find_scene, find_scenes
from crosstie.io.pairing.pair_scenes import pair_scenes
from crosstie.io.scenes.table import Scenes
from crosstie.io.simulation.archive import archive_items, simulated_archive, write_archive
from crosstie.io.storage import http as patient_http
from crosstie.types import Kind

Json = dict[str, Any]

BEGIN = datetime(2025, 6, 10, tzinfo=UTC)


@st.composite
def items(draw: st.DrawFn) -> Json:
    """A STAC item as one of several catalogs would write it, at times on the antimeridian."""
    collection = draw(
        st.sampled_from(["sentinel-1-grd", "sentinel-2-l2a", "sentinel-2-l1c", "landsat-c2-l2"])
    )
    west, south = (
        draw(st.sampled_from([-180.0, -179, 10, 11.5, 178.5])),
        draw(st.sampled_from([-18.0, 48, 49.5])),
    )
    outline = shapely.box(west, south, west + 1, south + 1)
    if draw(st.booleans()) and west > 170:  # over 180 and not cut, as some write it
        outline = shapely.Polygon([(west, south), (-179.5, south), (-179.5, south + 1), (west, south + 1)])
    when = BEGIN + timedelta(
        seconds=draw(st.integers(0, 4 * 86_400)), microseconds=draw(st.integers(0, 999_999))
    )
    said: Json = {"datetime": when.isoformat()}
    if draw(st.booleans()):
        said |= {
            "start_datetime": when.isoformat(),
            "end_datetime": (when + timedelta(seconds=25)).isoformat(),
        }
        said["datetime"] = draw(st.sampled_from([None, when.isoformat()]))
    sar = "sentinel-1" in collection
    said["platform"] = draw(
        st.sampled_from(["sentinel-1a", "Sentinel-1C"] if sar else ["sentinel-2b", "S2A"])
    )
    if not sar and draw(st.booleans()):
        said["eo:cloud_cover"] = draw(st.sampled_from([0.0, 19.6, 20.0, 20.4, 100.0]))
    if draw(st.booleans()):
        said["sat:orbit_state"] = draw(st.sampled_from(["ascending", "descending"]))
    if draw(st.booleans()):
        said["sat:relative_orbit"] = draw(st.sampled_from([7, 71]))
    if not sar and draw(st.booleans()):
        said["grid:code"] = draw(st.sampled_from(["MGRS-1KAB", "MGRS-32UPU"]))
        said["s2:processing_baseline"] = draw(st.sampled_from(["02.09", "05.10"]))
    return stac_item(
        draw(st.sampled_from("abcdefgh")),
        collection=collection,
        geometry=json.loads(shapely.to_geojson(outline)),
        bbox=list(outline.bounds),
        properties=said,
        assets=draw(
            st.sampled_from(
                [
                    {"vh": {"href": "https://example.com/vh.tif"}, "visual": {"href": "s3://b/visual.tif"}},
                    {
                        "vv": {"href": "https://example.com/vv.tif"},
                        "red": {"href": "https://example.com/r.tif"},
                    },
                    {
                        "vh": {"href": "/vsicurl/https://example.com/x"},
                        "red": {"href": "ftp://example.com/r"},
                    },
                    {"thumbnail": {"href": "https://example.com/t.png"}},
                ]
            )
        ),
    )


queries = st.builds(
    SceneQuery,
    start_utc=st.sampled_from([None, date(2025, 6, 11), BEGIN + timedelta(days=1, microseconds=1)]),
    end_utc=st.sampled_from([None, date(2025, 6, 12), BEGIN + timedelta(days=3)]),
    bbox=st.sampled_from([None, (9.0, 47.0, 11.0, 49.0), (179.0, -20.0, -179.0, 0.0)]),
    intersects=st.sampled_from([None, "POLYGON ((11 48, 13 48, 13 50.2, 11 48))", "POINT (179.9 -17.5)"]),
    max_cloud_pct=st.sampled_from([None, 19.8, 20.0]),
    orbit=st.sampled_from(["any", "ascending"]),
    tracks=st.sampled_from([(), (71,)]),
    platforms=st.sampled_from([(), ("S1C",), ("S1A", "S2A")]),
)


@pytest.fixture(scope="module")
def plain() -> Iterator[Site]:
    with served([], conforms_to=CORE) as site:
        yield site


@pytest.fixture(scope="module")
def filtering() -> Iterator[Site]:
    with served([], conforms_to=CORE + CQL2) as site:
        yield site


def told(scenes: Scenes) -> tuple[list[object], list[object]]:
    return list(scenes), list(scenes.left_out)


@pytest.mark.server
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    found=st.lists(items(), min_size=1, max_size=8, unique_by=lambda item: (item["collection"], item["id"])),
    query=queries,
)
def test_every_kind_of_catalog_gives_the_same_scenes_and_the_same_reasons(
    found: list[Json], query: SceneQuery, tmp_path: Path, plain: Site, filtering: Site
):
    static = tmp_path / "items.json"
    static.write_text(json.dumps({"type": "FeatureCollection", "features": found}))
    table = as_table(tmp_path / "items.parquet", found)
    plain.items = filtering.items = found
    expected = find_scenes(static, query)
    assert told(find_scenes(table, query)) == told(expected)
    for site in (plain, filtering):
        assert told(find_scenes(site.url, query)) == told(expected)
        assert list(find_scenes(site.url, query, explain=False)) == list(expected)


@pytest.mark.server
def test_rules_are_left_to_an_api_that_can_filter_unless_reasons_are_wanted():
    found = [
        stac_item("clear", collection="sentinel-2-l2a", eo__cloud_cover=5),
        stac_item("says-nothing", collection="sentinel-2-l2a"),
        stac_item("overcast", collection="sentinel-2-l2a", eo__cloud_cover=90),
        stac_item("up", sat__orbit_state="ascending"),
        stac_item("down", sat__orbit_state="descending"),
    ]
    query = SceneQuery(max_cloud_pct=20, orbit="ascending")
    with served(found, conforms_to=CORE + CQL2) as site:
        narrow = find_scenes(site.url, query, explain=False)
        assert [scene.id for scene in narrow] == ["clear", "says-nothing", "up"]
        assert all("filter" in body for body in site.asked)
        site.asked.clear()
        wide = find_scenes(site.url, query)
        assert not any("filter" in body for body in site.asked)
        assert list(wide) == list(narrow)
        assert {out.scene: out.why for out in wide.left_out} == {
            "overcast": "90.0 % of it are cloud (catalog.max_cloud_pct is 20)",
            "down": "its orbit is descending (catalog.orbit is ascending)",
        }
        site.refuses_filters = True  # conforms to CQL2, but does not know the property
        assert list(find_scenes(site.url, query, explain=False)) == list(narrow)
    with served(found) as site:
        assert list(find_scenes(site.url, query, explain=False)) == list(narrow)
        assert not any("filter" in body for body in site.asked)


@pytest.mark.server
def test_a_busy_api_is_asked_again_and_one_that_stays_broken_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patient_http, "BACKOFF_S", 0.0)
    found = [stac_item(f"s{n}") for n in range(5)]
    with served(found) as site:
        site.troubles = [429, 503]
        assert len(find_scenes(site.url)) == 5
        # two refusals, three pages of SAR, one of optical
        assert len(site.asked) == 6
        site.troubles = [502] * 20
        with pytest.raises(CatalogError, match=r"the STAC API .* failed"):
            find_scenes(site.url)


@pytest.mark.server
def test_one_scene_is_found_by_its_id_whenever_and_wherever_it_was(tmp_path: Path):
    found = [stac_item("old", datetime="2019-01-01T00:00:00Z"), stac_item("new"), stac_item("bad", assets={})]
    query = SceneQuery(start_utc=date(2025, 1, 1))
    static = tmp_path / "items.json"
    static.write_text(json.dumps({"type": "FeatureCollection", "features": found}))
    with served(found) as site:
        for catalog in (static, as_table(tmp_path / "items.parquet", found), site.url):
            scene = find_scene(catalog, "old", query)
            assert scene is not None
            assert scene.acquired_utc.year == 2019
            assert find_scene(catalog, "missing", query) is None
            with pytest.raises(CatalogError, match="bad: no SAR asset"):
                find_scene(catalog, "bad", query)


def test_a_table_is_known_by_its_bytes_and_what_is_none_is_said(tmp_path: Path):
    table = as_table(tmp_path / "items.parquet", [stac_item("x")])
    unnamed = table.rename(tmp_path / "items")
    assert [scene.id for scene in find_scenes(unnamed)] == ["x"]
    folder = tmp_path / "parts"
    folder.mkdir()
    as_table(folder / "a.parquet", [stac_item("a")])
    as_table(folder / "b.parquet", [stac_item("b")])
    assert [scene.id for scene in find_scenes(folder)] == ["a", "b"]
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(CatalogError, match=r"cannot read the catalog .*broken\.parquet"):
        find_scenes(tmp_path / "broken.parquet")
    with pytest.raises(CatalogError, match=r"cannot read the catalog .*gone\.parquet"):
        find_scenes(tmp_path / "gone.parquet")


def test_hrefs_of_a_table_are_trusted_no_more_than_those_of_a_file(tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "outside.tif").write_bytes(b"")
    found = [
        stac_item("inside", assets={"vh": {"href": "./data/x.tif"}}),
        stac_item("outside", assets={"vh": {"href": "../outside.tif"}}),
        stac_item("driver", assets={"vh": {"href": "/vsicurl/https://example.com/x.tif"}}),
    ]
    scenes = find_scenes(as_table(home / "items.parquet", found))
    assert [scene.hrefs for scene in scenes] == [(str(home / "data" / "x.tif"),)]
    assert {out.scene for out in scenes.left_out} == {"outside", "driver"}


def test_times_as_text_and_assets_as_json_are_read_too(tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    item = stac_item("x", datetime="2025-06-12T23:59:59.999999Z")
    columns = {
        "id": ["x"],
        "collection": [item["collection"]],
        "geometry": [shapely.to_wkb(shapely.geometry.shape(item["geometry"]))],
        "datetime": [item["properties"]["datetime"]],
        "assets": [json.dumps(item["assets"])],
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    query = SceneQuery(start_utc=date(2025, 6, 12), end_utc=date(2025, 6, 12))
    assert [scene.hrefs for scene in find_scenes(tmp_path / "t.parquet", query)] == [
        ("https://example.com/x.tif",)
    ]


# One item as each catalog writes it, reduced to what is read of it.
EARTH_SEARCH = stac_item(
    "S2B_1WCV_20251010_0_L2A", collection="sentinel-2-l2a", grid__code="MGRS-1WCV",
    s2__processing_baseline="05.11", s2__product_type="S2MSI2A", s2__generation_time="2025-10-10T07:58:40Z",
    created="2026-01-01T00:00:00Z", platform="sentinel-2b", eo__cloud_cover=13.3,
    assets={"red": {"href": "https://h/B04.tif"}, "visual": {"href": "https://h/TCI.tif"}},
)  # fmt: skip
PLANETARY = stac_item(
    "S2A_MSIL2A_20231107T144731_R139_T20QRF_20231107T182159", collection="sentinel-2-l2a",
    s2__mgrs_tile="20QRF", s2__processing_baseline="05.09", s2__product_type="S2MSI2A",
    s2__generation_time="2023-11-07T18:21:59Z", sat__relative_orbit=139, platform="Sentinel-2A",
    assets={"B04": {"href": "https://h/B04.tif"}, "visual": {"href": "https://h/TCI.tif"}},
)  # fmt: skip
PLANETARY_RTC = stac_item(
    "S1A_IW_GRDH_1SDV_20230101T003507_20230101T003532_035529_042771_rtc", collection="sentinel-1-rtc",
    sar__product_type="GRD", sat__orbit_state="descending", sat__relative_orbit=107, platform="SENTINEL-1A",
    assets={"vv": {"href": "https://h/vv.tif"}, "vh": {"href": "https://h/vh.tif"}},
)  # fmt: skip
COPERNICUS = stac_item(
    "S2A_MSIL1C_20260628T115421_N0512_R023_T29UNT_20260628T194416", collection="sentinel-2-l1c",
    product__type="S2MSI1C", processing__version="05.12", processing__datetime="2026-06-28T19:44:16Z",
    grid__code="MGRS-29UNT", sat__relative_orbit=23, platform="sentinel-2a",
    assets={"TCI": {"href": "s3://eodata/TCI.jp2"}, "B04": {"href": "s3://eodata/B04.jp2"}},
)  # fmt: skip
COPERNICUS_GRD = stac_item(
    "S1C_IW_GRDH_1SDV_20260627T002015_20260627T002040_001234_ABCDEF_1234_COG", product__type="IW_GRDH_1S",
    sat__orbit_state="ascending", sat__relative_orbit=42, platform="sentinel-1c",
    assets={"vv": {"href": "s3://eodata/vv.tiff"}, "vh": {"href": "s3://eodata/vh.tiff"}},
)  # fmt: skip


@pytest.mark.parametrize(
    ("preset", "item", "expected"),
    [
        (
            "earth-search",
            EARTH_SEARCH,
            ("L2A", None, None, "01WCV", "05.11", "2025-10-10T07:58:40", "TCI.tif"),
        ),
        (
            "planetary-computer",
            PLANETARY,
            ("L2A", None, 139, "20QRF", "05.09", "2023-11-07T18:21:59", "TCI.tif"),
        ),
        ("planetary-computer", PLANETARY_RTC, ("RTC", "descending", 107, None, None, None, "vh.tif")),
        ("cdse", COPERNICUS, ("L1C", None, 23, "29UNT", "05.12", "2026-06-28T19:44:16", "TCI.jp2")),
        ("cdse", COPERNICUS_GRD, ("GRD", "ascending", 42, None, None, None, "vh.tiff")),
    ],
)
def test_a_preset_reads_its_catalog_and_without_one_the_same_is_read(
    preset: Any, item: Json, expected: tuple[object, ...], tmp_path: Path
):
    file = tmp_path / "item.json"
    file.write_text(json.dumps(item))
    (scene,) = find_scenes(file, SceneQuery(preset=preset))
    created = scene.created_utc and scene.created_utc.strftime("%Y-%m-%dT%H:%M:%S")
    name = scene.hrefs[0].rpartition("/")[2]
    found = (scene.product_type, scene.orbit_state, scene.relative_orbit, scene.mgrs_tile)
    assert (*found, scene.processing_baseline, created, name) == expected
    assert scene.platform == item["properties"]["platform"].lower()
    (without,) = find_scenes(file, SceneQuery(preset="none"))
    assert without == scene


def test_what_an_item_does_not_say_is_told_by_its_id(tmp_path: Path):
    file = tmp_path / "item.json"
    name = "S2A_MSIL1C_20201031T171451_N0209_R112_T14RNT_20201031T192356"
    file.write_text(json.dumps(stac_item(name, collection="sentinel-2-l1c", platform=None)))
    (scene,) = find_scenes(file)
    assert (scene.platform, scene.product_type, scene.relative_orbit) == ("sentinel-2a", "L1C", 112)
    assert (scene.mgrs_tile, scene.processing_baseline) == ("14RNT", "02.09")


def test_a_preset_is_told_by_the_address_and_asks_for_its_own_collections_only():
    query = SceneQuery()
    assert (
        preset_of(query, "https://planetarycomputer.microsoft.com/api/stac/v1").name == "planetary-computer"
    )
    assert preset_of(query, "https://earth-search.aws.element84.com/v1").name == "earth-search"
    assert preset_of(query, "https://stac.dataspace.copernicus.eu/v1/").name == "cdse"
    assert preset_of(query, "https://planetarycomputer.microsoft.com.evil.example/").name == "none"
    assert preset_of(replace(query, preset="cdse"), "/a/folder").name == "cdse"
    assert PRESETS["cdse"].asked(query.sar_collections) == ("sentinel-1-grd",)
    assert PRESETS["cdse"].asked(("my-own",)) == ("my-own",)
    assert PRESETS["none"].asked(query.sar_collections) == query.sar_collections


def test_scenes_are_columns_that_read_as_a_sequence(tmp_path: Path):
    found = [stac_item("s1", sat__relative_orbit=71), stac_item("s2", collection="sentinel-2-l2a")]
    scenes = find_scenes(as_table(tmp_path / "t.parquet", found))
    assert len(scenes) == 2
    assert [scene.kind for scene in scenes] == [Kind.SAR, Kind.OPTICAL]
    assert scenes[-1] == scenes[1] == list(scenes)[1]
    assert scenes[:1] == [scenes[0]]
    again = Scenes.of(list(scenes))
    assert list(again) == list(scenes)


def test_the_simulated_archive_gives_equal_pairs_as_a_table_and_as_items(tmp_path: Path):
    table = simulated_archive(300, years=0.1)
    write_archive(tmp_path / "archive.parquet", table)
    items_file = tmp_path / "items.json"
    items_file.write_text(json.dumps({"type": "FeatureCollection", "features": list(archive_items(table))}))
    query = SceneQuery(start_utc=date(2021, 1, 1), end_utc=date(2021, 1, 25), max_cloud_pct=60)
    by_table = pair_scenes(find_scenes(tmp_path / "archive.parquet", query))
    by_items = pair_scenes(find_scenes(items_file, query))
    assert by_table == by_items
    assert len(by_table.pairs) > 10
    assert {"cloud", "no partner"} <= dict(by_table.by_rule()).keys()
