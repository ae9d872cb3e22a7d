"""Pages of searches that others serve: loops, errors called success, links of every kind, answers cut off."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from stac_site import stac_item

from crosstie.errors import CatalogError
from crosstie.io.catalog.search import SceneQuery, find_scenes

Json = dict[str, Any]

pytestmark = pytest.mark.server

ITEMS = [stac_item(name) for name in "abcde"]


class Asked:
    """One request."""

    def __init__(self, method: str, target: str, body: Json | None) -> None:
        self.method, self.target, self.body = method, target, body
        self.path = urlsplit(target).path


class Reply:
    """One answer; `cut` bytes are missing at its end."""

    def __init__(self, body: object, status: int = 200, *, cut: int = 0, to: str | None = None) -> None:
        self.data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.status, self.cut, self.to = status, cut, to


class Api:
    """A server on loopback whose answers a function gives."""

    def __init__(self, answer: Callable[[Api, Asked], Reply]) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.url = ""

    def landing(self, **changes: Any) -> Reply:
        """A landing page with a search by POST; `changes` of None take a part away."""
        body: Json = {
            "type": "Catalog",
            "id": "api",
            "stac_version": "1.0.0",
            "description": "d",
            "conformsTo": ["https://api.stacspec.org/v1.0.0/item-search"],
            "links": [{"rel": "search", "href": f"{self.url}/search", "method": "POST"}],
        }
        return Reply({name: value for name, value in (body | changes).items() if value is not None})

    def link(self, to: str, **more: Any) -> Json:
        return {"rel": "next", "href": self.url + to, **more}


def page(items: list[Json], *links: Json, **more: Any) -> Reply:
    return Reply({"type": "FeatureCollection", "features": items, "links": list(links), **more})


@contextmanager
def running(answer: Callable[[Api, Asked], Reply]) -> Iterator[Api]:
    api = Api(answer)

    class Handler(BaseHTTPRequestHandler):
        def one(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            asked = Asked(self.command, self.path, body)
            api.asked.append(asked)
            reply = api.answer(api, asked)
            self.send_response(reply.status)
            if reply.to is not None:
                self.send_header("Location", reply.to)
            self.send_header("Content-Length", str(len(reply.data)))
            self.end_headers()
            self.wfile.write(reply.data[: len(reply.data) - reply.cut])

        def do_GET(self) -> None:
            self.one()

        def do_POST(self) -> None:
            self.one()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[Api, Asked], Reply]], Api]]:
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(running(answer))


Serve = Callable[[Callable[[Api, Asked], Reply]], Api]


def searched(first: Callable[[Api, Asked], Reply]) -> Callable[[Api, Asked], Reply]:
    """An API whose SAR search a function answers; there is nothing optical."""

    def answer(api: Api, asked: Asked) -> Reply:
        if asked.path == "/":
            return api.landing()
        if asked.body is not None and "sentinel-2-l1c" in asked.body.get("collections", []):
            return page([])
        return first(api, asked)

    return answer


def found(catalog: object) -> str:
    return "".join(scene.id for scene in find_scenes(str(catalog)))


def by_post(api: Api, asked: Asked) -> Reply:
    at = (asked.body or {}).get("at", 0)
    more = [api.link("/search", method="POST", body={"at": at + 2}, merge=True)] if at < 4 else []
    return page(ITEMS[at : at + 2], *more)


def by_get(api: Api, asked: Asked) -> Reply:
    at = int(urlsplit(asked.target).query.partition("=")[2] or 0)
    return page(ITEMS[at : at + 2], *([api.link(f"/search?at={at + 2}")] if at < 4 else []))


def by_relative_link(api: Api, asked: Asked) -> Reply:
    at = int(urlsplit(asked.target).query.partition("=")[2] or 0)
    return page(ITEMS[at : at + 2], *([{"rel": "next", "href": f"?at={at + 2}"}] if at < 4 else []))


def with_a_gap(api: Api, asked: Asked) -> Reply:
    """Two empty pages before the last item."""
    at = int(urlsplit(asked.target).query.partition("=")[2] or 0)
    items = {0: ITEMS[:4], 3: ITEMS[4:]}.get(at, [])
    return page(items, *([api.link(f"/search?at={at + 1}")] if at < 3 else []))


@pytest.mark.parametrize("way", [by_post, by_get, by_relative_link, with_a_gap])
def test_every_page_is_read_once(
    way: Callable[[Api, Asked], Reply], serve: Serve, caplog: pytest.LogCaptureFixture
):
    api = serve(searched(way))
    assert found(api.url) == "abcde"
    assert caplog.messages == []
    assert len(api.asked) <= 7  # landing page, optical search and collections once each


def same_link(api: Api, asked: Asked) -> Reply:
    return page(ITEMS, api.link("/search", method="POST", body=asked.body))


def fresh_tokens(api: Api, asked: Asked) -> Reply:
    return page(ITEMS, api.link(f"/search?token={len(api.asked)}"))


def empty_for_ever(api: Api, asked: Asked) -> Reply:
    return page(ITEMS if asked.body else [], api.link(f"/search?token={len(api.asked)}"))


def to_and_fro(api: Api, asked: Asked) -> Reply:
    there = asked.target.endswith("=there")
    return page(ITEMS[3:] if there else ITEMS[:3], api.link(f"/search?go={'back' if there else 'there'}"))


@pytest.mark.parametrize("way", [same_link, fresh_tokens, empty_for_ever, to_and_fro])
def test_paging_that_brings_nothing_new_ends_with_a_warning(
    way: Callable[[Api, Asked], Reply], serve: Serve, caplog: pytest.LogCaptureFixture
):
    api = serve(searched(way))
    assert found(api.url) == "abcde"
    assert [message for message in caplog.messages if "brings nothing new: 5 items" in message]
    assert len(api.asked) <= 10


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply({"code": "BadRequest", "description": "no index"}), "without a list of features.*no index"),
        (Reply("<html><body>Sign in</body></html>"), "no JSON: it begins '<html><body>Sign in"),
        (Reply([ITEMS[0]]), "without a list of features"),
        (Reply({"type": "FeatureCollection", "features": None}), "without a list of features"),
        (page(ITEMS, numberMatched=9), "gave 5 of the 9 items"),
        (page(ITEMS, context={"matched": 6, "returned": 5}), "gave 5 of the 6 items"),
    ],
)
def test_an_answer_is_whole_or_an_error(reply: Reply, said: str, serve: Serve):
    api = serve(searched(lambda *_: reply))
    with pytest.raises(CatalogError, match=said) as caught:
        find_scenes(api.url)
    assert "\n" not in str(caught.value)


def test_an_estimated_number_of_hits_is_a_warning(serve: Serve, caplog: pytest.LogCaptureFixture):
    api = serve(searched(lambda *_: page(ITEMS, numberMatched=20_000)))
    assert found(api.url) == "abcde"
    assert any("5 of the 20000 items" in message for message in caplog.messages)


def test_an_item_of_a_page_that_is_none_is_told(serve: Serve):
    scenes = find_scenes(serve(searched(lambda *_: page([ITEMS[0], None, ITEMS[1]]))).url)  # type: ignore[list-item]
    assert [scene.id for scene in scenes] == ["a", "b"]
    assert [out.rule for out in scenes.left_out] == ["no STAC item"]


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ({"conformsTo": None}, True),
        ({"conformsTo": ["http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core"], "links": []}, True),
        ({"conformsTo": ["https://api.stacspec.org/v1.0.0-beta.2/item-search"], "links": []}, False),
        ({"type": None, "description": None}, False),
        ({"type": None, "id": None, "stac_version": None, "description": None}, False),
    ],
)
def test_a_landing_page_that_says_little_is_searched_all_the_same(
    changes: Json, warned: bool, serve: Serve, caplog: pytest.LogCaptureFixture
):
    def answer(api: Api, asked: Asked) -> Reply:
        return api.landing(**changes) if asked.path == "/" else by_post(api, asked)

    assert found(serve(answer).url) == "abcde"
    assert any("does not say that it can search" in message for message in caplog.messages) == warned


@pytest.mark.parametrize("links", [[{"rel": "search", "href": "search", "method": "GET"}], None])
def test_an_api_that_knows_get_only_is_asked_by_get(links: list[Json] | None, serve: Serve):
    """It says so, or it refuses the POST."""

    def answer(api: Api, asked: Asked) -> Reply:
        if asked.path == "/":
            return api.landing(**({"links": links} if links else {}))
        return page(ITEMS) if asked.method == "GET" else Reply({"code": "no"}, 405)

    api = serve(answer)
    assert found(api.url) == "abcde"
    assert any("collections=sentinel-1-grd%2Csentinel-1-rtc" in asked.target for asked in api.asked)


def test_pages_of_a_collection_and_of_a_saved_search_are_followed(serve: Serve, tmp_path: Path):
    def answer(api: Api, asked: Asked) -> Reply:
        if asked.path == "/collections/sentinel-1-grd":
            links = [{"rel": "items", "href": f"{api.url}/collections/sentinel-1-grd/items"}]
            body = {"type": "Collection", "id": "sentinel-1-grd", "stac_version": "1.0.0", "links": links}
            return Reply(body)
        return (by_post if asked.method == "POST" else by_get)(api, asked)

    api = serve(answer)
    assert found(f"{api.url}/collections/sentinel-1-grd") == "abcde"
    assert found(f"{api.url}/collections/sentinel-1-grd/items") == "abcde"
    saved = tmp_path / "page.json"
    for link in (api.link("/search?at=2"), api.link("/search", method="POST", body={"at": 2})):
        first = {"type": "FeatureCollection", "features": ITEMS[:2], "links": [link], "numberMatched": 50}
        saved.write_text(json.dumps(first))
        assert found(saved) == "abcde"


def test_links_are_relative_to_where_a_redirect_leads(serve: Serve):
    def answer(api: Api, asked: Asked) -> Reply:
        if asked.path == "/short":
            return Reply({}, 302, to="/long/way/catalog.json")
        if asked.path == "/long/way/catalog.json":
            links = [{"rel": "item", "href": "a/item.json"}]
            return Reply({"type": "Catalog", "id": "c", "stac_version": "1.0.0", "links": links})
        return Reply(ITEMS[0]) if asked.path == "/long/way/a/item.json" else Reply({}, 404)

    assert found(serve(answer).url + "/short") == "a"


def test_an_answer_that_is_cut_off_is_asked_for_again(serve: Serve):
    def answer(api: Api, asked: Asked) -> Reply:
        first = sum(one.target == asked.target and one.body == asked.body for one in api.asked) == 1
        reply = api.landing() if asked.path == "/" else page(ITEMS)
        reply.cut = 20 if first else 0
        return reply

    api = serve(answer)
    assert found(api.url) == "abcde"
    api.answer = lambda *_: Reply({"type": "Catalog"}, cut=5)
    with pytest.raises(CatalogError, match=re.escape(f"cannot read the catalog {api.url}")):
        find_scenes(api.url)


def test_a_next_page_never_means_a_file_of_this_machine(serve: Serve, tmp_path: Path):
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({"type": "FeatureCollection", "features": ITEMS}))
    api = serve(searched(lambda *_: page([], {"rel": "next", "href": secret.as_uri()})))
    with pytest.raises(CatalogError, match="file of this machine"):
        find_scenes(api.url)


COLLECTIONS = [
    {"id": "landsat-c2-l2", "summaries": {"platform": ["landsat-8"]}},
    {"id": "sentinel1-grd"},
    {"id": "sentinel1-slc"},
    {"id": "eo:radar", "summaries": {"constellation": ["Sentinel-1"]}},
    {"id": "S2_L2A_COG"},
    {"id": "sentinel-3-olci"},
    "no object",
]


def test_an_api_with_other_names_is_asked_which_collections_it_has(serve: Serve):
    items = [
        stac_item(
            "radar",
            collection="sentinel1-grd",
            platform="sentinel-1a",
            assets={"hh": {"href": "s3://one/a.tif"}},
        ),
        stac_item("optical", collection="S2_L2A_COG"),
        stac_item("else", collection="landsat-c2-l2", platform="landsat-8"),
    ]

    def answer(api: Api, asked: Asked) -> Reply:
        if asked.path == "/":
            return api.landing()
        if asked.path == "/collections":
            return Reply({"collections": COLLECTIONS, "links": []})
        return page([item for item in items if item["collection"] in (asked.body or {})["collections"]])

    api = serve(answer)
    assert {scene.id for scene in find_scenes(api.url)} == {"radar", "optical"}
    asked = [one.body["collections"] for one in api.asked if one.body]
    assert ["sentinel1-grd", "eo:radar"] in asked
    assert ["S2_L2A_COG"] in asked
    assert not [names for names in asked if "landsat-c2-l2" in names or "sentinel1-slc" in names]


def test_collections_that_the_user_names_are_the_only_ones(serve: Serve):
    api = serve(lambda api, asked: api.landing() if asked.path == "/" else page([]))
    query = SceneQuery(sar_collections=("mine",), optical_collections=("ours",))
    assert len(find_scenes(api.url, query)) == 0
    assert [one.path for one in api.asked[-2:]] == ["/search", "/search"]
    assert [(one.body or {}).get("collections") for one in api.asked[-2:]] == [["mine"], ["ours"]]
