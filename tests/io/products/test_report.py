from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from browser import find_browser, looked_at
from PIL import Image, ImageColor

from crosstie.io.products.pictures import Picture, Pictures
from crosstie.io.products.report import report_html
from crosstie.types import Reason, Registration, VerdictCode

MakeRegistration = Callable[..., Registration]
PICTURE = b"\x89PNG pretended"
PICTURES = Pictures(arrows=(Picture("lengths", "How far off", "a histogram", "image/png", PICTURE),))
FRAMES = ("reference", "before", "affine", "field")
COLOURS = ("#00ff00", "#ff0000", "#ffff00", "#0000ff")


class Page(HTMLParser):
    """What a browser would make of a page: tags, their attributes, texts and addresses."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, dict[str, str]]] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append((tag, {name: value or "" for name, value in attrs}))
        self.sources += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_says_verdict_figures_and_provenance(make_registration: MakeRegistration):
    page = Page(report_html(make_registration(), PICTURES))
    assert page.tags.count("h1") == 1
    for text in (
        "Corrected",
        "24.0 m",
        "3.25 m",
        "300",
        "150 matched, 120 used to fit the model",
        "EPSG:32614",
        "ab" * 32,
        "2026-01-02",
    ):
        assert text in page.text, text


def test_the_page_loads_nothing_but_holds_the_picture(make_registration: MakeRegistration):
    page = Page(report_html(make_registration(), PICTURES))
    assert page.sources == ["data:image/png;base64," + base64.b64encode(PICTURE).decode()]
    assert not {"script", "link", "iframe"} & set(page.tags)


def test_foreign_text_stays_text(make_registration: MakeRegistration):
    evil = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>${title}"
    registration = make_registration(secondary_id=evil, secondary_hrefs=(f"/data/{evil}.tif",))
    body = report_html(registration, PICTURES)
    page = Page(body)
    assert "script" not in page.tags
    assert page.tags.count("img") == 1
    assert b"<script" not in body
    assert evil in page.text  # shown, letter by letter


def test_no_password_and_no_signature_is_shown(make_registration: MakeRegistration):
    body = report_html(make_registration(), PICTURES).decode()
    assert "https://example.org/s2.tif?v=1" in body
    assert "me:pw" not in body
    assert "XYZ" not in body


def test_the_printed_formula_is_the_correction(make_registration: MakeRegistration):
    registration = make_registration(affine=(1.0000123456789, -2e-5, -641.25, 2e-5, 0.99998, 13.5))
    text = Page(report_html(registration, PICTURES)).text
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
    text = Page(report_html(make_registration(code=VerdictCode.UNRELIABLE, reasons=reasons), PICTURES)).text
    assert "Unreliable" in text
    for reason in reasons:
        assert reason.sentence in text
    assert "x' =" not in text
    assert "no correction to apply" in text


def test_a_pair_without_overlap_has_a_page_too(make_registration: MakeRegistration):
    registration = make_registration(
        n=0, grid=None, code=VerdictCode.UNRELIABLE, reasons=(Reason.NO_OVERLAP,)
    )
    text = Page(report_html(registration, PICTURES)).text
    assert "nan" not in text.lower()
    assert Reason.NO_OVERLAP.sentence in text


def plain(colour: str) -> bytes:
    body = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(body, "PNG")
    return body.getvalue()


@pytest.fixture(scope="module")
def coloured() -> Pictures:
    """Frames of one colour each: a browser that shows one shows no other colour."""
    frames = [
        Picture(name, name, f"{name} in {colour}", "image/png", plain(colour))
        for name, colour in zip(FRAMES, COLOURS, strict=True)
    ]
    return Pictures(frames=tuple(frames))


def test_the_window_after_the_field_is_offered_beside_the_others(
    make_relief: MakeRegistration, coloured: Pictures
):
    page = Page(report_html(make_relief(), coloured))
    buttons = [has for tag, has in page.attributes if tag == "input"]
    assert [has["id"] for has in buttons if has["name"] == "stage"] == [f"stage-{n}" for n in FRAMES[1:]]
    assert {has["type"] for has in buttons} == {"radio"}
    assert sum("checked" in has for has in buttons) == 2  # one of each group
    assert page.tags.count("label") == len(buttons)
    assert page.tags.count("legend") == page.tags.count("fieldset") == 2
    assert not {"script", "link", "iframe", "form"} & set(page.tags)
    assert all(source.startswith("data:image/") for source in page.sources)


def test_what_axe_asks_of_a_page(make_relief: MakeRegistration, coloured: Pictures):
    page = Page(report_html(make_relief(), coloured))
    assert all(has.get("alt") for tag, has in page.attributes if tag == "img")
    assert all(has.get("scope") == "row" for tag, has in page.attributes if tag == "th")
    assert ("html", {"lang": "en"}) in page.attributes
    assert page.tags.count("main") == page.tags.count("h1") == 1
    ids = [has["id"] for _, has in page.attributes if "id" in has]
    assert len(ids) == len(set(ids))


def test_the_policy_lets_nothing_in(make_relief: MakeRegistration, coloured: Pictures):
    policy = [has["content"] for tag, has in Page(report_html(make_relief(), coloured)).attributes
              if has.get("http-equiv") == "Content-Security-Policy"]  # fmt: skip
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_no_error_stands_twice(make_registration: MakeRegistration, make_relief: MakeRegistration):
    for registration in (make_registration(), make_relief()):
        text = Page(report_html(registration, PICTURES)).text.split("In figures")
        found = re.findall(r"[\d.]+ px \([\d.]+ m\)", " ".join(text))
        assert len(found) >= 4
        assert len(found) == len(set(found))


def test_a_pair_with_relief_says_which_file_carries_what(make_relief: MakeRegistration):
    text = Page(report_html(make_relief(), PICTURES)).text
    for part in (
        "Corrected by the affine, but most of the error remains",
        "most of the rest is relief",
        "crosstie apply",
        "displacement.tif",
        "affine only",
    ):
        assert part in text, part


def test_a_pair_without_a_field_names_no_file_that_is_not_there(make_registration: MakeRegistration):
    text = Page(report_html(make_registration(), PICTURES)).text
    assert "displacement.tif" not in text
    assert "relief" not in text


@pytest.mark.parametrize(
    ("chosen", "shown"),
    [
        ((), "before"),
        (("stage-affine",), "affine"),
        (("stage-field",), "field"),
        (("stage-field", "show-reference"), "reference"),
    ],
)
def test_a_browser_shows_the_chosen_image_alone(
    make_relief: MakeRegistration, coloured: Pictures, tmp_path: Path, chosen: tuple[str, ...], shown: str
):
    body = report_html(make_relief(), coloured).decode()
    for button in chosen:
        group = button.split("-")[0]
        body = re.sub(rf'(<input type="radio" name="{group}" id="[a-z-]+") checked', r"\1", body)
        body = body.replace(f'id="{button}"', f'id="{button}" checked')
    page = tmp_path / "report.html"
    page.write_text(body)
    picture, complaints = looked_at(find_browser(), page.as_uri(), tmp_path)
    assert complaints == ""
    for name, colour in zip(FRAMES, COLOURS, strict=True):
        share = (np.abs(picture.astype(int) - ImageColor.getrgb(colour)).max(axis=2) <= 8).mean()
        assert bool(share > 0.05) is (name == shown), (name, share)


def test_a_phone_shows_the_whole_width(make_relief: MakeRegistration, coloured: Pictures, tmp_path: Path):
    (tmp_path / "report.html").write_bytes(report_html(make_relief(), coloured))
    frame = tmp_path / "phone.html"
    style = "border:0; width:390px; height:1400px"
    frame.write_text(f'<body style="margin:0"><iframe src="report.html" style="{style}"></iframe>')
    picture, _ = looked_at(find_browser(), frame.as_uri(), tmp_path, width_px=600)
    before = np.abs(picture.astype(int) - ImageColor.getrgb(COLOURS[1])).max(axis=2) <= 8
    cols = np.flatnonzero(before.any(axis=0))
    assert 330 < np.ptp(cols) < 390  # as wide as the page but for its margins
    assert cols.max() < 380
