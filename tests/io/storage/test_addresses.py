"""What a catalog may lead to. A secret is planted in a file and on a server; nobody may read it.

Which guard is proven by which test. Without the guard, the test fails: each was taken out once.

- `file:` in any case (`resolve_href`): HOSTILE `FILE://`
- the scheme is on the list (`_refuse_driver_syntax`, `parse_address`): HOSTILE `ftp://`, `https:127.0.0.1`
- no control character, plain or encoded (`refuse_ambiguous`): HOSTILE `%00`, `%0a`, tab
- no backslash, plain or encoded (`refuse_ambiguous`): HOSTILE `\\`, `%5c`
- no `/vsi`, plain, encoded or after joining (`refuse_ambiguous`): HOSTILE `/vsi`, `a/../vsimem`
- no endless percent-encoding (`_percent_decoded`): HOSTILE `%2525`
- no user or password (`AddressPolicy.check_address`): HOSTILE `user@`
- numbers of hosts are four decimals, names have one spelling (`_checked_host`): HOSTILE `2130706433`,
  `127%2e0.0.1`
- private numbers in all their forms (`AddressPolicy.check_address`, `is_public`): HOSTILE `https://10.0.0.5/`,
  `test_numbers_of_the_open_internet`
- metadata services, allowed by a setting or not (`is_metadata`): `test_no_setting_allows_a_metadata_service`
- names of this machine (`is_loopback`): HOSTILE `localhost.`
- plain http (`AddressPolicy.check_address`): HOSTILE `http://example.com`
- names of buckets have their form (`_checked_bucket`): HOSTILE `s3://`
- buckets are on the list (`AddressPolicy.check_address`): `test_buckets_on_request`
- names of assets are looked up (`AddressPolicy.check_host`): `test_a_name_of_a_private_number`
- each hop is judged (`_CheckedAdapter.send`): `test_a_redirect_leads_nowhere_else`
- the number connected to is the one judged (`_CheckedConnection`): `test_a_name_that_changes_its_mind`
- a private host stays what it was (`AddressPolicy.allowed_ips`): `test_a_private_host_stays_what_it_was`
- tables connect to judged numbers only (`stac_geoparquet._http_client`): `test_a_table_that_redirects`
- redirects of rasters are followed before GDAL does (`gdal._followed`): `test_a_raster_that_redirects`
- an API links to no file (`_OnlyHttp`): `test_an_api_reads_no_file`
- a remote catalog names no file (`_local_file`): HOSTILE `FILE://`; nor of another machine
  (`_path_of_file_url`): `test_a_name_of_another_machine`
- signatures are in no log of the client (`_WithoutQueries`):
  `test_storage.test_a_signature_is_neither_logged_nor_raised`
"""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pystac
import pytest
from stac_site import GEOJSON, as_table, stac_item

from crosstie.errors import CatalogError, UnreadableRasterError
from crosstie.io.catalog.query import SceneQuery
from crosstie.io.catalog.search import find_scenes
from crosstie.io.catalog.stac_api import _OnlyHttp
from crosstie.io.raster import open_source
from crosstie.io.raster.gdal import check_href
from crosstie.io.simulation.pairs import write_simulated_catalog
from crosstie.io.storage import http as patient_http
from crosstie.io.storage.address import AddressPolicy, is_loopback, is_metadata, is_public, parse_address
from crosstie.io.storage.href_policy import resolve_href
from crosstie.io.storage.signing import signed
from crosstie.types import Kind

PUBLIC = "93.184.216.34"
SECRET = "planted-secret"

pytestmark = pytest.mark.server


class Net:
    """Names and numbers of a small internet: the resolver is patched, for no test can own a name."""

    def __init__(self) -> None:
        self.names: dict[str, list[list[str]]] = {"public.test": [[PUBLIC]]}
        """Answers of each name, one after another; the last one stays."""

    def look_up(self, host: Any, port: Any, *args: Any, **more: Any) -> list[Any]:
        name = str(host).rstrip(".").lower()
        if name in self.names:
            answers = self.names[name]
            found = answers.pop(0) if len(answers) > 1 else answers[0]
            return [entry for number in found for entry in LOOK_UP(number, port, type=socket.SOCK_STREAM)]
        if name.endswith("localhost") or not any(letter in name for letter in "ghijklmnopqrstuvwyz"):
            return LOOK_UP(host, port, *args, **more)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")


LOOK_UP, CONNECT = socket.getaddrinfo, socket.socket.connect


@pytest.fixture(autouse=True)
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    found = Net()
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", found.look_up)
    monkeypatch.setattr(patient_http, "BACKOFF_S", 0.01)

    def connect(self: socket.socket, place: Any) -> None:
        CONNECT(self, ("127.0.0.1", place[1]) if place[0] == PUBLIC else place)

    monkeypatch.setattr(socket.socket, "connect", connect)
    patient_http._final_address.cache_clear()
    return found


class Server:
    """Gives what it is told to under each path; `/go` sends elsewhere; counts connections."""

    def __init__(self, files: dict[str, bytes] | None = None, *, always: bytes | None = None) -> None:
        self.files = files or {}
        self.connections: list[Any] = []
        self.moved = ""
        this = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                if parts.path == "/go" or parts.path.startswith("/moved/"):
                    to = this.moved or parse_qs(parts.query)["to"][0]
                    self.send_response(302)
                    self.send_header("Location", to)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                body = always if always is not None else this.files.get(parts.path)
                if body is None:
                    self.send_error(404)
                    return
                first = 0
                span = self.headers.get("Range")
                if span:
                    low, _, high = span.removeprefix("bytes=").partition("-")
                    first, last = int(low), min(int(high or len(body)), len(body) - 1)
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
                    body = body[first : last + 1]
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_POST = do_HEAD = do_GET  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        class Counted(ThreadingHTTPServer):
            def verify_request(self, request: Any, client: Any) -> bool:
                this.connections.append(client)
                return True

            def handle_error(self, *args: Any) -> None:
                pass  # a TLS handshake is no HTTP

        self._server = Counted(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, path: str, host: str = "public.test") -> str:
        return f"http://{host}:{self.port}{path}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    stolen = json.dumps(stac_item("stolen", title=SECRET)).encode()
    both = Server(), Server(always=stolen)
    yield both
    for server in both:
        server.stop()


@pytest.fixture
def site(servers: tuple[Server, Server]) -> Server:
    servers[0].files.clear()
    servers[0].moved = ""
    return servers[0]


@pytest.fixture
def trap(servers: tuple[Server, Server]) -> Iterator[Server]:
    """A service of this machine that gives a STAC item to whoever asks; nobody may connect to it."""
    servers[1].connections.clear()
    yield servers[1]
    assert servers[1].connections == []


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.json"
    path.write_text(json.dumps(stac_item("stolen", title=SECRET)))
    return path


def catalog(*links: str) -> bytes:
    found = [{"rel": "item", "href": href} for href in links]
    about = {"type": "Catalog", "id": "c", "stac_version": "1.1.0", "description": "d"}
    return json.dumps(about | {"links": found}).encode()


def with_asset(href: str) -> dict[str, Any]:
    return stac_item("bait", assets={"vh": {"href": href}})


# {file}: the planted file; {port}: of the planted service
HOSTILE = [
    # files of this machine
    ("file://{file}", "is a file of this machine"),
    ("FILE://{file}", "is a file of this machine"),
    ("File:{file}", "is a file of this machine"),
    ("fILE:///{file}", "is a file of this machine"),
    ("  FILE://{file}", "is a file of this machine"),
    ("FILE://localhost{file}", "is a file of this machine"),
    ("FILE://LOCALHOST{file}", "another machine|file of this machine"),
    ("file://other{file}", "of another machine"),
    ("file:..{file}", "is a file of this machine"),
    # schemes and drivers
    ("ftp://127.0.0.1:{port}/x", "begins with 'ftp'"),
    ("GOPHER://127.0.0.1:{port}/x", "begins with 'GOPHER'"),
    ("NETCDF:{file}", "begins with 'NETCDF'"),
    ("jar:file:{file}", "begins with 'jar'"),
    ("data:application/json,{{}}", "begins with 'data'"),
    ("https:127.0.0.1:{port}/x", "names no host|begins with"),
    ("HTTPS:/127.0.0.1:{port}/x", "names no host|begins with"),
    ("<VRTDataset/>", "GDAL syntax"),
    # GDAL's file systems
    ("/vsicurl/http://127.0.0.1:{port}/x", "GDAL syntax"),
    ("/VSICURL/http://127.0.0.1:{port}/x", "GDAL syntax"),
    ("//vsimem/x", "GDAL syntax"),
    ("./../vsimem/x", "GDAL syntax"),
    ("%2Fvsimem/x", "GDAL syntax"),
    ("%252Fvsimem/x", "GDAL syntax"),
    ("/%76sicurl/x", "GDAL syntax"),
    ("https://example.com//vsimem/x", "GDAL syntax"),
    ("a/../vsimem/x", "GDAL syntax"),
    # characters that readers see differently
    ("https://example.com/x\n.tif", "control characters"),
    ("x\x00.json", "control characters"),
    ("\tFILE://{file}", "control characters"),
    ("https://example.com/%00/x", "control characters"),
    ("https://example.com/?a=%0d%0aHost:%20x", "control characters"),
    ("https://example.com/%250a/x", "control characters"),
    ("https:\\\\127.0.0.1:{port}/x", "backslash"),
    ("\\\\127.0.0.1\\x", "backslash"),
    ("https://example.com\\@127.0.0.1:{port}/x", "backslash"),
    ("https://example.com/..%5c..%5cx", "backslash"),
    ("https://example.com/%25255cx", "backslash"),
    ("https://example.com/%2525252525252566", "again and again"),
    # users
    ("https://user@example.com/x", "user or password"),
    ("https://example.com:443@127.0.0.1:{port}/x", "user or password"),
    ("//user:pw@public.test/x", "user or password"),
    ("s3://key:secret@bucket/x", "user or password"),
    # names and numbers of this machine and its network
    ("http://127.0.0.1:{port}/x", "into this one"),
    ("HTTP://127.0.0.1:{port}/x", "into this one"),
    ("//127.0.0.1:{port}/x", "into this one"),
    ("https://127.1.2.3:{port}/x", "into this one"),
    ("http://localhost:{port}/x", "into this one"),
    ("http://LocalHost:{port}/x", "into this one"),
    ("http://localhost.:{port}/x", "into this one"),
    ("http://a.localhost:{port}/x", "into this one"),
    ("http://127.0.0.1.:{port}/x", "into this one"),
    ("http://[::1]:{port}/x", "into this one"),
    ("http://[0:0:0:0:0:0:0:1]:{port}/x", "into this one"),
    ("https://2130706433:{port}/x", "four decimals"),
    ("https://0x7f000001:{port}/x", "four decimals"),
    ("https://0X7F.1:{port}/x", "four decimals"),
    ("https://017700000001:{port}/x", "four decimals"),
    ("https://0177.0.0.1:{port}/x", "four decimals"),
    ("https://127.1:{port}/x", "four decimals"),
    ("https://0:{port}/x", "four decimals"),
    ("https://127%2e0.0.1:{port}/x", "four decimals|no name of a host"),
    ("https://①②⑦.⓪.⓪.①:{port}/x", "no name of a host"),
    ("https://exa mple.com/x", "no name of a host"),
    ("https://0.0.0.0:{port}/x", "private network"),
    ("https://10.0.0.5/x", "private network"),
    ("https://172.16.0.1/x", "private network"),
    ("https://192.168.1.1/x", "private network"),
    ("https://100.64.0.1/x", "private network"),
    ("https://169.254.1.1/x", "private network"),
    ("https://224.0.0.1/x", "private network"),
    ("https://255.255.255.255/x", "private network"),
    ("https://[::]:{port}/x", "private network"),
    ("https://[::ffff:127.0.0.1]:{port}/x", "private network"),
    ("https://[::127.0.0.1]:{port}/x", "private network"),
    ("https://[64:ff9b::7f00:1]/x", "private network"),
    ("https://[2002:7f00:1::]/x", "private network"),
    ("https://[2001:0:7f00:1::]/x", "private network"),
    ("https://[fe80::1]/x", "private network"),
    ("https://[fe80::1%25lo]/x", "no name of a host|no address"),
    ("https://[fc00::1]/x", "private network"),
    ("https://[ff02::1]/x", "private network"),
    ("https://169.254.169.254/latest", "metadata"),
    ("https://[fd00:ec2::254]/latest", "metadata"),
    ("https://[64:ff9b::a9fe:a9fe]/latest", "metadata"),
    ("https://METADATA.google.internal./x", "metadata"),
    ("https://168.63.129.16/x", "metadata"),
    ("http://example.com/x", "plain http"),
    ("https://example.com:99999/x", "is no address"),
    ("https:///x", "names no host"),
    # buckets
    ("s3://Bucket/x", "name of a bucket"),
    ("s3://a/x", "name of a bucket"),
    ("s3://a..b/x", "name of a bucket"),
    ("s3://bucket:80/x", "name of a bucket"),
    ("s3://127.0.0.1/x", "name of a bucket"),
    ("S3://bucket?x", "name of a bucket"),
]


@pytest.mark.parametrize(("href", "why"), HOSTILE, ids=[ascii(href) for href, _ in HOSTILE])
def test_no_hostile_address_is_read(
    href: str, why: str, site: Server, trap: Server, secret: Path, tmp_path: Path
):
    href = href.format(file=secret, port=trap.port)
    as_table(tmp_path / "items.parquet", [with_asset(href)])
    page = {"type": "FeatureCollection", "features": [with_asset(href)]}
    api = json.loads(catalog()) | {
        "conformsTo": ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"],
        "links": [
            {"rel": rel, "href": site.url(to), "method": "POST", "type": GEOJSON}
            for rel, to in (("root", "/api"), ("search", "/search"))
        ],
    }
    site.files |= {
        "/link.json": catalog(href),
        "/asset.json": catalog("./item.json"),
        "/item.json": json.dumps(with_asset(href)).encode(),
        "/items.parquet": (tmp_path / "items.parquet").read_bytes(),
        "/api": json.dumps(api).encode(),
        "/search": json.dumps(page | {"links": []}).encode(),
    }
    said = [refusal(site.url("/link.json"))]
    for kind in ("/asset.json", "/items.parquet", "/api"):
        scenes = find_scenes(site.url(kind))
        assert list(scenes) == []
        said += [out.why for out in scenes.left_out]
    assert len(said) == 4
    for text in said:
        assert SECRET not in text
        assert "\n" not in text
        assert _has(why, text), text
    # a page that an API says is the next one
    site.files["/search"] = json.dumps(page | {"links": [{"rel": "next", "href": href}]}).encode()
    assert SECRET not in refusal(site.url("/api"))


def _has(why: str, text: str) -> bool:
    return any(part in text for part in why.split("|"))


def refusal(root: str, query: SceneQuery | None = None) -> str:
    with pytest.raises(CatalogError) as caught:
        list(find_scenes(root, query))
    return str(caught.value)


HOPS = [
    "http://127.0.0.1:{port}/x",
    "HTTP://localhost:{port}/x",
    "http://[::1]:{port}/x",
    "http://0.0.0.0:{port}/x",
    "http://2130706433:{port}/x",
    "http://[::ffff:127.0.0.1]:{port}/x",
    "https://private.test:{port}/x",
    "https://10.0.0.5/x",
    "http://169.254.169.254/latest",
    "file://{file}",
    "FILE://{file}",
    "ftp://127.0.0.1:{port}/x",
    "//127.0.0.1:{port}/x",
    "http://user@public.test:{port}/x",
]


@pytest.mark.parametrize("to", HOPS)
def test_a_redirect_leads_nowhere_else(to: str, site: Server, trap: Server, secret: Path, net: Net):
    net.names["private.test"] = [["127.0.0.1"]]
    to = to.format(file=secret, port=trap.port)
    site.files["/c.json"] = catalog(f"/go?to={to}")
    assert SECRET not in refusal(site.url("/c.json"))
    # and of an API's search, of which pystac asks by a session of its own
    api = json.loads(catalog()) | {
        "conformsTo": ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"],
        "links": [{"rel": "search", "href": site.url(f"/go?to={to}"), "method": "POST", "type": GEOJSON}],
    }
    site.files["/api"] = json.dumps(api).encode()
    refusal(site.url("/api"))
    refusal(site.url(f"/go?to={to}"))  # of the catalog itself


@pytest.mark.parametrize(
    "numbers",
    [
        ["127.0.0.1"], ["::1"], ["10.0.0.5"], ["169.254.169.254"], ["100.64.0.1"], ["0.0.0.0"],
        ["::ffff:127.0.0.1"], ["2002:7f00:1::"], ["64:ff9b::7f00:1"], ["fd00:ec2::254"], ["168.63.129.16"],
        ["ff02::1"], [PUBLIC, "127.0.0.1"],
    ],
)  # fmt: skip
def test_a_name_of_a_private_number(numbers: list[str], site: Server, trap: Server, net: Net):
    net.names["private.test"] = [numbers]
    href = f"https://private.test:{trap.port}/x.tif"
    site.files |= {"/c.json": catalog("item.json"), "/item.json": json.dumps(with_asset(href)).encode()}
    scenes = find_scenes(site.url("/c.json"))
    assert list(scenes) == []
    assert "private.test is" in scenes.left_out[0].why
    site.files["/c.json"] = catalog(href)
    assert "private.test is" in refusal(site.url("/c.json"))


def test_what_is_fetched_is_judged_by_number(trap: Server, net: Net):
    net.names["private.test"] = [["127.0.0.1"]]
    for url in (f"http://private.test:{trap.port}/x", f"https://private.test:{trap.port}/x"):
        # its own host, but of a time when it was public
        policy = AddressPolicy(parse_address(url))
        with pytest.raises(CatalogError, match=r"private.test is 127\.0\.0\.1"):
            patient_http.get(url, policy)


def test_a_name_that_changes_its_mind(site: Server, trap: Server, net: Net):
    """DNS rebinding: public when it was judged, this machine when the next file is asked for."""
    net.names["flip.test"] = [[PUBLIC], [PUBLIC], ["127.0.0.1"]]
    site.files["/c.json"] = catalog(f"http://flip.test:{trap.port}/x")
    assert r"flip.test is 127.0.0.1" in refusal(site.url("/c.json", "flip.test"))


def test_a_private_host_stays_what_it_was(site: Server, net: Net):
    net.names["inside.test"] = [["127.0.0.1"], [PUBLIC]]
    site.files |= {"/c.json": catalog()}
    assert f"inside.test is {PUBLIC}" in refusal(site.url("/c.json", "inside.test"))


def test_a_table_that_redirects(site: Server, trap: Server):
    for to in (f"http://127.0.0.1:{trap.port}/x", f"http://0.0.0.0:{trap.port}/x"):
        site.moved = to
        assert "cannot read the catalog" in refusal(site.url("/moved/t.parquet"))


@pytest.fixture(scope="module")
def tif(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("rasters")
    write_simulated_catalog(folder / "c", scenes=1, size_px=64)
    return next(path for path in (folder / "c").rglob("*s1*.tif")).read_bytes()


@pytest.mark.parametrize(
    "to",
    [
        "http://0.0.0.0:{port}/s1_vh.tif",
        "http://2130706433:{port}/s1_vh.tif",
        "http://[::ffff:127.0.0.1]:{port}/s1_vh.tif",
        "http://user:pw@127.0.0.1:{port}/s1_vh.tif",
        "http://169.254.169.254/s1_vh.tif",
        "https://private.test:{port}/s1_vh.tif",
        "file:///etc/hostname",
    ],
)
def test_a_raster_that_redirects(to: str, site: Server, trap: Server, net: Net, tif: bytes):
    net.names["private.test"] = [["10.0.0.5"]]
    bait = Server(always=tif)  # would be read
    try:
        href = site.url("/go?to=" + to.format(port=bait.port), "127.0.0.1")
        with pytest.raises(UnreadableRasterError) as caught:
            open_source(href, kind=Kind.SAR, from_catalog=True)
        assert bait.connections == []
        assert "\n" not in str(caught.value)
    finally:
        bait.stop()


def test_rasters_of_ones_own_host_are_read_redirected_or_not(site: Server, tif: bytes):
    site.files["/s1_vh.tif"] = tif
    plain = open_source(site.url("/s1_vh.tif", "127.0.0.1"), kind=Kind.SAR, from_catalog=True)
    moved = open_source(site.url("/go?to=/s1_vh.tif", "127.0.0.1"), kind=Kind.SAR, from_catalog=True)
    assert plain.shape == moved.shape == (64, 64)


@pytest.mark.parametrize(
    "href",
    [
        "FILE:/vsicurl/http://127.0.0.1/x", "/VSIMEM/x", "NETCDF:x.nc:v", "https://0x7f.1/x.tif", "http://10.0.0.5/x",
        "https://example.com\\@127.0.0.1/x", "https://example.com/%00", "s3://Bucket/x", "https://168.63.129.16/x",
        "http://private.test/x",
    ],
)  # fmt: skip
def test_rasters_at_hostile_addresses(href: str, net: Net):
    net.names["private.test"] = [["127.0.0.1"]]
    with pytest.raises(UnreadableRasterError):
        open_source(href, kind=Kind.SAR, from_catalog=True)


def test_an_api_reads_no_file(secret: Path):
    with pytest.raises(CatalogError, match="is a file of this machine"):
        _OnlyHttp().read_text(str(secret))
    with pytest.raises(Exception, match=r".") as caught:
        _OnlyHttp().read_text(pystac.Link("next", f"FILE://{secret}"))
    assert SECRET not in str(caught.value)


def test_a_remote_catalog_names_no_file_by_what_its_items_call_themselves(site: Server, secret: Path):
    item = with_asset(secret.name) | {"links": [{"rel": "self", "href": f"FILE://{secret}"}]}
    site.files["/c.json"] = json.dumps({"type": "FeatureCollection", "features": [item]}).encode()
    [scene] = find_scenes(site.url("/c.json")).left_out or [None]
    assert scene is not None
    assert "plain http" in scene.why  # of its own server: `self` is not asked


def test_a_name_of_another_machine(tmp_path: Path):
    with pytest.raises(CatalogError, match="of another machine"):
        resolve_href(f"file://nas{tmp_path}/x.tif", catalog_href=str(tmp_path / "catalog.json"))
    assert resolve_href(f"FILE://{tmp_path}/x.tif", catalog_href=str(tmp_path / "c.json")) == str(
        tmp_path / "x.tif"
    )


def test_a_local_catalog_may_name_this_machine_and_no_other(net: Net, tmp_path: Path):
    net.names["private.test"] = [["10.0.0.5"]]
    root = str(tmp_path / "c.json")
    policy = AddressPolicy.of(root)
    assert resolve_href("http://localhost:1/x", catalog_href=root, policy=policy) == "http://localhost:1/x"
    for href in ("https://private.test/x", "https://10.0.0.5/x"):
        with pytest.raises(CatalogError, match="private network"):
            resolve_href(href, catalog_href=root, policy=policy)


def test_no_setting_allows_a_metadata_service(net: Net):
    net.names["metadata.test"] = [["169.254.169.254"]]
    hosts = ("169.254.169.254", "metadata.test", "168.63.129.16")
    for home in ("https://public.test/c.json", "http://169.254.169.254/c.json"):
        for host in hosts:
            with pytest.raises(CatalogError, match=r"metadata|169\.254\.169\.254"):
                resolve_href(f"https://{host}/x", catalog_href=home, policy=AddressPolicy.of(home, hosts))


def test_hosts_that_a_setting_allows(site: Server, net: Net):
    net.names["private.test"] = [["10.0.0.5"]]
    items = [
        stac_item("named", assets={"vh": {"href": "https://PRIVATE.test/x.tif"}}),
        stac_item("number", assets={"vh": {"href": "https://10.0.0.6:9/x.tif"}}),
    ]
    site.files["/c.json"] = json.dumps({"type": "FeatureCollection", "features": items}).encode()
    assert list(find_scenes(site.url("/c.json"))) == []
    query = SceneQuery(allow_hosts=("Private.test", "10.0.0.6"))
    found = find_scenes(site.url("/c.json"), query)
    assert {scene.hrefs for scene in found} == {
        ("https://private.test/x.tif",),
        ("https://10.0.0.6:9/x.tif",),
    }
    for wrong in ("https://private.test", "a:80", "a/b", ""):
        with pytest.raises(ValueError, match="allow_hosts"):
            SceneQuery(allow_hosts=(wrong,))


def test_buckets_on_request(site: Server):
    names = ("one", "two")
    items = [stac_item(name, assets={"vh": {"href": f"s3://bucket-{name}/x.tif"}}) for name in names]
    site.files["/c.json"] = json.dumps({"type": "FeatureCollection", "features": items}).encode()
    assert len(find_scenes(site.url("/c.json"))) == 2
    found = find_scenes(site.url("/c.json"), SceneQuery(allow_buckets=("bucket-one",)))
    assert [scene.hrefs for scene in found] == [("s3://bucket-one/x.tif",)]
    assert "bucket-two, which is not in catalog.allow_buckets" in found.left_out[0].why
    own = AddressPolicy.of("s3://home/c.json", (), ("other",))
    assert resolve_href("x.tif", catalog_href="s3://home/c.json", policy=own) == "s3://home/x.tif"
    with pytest.raises(ValueError, match="allow_buckets"):
        SceneQuery(allow_buckets=("s3://a",))


def test_catalogs_that_lie_on_a_private_host(site: Server, net: Net):
    """They name their own host, by links, redirects and further pages."""
    net.names["inside.test"] = [["127.0.0.1"]]
    item = json.dumps(stac_item("ours")).encode()
    for host in ("inside.test", "INSIDE.test.", "127.0.0.1", "localhost"):
        site.files = {
            "/c.json": catalog("./a/item.json", "/go?to=/b/item.json", site.url("/d/item.json", host)),
            "/a/item.json": item,
            "/b/item.json": item,
            "/d/item.json": item,
        }
        assert len(find_scenes(site.url("/c.json", host))) == 3
    href = "https://inside.test/x.tif"
    root = site.url("/c.json", "inside.test")
    assert resolve_href(href, catalog_href=root, policy=AddressPolicy.of(root)) == href


@pytest.mark.parametrize(
    ("href", "expected"),
    [
        ("HTTPS://Example.COM./A%20b.TIF?sig=a%2Fb%3D&X=1#part", "https://example.com/A%20b.TIF?sig=a%2Fb%3D&X=1"),
        ("S3://bucket-1/A b/c?d#e.tif", "s3://bucket-1/A b/c?d#e.tif"),
        ("https://[2606:4700:0000::1111]:8443/x", "https://[2606:4700::1111]:8443/x"),
        ("https://xn--bcher-kva.example/ü.tif", "https://xn--bcher-kva.example/ü.tif"),
        ("https://8.8.8.8/x", "https://8.8.8.8/x"),
        ("../b/x.tif", "https://public.test/b/x.tif"),
        ("//cdn.public.test/x", "https://cdn.public.test/x"),
    ],
)  # fmt: skip
def test_one_form(href: str, expected: str):
    home = "https://public.test/a/c.json"
    assert resolve_href(href, catalog_href=home, policy=AddressPolicy.of(home)) == expected
    assert parse_address(expected).url == expected


def test_what_the_user_names_may_hold_a_password():
    href = "https://me:pw@example.org/s2.tif?sig=x"
    assert check_href(href) == href
    home = "https://me:pw@example.org/c.json"
    assert resolve_href("x.tif", catalog_href=home) == "https://me:pw@example.org/x.tif"
    with pytest.raises(CatalogError, match="user or password") as caught:
        resolve_href("https://me:geheim@example.org/x.tif", catalog_href=home)
    assert "geheim" not in str(caught.value)


def test_numbers_of_the_open_internet():
    for number in ("8.8.8.8", PUBLIC, "2606:4700::1111", "64:ff9b::808:808"):
        assert is_public(ipaddress.ip_address(number)), number
    for number in (
        "127.0.0.1", "10.1.1.1", "0.0.0.0", "100.127.255.254", "169.254.0.1", "198.18.0.1", "192.0.2.1",
        "240.0.0.1", "224.0.0.1", "239.1.1.1", "::", "::1", "::ffff:8.8.8.8", "::8.8.8.8", "64:ff9b::a00:1",
        "64:ff9b:1::808:808", "2002:808:808::", "2001:0:808:808::", "fe80::1", "fec0::1",
        "fd00::1", "ff0e::1", "2001:db8::1",
    ):  # fmt: skip
        assert not is_public(ipaddress.ip_address(number)), number
    assert is_metadata("::ffff:169.254.169.254")
    assert is_loopback("LOCALHOST.")
    assert not is_loopback("localhost.example.com")


def test_a_token_is_sent_to_the_host_that_is_meant():
    def sign(href: str) -> str:
        return href + "?sig=x"

    signers = {"blob.example": sign}
    assert signed("HTTPS://BLOB.example/x", signers) == "HTTPS://BLOB.example/x?sig=x"
    for href in (
        "https://blob.example@evil.test/x",
        "https://evil.test/blob.example",
        "http://blob.example/x",
    ):
        assert signed(href, signers) == href


@pytest.mark.parametrize(
    "text", ["ftp://public.test/x", "FILE:///x", "https:public.test/x", "s3:/bucket/x", "x"]
)
def test_the_scheme_counts_after_joining(text: str):
    with pytest.raises(CatalogError, match="begins with"):
        parse_address(text)


@pytest.mark.parametrize("host", ["10.0.0.5", "[fd00::1]", "0.0.0.0"])
def test_private_numbers_need_no_look_up(host: str):
    with pytest.raises(CatalogError, match="from a catalog on another machine"):
        resolve_href(f"https://{host}/x", catalog_href="https://public.test/c.json")
