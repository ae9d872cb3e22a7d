"""The pages of the site: what they show, where they lead, and what they keep a browser from."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
import site_archive
from committed_runs import copy_run, recommit
from PIL import Image
from site_archive import EVIL, FLAT, HERE, NEW, OLD, S1, S2, SEA, Site

from crosstie.flows.site.app import make_site_app
from crosstie.flows.site.query import PER_PAGE, Query, corrections
from crosstie.flows.site.watch import Watch
from crosstie.io.storage.href import local_path
from crosstie.io.storage.store import Store, open_store
from crosstie.types import Registration, pair_key

PAIR = pair_key(S2, S1)


class Page(HTMLParser):
    """What a browser makes of a page: tags, words, the scenes that it lists and where it leads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.scenes: list[str] = []
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._inside.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.words += data.split()
        if self._inside[-2:] == ["h2", "a"]:
            self.scenes.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, make_registration: Callable[..., Registration]) -> Store:
    return site_archive.filled(tmp_path_factory.mktemp("site"), make_registration)


@pytest.fixture(scope="module")
def watch(store: Store) -> Watch:
    found = Watch(store, every_s=3600)
    found.look()
    return found


@pytest.fixture(scope="module")
def client(watch: Watch) -> Site:
    return Site(make_site_app(watch, None, local=True))


def page(client: Site, address: str = "/") -> Page:
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    return Page(answer.text)


def test_the_latest_run_of_each_pair_is_listed_the_newest_first(client: Site) -> None:
    assert page(client).scenes == [SEA, FLAT, S1, EVIL]
    assert page(client, "/?runs=all").scenes == [SEA, FLAT, S1, S1, EVIL]
    assert "replaced by a later run" in page(client, "/?runs=all").text


@pytest.mark.parametrize(
    ("asked", "scenes"),
    [
        ("?verdict=corrected", [S1, EVIL]),
        ("?verdict=already_aligned", [FLAT]),
        ("?reason=no_texture", [SEA]),
        ("?reason=no_texture&runs=all", [SEA, S1]),
        ("?reason=clouded", []),
        ("?scene=s1c_iw", [FLAT]),
        ("?scene=t31ufs", [SEA, FLAT, S1]),
        ("?scene=S1A.*", []),  # letter by letter, no pattern
        ("?scene=%3Cb%3E", [EVIL]),
        ("?scene=t31ufs&verdict=unreliable&reason=water", [SEA]),
        ("?verdict=&reason=&scene=&page=", [SEA, FLAT, S1, EVIL]),
        ("?page=99", [SEA, FLAT, S1, EVIL]),
        ("?unheard=of", [SEA, FLAT, S1, EVIL]),
    ],
)
def test_corrections_are_found_by_verdict_reason_and_scene(
    client: Site, asked: str, scenes: list[str]
) -> None:
    assert page(client, f"/{asked}").scenes == scenes


@pytest.mark.parametrize(
    "asked",
    ["?verdict=good", "?reason=rain", "?runs=some", "?page=0", "?page=-1", "?page=²", f"?scene={'x' * 201}"],
)
def test_what_cannot_be_asked_is_said_and_not_repeated(client: Site, asked: str) -> None:
    answer = client.get(f"/{asked}")
    assert answer.status_code == 400
    said = answer.text.partition("<footer")[0]  # there are numbers of its own below
    assert asked.partition("=")[2] not in Page(said).words


def test_a_page_says_what_became_of_the_archive(client: Site) -> None:
    text = page(client).text
    for words in (
        "2 corrected", "1 already aligned", "1 unreliable", "3 failed", "1 in progress",
        "RMSE before, after 24.0 m → 3.25 m", "Most of the overlap is open water",
        "nightly 2026-01-05 02:00 has not ended",
        "backfill 2025-12-25 02:00 0:05:00 5 3 corrected, 1 failed, 1 unreliable (1 registered earlier)"
        " failed: 1 time_limit",
    ):  # fmt: skip
        assert words in text, words


def test_failures_are_listed_the_latest_first_and_found_by_code(client: Site) -> None:
    text = page(client, "/failures").text
    assert text.index("S1A_FAILED_2") < text.index("S1A_FAILED_1") < text.index("S1A_FAILED_0")
    assert "S2__S1A_LOST gone:1 abandoned" in text
    assert "S2__S1A_NOW here:1" in text
    found = page(client, "/failures?code=time_limit").text
    assert "S1A_FAILED_0" in found
    assert "S1A_FAILED_1" not in found
    assert "S1A_FAILED_1" in page(client, "/failures?scene=failed_1").text


def test_every_link_leads_somewhere_and_stays_here(client: Site) -> None:
    seen: set[str] = set()
    ahead = [f"{HERE}/", f"{HERE}/?page=2", f"{HERE}/nowhere/at/all"]
    while ahead:
        address = ahead.pop()
        answer = client.get(address)
        assert answer.status_code == (404 if "nowhere" in address else 200), address
        if "text/html" in answer.headers["content-type"] and "/runs/" not in address:
            found = {urljoin(address, link).partition("#")[0] for link in Page(answer.text).links}
            assert {urlsplit(link).netloc for link in found} == {"127.0.0.1"}
            ahead += found - seen
            seen |= found
    files = {urlsplit(link).path.rpartition("/")[2] for link in seen if "/runs/" in link}
    assert files == {
        "report.html", "overview.png", "correction.json", "tie_points.parquet", "item.json", "corrected.vrt",
        "thumbnail.webp",
    }  # fmt: skip


def test_foreign_text_stays_text_and_no_page_brings_script_or_style(client: Site) -> None:
    for address in (
        "/",
        "/failures",
        "/?scene=%3Cscript%3E%22%3E%3Csvg/onload=1%3E",
        "/failures?code=%3Cb%3E",
    ):
        found = page(client, address)
        assert not {"script", "style", "i", "b", "svg", "iframe"} & set(found.tags), address
        assert not {name for name in found.attributes if name.startswith("on") or name == "style"}
    assert EVIL in page(client).scenes


@pytest.mark.parametrize(
    "address",
    [
        "/",
        "/failures",
        "/style.css",
        "/healthz",
        "/metrics",
        "/nowhere",
        "/?page=0",
        f"/runs/{PAIR}/{NEW}/report.html",
    ],
)
def test_every_answer_tells_the_browser_to_be_careful(client: Site, address: str) -> None:
    headers = client.get(address).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "script-src" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert ("sandbox" in headers["content-security-policy"]) == ("/runs/" in address)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_it_only_answers_questions(client: Site, method: str) -> None:
    for address in ("/", f"/runs/{PAIR}/{NEW}/report.html"):
        assert client.request(method, address).status_code == 405


def test_a_file_is_what_the_store_has(client: Site, store: Store) -> None:
    for name, kind in (("report.html", "text/html"), ("correction.json", "application/json")):
        answer = client.get(f"/runs/{PAIR}/{NEW}/{name}")
        assert answer.content == store.get(f"{PAIR}/{NEW}/{name}")
        assert answer.headers["content-type"].startswith(kind)
        assert "content-disposition" not in answer.headers
    saved = client.get(f"/runs/{PAIR}/{NEW}/tie_points.parquet")
    assert saved.content == store.get(f"{PAIR}/{NEW}/tie_points.parquet")
    assert saved.headers["content-disposition"] == f'attachment; filename="{PAIR}.tie_points.parquet"'
    older = client.get(f"/runs/{PAIR}/{OLD}/correction.json").json()
    assert older["verdict"] == "unreliable"


def test_a_file_that_has_not_changed_is_not_sent_again(client: Site) -> None:
    address = f"/runs/{PAIR}/{NEW}/report.html"
    first = client.get(address)
    head = client.head(address)
    assert head.headers["content-length"] == first.headers["content-length"] == str(len(first.content))
    again = client.get(address, headers={"If-None-Match": f'"other", {first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(address, headers={"If-None-Match": '"other"'}).content == first.content


@pytest.mark.parametrize(
    "run",
    [
        f"{PAIR}/{NEW}/_COMMIT", f"{PAIR}/{NEW}/_CLAIM.1", f"{PAIR}/{NEW}/nothing.txt",
        f"{PAIR}/{'c' * 16}/report.html", f"{PAIR}/{NEW[:-1]}/report.html",
        f"S2__S1A_NOW/{NEW}/report.html", "_index/parts/corrections.parquet",
        f"{PAIR}%2F{NEW}/{NEW}/report.html", f"..%2F..%2Fetc/{NEW}/report.html",
        f"%2e%2e/{NEW}/report.html", f"{PAIR}/{NEW}%2F..%2F{NEW}/report.html",
        f"{PAIR}/{NEW}/..%2F{OLD}%2Freport.html", f"{PAIR}%00/{NEW}/report.html",
    ],
)  # fmt: skip
def test_nothing_but_the_known_files_of_committed_runs_is_there(client: Site, run: str) -> None:
    assert client.get(f"/runs/{run}").status_code == 404


def test_a_half_written_run_has_no_files_yet(client: Site, store: Store) -> None:
    store.put(f"{PAIR}/{'d' * 16}/report.html", b"half")
    assert client.get(f"/runs/{PAIR}/{'d' * 16}/report.html").status_code == 404
    recommit(store, (PAIR, "d" * 16))
    assert client.get(f"/runs/{PAIR}/{'d' * 16}/report.html").content == b"half"
    assert client.get(f"/runs/{PAIR}/{'d' * 16}/overview.png").status_code == 404
    store.delete(f"{PAIR}/{'d' * 16}/_COMMIT")


def test_a_thumbnail_is_a_small_picture_and_a_broken_one_is_none(client: Site, store: Store) -> None:
    answer = client.get(f"/runs/{PAIR}/{NEW}/thumbnail.webp")
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.format == "WEBP"
        assert max(picture.size) == 360
    for body in (b"<svg/>", b"", (store.get(f"{PAIR}/{NEW}/overview.png") or b"")[:2000]):
        run = f"{PAIR}/{'e' * 16}"
        store.put(f"{run}/overview.png", body)
        recommit(store, (PAIR, "e" * 16))
        assert client.get(f"/runs/{run}/thumbnail.webp").status_code == 404
    store.delete(f"{PAIR}/{'e' * 16}/_COMMIT")


def test_pages_part_the_corrections_and_remember_what_was_asked(store: Store, tmp_path: Path) -> None:
    shutil.copytree(str(local_path(store.url)), tmp_path / "products")
    store = open_store(str(tmp_path / "products"))
    run = pair_key(S2, S1), NEW
    copies = {f"S1A_COPY_{n:03d}" for n in range(60)}
    for name in copies:
        copy_run(store, run, name)
    watch = Watch(store, every_s=3600)
    watch.look()
    client = Site(make_site_app(watch, None, local=True))
    shown: list[str] = []
    address = "/?scene=s1a_copy&verdict=corrected"
    for count in (PER_PAGE, PER_PAGE, 10):
        found = page(client, address)
        assert len(found.scenes) == count
        assert f"{len(shown) + 1} to {len(shown) + count} of 60" in found.text
        shown += found.scenes
        onward = [link for link in found.links if f"page={len(shown) // PER_PAGE + 1}" in link]
        address = urljoin(address, onward[0]) if onward else ""
    assert not address
    assert set(shown) == copies


def test_an_empty_archive_says_how_to_fill_it(tmp_path: Path) -> None:
    watch = Watch(open_store(str(tmp_path / "none")), every_s=3600)
    client = Site(make_site_app(watch, None, local=True))
    assert 'http-equiv="refresh"' in client.get("/").text  # not seen yet
    watch.look()
    assert "crosstie nightly" in page(client).text
    assert "refresh" not in client.get("/").text
    snapshot = watch.seen.snapshot
    assert snapshot is not None
    assert corrections(snapshot.table, Query(reason="water", scene="x", verdict="corrected")).found == 0
    assert not (tmp_path / "none").exists()
