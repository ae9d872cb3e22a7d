from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from tie_point_field import (
    PIXEL_M,
    STRIDE_PX,
    TILE_PX,
    apart_px,
    corners,
    inverse,
    pick,
    smooth_field,
    swapped,
    tie_points,
    truth,
)

from crosstie.errors import SettingsError
from crosstie.estimation import EstimationSettings, estimate
from crosstie.types import (
    IDENTITY_AFFINE,
    AffineCorrection,
    Estimate,
    Model,
    Reason,
    TiePoints,
    VerdictCode,
)

if TYPE_CHECKING:
    from crosstie.types import FloatArray

FAULTY = truth(rotation_deg=0.1, scale=0.001, shift_px=(12.0, -7.0))
"""As far off as a Sentinel-1 delivery may be."""


def run(points: TiePoints, *, planned: int | None = None, **limits: float) -> Estimate:
    return estimate(
        points,
        planned=len(points) if planned is None else planned,
        pixel_m=PIXEL_M,
        tile_px=TILE_PX,
        stride_px=STRIDE_PX,
        settings=EstimationSettings(**limits),  # type: ignore[arg-type]
    )


def reasons(found: Estimate) -> tuple[Reason, ...]:
    """Why a pair was refused, after making sure that nothing was applied to it."""
    assert found.verdict.code is VerdictCode.UNRELIABLE
    assert found.correction.affine == IDENTITY_AFFINE
    return found.verdict.reasons


def rmse_px(vectors_m: FloatArray) -> float:
    return float(np.sqrt((vectors_m**2).sum(axis=1).mean()) / PIXEL_M)


# --- a known misregistration comes back


@settings(max_examples=25, deadline=None)
@given(
    rotation_deg=st.floats(0.02, 0.9),
    scale=st.floats(-0.009, 0.009),
    x=st.floats(-60, 60),
    y=st.floats(-60, 60),
)
def test_a_clean_affine_is_recovered_at_utm_coordinates(
    rotation_deg: float, scale: float, x: float, y: float
) -> None:
    true = truth(rotation_deg=rotation_deg, scale=scale, shift_px=(x, y))
    points = tie_points(true)
    found = run(points)
    assert found.correction.model is Model.AFFINE
    assert found.used.all()
    # 1e-6 m: a thousand times the spacing of float64 at a northing of 5.3e6 m
    assert apart_px(found.correction, true, corners(points)) * PIXEL_M < 1e-6
    assert np.abs(found.residual_m).max() < 1e-6


def test_a_clean_shift_is_a_translation_and_nothing_more() -> None:
    found = run(tie_points(truth(shift_px=(41.5, -3.25))))
    assert found.correction.model is Model.TRANSLATION
    a, b, c, d, e, f = found.correction.affine
    assert (a, b, d, e) == (1, 0, 0, 1)
    np.testing.assert_allclose((c, f), (-415, 32.5), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.median_offset_m, (415, -32.5), rtol=0, atol=1e-6)


def test_forty_percent_of_wrong_matches_do_not_bend_the_corners() -> None:
    points = tie_points(FAULTY, shape=(3700, 3700), noise_px=0.15, wrong=0.4)
    found = run(points)
    assert found.verdict.code is VerdictCode.CORRECTED
    assert apart_px(found.correction, FAULTY, corners(points)) < 0.05
    wrong = np.hypot(*(FAULTY.apply(points.xy_m + points.offset_m) - points.xy_m).T) > 10
    assert not found.used[wrong].any()


@pytest.mark.parametrize("share", [0.3, 0.4])
def test_a_second_group_that_agrees_on_another_shift_does_not_win(share: float) -> None:
    points = tie_points(FAULTY, noise_px=0.5)
    other = np.random.default_rng(1).random(len(points)) < share
    points.offset_m[other] += (90, -40)
    found = run(points)
    assert apart_px(found.correction, FAULTY, corners(points)) < 0.2
    assert not found.used[other].any()


def test_two_groups_of_equal_size_are_refused() -> None:
    points = tie_points(FAULTY, noise_px=0.5)
    rng = np.random.default_rng(1)
    group = rng.integers(0, 3, len(points))
    points.offset_m[group == 1] += (90, -40)
    points.offset_m[group == 2] += rng.uniform(-320, 320, (int((group == 2).sum()), 2))
    assert reasons(run(points)) == (Reason.INCONSISTENT_OFFSETS,)


@pytest.mark.parametrize("std_px", [1.3, 2.8])
def test_relief_is_kept_and_the_trend_below_it_found(std_px: float) -> None:
    flat = tie_points(FAULTY, shape=(4096, 4096))
    relief = smooth_field(flat, std_px=std_px, wavelength_px=700)
    found = run(tie_points(FAULTY, shape=(4096, 4096), noise_px=0.8, wrong=0.3, relief_px=relief))
    assert found.verdict.code is VerdictCode.CORRECTED
    assert found.correction.model is Model.AFFINE
    assert found.used.mean() > 0.6
    # a tenth of the relief, at the corners where it is worst
    assert apart_px(found.correction, FAULTY, corners(flat)) < 0.1 * std_px * 2


@pytest.mark.real
def test_the_real_relief_of_texas_leaves_what_least_squares_leaves(real_data: Path) -> None:
    with rasterio.open(real_data / "scenes" / "T14RNT-2048" / "truth_offsets.tif") as source:
        field = source.read().astype(np.float64)
    # nodes every 64 px, rows downwards: offsets in px -> metres, northing up
    offset_m = np.stack([field[0].ravel(), -field[1].ravel()], axis=1) * PIXEL_M
    row, col = (64 * axis.ravel() for axis in np.indices(field.shape[1:]))
    rng = np.random.default_rng(0)
    measured = offset_m + rng.normal(0, 0.7 * PIXEL_M, offset_m.shape)
    wrong = rng.random(len(row)) < 0.2
    measured[wrong] = rng.uniform(-320, 320, (int(wrong.sum()), 2))
    xy_m = np.stack([col, -row], axis=1) * PIXEL_M - (10_980_000, -3_424_000)
    everywhere = np.ones(len(row))
    points = TiePoints(xy_m, measured, 7 * everywhere, 0.8 * everywhere, row, col)
    found = run(points)
    left = found.correction.apply(xy_m + offset_m) - xy_m
    # before: 2.57 px; ordinary least squares on the truth itself: 1.975 px
    assert rmse_px(left) < 2.03
    # the error that is reported is that of the field, with the noise on top
    assert found.error_after.rmse_m / PIXEL_M == pytest.approx(np.hypot(1.98, 0.7 * 2**0.5), abs=0.25)


# --- when to leave a pair alone


@pytest.mark.parametrize("seed", range(4))
def test_a_healthy_pair_is_left_alone(seed: int) -> None:
    points = pick(tie_points(truth(shift_px=(0.12, -0.1)), noise_px=0.8, wrong=0.2, seed=seed), 300)
    found = run(points)
    assert found.verdict.code is VerdictCode.ALREADY_ALIGNED
    assert found.correction.affine == IDENTITY_AFFINE
    assert not found.correction.covariance.any()
    np.testing.assert_array_equal(found.residual_m, points.offset_m)
    assert found.error_after == found.error_before
    assert found.fitted.model is not Model.IDENTITY


def test_eight_points_do_not_make_a_correction_of_their_noise() -> None:
    aligned = tie_points(noise_px=0.8, shape=(4096, 4096))
    verdicts = [run(pick(aligned, 8, seed=seed)).verdict.code for seed in range(200)]
    assert verdicts.count(VerdictCode.CORRECTED) <= 5


@pytest.mark.parametrize("seed", range(4))
def test_six_metres_are_worth_correcting(seed: int) -> None:
    true = truth(shift_px=(0.6, 0))
    points = pick(tie_points(true, noise_px=0.8, wrong=0.2, seed=seed), 300)
    found = run(points)
    assert found.verdict.code is VerdictCode.CORRECTED
    assert apart_px(found.correction, true, points.xy_m) < 0.25


def test_offsets_all_zero_are_aligned() -> None:
    found = run(tie_points())
    assert found.verdict.code is VerdictCode.ALREADY_ALIGNED
    assert found.error_before.rmse_m == 0


def test_correcting_twice_changes_nothing_more() -> None:
    points = tie_points(FAULTY, noise_px=0.5, wrong=0.2)
    first = run(points)
    again = run(replace(points, offset_m=first.residual_m))
    assert again.verdict.code is VerdictCode.ALREADY_ALIGNED
    assert again.error_before.rmse_m == pytest.approx(first.error_after.rmse_m, rel=0.02)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 120),
    noise_px=st.floats(0, 4),
    wrong=st.floats(0, 1),
    shift=st.floats(-3, 3),
)
def test_never_worse_than_no_correction(
    seed: int, count: int, noise_px: float, wrong: float, shift: float
) -> None:
    points = tie_points(truth(shift_px=(shift, 0)), noise_px=noise_px, wrong=wrong, seed=seed)
    found = run(pick(points, count, seed=seed))
    if found.verdict.code is VerdictCode.CORRECTED:
        assert found.error_after.rmse_m < 0.95 * found.error_before.rmse_m
    else:
        assert found.correction.affine == IDENTITY_AFFINE
        assert found.error_after == found.error_before or not found.used.any()
    if found.verdict.code is VerdictCode.ALREADY_ALIGNED:
        assert found.error_after.rmse_m <= 2 * PIXEL_M


# --- what is refused, and why


@pytest.mark.parametrize(("count", "trials"), [(8, 500), (20, 200), (100, 40), (900, 8)])
def test_pure_noise_is_refused(count: int, trials: int) -> None:
    for seed in range(trials):
        sparse = tie_points(shape=(8192, 8192), stride_px=256, wrong=1, seed=seed)
        assert reasons(run(replace(pick(sparse, count, seed=seed), confidence=np.full(count, 0.9)))) == (
            Reason.INCONSISTENT_OFFSETS,
        )


@pytest.mark.parametrize("side_px", [320, 448, 640])
def test_pure_noise_of_overlapping_tiles_is_refused(side_px: int) -> None:
    for seed in range(150):
        points = tie_points(shape=(side_px, side_px), wrong=1, seed=seed)
        found = run(replace(points, confidence=np.full(len(points), 0.9)))
        assert reasons(found) == (Reason.INCONSISTENT_OFFSETS,)


def test_tiles_that_overlap_have_one_vote_together() -> None:
    # Twelve tiles, all within 40 px of one place: they agree, but on one measurement.
    points = pick(tie_points(FAULTY, stride_px=8, shape=(216, 224)), 12)
    assert reasons(run(points)) == (Reason.INCONSISTENT_OFFSETS,)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_points_are_refused(count: int) -> None:
    found = run(pick(tie_points(FAULTY), count))
    assert reasons(found) == (Reason.TOO_FEW_TIE_POINTS,)
    assert not found.used.any()
    assert found.residual_m.shape == (count, 2)
    assert np.isnan([found.error_after.rmse_m, *found.median_offset_m]).all()


def test_a_corner_does_not_speak_for_the_scene() -> None:
    points = pick(tie_points(FAULTY), 30)
    assert run(points, planned=1000).verdict.code is VerdictCode.CORRECTED
    assert reasons(run(points, planned=2000)) == (Reason.TOO_FEW_TIE_POINTS,)


def test_points_without_confidence_have_no_say() -> None:
    points = tie_points(FAULTY)
    points.confidence[:] = 0.29
    assert reasons(run(points)) == (Reason.TOO_FEW_TIE_POINTS,)
    assert run(points, min_confidence=0.2).verdict.code is VerdictCode.CORRECTED


@pytest.mark.parametrize("fault", [{"rotation_deg": 1.5}, {"scale": 0.02}, {"scale": -0.02}])
def test_what_no_sensor_does_is_refused(fault: dict[str, float]) -> None:
    true = truth(**fault)
    found = run(tie_points(true, noise_px=0.3))
    assert reasons(found) == (Reason.IMPLAUSIBLE_CORRECTION,)
    assert apart_px(found.fitted, true, corners(tie_points())) < 0.2


def test_shear_is_refused_though_no_length_changes_by_more_than_a_scale_may() -> None:
    c, f = 0.008 * -5_290_000.0, 0.008 * -610_000.0
    true = AffineCorrection(Model.AFFINE, (1.0, 0.008, c, 0.008, 1.0, f), np.zeros((6, 6)))
    assert reasons(run(tie_points(true))) == (Reason.IMPLAUSIBLE_CORRECTION,)


def test_terrain_and_scatter_are_told_apart() -> None:
    flat = tie_points()
    terrain = run(tie_points(noise_px=0.5, relief_px=smooth_field(flat, std_px=2.5, wavelength_px=900)))
    assert reasons(terrain) == (Reason.TERRAIN_NOT_AFFINE,)
    assert terrain.error_after.rmse_m > 2 * PIXEL_M
    assert reasons(run(tie_points(noise_px=2.0))) == (Reason.NOT_BETTER_THAN_IDENTITY,)


def test_a_scatter_beyond_the_limit_is_refused() -> None:
    points = tie_points(FAULTY, noise_px=1.5)
    assert run(points).verdict.code is VerdictCode.CORRECTED
    assert reasons(run(points, max_rmse_px=2.0)) == (Reason.RESIDUAL_TOO_LARGE,)


def test_a_correction_less_sure_than_the_limit_falls_back_and_then_falls() -> None:
    points = pick(tie_points(truth(rotation_deg=0.06, shift_px=(9, 9)), noise_px=0.5), 40)
    # 0.5 px over sqrt(40) points is 0.08 px; a rotation doubles that at the corners, and what a translation
    # leaves of the rotation (0.5 px more) counts as its noise.
    assert run(points, max_standard_error_px=0.5).correction.model is Model.AFFINE
    assert run(points, max_standard_error_px=0.25).correction.model is Model.TRANSLATION
    assert reasons(run(points, max_standard_error_px=0.05)) == (Reason.TOO_FEW_TIE_POINTS,)


# --- which model


def test_points_on_a_line_give_no_affine() -> None:
    points = tie_points(truth(rotation_deg=0.05, shift_px=(9, 9)), noise_px=0.3)
    found = run(points.keep((points.row == 640) | (points.row == 704)))
    assert found.correction.model is Model.TRANSLATION


@pytest.mark.parametrize("side_px", [320, 448])
def test_a_small_image_gives_a_translation(side_px: int) -> None:
    true = truth(shift_px=(14, -14))
    points = tie_points(true, shape=(side_px, side_px), noise_px=0.3)
    found = run(points)
    assert found.correction.model is Model.TRANSLATION
    assert apart_px(found.correction, true, points.xy_m) < 0.5


def test_the_affine_must_earn_its_parameters() -> None:
    slight = tie_points(truth(rotation_deg=0.016, shift_px=(9, 9)), noise_px=0.8)
    assert run(slight).correction.model is Model.TRANSLATION
    strong = tie_points(truth(rotation_deg=0.1, shift_px=(9, 9)), noise_px=0.8)
    assert run(strong).correction.model is Model.AFFINE


# --- symmetries


@settings(max_examples=15, deadline=None)
@given(x=st.floats(-500, 500), y=st.floats(-500, 500), seed=st.integers(0, 1000))
def test_a_constant_added_to_all_offsets_changes_no_residual(x: float, y: float, seed: int) -> None:
    points = tie_points(truth(rotation_deg=0.1, shift_px=(99, 99)), noise_px=0.7, wrong=0.3, seed=seed)
    first, second = run(points), run(replace(points, offset_m=points.offset_m + np.array([x, y])))
    assert first.verdict.code is second.verdict.code is VerdictCode.CORRECTED
    np.testing.assert_allclose(second.residual_m, first.residual_m, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(second.used, first.used)


@pytest.mark.parametrize("noise_px", [0.0, 0.5])
def test_swapping_the_images_inverts_the_correction(noise_px: float) -> None:
    points = tie_points(FAULTY, noise_px=noise_px, wrong=0.3)
    there, back = run(points).correction, run(swapped(points)).correction
    at = corners(points)
    # Clean points invert exactly; noise enters once as position, once as target, and moves the fit a little.
    assert apart_px(back, inverse(there), at) < (1e-6 if noise_px == 0 else 5e-3)


def test_a_correction_and_its_inverse_cancel() -> None:
    found = run(tie_points(FAULTY, noise_px=0.5, wrong=0.3)).correction
    at = corners(tie_points())
    np.testing.assert_allclose(inverse(found).apply(found.apply(at)), at, rtol=0, atol=1e-6)


def test_the_order_of_the_points_changes_no_bit() -> None:
    points = tie_points(FAULTY, noise_px=0.5, wrong=0.3)
    order = np.random.default_rng(0).permutation(len(points))
    names = ("xy_m", "offset_m", "sigma_m", "confidence", "row", "col")
    first = run(points)
    second = run(replace(points, **{name: getattr(points, name)[order] for name in names}))
    assert second.correction.affine == first.correction.affine
    assert second.error_before == first.error_before
    assert second.error_after == first.error_after
    np.testing.assert_array_equal(second.correction.covariance, first.correction.covariance)
    np.testing.assert_array_equal(second.used, first.used[order])
    np.testing.assert_array_equal(second.residual_m, first.residual_m[order])


# --- broken points


@pytest.mark.parametrize("column", ["xy_m", "offset_m", "sigma_m", "confidence"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_points_that_are_not_finite_leave_no_trace(column: str, value: float) -> None:
    clean = tie_points(FAULTY, noise_px=0.5)
    broken = np.arange(len(clean)) % 5 == 0
    spoilt = replace(clean, **{column: getattr(clean, column).copy()})
    getattr(spoilt, column)[broken] = value
    found, expected = run(spoilt), run(clean.keep(~broken))
    assert found.correction.affine == expected.correction.affine
    assert found.error_after == expected.error_after
    assert not found.used[broken].any()
    assert np.isfinite(found.residual_m[~broken]).all()
    lost = column in {"xy_m", "offset_m"}
    assert np.isnan(found.residual_m[broken]).all() if lost else np.isfinite(found.residual_m).all()


def test_points_of_no_confidence_and_no_sigma_are_no_division_by_zero() -> None:
    points = tie_points(FAULTY)
    nothing = replace(points, sigma_m=0 * points.sigma_m, confidence=0 * points.confidence)
    found = run(nothing, min_confidence=0)
    assert apart_px(found.correction, FAULTY, corners(points)) < 1e-6


@pytest.mark.parametrize(
    "limits",
    [
        {"min_confidence": 1.1},
        {"folds": 1},
        {"min_tie_points": 2},
        {"max_rmse_px": float("nan")},
        {"search_radius_px": 0},
        {"start_threshold_px": 9},
    ],
)
def test_limits_out_of_range_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=next(iter(limits))):
        EstimationSettings(**limits)  # type: ignore[arg-type]


def test_a_grid_without_size_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive, got 0"):
        estimate(tie_points(), planned=1, pixel_m=0.0, tile_px=TILE_PX, stride_px=STRIDE_PX)
