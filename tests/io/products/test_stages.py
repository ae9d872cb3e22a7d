"""The stages of a pair, and where they can be seen best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from scipy.ndimage import map_coordinates

from crosstie.io.products.overview import Thumbnails
from crosstie.io.products.pictures import draw_pictures
from crosstie.io.products.stages import most_improved, stages
from crosstie.io.raster.resample import apply
from crosstie.types import Reason, Registration, VerdictCode

MakeRegistration = Callable[..., Registration]
SIDE_M = 2_560.0
HILL_XY = (608_000.0, 3_294_000.0)


def test_a_verdict_decides_which_stages_there_are(
    make_registration: MakeRegistration, make_relief: MakeRegistration
):
    def names(registration: Registration) -> list[str]:
        return [stage.name for stage in stages(registration)]

    assert names(make_relief()) == ["before", "affine", "field"]
    assert names(make_relief(code=VerdictCode.ALREADY_ALIGNED)) == ["before", "field"]
    assert names(make_registration()) == ["before", "affine"]
    nothing = {"code": VerdictCode.UNRELIABLE, "reasons": (Reason.WATER,)}
    assert names(make_registration(**nothing)) == ["before"]
    assert names(make_registration(**nothing, n=0, grid=None)) == []


def test_each_stage_leaves_what_it_cannot_follow(make_relief: MakeRegistration):
    registration = make_relief()
    points = registration.points.keep(registration.estimate.used)
    before, affine, field = (stage.left_m(points) for stage in stages(registration))
    np.testing.assert_allclose(before, points.offset_m, rtol=0, atol=1e-6)
    away_2 = ((points.xy_m - HILL_XY) ** 2).sum(axis=1)
    np.testing.assert_allclose(affine[:, 0], 60 * np.exp(-0.5 * away_2 / 1e6), rtol=0, atol=1e-6)
    assert np.hypot(*field.T).max() < 0.5


def test_the_window_lies_where_the_displacement_is_largest(make_relief: MakeRegistration):
    registration = make_relief(affine=(1, 0, -4, 0, 1, 3))
    estimate = registration.estimate
    # the surest point of all lies elsewhere, and a wrong one is farther off than any other
    points = registration.points
    far = int(np.argmax(np.hypot(*(points.xy_m - HILL_XY).T) * estimate.used))
    confidence = np.where(np.arange(len(points)) == far, 1.0, 0.95)
    wrong = int(np.flatnonzero(~estimate.used)[0])
    offset_m = points.offset_m.copy()
    offset_m[wrong] = 300.0
    registration = replace(registration, points=replace(points, confidence=confidence, offset_m=offset_m))
    chosen = most_improved(registration, side_m=SIDE_M)
    assert chosen is not None
    assert estimate.used[chosen]
    assert np.abs(points.xy_m[chosen] - HILL_XY).max() < SIDE_M / 2


def test_what_is_not_sure_chooses_no_window(make_relief: MakeRegistration):
    registration = make_relief(affine=(1, 0, -4, 0, 1, 3))
    near = np.abs(registration.points.xy_m - HILL_XY).max(axis=1) < 2_000
    points = replace(registration.points, confidence=np.where(near, 0.5, 0.95))
    chosen = most_improved(replace(registration, points=points), side_m=SIDE_M)
    assert chosen is not None
    assert not near[chosen]


def test_where_nothing_moves_the_surest_point_is_shown(make_registration: MakeRegistration):
    registration = make_registration(code=VerdictCode.ALREADY_ALIGNED)
    surest = np.argmax(np.where(registration.estimate.used, registration.points.confidence, -1))
    assert most_improved(registration, side_m=SIDE_M) == surest
    empty = make_registration(n=0, code=VerdictCode.UNRELIABLE, reasons=(Reason.WATER,))
    assert most_improved(empty, side_m=SIDE_M) is None


@pytest.fixture(scope="module")
def window(make_relief: MakeRegistration) -> Thumbnails:
    """Land around the hill as both images show it, with a margin."""
    grid = GeoBox((192, 192), Affine(10, 0, HILL_XY[0] - 960, 0, -10, HILL_XY[1] + 960), "EPSG:32614")
    land = np.kron(np.random.default_rng(3).random((48, 48)), np.ones((8, 8))).astype(np.float32)

    def seen(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Brightness of the ground at a place; the land reaches beyond the window."""
        col, row = apply(~grid.affine, x, y)
        return map_coordinates(land, [row + 95.5, col + 95.5], order=1).astype(np.float32)

    x, y = apply(grid.affine, *np.meshgrid(np.arange(192) + 0.5, np.arange(192) + 0.5))
    registration = make_relief(affine=(1, 0, -40, 0, 1, 30))
    *_, field = stages(registration)
    # ground at g is seen in the secondary at m(g): turn the mapping round by iteration
    ground_x, ground_y = x, y
    for _ in range(30):
        to_x, to_y = field.mapping.secondary_xy(ground_x, ground_y)
        ground_x, ground_y = ground_x + x - to_x, ground_y + y - to_y
    return Thumbnails(seen(x, y), seen(ground_x, ground_y), grid, 16)


def test_only_the_field_brings_the_hill_back(make_relief: MakeRegistration, window: Thumbnails):
    reference = window.reference[window.shown]
    assert reference.shape == (160, 160) == tuple(window.window.shape)
    shown = [window.after(stage) for stage in stages(make_relief(affine=(1, 0, -40, 0, 1, 30)))]
    before, affine, field = (float(np.abs(plane - reference).mean()) for plane in shown)
    assert all(np.isfinite(plane).all() for plane in shown)  # the margin holds what is moved in
    assert field < 0.3 * affine
    assert field < 0.3 * before


def test_each_stage_has_its_pictures(make_relief: MakeRegistration, window: Thumbnails):
    pictures = draw_pictures(window, make_relief(), detail=window)
    assert [p.name for p in pictures.frames] == ["reference", "before", "affine", "field"]
    assert [p.name for p in pictures.overlays] == ["before", "affine", "field"]
    assert [p.name for p in pictures.arrows] == ["before", "affine", "field", "lengths"]
    for kind in (pictures.frames, pictures.overlays, pictures.arrows, pictures.scenes):
        assert all(picture.alt for picture in kind)
        assert len({picture.body for picture in kind}) == len(kind)
    assert draw_pictures(window, make_relief(), detail=window) == pictures
    assert draw_pictures(None, make_relief()).frames == ()
