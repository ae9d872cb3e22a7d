"""What a registration says of itself: what is left, and whether it is relief."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from odc.geo.geobox import GeoBox

from crosstie.io.products.text import colour, figures, headline, sentences
from crosstie.types import Error, FieldFit, FieldReason, FieldReport, Reason, Registration, VerdictCode

MakeRegistration = Callable[..., Registration]
PIXEL_M = 10.0
NOT_BETTER = FieldReport(False, FieldReason.NOT_BETTER_THAN_AFFINE)


def with_errors(registration: Registration, before_m: float, after_m: float) -> Registration:
    estimate = registration.estimate
    errors = {"error_before": Error(before_m, before_m), "error_after": Error(after_m, after_m)}
    return replace(registration, estimate=replace(estimate, **errors))


def without_field(registration: Registration) -> Registration:
    return replace(registration, field=FieldFit(None, NOT_BETTER, registration.estimate.used))


def said(registration: Registration) -> str:
    return " ".join(sentences(registration))


def test_relief_that_remains_is_named_and_the_field_is_pointed_to(make_relief: MakeRegistration):
    registration = make_relief()
    text = said(registration)
    assert (
        "The affine reduces the RMSE from 2.58 px (25.8 m) to 2.06 px (20.6 m); most of the rest is relief."
        in text
    )
    assert (
        "crosstie apply aligns the image with the displacement field, which reduces it to an estimated 0.93"
        in text
    )
    assert "93 % of the scene" in text
    assert (
        "at tie points left out of the fit: they differ by 0.66 px (6.60 m) from the field, "
        "and by 1.81 px (18.1 m) from the affine" in text
    )
    assert "corrected.vrt carries the affine only" in text
    assert "displacement.tif holds the field" in text
    assert headline(registration) == "Corrected by the affine, but most of the error remains"


def test_an_aligned_pair_may_have_relief(make_relief: MakeRegistration):
    registration = make_relief(code=VerdictCode.ALREADY_ALIGNED)
    text = said(registration)
    assert "differs by 2.58 px (25.8 m), mostly relief" in text
    assert "corrected.vrt is the secondary as it was delivered" in text
    assert "Offset removed" not in text
    assert headline(registration) == "Already aligned on average, but relief remains"


@pytest.mark.parametrize("code", [VerdictCode.CORRECTED, VerdictCode.ALREADY_ALIGNED])
def test_a_pair_without_relief_says_nothing_of_it(make_registration: MakeRegistration, code: VerdictCode):
    for registration in (make_registration(code=code), without_field(make_registration(code=code))):
        text = said(registration)
        assert "relief" not in text
        assert "apply" not in text
        assert "2.40 px (24.0 m)" in text
        assert headline(registration) in {"Corrected", "Already aligned"}


def test_what_remains_without_a_field_is_not_called_relief(make_registration: MakeRegistration):
    registration = with_errors(without_field(make_registration()), 25.8, 20.6)
    text = said(registration)
    assert "2.06 px (20.6 m) of 2.58 px (25.8 m) remain" in text
    assert "relief" not in text
    assert NOT_BETTER.reason.sentence in text
    assert headline(registration) == "Corrected by the affine, but most of the error remains"


def test_a_field_that_leaves_more_than_the_affine_claims_no_gain(make_relief: MakeRegistration):
    registration = with_errors(make_relief(), 25.8, 9.0)
    assert "which leaves" not in said(registration)


@pytest.mark.parametrize(
    ("before_m", "after_m", "in_part"),
    [(40, 19.9, False), (40, 20.1, True), (12, 10.1, True), (12, 9.9, False)],
)
def test_amber_means_that_more_than_half_and_more_than_a_pixel_stays(
    make_registration: MakeRegistration, before_m: float, after_m: float, in_part: bool
):
    registration = with_errors(make_registration(), before_m, after_m)
    assert (headline(registration) == "Corrected by the affine, but most of the error remains") is in_part
    assert (colour(registration) != colour(make_registration())) is in_part


def test_four_results_have_four_colours(make_registration: MakeRegistration, make_relief: MakeRegistration):
    unreliable = make_registration(code=VerdictCode.UNRELIABLE, reasons=(Reason.WATER,))
    aligned = make_registration(code=VerdictCode.ALREADY_ALIGNED)
    shown = [make_registration(), aligned, unreliable, make_relief()]
    assert len({colour(registration) for registration in shown}) == 4


def test_pixels_and_metres_agree_and_no_error_stands_twice(
    make_registration: MakeRegistration, make_relief: MakeRegistration
):
    unreliable = make_registration(code=VerdictCode.UNRELIABLE, reasons=(Reason.WATER,))
    for registration in (make_registration(), make_relief(), unreliable):
        text = f"{said(registration)} {' '.join(value for _, value in figures(registration))}"
        both = re.findall(r"([\d.]+) px \(([\d.]+) m\)", text)
        assert len(both) >= 4
        for px, metres in both:
            assert float(px) * PIXEL_M == pytest.approx(float(metres), abs=0.5 * PIXEL_M / 100 + 0.05)
        assert len(both) == len(set(both))


def test_sigma_and_confidence_are_said(make_registration: MakeRegistration):
    registration = make_registration()
    points = replace(registration.points, confidence=registration.points.confidence * 0 + 0.95)
    rows = dict(figures(replace(registration, points=points)))
    assert rows["Precision of a match"].startswith("0.20 px (2.00 m) per axis (median sigma of a tie point")
    assert rows["Confidence 0.9 or more"].startswith("100 % of the tie points (probability")
    lower = replace(points, confidence=points.confidence - 0.06)
    assert dict(figures(replace(registration, points=lower)))["Confidence 0.9 or more"].startswith("0 %")


def test_metres_are_those_on_the_ground(make_relief: MakeRegistration):
    def told(registration: Registration) -> list[tuple[float, float]]:
        text = f"{said(registration)} {' '.join(value for _, value in figures(registration))}"
        return [(float(px), float(m)) for px, m in re.findall(r"([\d.]+) px \(([\d.]+) m\)", text)]

    mercator = GeoBox.from_bbox((1.30e6, 9.28e6, 1.32e6, 9.30e6), crs="EPSG:3857", resolution=10)
    at_home = make_relief()
    assert "Metres in this text" not in dict(figures(at_home))
    far_north = replace(at_home, grid=mercator)
    assert (
        "correction.json has metres of the projection, 0.443 m each"
        in dict(figures(far_north))["Metres in this text"]
    )
    for (px, metres), (same_px, fewer) in zip(told(at_home), told(far_north), strict=True):
        assert px == same_px
        assert fewer == pytest.approx(0.443 * metres, rel=0.02, abs=0.02)
