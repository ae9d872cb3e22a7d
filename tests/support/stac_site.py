"""STAC items for tests: the same as a static catalog, as stac-geoparquet and behind a small API."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import shapely

Json = dict[str, Any]

GEOJSON = "application/geo+json"

CORE = ("https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search")

CQL2 = (
    "https://api.stacspec.org/v1.0.0/item-search#filter",
    "http://www.opengis.net/spec/cql2/1.0/conf/cql2-json",
    "http://www.opengis.net/spec/cql2/1.0/conf/basic-cql2",
)


def stac_item(name: str, *, collection: str = "sentinel-1-grd", **changes: Any) -> Json:
    """A STAC item at Munich on 2025-06-12; `changes` go into its properties, or replace its parts."""
    sar = "sentinel-1" in collection
    item: Json = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": name,
        "collection": collection,
        "geometry": shapely.geometry.mapping(shapely.box(11, 48, 12, 49)),
        "bbox": [11, 48, 12, 49],
        "properties": {
            "datetime": "2025-06-12T10:00:00Z",
            "platform": "sentinel-1a" if sar else "sentinel-2b",
        },
        "links": [],
        "assets": {("vh" if sar else "visual"): {"href": f"https://example.com/{name}.tif"}},
    }
    for key, value in changes.items():
        (item if key in item else item["properties"])[key.replace("__", ":")] = value
    return item


def written(folder: Path, items: list[Json]) -> Path:
    """A static catalog of `items`, each a file in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    links = []
    for item in items:
        (folder / item["id"]).mkdir()
        (folder / item["id"] / "item.json").write_text(json.dumps(item))
        links.append({"rel": "item", "href": f"./{item['id']}/item.json"})
    catalog = folder / "catalog.json"
    body = {"type": "Catalog", "id": "c", "stac_version": "1.1.0", "description": "d", "links": links}
    catalog.write_text(json.dumps(body))
    return catalog


def as_table(path: Path, items: Iterable[Json]) -> Path:
    """The items as stac-geoparquet: properties as columns, times as timestamps, a bbox of named sides."""
    rows = []
    for item in items:
        given = item["properties"].items()
        said = {name: _time(value) if _is_time(name) else value for name, value in given}
        sides = dict(zip(("xmin", "ymin", "xmax", "ymax"), map(float, item["bbox"]), strict=True))
        rows.append(
            {
                "id": item["id"],
                "collection": item.get("collection"),
                "geometry": shapely.to_wkb(shapely.geometry.shape(item["geometry"])),
                "bbox": sides,
                "assets": item["assets"],
                **said,
            }
        )
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    time = pa.timestamp("us", "UTC")
    table = {name: pa.array(values, time if _is_time(name) else None) for name, values in columns.items()}
    pq.write_table(pa.table(table), path, row_group_size=2)
    return path


def _is_time(name: str) -> bool:
    return name in ("datetime", "start_datetime", "end_datetime", "created")


def _time(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)


class TinyApi(BaseHTTPRequestHandler):
    """A STAC API of the smallest kind: item search by POST, two items a page."""

    site: Site
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        root = f"http://{self.headers['Host']}/"
        links = [
            {"rel": "self", "href": root},
            {"rel": "root", "href": root},
            {"rel": "search", "href": root + "search", "method": "POST", "type": GEOJSON},
        ]
        about = {"type": "Catalog", "id": "tiny", "stac_version": "1.1.0", "description": "d"}
        self._answer(about | {"conformsTo": list(self.site.conforms_to), "links": links})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.site.asked.append(body)
        if self.site.troubles:
            status = self.site.troubles.pop(0)
            self._answer({"code": "Trouble", "description": "for a while"}, status=status)
            return
        if not self.site.items:
            self._answer({"code": "NotFound", "description": "no such collection"}, status=404)
            return
        if "filter" in body and self.site.refuses_filters:
            self._answer({"code": "BadRequest", "description": "no such property"}, status=400)
            return
        hits = [item for item in self.site.items if _wanted(item, body)]
        first = int(body.get("token", 0))
        page = {"type": "FeatureCollection", "features": hits[first : first + 2], "links": []}
        if first + 2 < len(hits):
            after = {
                "rel": "next",
                "href": f"http://{self.headers['Host']}/search",
                "method": "POST",
                "body": {"token": first + 2},
                "merge": True,
            }
            page["links"] = [after]
        self._answer(page)

    def _answer(self, body: Json, *, status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", GEOJSON)
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


class Site:
    """What a running API serves, and what it was asked."""

    def __init__(self, items: list[Json], conforms_to: Iterable[str]) -> None:
        self.items = items
        self.conforms_to = tuple(conforms_to)
        self.asked: list[Json] = []
        self.troubles: list[int] = []
        """Status codes to answer the next searches with."""
        self.refuses_filters = False
        self.url = ""


@contextmanager
def served(items: list[Json], *, conforms_to: Iterable[str] = CORE) -> Iterator[Site]:
    """Run an API over `items` on loopback until the block ends."""
    site = Site(items, conforms_to)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Api", (TinyApi,), {"site": site}))
    site.url = f"http://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


def _wanted(item: Json, body: Json) -> bool:
    if item.get("collection") not in body["collections"]:
        return False
    if "ids" in body and item["id"] not in body["ids"]:
        return False
    outline = shapely.geometry.shape(item["geometry"])
    if "bbox" in body and not shapely.box(*body["bbox"]).intersects(outline):
        return False
    if "intersects" in body and not shapely.geometry.shape(body["intersects"]).intersects(outline):
        return False
    if "filter" in body and not _holds(body["filter"], item["properties"]):
        return False
    if "datetime" not in body:
        return True
    start, end = (
        None if part == ".." else datetime.fromisoformat(part) for part in body["datetime"].split("/")
    )
    said = item["properties"]
    first = datetime.fromisoformat(said.get("start_datetime") or said["datetime"])
    last = datetime.fromisoformat(said.get("end_datetime") or said["datetime"])
    return (start is None or last >= start) and (end is None or first <= end)


def _holds(term: Json, said: Json) -> bool:
    """CQL2 with the logic of SQL: what is not said compares with nothing."""
    args = term["args"]
    if term["op"] == "and":
        return all(_holds(arg, said) for arg in args)
    if term["op"] == "or":
        return any(_holds(arg, said) for arg in args)
    value = said.get(args[0]["property"])
    if term["op"] == "isNull":
        return value is None
    if value is None:
        return False
    if term["op"] == "=":
        return bool(value == args[1])
    assert term["op"] == "<="
    return bool(value <= args[1])
