"""The pages of platforms: series over all places, what moved, and what hostile names cannot do."""

from __future__ import annotations

import re

import numpy as np
import pytest
from measured_archive import MeasuredArchive
from site_archive import Site

import crosstie
from crosstie.errors import StoreError
from crosstie.flows.archive.adjusting import adjust_archive
from crosstie.flows.archive.series import best_series, place_series, pooled_series, usable
from crosstie.flows.archive.solving import AdjustOptions
from crosstie.flows.site.app import make_site_app
from crosstie.flows.site.watch import Watch
from crosstie.io.adjusted.moved import MOVED, write_moves
from crosstie.io.storage.store import Store, open_store

TILES = ("31UFS", "31UGS")
S1A = "sentinel-1a"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    archive = MeasuredArchive(
        open_store(str(tmp_path_factory.mktemp("platforms") / "products")), np.random.default_rng(0)
    )
    for tile in TILES:
        archive.place(tile, optical=3, sar=6, wrong=0)
    list(adjust_archive(archive.store, AdjustOptions()))
    said = {
        "S1A <b>jumped</b>": (S1A, ""),
        "S1C differs": ("sentinel-1c", S1A),
        "S2B drifts": ("sentinel-2b", ""),
    }
    write_moves(
        archive.store,
        [
            {"key": text, "sentence": text, "platform": platform, "against": against}
            for text, (platform, against) in said.items()
        ],
    )
    return archive.store


def site_of(store: Store, *, every_s: float = 3600) -> Site:
    watch = Watch(store, every_s=every_s)
    watch.look()
    return Site(make_site_app(watch, None, local=True))


def listed(site: Site) -> str:
    """The rows of the list."""
    return site.get("/platforms").text.partition("<tbody>")[2].partition("</tbody>")[0]


def test_each_platform_is_listed_with_what_it_has(store: Store) -> None:
    site = site_of(store)
    assert 'href="platforms"' in site.get("/").text
    text = site.get("/platforms").text
    table = crosstie.read_adjusted(store)
    rows = re.findall(r'<a href="platforms/([^"]+)">.*?</th>(.*?)</tr>', text)
    assert [name for name, _ in rows] == sorted(table["platform"].unique())
    for name, cells in rows:
        own = table[table["platform"] == name]
        figures = [int(n) for n in re.findall(r'class="figure">([\d,]+)<', cells)]
        assert figures == [len(own), own["track"].nunique(), own["place"].nunique()]


def test_a_page_draws_the_mean_over_places_of_each_date(store: Store) -> None:
    text = site_of(store).get(f"/platforms/{S1A}").text
    alone = place_series(usable(crosstie.read_adjusted(store)))
    (expected,) = [one for one in best_series(alone, pooled_series(alone)) if one.platform == S1A]
    assert expected.places == len(TILES)
    assert f"{expected.track}, mean of 2 places" in text
    drawing = re.search(r'<svg[^>]*aria-label="x of.*?</svg>', text, re.DOTALL)
    assert drawing
    heights = [float(y) for y in re.findall(r'class="adjusted" cx="[\d.]+" cy="([\d.]+)"', drawing[0])]
    assert (np.argsort(heights) == np.argsort(-expected.series.position_m[:, 0])).all()


def test_what_moved_is_told_of_the_platform_and_of_those_compared_with_it(store: Store) -> None:
    text = site_of(store).get(f"/platforms/{S1A}").text
    assert "S1A &lt;b&gt;jumped&lt;/b&gt;" in text
    assert "S1C differs" in text
    assert "S2B drifts" not in text


def test_a_broken_list_of_what_moved_spoils_no_page(store: Store) -> None:
    kept = store.get(MOVED)
    assert kept
    try:
        for broken in (b"{", b'{"findings": ["S1A jumped"]}', b'{"findings": [{"sentence": "S1A jumped"}]}'):
            store.put(MOVED, broken)
            answer = site_of(store).get(f"/platforms/{S1A}")
            assert (answer.status_code, "S1A jumped" in answer.text) == (200, False)
    finally:
        store.put(MOVED, kept)


def test_a_page_says_how_many_tracks_it_does_not_draw(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "tracks are drawn" not in site_of(store).get(f"/platforms/{S1A}").text
    monkeypatch.setattr("crosstie.flows.site.platforms.MOST_SERIES", 0)
    assert "0 of 1 tracks are drawn" in site_of(store).get(f"/platforms/{S1A}").text


def test_what_is_read_before_somebody_asks_is_what_a_reader_gets(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(store, every_s=3600)
    watch.look()
    app = make_site_app(watch, None, local=True)
    app.state.prepare()
    rows = listed(site_of(store))
    monkeypatch.setattr(
        "crosstie.flows.site.platforms.read_positions", lambda _: pytest.fail("read at a request")
    )
    assert listed(Site(app)) == rows != ""


def test_a_broken_table_stops_no_start(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Store) -> None:
        raise StoreError("scenes.parquet: broken")

    monkeypatch.setattr("crosstie.flows.site.platforms.read_positions", broken)
    app = make_site_app(Watch(store, every_s=3600), None, local=True)
    app.state.prepare()
    assert Site(app).get("/platforms").status_code == 503


@pytest.mark.parametrize("name", ["sentinel-9", "..%2F_index", "%00", "<script>"])
def test_a_platform_that_is_not_there_is_said(store: Store, name: str) -> None:
    answer = site_of(store).get(f"/platforms/{name}")
    assert answer.status_code == 404
    assert "<script>" not in answer.text


def test_an_archive_without_places_says_so_and_a_broken_one_too(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    nothing = open_store(str(tmp_path_factory.mktemp("nothing") / "no"))
    assert "No scene of a known platform is adjusted yet." in site_of(nothing).get("/platforms").text
    nothing.put(f"_adjusted/T{TILES[0]}/scenes.parquet", b"broken")
    answer = site_of(nothing).get("/platforms")
    assert (answer.status_code, "crosstie adjust" in answer.text) == (503, True)


def test_positions_are_read_again_when_they_are_old(tmp_path_factory: pytest.TempPathFactory) -> None:
    archive = MeasuredArchive(
        open_store(str(tmp_path_factory.mktemp("later") / "products")), np.random.default_rng(0)
    )
    archive.place(TILES[0], optical=2, sar=2, wrong=0)
    list(adjust_archive(archive.store, AdjustOptions()))
    fresh, kept = site_of(archive.store, every_s=0), site_of(archive.store)
    before = listed(fresh), listed(kept)
    archive.place(TILES[1], optical=2, sar=2, wrong=0)
    list(adjust_archive(archive.store, AdjustOptions()))
    assert listed(fresh) != before[0]
    assert listed(kept) == before[1]
