"""No catalog fills memory, keeps a processor busy or lets a night pass: each bomb ends in 10 s and 1 GiB.

Which guard is proven by which test (take the guard away, and the test fails):

- bytes after decompression, compression twice, bodies of redirects and of errors (`http._body`, `http.send`,
  `PatientRetry.increment`): `test_an_answer_that_is_a_bomb`
- values and depth of a document (`documents`), vertices, crossings, turns and range of outlines (`outlines`),
  numbers (`items`, `properties`): `test_a_file_that_is_a_bomb`
- memory of a table, its WKB and its types (`table_process`, `outlines`): `test_a_table_that_is_a_bomb`
- waits that a server asks for and bytes that drip (`PatientRetry.get_retry_after`, `_ended_after`):
  `test_a_server_that_lets_one_wait`
- files, pages, items, bytes and seconds in all (`budget`): `test_each_limit_is_named`
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
import shapely
from stac_site import as_table, served, stac_item, written

from crosstie.errors import CatalogError
from crosstie.io.catalog.items import rows_of
from crosstie.io.catalog.outlines import outlines_of
from crosstie.io.catalog.presets import NONE
from crosstie.io.catalog.search import find_scenes
from crosstie.io.scenes.table import objects
from crosstie.io.storage.address import AddressPolicy
from crosstie.io.storage.budget import CatalogLimits
from crosstie.io.storage.http import guard, patient_retry

FIND_WITHIN_LIMITS = """
import resource, sys
from crosstie.errors import CatalogError
from crosstie.io.catalog.outlines import outlines_of
from crosstie.io.catalog.search import find_scenes
import crosstie.io.catalog.stac_geoparquet, crosstie.io.catalog.stac_api, crosstie.io.catalog.scenes_of_items
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30,) * 2)
spent = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2])) + 1
resource.setrlimit(resource.RLIMIT_CPU, (spent + 10,) * 2)
try:
    scenes = find_scenes(sys.argv[1])
except CatalogError as problem:
    print("refused:", problem)
else:
    print("found:", *[scene.id for scene in scenes])
    for out in scenes.left_out:
        print(out.scene, "left out:", out.why[:600])
children = resource.getrusage(resource.RUSAGE_CHILDREN)
assert children.ru_utime + children.ru_stime < 10
assert children.ru_maxrss < 2**21, children.ru_maxrss
"""


def searched(catalog: str | Path) -> list[str]:
    """Lines said of a catalog by a process that may take a gigabyte and ten seconds more."""
    ended = subprocess.run(
        [sys.executable, "-c", FIND_WITHIN_LIMITS, str(catalog)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout.splitlines()


def ring(vertices: Any) -> dict[str, Any]:
    points = [list(map(float, point)) for point in vertices]
    return {"type": "Polygon", "coordinates": [[*points, points[0]]]}


def crossing(count: int) -> dict[str, Any]:
    """A ring of which every side crosses every other."""
    return ring(np.random.default_rng(0).random((count, 2)) * [1, 1] + [11, 48])


def over_the_antimeridian(count: int) -> dict[str, Any]:
    n = np.arange(count)
    return ring(np.column_stack([np.where(n % 2, 179, -179), -60 + 100 * n / count]))


def round_and_round(turns: int) -> dict[str, Any]:
    return ring([((n * 100 + 180) % 360 - 180, n % 7) for n in range(4 * turns)])


NOT_FINITE = float("inf")

ITEM_BOMBS: dict[str, tuple[dict[str, Any], str]] = {
    "all sides cross": ({"geometry": crossing(1300)}, "crosses itself"),
    "sides cross, but few": ({"geometry": crossing(300)}, "crosses itself"),
    "a million vertices": (
        {"geometry": ring([[11 + n / 1e6, 48] for n in range(400_000)])},
        "more than 2000",
    ),
    "over the antimeridian": (
        {"geometry": over_the_antimeridian(1500)},
        "crosses itself or the antimeridian",
    ),
    "round and round": ({"geometry": round_and_round(40)}, "round the Earth"),
    "far away": ({"geometry": ring([[1e12, 0], [1e12 + 1, 0], [1e12, 1]])}, "not in degrees (longitude"),
    "infinite": (
        {"geometry": ring([[NOT_FINITE, 0], [1, 0], [1, 1]]), "bbox": None},
        "neither geometry nor bbox",
    ),
    "infinite box": ({"geometry": None, "bbox": [0, 0, NOT_FINITE, 1]}, "neither geometry nor bbox"),
    "box of huge numbers": ({"geometry": None, "bbox": [0, 0, 10**400, 1]}, "neither geometry nor bbox"),
    "an id without end": ({"id": "x" * 100_000}, "more than 1024 characters"),
}


@pytest.mark.parametrize("bomb", ITEM_BOMBS)
def test_an_item_that_is_a_bomb_is_left_out_alone(tmp_path: Path, bomb: str):
    changes, why = ITEM_BOMBS[bomb]
    items = [stac_item("bad", **changes), stac_item("good")]
    (tmp_path / "c.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    said = searched(tmp_path / "c.json")
    assert said[0] == "found: good"
    assert why in said[1]


def test_many_outlines_that_cross_themselves_end_in_time(tmp_path: Path):
    bad = [stac_item(f"bad-{n}", geometry=crossing(190)) for n in range(300)]
    items = [*bad, stac_item("good")]
    (tmp_path / "c.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    said = searched(tmp_path / "c.json")
    assert "good" in said[0].split()
    assert "like too many before it" in said[-1]


def test_an_archive_of_the_pacific_loses_nothing():
    """Outlines over the antimeridian are cut, which costs little: none counts as a bomb."""
    turn = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    lon = (np.cos(turn) + 180 + 180) % 360 - 180
    outline = shapely.Polygon(np.column_stack([lon, np.sin(turn) - 17]))
    count = 500
    none = objects([None] * count)
    found, why = outlines_of(objects([outline] * count), none, none)
    assert set(why) == {None}
    assert set(shapely.get_num_geometries(found)) == {2}
    assert shapely.area(found) == pytest.approx(np.full(count, np.pi), rel=0.01)


HUGE = [
    {"eo__cloud_cover": 10**400, "collection": "sentinel-2-l2a"},
    {"sat__relative_orbit": 10**400},
    {"sat__relative_orbit": NOT_FINITE},
    {"created": 10**30},
    {"datetime": "0001-01-01T00:00:00+14:00"},
    {"instruments": 7, "platform": 3, "constellation": [[[]]]},
    {"collection": ["sentinel-1-grd"]},
    {"assets": {"vh": {"href": "x" * 100_000}}},
]


@pytest.mark.parametrize("changes", HUGE, ids=" ".join)
def test_numbers_and_texts_of_no_use_stop_nothing(tmp_path: Path, changes: dict[str, Any]):
    items = [stac_item("bad"), stac_item("good"), "no item", 7, {"id": 1}]
    for key, value in changes.items():
        (items[0] if key in items[0] else items[0]["properties"])[key.replace("__", ":")] = value
    (tmp_path / "c.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    assert "good" in {scene.id for scene in find_scenes(tmp_path / "c.json")}


FILE_BOMBS: dict[str, tuple[Callable[[], str], str]] = {
    "deep lists": (lambda: "[" * 100_000 + "]" * 100_000, "nested"),
    "deep objects": (lambda: '{"a":' * 500 + "1" + "}" * 500, "nested"),
    "empty lists": (lambda: '{"type": "Catalog", "links": [' + "[]," * 15_000_000 + "1]}", "values"),
    "small objects": (lambda: '{"type": "Catalog", "links": [' + '{"a":1},' * 6_000_000 + "1]}", "values"),
    "a long text": (lambda: '{"type": "Catalog", "id": "' + "x" * 2**27 + '"}', "longer than"),
}


@pytest.mark.parametrize("bomb", FILE_BOMBS)
def test_a_file_that_is_a_bomb(tmp_path: Path, bomb: str):
    make, why = FILE_BOMBS[bomb]
    catalog = written(tmp_path / "c", [stac_item("bad"), stac_item("good")])
    (tmp_path / "c" / "bad" / "item.json").write_text(make())
    said = searched(catalog)
    assert said[0] == "found: good"
    assert why in said[1]
    said = searched(catalog.parent / "bad" / "item.json")
    assert said[0].startswith("refused: ")
    assert why in said[0]


@contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(OSError):  # the other side hangs up, as it should
                answer(self)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.do_GET()

        def log_message(self, *args: Any) -> None:
            pass

    found = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.daemon_threads = True
    threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{found.server_port}/c.json"
    finally:
        found.shutdown()
        found.server_close()


def zeros(pack: Callable[[], Any] = lambda: zlib.compressobj(9, wbits=31), gib: int = 3) -> bytes:
    """Spaces, which JSON allows: 3 GiB in 3 MB."""
    packer = pack()
    parts = [packer.compress(b" " * 2**24) for _ in range(gib * 64)]
    return b"".join([*parts, packer.flush()])


def sends(body: bytes, status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def without_end(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        while True:
            handler.wfile.write(b" " * 2**20)

    return answer


ANSWER_BOMBS: dict[str, tuple[Callable[[], Callable[[BaseHTTPRequestHandler], None]], str]] = {
    "gzip": (lambda: sends(zeros(), Content_Encoding="gzip"), "longer than"),
    "deflate": (lambda: sends(zeros(lambda: zlib.compressobj(9)), Content_Encoding="deflate"), "longer than"),
    "gzip of gzip": (
        lambda: sends(gzip.compress(zeros(gib=1)), Content_Encoding="gzip, gzip"),
        "more than once",
    ),
    "without end": (lambda: without_end(200), "longer than"),
    "an error without end": (lambda: without_end(404), "longer than"),
    "a busy server without end": (lambda: without_end(503, Retry_After="0"), "longer than"),
    "a redirect without end": (lambda: without_end(302, Location="/c.json"), "redirects"),
}


@pytest.mark.server
@pytest.mark.parametrize("bomb", ANSWER_BOMBS)
def test_an_answer_that_is_a_bomb(bomb: str):
    make, why = ANSWER_BOMBS[bomb]
    with server(make()) as url:
        said = searched(url)
    assert said[0].startswith("refused: ")
    assert why in said[0]


def drips(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(600):
        handler.wfile.write(b" ")
        threading.Event().wait(0.1)


def drips_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    for _ in range(600):
        handler.wfile.write(b"x")
        threading.Event().wait(0.1)


@pytest.mark.server
@pytest.mark.parametrize("answer", [drips, drips_headers])
def test_a_server_that_drips(answer: Callable[[BaseHTTPRequestHandler], None]):
    with server(answer) as url, pytest.raises(CatalogError, match="takes more than 1 seconds"):
        find_scenes(url, limits=CatalogLimits(seconds=1))


@pytest.mark.server
@pytest.mark.parametrize("asked", ["100000", "Fri, 31 Dec 2100 23:59:59 GMT", "121"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_lets_one_wait(asked: str, status: int):
    with server(sends(b"", status, Retry_After=asked)) as url:
        said = searched(url)
    assert "asks to wait" in said[0]


def table(path: Path, count: int, **columns: Any) -> Path:
    """A table of `count` rows that are alike but for these columns."""
    same = {
        "id": pa.array(["x"]),
        "collection": pa.array(["sentinel-1-grd"]),
        "datetime": pa.array([datetime(2025, 6, 12, tzinfo=UTC)], pa.timestamp("us", "UTC")),
        "geometry": pa.array([shapely.to_wkb(shapely.box(11, 48, 12, 49))]),
        "assets": pa.array([{"vh": {"href": "https://example.com/x.tif"}}]),
    }
    columns = {name: value for name, value in (same | columns).items() if value is not None}
    arrays = {
        name: pa.repeat(value[0], count) if len(value) == 1 and not pa.types.is_nested(value.type) else value
        for name, value in columns.items()
    }
    if pa.types.is_nested(arrays["assets"].type) and len(arrays["assets"]) != count:
        href = pa.repeat("https://example.com/x.tif", count)
        arrays["assets"] = pa.StructArray.from_arrays([pa.StructArray.from_arrays([href], ["href"])], ["vh"])
    pq.write_table(pa.table(arrays), path, compression="zstd", compression_level=1)
    return path


def nested_wkb(depth: int, kind: int) -> bytes:
    return struct.pack("<BII", 1, kind, 1) * depth + struct.pack("<BIdd", 1, 1, 0, 0)


TABLE_BOMBS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "equal rows": (lambda path: table(path, 3_000_000), "more than 500,000 items"),
    "equal texts": (
        lambda path: table(path, 20_000, platform=pa.array(["x" * 100_000])),
        "decoding it takes more than 1024 MiB",
    ),
    "one long text": (
        lambda path: table(path, 1, platform=pa.array(["x" * 700_000_000])),
        "decoding it takes more than 1024 MiB",
    ),
    "assets as long texts": (
        lambda path: table(path, 400, assets=pa.array(['{"vh": ' + " " * 1_000_000 + "1}"])),
        "of wanted rows",
    ),
    "ids that are numbers": (lambda path: table(path, 2, id=pa.array([1, 2])), "not text"),
}


@pytest.mark.parametrize("bomb", TABLE_BOMBS)
def test_a_table_that_is_a_bomb(tmp_path: Path, bomb: str):
    make, why = TABLE_BOMBS[bomb]
    said = searched(make(tmp_path / "t.parquet"))
    assert said[0].startswith("refused: ")
    assert why in said[0]


@pytest.mark.parametrize(
    ("wkb", "why"),
    [
        (nested_wkb(200_000, 7), "more than 2000 vertices"),
        (nested_wkb(7_000, 6), "neither geometry nor bbox"),
        (shapely.to_wkb(shapely.geometry.shape(crossing(1300))), "crosses itself"),
        (shapely.to_wkb(shapely.geometry.shape(round_and_round(40))), "round the Earth"),
    ],
)
def test_an_outline_of_a_table_that_is_a_bomb(tmp_path: Path, wkb: bytes, why: str):
    path = as_table(tmp_path / "t.parquet", [stac_item("bad"), stac_item("good")])
    found = pq.read_table(path)
    place = found.column_names.index("geometry")
    good = found.column("geometry")[1].as_py()
    found = found.set_column(place, "geometry", pa.array([wkb, good]))
    found = found.set_column(found.column_names.index("bbox"), "bbox", pa.nulls(2))
    pq.write_table(found, path)
    said = searched(path)
    assert said[0] == "found: good"
    assert why in said[1]


@pytest.mark.server
@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"seconds": 0.0}, "takes more than 0 seconds"),
        ({"total_bytes": 100}, "holds more than 100 bytes"),
        ({"files": 2, "pages": 2, "items": 2}, "more than 2 (files|pages|items)"),
        ({"table_rows": 2, "items": 2}, "more than 2 (rows|items)"),
    ],
)
def test_each_limit_is_named(limits: dict[str, Any], why: str, tmp_path: Path):
    items = [stac_item(str(n)) for n in range(6)]
    with served(items) as site:
        kinds = [written(tmp_path / "c", items), site.url, as_table(tmp_path / "t.parquet", items)]
        for catalog in kinds[:2] if "total_bytes" in limits else kinds:
            with pytest.raises(CatalogError, match=why):
                find_scenes(catalog, limits=CatalogLimits(**limits))
            assert len(find_scenes(catalog)) == 6


@pytest.mark.server
@pytest.mark.parametrize("by_post", [False, True])
def test_pages_of_a_saved_search_count(by_post: bool, tmp_path: Path):
    """Their links lead on for ever, and each brings another item."""
    asked: list[str] = []

    def page(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        link = {"rel": "next", "href": f"/c.json?page={len(asked)}", "method": "GET"}
        if by_post:
            link |= {"method": "POST", "body": {"page": len(asked)}}
        items = [stac_item(str(len(asked)))]
        sends(json.dumps({"type": "FeatureCollection", "features": items, "links": [link]}).encode())(handler)

    with server(page) as url:
        first = {"type": "FeatureCollection", "features": [], "links": [{"rel": "next", "href": url}]}
        (tmp_path / "page.json").write_text(json.dumps(first))
        with pytest.raises(CatalogError, match=r"more than 7 (files|pages)"):
            find_scenes(tmp_path / "page.json", limits=CatalogLimits(files=7, pages=7))
        with pytest.raises(CatalogError, match="more than 7 items"):
            find_scenes(tmp_path / "page.json", limits=CatalogLimits(items=7))
        assert len(asked) < 20


@pytest.mark.server
def test_a_request_for_a_page_does_not_grow_for_ever():
    """Each page adds to the body of the next request."""
    sizes: list[int] = []

    def page(handler: BaseHTTPRequestHandler) -> None:
        sizes.append(int(handler.headers.get("Content-Length") or 0))
        body = {f"p{len(sizes)}": "x" * 300_000}
        link = {"rel": "next", "href": "/c.json", "method": "POST", "merge": True, "body": body}
        items = [stac_item(str(len(sizes)))]
        sends(json.dumps({"type": "FeatureCollection", "features": items, "links": [link]}).encode())(handler)

    with server(page) as url, pytest.raises(CatalogError, match="by more than 1,000,000 characters"):
        find_scenes(url)
    assert max(sizes) < 1_000_000


@pytest.mark.server
def test_connections_that_a_server_closes_are_not_kept():
    """The handler speaks HTTP/1.0: it closes after each answer."""
    with server(sends(b"{}")) as url, requests.Session() as session:
        guard(session, AddressPolicy.of(url), patient_retry())
        session.get(url)
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(20):
            session.get(url)
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


def test_assets_that_have_a_name_of_their_own_in_each_item_cost_no_column_each(tmp_path: Path):
    """Some name assets like files. A column for each name would be a square of the number of items."""
    count = 3000
    items = [stac_item(str(n), assets={f"s1-{n}-vh": {"href": f"s3://one/{n}.tif"}}) for n in range(count)]
    (tmp_path / "c.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    scenes = find_scenes(tmp_path / "c.json")
    assert {scene.id: scene.hrefs[0] for scene in scenes} == {
        str(n): f"s3://one/{n}.tif" for n in range(count)
    }
    rows = rows_of([(item, "c.json") for item in items], NONE)
    assert len(rows.hrefs) == len(NONE.assets)


def test_files_of_a_table_that_differ_count_together(tmp_path: Path):
    for n in range(6):
        item = stac_item(str(n), assets={f"s1-{n}-vh": {"href": f"s3://one/{n}.tif"}}, **{f"x{n}": n})
        as_table(tmp_path / f"{n}.parquet", [item])
    assert sorted(scene.hrefs[0] for scene in find_scenes(tmp_path)) == [
        f"s3://one/{n}.tif" for n in range(6)
    ]
    for limits, why in (
        ({"items": 5}, "5 items"),
        ({"table_rows": 5}, "5 rows"),
        ({"table_files": 5}, "5 files"),
    ):
        with pytest.raises(CatalogError, match=f"more than {why}"):
            find_scenes(tmp_path, limits=CatalogLimits(**limits))


def test_rows_that_were_given_count_whatever_happens_at_the_end_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Arrow's threads may abort an interpreter that ends while they hold a remote file: here it always does.
    (tmp_path / "sitecustomize.py").write_text("import atexit, os; atexit.register(os.abort)\n")
    monkeypatch.syspath_prepend(tmp_path)
    as_table(tmp_path / "items.parquet", [stac_item("one")])
    assert [scene.id for scene in find_scenes(str(tmp_path / "items.parquet"))] == ["one"]
    (tmp_path / "items.parquet").write_bytes(b"PAR1 and no table PAR1")
    with pytest.raises(CatalogError, match=r"cannot read the catalog .*(Parquet|footer)"):
        find_scenes(str(tmp_path / "items.parquet"))


def test_no_pipe_is_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "c.json")
    with pytest.raises(CatalogError, match="no file"):
        find_scenes(tmp_path / "c.json")
    catalog = written(tmp_path / "c", [stac_item("x")])
    (tmp_path / "c" / "x" / "item.json").unlink()
    with socket.socket(socket.AF_UNIX) as here:
        here.bind(str(tmp_path / "c" / "x" / "item.json"))
        with pytest.raises(CatalogError, match="no file"):
            find_scenes(catalog)
