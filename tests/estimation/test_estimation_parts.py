from __future__ import annotations

import math

import numpy as np
import pytest
from tie_point_field import (
    PIXEL_M,
    STRIDE_PX,
    TILE_PX,
    corners,
    overlap_noise,
    smooth_field,
    tie_points,
    truth,
)

from crosstie.estimation import estimate
from crosstie.estimation.fit import Fit, Frame, Loss, fit_cauchy, precision, robust_sigma_px
from crosstie.estimation.ladder import blocks, folds, is_gain
from crosstie.estimation.select import false_alarms
from crosstie.estimation.verdict import coherence, shape_of
from crosstie.types import AffineCorrection, Model

RNG = np.random.default_rng(0)


# --- fit


def test_the_loss_turns_with_the_axes() -> None:
    """One outlying axis and one outlying diagonal weigh the same: there is no preferred direction."""
    design = np.hstack([RNG.normal(size=(60, 2)), np.ones((60, 1))])
    offset = RNG.standard_t(2, size=(60, 2))
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    start, weight, loss = np.zeros((3, 2)), np.ones(60), Loss(1.0)
    straight = fit_cauchy(design, offset, weight, loss, start=start)
    turned = fit_cauchy(design, offset @ turn.T, weight, loss, start=start)
    np.testing.assert_allclose(turned, straight @ turn.T, rtol=0, atol=1e-6)


def test_a_sharp_point_outweighs_a_blurred_one_only_where_there_is_no_relief() -> None:
    sigma = np.array([0.2, 2.0] * 50)
    flat = precision(sigma, 0.0)
    assert flat[0] / flat[1] == pytest.approx((2.0**2 + 0.01) / (0.2**2 + 0.01))
    hilly = precision(sigma, 10.0)
    assert hilly[0] / hilly[1] < 1.05


def test_robust_sigma_is_that_of_the_normal_bulk() -> None:
    residual = RNG.normal(0, 1.5, (20_000, 2))
    residual[::50] = 30
    assert robust_sigma_px(residual) == pytest.approx(1.5, rel=0.03)


def test_the_frame_leads_back_to_the_map() -> None:
    """Coefficients in the centred frame and the affine in the map move every point alike, error included."""
    s_m = np.array([500_000.0, 4_000_000.0]) + RNG.uniform(0, 20_000, (50, 2))
    frame = Frame.around(s_m, PIXEL_M)
    root = RNG.normal(size=(6, 6)) * 0.1
    fit = Fit(Model.AFFINE, RNG.normal(size=(3, 2)), root @ root.T)
    design = frame.design(s_m, Model.AFFINE)
    correction = frame.correction(fit)
    moved = correction.apply(s_m) - s_m
    np.testing.assert_allclose(moved, design @ fit.beta * PIXEL_M, rtol=0, atol=1e-7)
    jacobian = np.concatenate([s_m, np.ones((50, 1))], axis=1)
    x = np.einsum("ni,ij,nj->n", jacobian, correction.covariance[:3, :3], jacobian)
    y = np.einsum("ni,ij,nj->n", jacobian, correction.covariance[3:, 3:], jacobian)
    xy = np.einsum("ni,ij,nj->n", jacobian, correction.covariance[:3, 3:], jacobian)
    error = fit.standard_error_px(design) * PIXEL_M
    np.testing.assert_allclose(np.stack([x, y], axis=1), error**2, rtol=1e-5)
    cross = np.einsum("ni,ij,nj->n", design, fit.covariance[:3, 3:], design) * PIXEL_M**2
    np.testing.assert_allclose(xy, cross, rtol=0, atol=1e-5 * np.abs(cross).max())


def test_a_translation_has_no_variance_where_it_has_no_freedom() -> None:
    frame = Frame.around(RNG.uniform(0, 1000, (9, 2)), PIXEL_M)
    correction = frame.correction(Fit(Model.TRANSLATION, np.array([[2.0, -3.0]]), np.diag([0.04, 0.09])))
    assert correction.affine == (1, 0, 20, 0, 1, -30)
    np.testing.assert_allclose(correction.covariance, np.diag([0, 0, 4, 0, 0, 9]), rtol=0, atol=1e-12)


def test_the_covariance_tells_how_far_repetitions_scatter() -> None:
    """Taking the errors of overlapping tiles for independent would promise a third of the scatter."""
    true = truth(rotation_deg=0.1, shift_px=(9, 5))
    points = tie_points(true)
    at = corners(points)
    moved, variance = [], []
    for seed in range(60):
        field = overlap_noise(points, std_px=0.8, seed=seed)
        found = estimate(
            tie_points(true, relief_px=field, wrong=0.2, seed=seed),
            planned=len(points), pixel_m=PIXEL_M, tile_px=TILE_PX, stride_px=STRIDE_PX,
        )  # fmt: skip
        assert found.fitted.model is Model.AFFINE
        row = np.concatenate([at, np.ones((4, 1))], axis=1)
        blockwise = (found.fitted.covariance[:3, :3], found.fitted.covariance[3:, 3:])
        variance.append([np.einsum("ni,ij,nj->n", row, part, row) for part in blockwise])
        moved.append(found.fitted.apply(at).T)
    predicted, seen = np.sqrt(np.mean(variance, axis=0)), np.std(moved, axis=0)
    # the mean over corners and axes: a single scatter of 60 repetitions is itself only known to 9 %
    assert float(np.mean(predicted / seen)) == pytest.approx(1, abs=0.25)


# --- select


def test_false_alarms_of_three_points_in_a_row_of_three_cells() -> None:
    """By hand: 3 agree on a shift that one of them proposes; (3 - 1) C(3,3) C(3,1) 0.01^2."""
    three = np.ones(3, np.bool_)
    assert false_alarms(three, cells=np.arange(3), sample=1, chance=0.01) == pytest.approx(6e-4)
    assert false_alarms(three, cells=np.arange(3), sample=3, chance=0.01) == math.inf


def test_a_cell_votes_once_and_only_with_more_than_half_of_its_points() -> None:
    cells = np.repeat(np.arange(6), 2)
    all_agree, half_agree = np.ones(12, np.bool_), np.tile([True, False], 6)
    one_each = false_alarms(np.ones(6, np.bool_), cells=np.arange(6), sample=1, chance=0.01)
    assert false_alarms(all_agree, cells=cells, sample=1, chance=0.01) == one_each
    assert false_alarms(half_agree, cells=cells, sample=1, chance=0.01) == math.inf


def test_the_expected_number_of_chance_agreements_is_not_exceeded() -> None:
    """Of 2000 draws of six random offsets, fewer pass at level 0.1 than 0.1 would allow."""
    passed = 0
    for _ in range(2000):
        offset = RNG.uniform(-8, 8, (6, 2))
        apart = np.hypot(*(offset[:, None] - offset[None]).transpose(2, 0, 1))
        kept = max((apart <= 2), key=np.sum)
        chance = math.pi * 2**2 / 16**2
        passed += false_alarms(kept, cells=np.arange(6), sample=1, chance=chance) <= 0.1
    assert 0 < passed <= 0.1 * 2000


# --- ladder


@pytest.mark.parametrize("side_px", [320, 512, 1024, 2048])
def test_a_fold_leaves_out_whole_blocks_that_are_wider_than_the_overlap(side_px: int) -> None:
    points = tie_points(shape=(side_px, side_px))
    corner = np.stack([points.row, points.col], axis=1)
    block = blocks(corner, tile_px=TILE_PX, stride_px=STRIDE_PX)
    fold = folds(block, count=5)
    assert set(block) == set(range(block.max() + 1))
    assert block.max() + 1 >= 4
    for number in range(block.max() + 1):
        inside = block == number
        assert len(set(fold[inside])) == 1
        if side_px >= 512:
            first = corner[inside].min(axis=0)
            neighbour = (corner >= first).all(axis=1) & (corner < first + TILE_PX).all(axis=1)
            assert inside[neighbour].all()
    sizes = np.bincount(fold)
    assert len(sizes) >= 4
    assert sizes.max() < 0.5 * len(points)


def test_a_gain_is_a_share_and_more_than_rounding() -> None:
    assert is_gain(1.0, 0.94, share=0.05, floor_px=0.01)
    assert not is_gain(1.0, 0.96, share=0.05, floor_px=0.01)
    assert not is_gain(1e-9, 1e-12, share=0.05, floor_px=0.01)


# --- verdict


def test_coherence_is_blind_to_what_overlapping_tiles_share() -> None:
    points = tie_points()
    corner = np.stack([points.row, points.col], axis=1)
    shared = overlap_noise(points, std_px=1)
    hills = smooth_field(points, std_px=1, wavelength_px=1500)
    size = {"tile_px": TILE_PX, "stride_px": STRIDE_PX}
    assert abs(coherence(corner, shared, **size)) < 0.15
    assert coherence(corner, hills, **size) > 0.6
    assert coherence(corner[:1], hills[:1], **size) == 0
    assert coherence(corner, 0 * hills, **size) == 0


@pytest.mark.parametrize("rotation_deg", [-0.7, 0.3])
def test_the_shape_of_a_similarity(rotation_deg: float) -> None:
    shape = shape_of(truth(rotation_deg=rotation_deg, scale=0.004))
    assert shape.rotation_deg == pytest.approx(rotation_deg)
    assert shape.stretch == pytest.approx((1.004, 1.004))


def test_the_shape_of_a_shear() -> None:
    sheared = AffineCorrection(Model.AFFINE, (1.0, 0.01, 0.0, 0.01, 1.0, 0.0), np.zeros((6, 6)))
    assert shape_of(sheared).rotation_deg == 0
    assert shape_of(sheared).stretch == pytest.approx((1.01, 0.99))
