from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from PIL import Image

from crosstie.io.plots.overlay import red_cyan_edges, resampled
from crosstie.io.products.mapping import Mapping
from crosstie.io.products.overview import Thumbnails, overview_png
from crosstie.types import Reason, Registration, VerdictCode

MakeRegistration = Callable[..., Registration]
SeenAt = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
SMALL = GeoBox((100, 120), Affine(100, 0, 600_000, 0, -100, 3_300_000), "EPSG:32614")


def scene(seed: int = 0) -> np.ndarray:
    """Square fields of one brightness each: they have edges, and no two look alike."""
    fields = np.random.default_rng(seed).random((10, 12))
    return np.kron(fields, np.ones((10, 10))).astype(np.float32)


@pytest.fixture(scope="module")
def thumbnails() -> Thumbnails:
    secondary = scene()
    secondary[:20] = np.nan
    return Thumbnails(scene(), secondary, SMALL)


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        assert not picture.info.keys() & {"Software", "date:create", "Creation Time"}
        return np.asarray(picture.convert("RGB"))


def seen_at(east_m: float, north_m: float) -> SeenAt:
    """Where a secondary is seen that is corrected by so much."""
    return Mapping("EPSG:32614", (1, 0, east_m, 0, 1, north_m)).secondary_xy


def test_the_correction_brings_the_secondary_back():
    # What the reference shows at (x, y) the secondary shows 300 m east and 200 m north of there.
    secondary = np.roll(scene(), (-2, 3), axis=(0, 1))
    back = resampled(secondary, SMALL, seen_at(-300.0, -200.0))
    inside = (slice(5, 90), slice(5, 110))
    np.testing.assert_allclose(back[inside], scene()[inside], rtol=0, atol=1e-6)
    assert np.isnan(back[0]).all()  # nothing is known of what comes in from outside
    wrong = resampled(secondary, SMALL, seen_at(300.0, 200.0))
    assert np.abs(wrong[inside] - scene()[inside]).mean() > 0.1


def test_coinciding_edges_are_white_and_others_red_or_cyan():
    together = red_cyan_edges(scene(), 40 * scene())
    np.testing.assert_allclose(together[..., 0], together[..., 1], atol=1e-4)  # gain plays no part
    assert together.max() == pytest.approx(1.0)
    alone = red_cyan_edges(scene(), np.full((100, 120), np.nan, np.float32))
    assert alone[..., 0].max() == pytest.approx(1.0)
    assert alone[..., 1:].max() == 0


def test_each_verdict_has_its_colour(make_registration: MakeRegistration):
    bands = {}
    for code in VerdictCode:
        reasons = (Reason.WATER,) if code is VerdictCode.UNRELIABLE else ()
        picture = pixels(overview_png(None, make_registration(code=code, reasons=reasons)))
        assert picture.shape[1] == 1600
        bands[code] = tuple(picture[30, 800])
    assert len(set(bands.values())) == 3


def test_what_holds_in_part_has_a_colour_of_its_own(
    make_registration: MakeRegistration, make_relief: MakeRegistration
):
    whole, in_part = (
        pixels(overview_png(None, registration))[30, 800]
        for registration in (make_registration(), make_relief())
    )
    assert np.abs(whole.astype(int) - in_part).max() > 60


def test_a_field_adds_a_row_of_images(
    make_registration: MakeRegistration, make_relief: MakeRegistration, thumbnails: Thumbnails
):
    plain, relief = (
        pixels(overview_png(thumbnails, registration))
        for registration in (make_registration(), make_relief())
    )
    assert len(relief) - len(plain) > 500
    # the hill moves the overlay after the field, and no arrow is left by it
    third = relief[1320:1700, 560:960].astype(int)
    assert np.abs(third - relief[770:1150, 560:960]).mean() > 2


def test_an_aligned_pair_with_a_field_shows_before_and_field(
    make_relief: MakeRegistration, thumbnails: Thumbnails
):
    picture = pixels(overview_png(thumbnails, make_relief(code=VerdictCode.ALREADY_ALIGNED)))
    upper, lower = (picture[rows, 560:960].astype(int) for rows in (slice(250, 630), slice(800, 1180)))
    assert np.abs(upper - lower).mean() > 2  # the second overlay is that of the field


def test_the_picture_of_a_pair_is_the_same_each_time(make_relief: MakeRegistration, thumbnails: Thumbnails):
    assert overview_png(thumbnails, make_relief()) == overview_png(thumbnails, make_relief())


def test_a_detail_is_drawn_in_place_of_the_small_overlay(
    make_registration: MakeRegistration, thumbnails: Thumbnails
):
    window = GeoBox((60, 60), Affine(10, 0, 604_000, 0, -10, 3_296_000), "EPSG:32614")
    detail = Thumbnails(scene(1)[:60, :60], scene(1)[:60, :60], window)
    without = pixels(overview_png(thumbnails, make_registration()))
    within = pixels(overview_png(thumbnails, make_registration(), detail=detail))
    changed = np.abs(without.astype(int) - within).max(axis=2) > 60
    assert changed[:, 560:1000].mean() > 0.1  # the overlays stand in the middle
    assert changed[:, 1040:1450].mean() < 0.02  # the arrows stay


@pytest.mark.parametrize("n", [0, 1])
def test_few_points_or_none_still_give_a_picture(
    make_registration: MakeRegistration, thumbnails: Thumbnails, n: int
):
    reasons = (Reason.TOO_FEW_TIE_POINTS,)
    registration = make_registration(n=n, code=VerdictCode.UNRELIABLE, reasons=reasons)
    assert pixels(overview_png(thumbnails, registration)).shape[1] == 1600


def test_no_common_grid_gives_a_short_picture(make_registration: MakeRegistration):
    registration = make_registration(
        n=0, grid=None, code=VerdictCode.UNRELIABLE, reasons=(Reason.NO_OVERLAP,)
    )
    picture = pixels(overview_png(None, registration))
    assert picture.shape[1] == 1600
    assert picture.shape[0] < 700


def test_nothing_valid_in_either_image_and_odd_ids_do_no_harm(make_registration: MakeRegistration):
    void = np.full((100, 120), np.nan, np.float32)
    registration = make_registration(secondary_id="S1$_{x}$\\frac" + "A" * 300)
    assert pixels(overview_png(Thumbnails(void, void, SMALL), registration)).shape[1] == 1600


def test_thumbnails_must_lie_on_their_grid():
    with pytest.raises(ValueError, match=r"secondary is \(4, 5\), its grid \(100, 120\)"):
        Thumbnails(scene(), np.zeros((4, 5), np.float32), SMALL)
