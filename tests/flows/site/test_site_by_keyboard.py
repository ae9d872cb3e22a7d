"""The pages in a real browser: axe, the keyboard, and the width of a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
import site_archive
from asgi_server import serving
from browser import find_browser
from driven_browser import Scheme, Screen, driven, keyboard_faults, opened, overflow_px, serious_faults
from measured_archive import MeasuredArchive, measured_registration, optical_id, sar_id
from site_archive import EVIL, NEW, S1, S2

from crosstie.flows.archive.adjusting import adjust_archive
from crosstie.flows.archive.solving import AdjustOptions
from crosstie.flows.site.app import make_site_app
from crosstie.flows.site.watch import Watch
from crosstie.io.adjusted.moved import write_moves
from crosstie.types import Registration, pair_key

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from crosstie.io.storage.store import Store

pytestmark = [pytest.mark.server, pytest.mark.slow]

TILE = "31UFS"

PAGES = {
    "corrections": "/",
    "none found": "/?scene=nothing",
    "failures": "/failures",
    "places": "/places",
    "place": f"/places/T{TILE}",
    "platforms": "/platforms",
    "platform": "/platforms/sentinel-1a",
    "not there": "/places/T00XXX",
}

REPORTS = {
    "report": f"/runs/{pair_key(S2, S1)}/{NEW}/report.html",
    "report of hostile ids": f"/runs/{pair_key('S2<b>', EVIL)}/{NEW}/report.html",
}

WIDTHS_PX = (1440, 390)
SCHEMES: tuple[Scheme, ...] = ("light", "dark")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, make_registration: Callable[..., Registration]) -> Store:
    """Corrections of each verdict, and a place with a scene of hostile id, wrong pairs and scenes untied."""
    store = site_archive.filled(tmp_path_factory.mktemp("keyboard"), make_registration)
    archive = MeasuredArchive(store, np.random.default_rng(0))
    archive.place(TILE, optical=3, sar=3, wrong=0.1)
    rng = np.random.default_rng(1)
    for n, off in enumerate([(12.0, -7.0), (12.0, -7.0), (90.0, 60.0)]):
        archive.commit(measured_registration(optical_id(TILE, n), EVIL, np.array(off), rng))
    archive.commit(measured_registration(optical_id(TILE, 0), sar_id(TILE, 30), np.array([9.0, 9.0]), rng))
    list(adjust_archive(store, AdjustOptions()))
    sentence = f"{sar_id(TILE, 3)} of track 58 lies 20.3 m (sigma 1.2 m) east of all dates before it"
    write_moves(store, [{"key": "k", "sentence": sentence, "platform": "sentinel-1a", "against": ""}])
    return store


@pytest.fixture(scope="module")
def site(store: Store) -> Iterator[str]:
    watch = Watch(store, every_s=3600)
    watch.look()
    with serving(make_site_app(watch, None, local=True)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with driven(find_browser()) as browser:
        yield browser


@pytest.mark.parametrize("width_px", WIDTHS_PX)
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious_and_the_page_fits(
    site: str, browser: Browser, name: str, width_px: int
) -> None:
    for scheme in SCHEMES:
        with opened(browser, site + PAGES[name], Screen(width_px, scheme)) as page:
            assert (scheme, serious_faults(page)) == (scheme, [])
            assert overflow_px(page) <= 0


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_is_as_good(site: str, browser: Browser, name: str) -> None:
    """axe cannot run in its sandbox, so it looks at the same bytes outside of it."""
    text = httpx.get(site + REPORTS[name]).text
    for screen in (Screen(width_px, scheme) for width_px in WIDTHS_PX for scheme in SCHEMES):
        with opened(browser, site + REPORTS[name], screen) as page:
            assert overflow_px(page) <= 0
        with opened(browser, "about:blank", screen) as page:
            page.set_content(text)
            assert (screen, serious_faults(page)) == (screen, [])


@pytest.mark.parametrize(("width_px", "scheme"), [(1440, "light"), (390, "dark")])
@pytest.mark.parametrize("name", PAGES | REPORTS)
def test_each_control_is_reached_in_order_and_seen_to_be(
    site: str, browser: Browser, name: str, width_px: int, scheme: Scheme
) -> None:
    with opened(browser, site + (PAGES | REPORTS)[name], Screen(width_px, scheme)) as page:
        assert keyboard_faults(page) == []
