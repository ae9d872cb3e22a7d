from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import shapely
from pydantic import TypeAdapter
from stac_site import as_table, served, stac_item, written

from crosstie.errors import CatalogError
from crosstie.io.catalog.search import SceneQuery, find_scenes
from crosstie.io.storage.href_policy import resolve_href
from crosstie.types import Kind, SceneRef

Json = dict[str, Any]

EVERYTHING = SceneQuery()


@pytest.fixture
def serve() -> Iterator[Callable[[list[Json]], str]]:
    with ExitStack() as running:
        yield lambda items: running.enter_context(served(items)).url


def ids(scenes: Iterable[SceneRef]) -> set[str]:
    return {scene.id for scene in scenes}


@pytest.mark.real
def test_the_real_catalog_gives_three_scenes_of_each_kind(real_data: Path):
    scenes = find_scenes(real_data / "scenes" / "catalog.json")
    assert [s.kind for s in scenes].count(Kind.SAR) == [s.kind for s in scenes].count(Kind.OPTICAL) == 3
    assert all(Path(href).is_file() for scene in scenes for href in scene.hrefs)
    texas = next(s for s in scenes if "20201204T003507" in s.id)
    assert texas.acquired_utc == datetime(2020, 12, 4, 0, 35, 19, 500_000, tzinfo=UTC)
    assert texas.platform == "sentinel-1a"
    assert Path(texas.hrefs[0]).name == "s1_vh.tif"
    # the quicklook's corner, from its transform and size, not from the item
    west, south, _, north = shapely.from_wkt(texas.footprint_wkt).bounds
    assert (west, south, north) == pytest.approx((-98.63227, 29.38286, 29.54386), abs=1e-5)


MANY = [
    stac_item("early", datetime="2025-06-11T23:59:59.999Z"),
    stac_item("first-moment", datetime="2025-06-12T00:00:00Z"),
    stac_item("last-moment", collection="sentinel-2-l2a", datetime="2025-06-12T23:59:59.999999Z"),
    stac_item("late", datetime="2025-06-13T00:00:00Z"),
    stac_item(
        "middle-on-the-13th",
        datetime=None,
        start_datetime="2025-06-12T23:59:50Z",
        end_datetime="2025-06-13T00:00:20Z",
    ),
    stac_item("clear", collection="sentinel-2-l1c", eo__cloud_cover=20),
    stac_item("overcast", collection="sentinel-2-l1c", eo__cloud_cover=20.1),
    stac_item(
        "fiji", geometry=shapely.geometry.mapping(shapely.box(179, -18, 180, -17)), bbox=[179, -18, 180, -17]
    ),
    stac_item("not-ours", collection="landsat-c2-l2"),
]


@pytest.mark.server
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (EVERYTHING, {item["id"] for item in MANY} - {"not-ours"}),
        (
            SceneQuery(start_utc=date(2025, 6, 12), end_utc=date(2025, 6, 12)),
            {"first-moment", "last-moment", "clear", "overcast", "fiji"},
        ),
        (SceneQuery(start_utc=date(2025, 6, 13)), {"late", "middle-on-the-13th"}),
        (SceneQuery(end_utc=datetime(2025, 6, 12, tzinfo=UTC)), {"early", "first-moment"}),
        (SceneQuery(max_cloud_pct=20), {item["id"] for item in MANY} - {"not-ours", "overcast"}),
        (SceneQuery(bbox=(170, -20, -170, 0)), {"fiji"}),
        (SceneQuery(bbox=(0, 0, 20, 47.9)), set()),
        (SceneQuery(intersects="POINT (179.5 -17.5)"), {"fiji"}),
        (SceneQuery(intersects="POLYGON ((178 -19, -178 -19, -178 -16, 178 -16, 178 -19))"), {"fiji"}),
        (SceneQuery(sar_collections=(), optical_collections=("sentinel-2-l2a",)), {"last-moment"}),
    ],
)
def test_a_file_an_api_and_a_table_answer_alike(
    query: SceneQuery, expected: set[str], tmp_path: Path, serve: Callable[[list[Json]], str]
):
    static = find_scenes(written(tmp_path / "site", MANY), query)
    assert ids(static) == expected
    assert list(find_scenes(serve(MANY), query)) == list(static)
    assert list(find_scenes(as_table(tmp_path / "items.parquet", MANY), query)) == list(static)


@pytest.mark.parametrize(
    ("collection", "assets", "taken"),
    [
        ("sentinel-1-grd", ["vv", "vh", "thumbnail"], "vh"),
        ("sentinel-1-rtc", ["VV", "VH"], "VH"),
        ("sentinel-1-grd", ["vv"], "vv"),
        ("sentinel-1-grd", ["hh", "hv"], "hv"),
        ("sentinel-1-grd", ["schema-product-hh", "hh", "thumbnail"], "hh"),
        ("sentinel-1-rtc", ["gamma0_vv", "gamma0_vh", "incidence"], "gamma0_vh"),
        ("sentinel-1-rtc", ["sigma0_vv"], "sigma0_vv"),
        ("sentinel-1-grd", ["0_VV", "1_VH"], "1_VH"),
        ("sentinel-1-grd", ["iw-vv", "iw-vh"], "iw-vh"),
        ("sentinel-1-grd", ["metadata", "data"], "data"),
        ("sentinel-2-l2a", ["red", "visual", "B04"], "visual"),
        ("sentinel-2-l2a", ["B04_10m", "TCI_10m"], "TCI_10m"),
        ("sentinel-2-l2a", ["B04", "AOT"], "B04"),
        ("sentinel-2-l2a", ["B04-20m", "b04-10m", "scl"], "b04-10m"),
        ("sentinel-2-l1c", ["red-jp2", "visual-jp2", "thumbnail"], "visual-jp2"),
        ("sentinel-2-l1c", ["B4", "B2", "TrueColor_preview"], "B4"),
        ("sentinel-2-l2a", ["rededge1", "true_color", "visual_20m"], "true_color"),
    ],
)
def test_one_asset_is_read_the_best_known(collection: str, assets: list[str], taken: str, tmp_path: Path):
    offered = {name: {"href": f"https://example.com/{name}.tif"} for name in assets}
    catalog = written(tmp_path, [stac_item("x", collection=collection, assets=offered)])
    (scene,) = find_scenes(catalog)
    assert scene.hrefs == (f"https://example.com/{taken}.tif",)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"assets": {"incidence": {"href": "a.tif"}, "schema-vh": {"href": "b.xml"}}},
            "no SAR asset.*it has: incidence, schema-vh",
        ),
        ({"assets": {"vh": {"href": "../../secret.tif"}}}, "outside the catalog's folder"),
        ({"geometry": None, "bbox": None}, "neither geometry nor bbox"),
    ],
)
def test_an_unusable_item_is_left_out_by_name(
    changes: Json, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    bad = stac_item("bad-one", **changes)
    if bad["bbox"] is None:
        del bad["bbox"]
    catalog = written(tmp_path / "c", [bad, stac_item("good")])
    scenes = find_scenes(catalog)
    assert ids(scenes) == {"good"}
    (out,) = scenes.left_out
    assert (out.scene, out.rule) == ("bad-one", "cannot be used")
    assert re.search(why, out.why)
    with caplog.at_level(logging.WARNING):
        find_scenes(catalog, explain=False)
    assert len(caplog.messages) == 1
    caplog.records[0].getMessage().index("bad-one")
    assert re.search(why, caplog.messages[0])


def test_items_without_a_collection_are_known_by_what_they_carry(tmp_path: Path):
    items = [
        stac_item("by-platform", platform="Sentinel-1C"),
        stac_item("by-constellation", collection="sentinel-2-l2a", platform=None, constellation="sentinel-2"),
        stac_item("by-instrument", platform=None, instruments=["c-sar"]),
    ]
    for item in items:
        del item["collection"]
    found = find_scenes(written(tmp_path, items))
    kinds = {scene.id: scene.kind for scene in found}
    assert kinds == {
        "by-platform": Kind.SAR,
        "by-constellation": Kind.OPTICAL,
        "by-instrument": Kind.SAR,
    }


def test_a_circle_of_links_ends_and_search_results_in_a_file_are_read(tmp_path: Path):
    catalog = written(tmp_path, [stac_item("x")])
    body = json.loads(catalog.read_text())
    body["links"] += [{"rel": "child", "href": "./catalog.json"}, {"rel": "item", "href": "./x/item.json"}]
    catalog.write_text(json.dumps(body))
    assert ids(find_scenes(catalog)) == {"x"}

    results = tmp_path / "results.json"
    results.write_text(
        json.dumps({"type": "FeatureCollection", "features": [stac_item("y"), stac_item("z")]})
    )
    assert ids(find_scenes(results)) == {"y", "z"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot read the catalog"),
        ("<html>", "is not JSON"),
        ("[1, 2]", "JSON but not STAC"),
        ('{"type": "Topology"}', "JSON but not STAC"),
        ('{"type": "Feature", "id": 1}', "not a STAC item"),
        (
            '{"type": "Catalog", "links": [{"rel": "child", "href": "gone.json"}]}',
            r"cannot read .*gone.json \(named by .*c.json\)",
        ),
    ],
)
def test_what_is_no_catalog_is_said_in_one_line(content: str | None, why: str, tmp_path: Path):
    if content is not None:
        (tmp_path / "c.json").write_text(content)
    with pytest.raises(CatalogError, match=why) as caught:
        find_scenes(tmp_path / "c.json")
    assert "\n" not in str(caught.value)


@pytest.mark.server
def test_an_api_that_refuses_is_told_with_what_was_asked(serve: Callable[[list[Json]], str]):
    with pytest.raises(CatalogError, match=r"no such collection.*collections sentinel-1-grd") as caught:
        find_scenes(serve([]))
    assert "\n" not in str(caught.value)


@pytest.mark.server
def test_a_server_that_is_not_there_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("crosstie.io.storage.http.BACKOFF_S", 0.01)
    with pytest.raises(CatalogError, match=r"cannot read the catalog http://127\.0\.0\.1:9/") as caught:
        find_scenes("http://127.0.0.1:9/")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"start_utc": datetime(2025, 6, 12)},
        {"start_utc": date(2025, 6, 13), "end_utc": date(2025, 6, 12)},
        {"bbox": (0.0, 10.0, 10.0, 0.0)},
        {"bbox": (500_000.0, 0.0, 600_000.0, 10.0)},
        {"max_cloud_pct": 101.0},
        {"sar_collections": (), "optical_collections": ()},
    ],
)
def test_a_query_of_nonsense_is_refused(wrong: Json):
    with pytest.raises(ValueError, match=r"."):
        SceneQuery(**wrong)


@pytest.mark.parametrize("end", [date(2025, 6, 12), datetime(2025, 6, 12, tzinfo=UTC), None])
def test_a_query_survives_the_way_through_json(end: date | None):
    as_settings = TypeAdapter(SceneQuery)
    query = SceneQuery(end_utc=end, bbox=(1, 2, 3, 4))
    again = as_settings.validate_json(as_settings.dump_json(query))
    assert again == query
    assert again.interval_utc == query.interval_utc


REMOTE = "https://example.com/stac/catalog.json"


@pytest.mark.parametrize(
    ("href", "base", "expected"),
    [
        ("./a/x.tif", REMOTE, "https://example.com/stac/a/x.tif"),
        ("../x.tif", "https://example.com/stac/a/item.json", "https://example.com/stac/x.tif"),
        ("https://other.org/x.tif?sig=a%2Fb", REMOTE, "https://other.org/x.tif?sig=a%2Fb"),
        ("s3://bucket/a b/x.tif", REMOTE, "s3://bucket/a b/x.tif"),
        ("//cdn.example.com/x.tif", REMOTE, "https://cdn.example.com/x.tif"),
    ],
)
def test_hrefs_of_a_remote_catalog(href: str, base: str, expected: str):
    assert resolve_href(href, catalog_href=REMOTE, base_href=base) == expected


@pytest.mark.parametrize(
    "href",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "../outside.tif",
        "/vsicurl/https://example.com/x.tif",
        "/vsizip/x.zip/x.tif",
        "NETCDF:x.nc:v",
        "GTIFF_RAW:x.tif",
        "vrt:///etc/passwd",
        "zip://x.zip!x.tif",
        "ftp://example.com/x.tif",
        "http://example.com/x.tif",
        "http://169.254.169.254/latest/meta-data",
        "<VRTDataset/>",
        '{"type": "gdal_streamed_alg"}',
        "https://",
        "x.tif\n/etc/passwd",
        "link.tif",
        "",
    ],
)
def test_hrefs_that_a_local_catalog_may_not_name(href: str, tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "outside.tif").write_bytes(b"")
    (home / "link.tif").symlink_to(tmp_path / "outside.tif")
    with pytest.raises(CatalogError) as caught:
        resolve_href(href, catalog_href=str(home / "catalog.json"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "href",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "http://127.0.0.1:8080/x.tif",
        "http://localhost/x.tif",
        "/vsimem/x",
    ],
)
def test_a_remote_catalog_cannot_reach_into_this_machine(href: str):
    # a rooted path is a path of the catalog's own server, which is no file of ours
    if href == "/etc/passwd":
        assert resolve_href(href, catalog_href=REMOTE) == "https://example.com/etc/passwd"
        return
    with pytest.raises(CatalogError):
        resolve_href(href, catalog_href=REMOTE)


def test_plain_http_is_for_this_machine_or_a_host_that_is_named():
    home, far = "http://stac.local/catalog.json", "http://other.local/x.tif"
    assert resolve_href("x.json", catalog_href=home, http_host="stac.local") == "http://stac.local/x.json"
    for host in (None, "stac.local"):
        with pytest.raises(CatalogError, match=r"plain http to other\.local"):
            resolve_href(far, catalog_href=home, http_host=host)


def test_local_hrefs_stay_in_the_catalogs_folder_unless_allowed(tmp_path: Path):
    catalog, item = tmp_path / "home" / "catalog.json", tmp_path / "home" / "a" / "item.json"

    def resolve(href: str, **more: Any) -> str:
        return resolve_href(href, catalog_href=str(catalog), base_href=str(item), **more)

    assert resolve("./x.tif") == str(tmp_path / "home" / "a" / "x.tif")
    assert resolve("../x.tif") == str(tmp_path / "home" / "x.tif")
    assert resolve((tmp_path / "home" / "a b.tif").as_uri()) == str(tmp_path / "home" / "a b.tif")
    assert resolve("http://localhost:1/x.tif") == "http://localhost:1/x.tif"
    elsewhere = str(tmp_path / "data" / "x.tif")
    with pytest.raises(CatalogError, match="outside the catalog's folder"):
        resolve(elsewhere)
    assert resolve(elsewhere, allow=[tmp_path / "data"]) == elsewhere
