"""The pages of adjusted places: what they draw and list, the CSV, and what hostile ids cannot do."""

from __future__ import annotations

import csv
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from measured_archive import MeasuredArchive, measured_registration, optical_id, sar_id
from site_archive import Site

import crosstie
from crosstie.flows.archive.adjusting import adjust_archive
from crosstie.flows.archive.solving import AdjustOptions
from crosstie.flows.site.app import make_site_app
from crosstie.flows.site.watch import Watch
from crosstie.io.adjusted.moved import write_moves
from crosstie.io.storage.store import Store, open_store

TILE = "31UFS"
EVIL = "=S1<script>alert(1)</script>"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    archive = MeasuredArchive(
        open_store(str(tmp_path_factory.mktemp("places") / "products")), np.random.default_rng(0)
    )
    archive.place(TILE, optical=4, sar=8, wrong=0)
    rng = np.random.default_rng(1)
    references = [optical_id(TILE, n) for n in range(4)]
    for n, off in enumerate([(12.0, -7.0), (12.0, -7.0), (90.0, 60.0)]):
        archive.commit(measured_registration(references[n], EVIL, np.array(off), rng))
    archive.commit(measured_registration(references[0], sar_id(TILE, 30), np.array([9.0, 9.0]), rng))
    list(adjust_archive(archive.store, AdjustOptions()))
    write_moves(archive.store, [{"key": "k", "sentence": "S1A <b>jumped</b> by 20 m"}])
    return archive.store


@pytest.fixture(scope="module")
def client(store: Store) -> Site:
    watch = Watch(store, every_s=3600)
    watch.look()
    return Site(make_site_app(watch, None, local=True))


class Drawn(HTMLParser):
    """Tags of a page with their classes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data.split()

    def count(self, tag: str, name: str) -> int:
        return sum(one == tag and name in (a.get("class") or "").split() for one, a in self.tags)


def page(client: Site, address: str) -> Drawn:
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    return Drawn(answer.text)


def test_the_start_page_leads_to_the_places_and_these_say_what_moved(client: Site) -> None:
    assert ("a", {"href": "places"}) in page(client, "/").tags
    found = page(client, "/places")
    assert ("a", {"href": f"places/T{TILE}"}) in found.tags
    assert "S1A <b>jumped</b> by 20 m" in " ".join(found.words)
    assert not [tag for tag, _ in found.tags if tag == "b"]


def test_a_place_draws_each_scene_before_and_after_and_each_pair(client: Site, store: Store) -> None:
    found = page(client, f"/places/T{TILE}")
    table = crosstie.read_adjusted(store)
    dated = table[table["date"].notna()]
    # Series of x and y, and the network. The scene without a date is in the table alone.
    series = dated.groupby(["sensor", "track"]).filter(lambda own: len(own) >= 2)
    assert found.count("circle", "adjusted") == 2 * int(series["dx_m"].notna().sum()) + len(dated)
    assert found.count("line", "bar") == 2 * int(series["dx_m"].notna().sum())
    ends = {EVIL}
    edges = [scene for scene in series["scene"] if scene not in ends]
    assert found.count("circle", "alone") >= 2 * len(edges)
    assert found.count("line", "edge") == 8 * 4 + 1
    assert found.count("circle", "unsure") == 1
    assert found.count("path", "outline") >= 1
    rows = [a for tag, a in found.tags if tag == "th" and a.get("scope") == "row"]
    assert len(rows) == len(table)


def test_positions_are_drawn_where_they_lie(client: Site, store: Store) -> None:
    """The order in height on the page is that of the values, upside down, and 0 lies between them."""
    text = client.get(f"/places/T{TILE}").text
    drawing = re.search(r'<svg[^>]*aria-label="x of sentinel-1 R058.*?</svg>', text, re.DOTALL)
    assert drawing
    drawn = [float(y) for y in re.findall(r'class="adjusted" cx="[\d.]+" cy="([\d.]+)"', drawing[0])]
    table = crosstie.read_adjusted(store)
    own = table[(table["sensor"] == "sentinel-1") & (table["track"] == "R058")]
    assert (np.argsort(drawn) == np.argsort(-own["dx_m"].to_numpy())).all()
    zero = re.search(r'class="zero"[^>]*y1="([\d.]+)"', drawing[0])
    assert zero
    assert float(zero[1]) > max(drawn)  # all lie east of 0


def test_nothing_of_a_page_is_script_or_style_of_its_own(client: Site) -> None:
    found = page(client, f"/places/T{TILE}")
    assert not [tag for tag, a in found.tags if tag in {"script", "style"} or "style" in a or "onclick" in a]
    assert EVIL in " ".join(found.words)


def test_the_table_is_sorted_and_a_csv_without_formulas(client: Site, store: Store) -> None:
    text = client.get(f"/places/T{TILE}?sort=dx_m").text
    shown = re.findall(r'<th scope="row">([^<]+)', text)
    table = crosstie.read_adjusted(store).sort_values(["dx_m", "scene"], na_position="last")
    assert shown[0] == table["scene"].iloc[0]
    answer = client.get(f"/places/T{TILE}/scenes.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert {row["scene"] for row in rows} == {f"'{s}" if s == EVIL else s for s in table["scene"]}
    by_scene = {row["scene"]: row for row in rows}
    first = table.iloc[0]
    assert float(by_scene[first["scene"]]["dx_m"]) == pytest.approx(first["dx_m"])


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/places/T99XXX", 404), ("/places/..%2F_index", 404), (f"/places/T{TILE}?sort=geometry", 400),
        ("/places/T99XXX/scenes.csv", 404),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said(client: Site, address: str, status: int) -> None:
    assert client.get(address).status_code == status


def test_an_archive_without_places_says_so_and_a_broken_one_too(store: Store, tmp_path: Path) -> None:
    nothing = Site(make_site_app(Watch(open_store(str(tmp_path / "no")), every_s=3600), None, local=True))
    assert "Nothing is adjusted yet." in " ".join(page(nothing, "/places").words)
    shutil.copytree(store.url.removeprefix("file://"), tmp_path / "products")
    broken = open_store(str(tmp_path / "products"))
    broken.put(f"_adjusted/T{TILE}/scenes.parquet", b"broken")
    broken.put("_adjusted/moved.json", b"{")
    site = Site(make_site_app(Watch(broken, every_s=3600), None, local=True))
    assert site.get("/places").status_code == 200
    answer = site.get(f"/places/T{TILE}")
    assert (answer.status_code, "crosstie adjust" in answer.text) == (503, True)
