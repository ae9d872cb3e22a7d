from __future__ import annotations

import base64
import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from affine import Affine

from crosstie.io.products.report import report_html
from crosstie.types import Reason, Registration, VerdictCode

MakeRegistration = Callable[..., Registration]
PICTURE = b"\x89PNG pretended"


class Page(HTMLParser):
    """What a browser would make of a page: tags, texts and addresses."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_says_verdict_figures_and_provenance(make_registration: MakeRegistration):
    page = Page(report_html(make_registration(), PICTURE))
    assert page.tags.count("h1") == 1
    for text in ("Corrected", "24.0 m", "3.25 m", "300", "150, 120", "EPSG:32614", "ab" * 32, "2026-01-02"):
        assert text in page.text, text


def test_the_page_loads_nothing_but_holds_the_picture(make_registration: MakeRegistration):
    page = Page(report_html(make_registration(), PICTURE))
    assert page.sources == ["data:image/png;base64," + base64.b64encode(PICTURE).decode()]
    assert not {"script", "link", "iframe"} & set(page.tags)


def test_foreign_text_stays_text(make_registration: MakeRegistration):
    evil = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>${title}"
    registration = make_registration(secondary_id=evil, secondary_hrefs=(f"/data/{evil}.tif",))
    body = report_html(registration, PICTURE)
    page = Page(body)
    assert "script" not in page.tags
    assert page.tags.count("img") == 1
    assert b"<script" not in body
    assert evil in page.text  # shown, letter by letter


def test_no_password_and_no_signature_is_shown(make_registration: MakeRegistration):
    body = report_html(make_registration(), PICTURE).decode()
    assert "https://example.org/s2.tif?v=1" in body
    assert "me:pw" not in body
    assert "XYZ" not in body


def test_the_printed_formula_is_the_correction(make_registration: MakeRegistration):
    registration = make_registration(affine=(1.0000123456789, -2e-5, -641.25, 2e-5, 0.99998, 13.5))
    text = Page(report_html(registration, PICTURE)).text
    number = r"(-?[\d.e-]+)"
    match = re.search(
        rf"x' = {number} x \+ {number} y \+ {number}\s+y' = {number} x \+ {number} y \+ {number}", text
    )
    assert match is not None
    assert Affine(*map(float, match.groups())) == Affine(*registration.estimate.correction.affine)


@pytest.mark.parametrize("reasons", [(Reason.CLOUDED,), (Reason.WATER, Reason.TOO_FEW_TIE_POINTS)])
def test_an_unreliable_pair_says_why_and_offers_no_formula(
    make_registration: MakeRegistration, reasons: tuple[Reason, ...]
):
    text = Page(report_html(make_registration(code=VerdictCode.UNRELIABLE, reasons=reasons), PICTURE)).text
    assert "Unreliable" in text
    for reason in reasons:
        assert reason.sentence in text
    assert "x' =" not in text
    assert "no correction to apply" in text


def test_a_pair_without_overlap_has_a_page_too(make_registration: MakeRegistration):
    registration = make_registration(
        n=0, grid=None, code=VerdictCode.UNRELIABLE, reasons=(Reason.NO_OVERLAP,)
    )
    text = Page(report_html(registration, PICTURE)).text
    assert "nan" not in text.lower()
    assert Reason.NO_OVERLAP.sentence in text
