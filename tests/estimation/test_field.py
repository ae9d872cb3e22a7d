"""Truths of the displacement field: simulated land, known affines, errors as a matcher makes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from odc.geo.geobox import GeoBox
from relief_truth import PIXEL_M, STRIDE_PX, TILE_PX, Land, flat, grid_of, land, measured, true_trend
from tie_point_field import truth

from crosstie.errors import SettingsError
from crosstie.estimation import estimate
from crosstie.estimation.field.fit import fit_field, trend_offset
from crosstie.estimation.field.settings import FieldSettings
from crosstie.types import (
    AffineCorrection,
    DisplacementField,
    Estimate,
    FieldFit,
    FieldReason,
    TiePoints,
    VerdictCode,
)

SHAPE = (1536, 1536)
TREND = truth(rotation_deg=0.02, shift_px=(2.3, -1.7))


def fitted(points: TiePoints, grid: GeoBox) -> FieldFit:
    return fit_field(points, estimated(points), grid, tile_px=TILE_PX, stride_px=STRIDE_PX)


def estimated(points: TiePoints) -> Estimate:
    return estimate(points, planned=len(points), pixel_m=PIXEL_M, tile_px=TILE_PX, stride_px=STRIDE_PX)


def places(grid: GeoBox, *, margin_px: float = 96.0, count: int = 2000) -> np.ndarray:
    """Random places (N, 2), px, that tile centres surround."""
    size = np.array(grid.shape[::-1]) - 2 * margin_px
    return margin_px + np.random.default_rng(7).uniform(0, 1, (count, 2)) * size


def error_px(field: DisplacementField, grid: GeoBox, ground: Land, px: np.ndarray) -> np.ndarray:
    xy = to_m(grid, px)
    return (field.at(xy)[0] - true_trend(TREND, xy)) / PIXEL_M - ground.at(px)


def to_m(grid: GeoBox, px: np.ndarray) -> np.ndarray:
    return np.column_stack(grid.affine @ (px[:, 0], px[:, 1]))


def rms(vectors: np.ndarray) -> float:
    return float(np.sqrt((vectors**2).sum(axis=-1).mean()))


def waves(shape: tuple[int, int], *, length_px: float, height_px: float) -> Land:
    """One sine along each axis: smooth, so that the mean of a tile is nearly its middle."""
    like = flat(shape).relief_px
    row, col = np.indices(like.shape[1:]) * 16.0
    turn = 2 * np.pi / length_px
    return Land(height_px * np.stack([np.sin(turn * col) * np.cos(turn * row), 0.5 * np.sin(turn * row)]))


def test_smooth_relief_comes_back_within_the_noise() -> None:
    grid, ground = grid_of(SHAPE), waves(SHAPE, length_px=1200.0, height_px=3.0)
    fit = fitted(measured(grid, TREND, ground, noise_px=0.1, wrong=0.05), grid)
    assert fit.report.reason is FieldReason.BETTER
    assert fit.field is not None
    # A tile of 192 px takes 8 % off a wave of 1200 px along both axes, and the smoothing as much again.
    assert rms(error_px(fit.field, grid, ground, places(grid))) < 0.45
    assert rms(ground.at(places(grid))) > 1.5


@pytest.mark.parametrize("roughness", [0.8, 1.0])
def test_fractal_land_is_removed_as_far_as_tiles_resolve_it(roughness: float) -> None:
    grid, ground = grid_of(SHAPE), land(SHAPE, std_px=2.0, roughness=roughness, seed=3)
    points = measured(grid, TREND, ground, noise_px=0.2, seed=3)
    fit = fitted(points, grid)
    assert fit.field is not None
    px = places(grid)
    xy = to_m(grid, px)
    affine = (trend_offset(estimated(points).fitted, xy) - true_trend(TREND, xy)) / PIXEL_M - ground.at(px)
    left, within_tiles = (
        rms(error_px(fit.field, grid, ground, px)),
        rms(ground.at(px) - ground.seen_by_tile(px)),
    )
    assert left < 0.6 * rms(affine)
    assert left < 1.6 * within_tiles + 0.2


def test_sign_is_that_of_the_offset() -> None:
    """The secondary sampled at (x + dx, y + dy) shows what the reference shows at (x, y)."""
    grid, ground = grid_of(SHAPE), waves(SHAPE, length_px=1200.0, height_px=4.0)
    points = measured(grid, TREND, ground, noise_px=0.1, wrong=0.0)
    fit = fitted(points, grid)
    assert fit.field is not None
    offset, _ = fit.field.at(points.xy_m)
    inside = fit.used
    assert rms(offset[inside] - points.offset_m[inside]) < 0.3 * PIXEL_M
    row, col = 8, 5
    x, y = fit.field.grid.affine @ (col + 0.5, row + 0.5)
    here, sigma = fit.field.at(np.array([[x, y]]))
    assert here[0] == pytest.approx([fit.field.dx_m[row, col], fit.field.dy_m[row, col]])
    assert sigma[0] == pytest.approx(fit.field.sigma_m[row, col])


@pytest.mark.parametrize("seed", range(6))
def test_an_affine_is_offered_no_field(seed: int) -> None:
    grid = grid_of(SHAPE)
    noise = (0.1, 0.3, 0.5)[seed % 3]
    points = measured(grid, TREND, flat(SHAPE), noise_px=noise, wrong=0.1, clusters=seed % 4, seed=seed)
    fit = fitted(points, grid)
    assert fit.field is None
    assert not fit.report.offered
    assert fit.report.reason is FieldReason.NOT_BETTER_THAN_AFFINE


def test_an_aligned_pair_may_have_a_field() -> None:
    grid, ground = grid_of(SHAPE), waves(SHAPE, length_px=700.0, height_px=1.5)
    still = AffineCorrection.identity()
    points = measured(grid, still, ground, noise_px=0.1, wrong=0.0)
    result = estimated(points)
    assert result.verdict.code is VerdictCode.ALREADY_ALIGNED
    assert fit_field(points, result, grid, tile_px=TILE_PX, stride_px=STRIDE_PX).report.offered


def test_unrelated_images_are_offered_nothing() -> None:
    grid = grid_of(SHAPE)
    points = measured(grid, TREND, flat(SHAPE), wrong=1.0)
    fit = fitted(points, grid)
    assert fit.field is None
    assert fit.report.reason is FieldReason.PAIR_UNRELIABLE
    assert not fit.used.any()


def test_too_few_points_are_said_so() -> None:
    grid = grid_of((512, 512))
    points = measured(grid, TREND, flat((512, 512)), wrong=0.0)
    assert fitted(points, grid).report.reason is FieldReason.TOO_FEW_TIE_POINTS


def test_a_cluster_that_is_wrong_together_does_not_pull() -> None:
    grid, ground = grid_of(SHAPE), waves(SHAPE, length_px=1200.0, height_px=3.0)
    points = measured(grid, TREND, ground, noise_px=0.1, wrong=0.0)
    middle = np.array([736.0, 736.0])
    centre = np.stack([points.col, points.row], axis=1) + TILE_PX / 2
    together = (np.abs(centre - middle) <= STRIDE_PX).all(axis=1)
    assert together.sum() == 9
    moved = replace(points, offset_m=points.offset_m + PIXEL_M * np.where(together, 6.0, 0.0)[:, None])
    fit = fitted(moved, grid)
    assert fit.field is not None
    assert not fit.used[together].any()
    near = middle + np.random.default_rng(0).uniform(-100, 100, (500, 2))
    assert rms(error_px(fit.field, grid, ground, near)) < 0.8  # 8.5 px were added


def test_order_of_the_points_and_origin_of_the_map_change_nothing() -> None:
    ground = land(SHAPE, std_px=2.0, seed=1)
    grid = grid_of(SHAPE)
    points = measured(grid, TREND, ground, seed=1)
    first = fitted(points, grid)
    assert first.field is not None
    order = np.random.default_rng(0).permutation(len(points))
    mixed = replace(
        points,
        **{name: getattr(points, name)[order] for name in TiePoints.__dataclass_fields__},
    )
    again = fitted(mixed, grid)
    assert again.field is not None
    np.testing.assert_array_equal(again.field.dx_m, first.field.dx_m)
    np.testing.assert_array_equal(again.used, first.used[order])
    by = np.array([-250_000.0, 1_000_000.0])
    away = grid_of(SHAPE, corner=(600_000.0 + by[0], 5_300_000.0 + by[1]))
    moved = fitted(replace(points, xy_m=points.xy_m + by), away)
    assert moved.field is not None
    np.testing.assert_allclose(moved.field.dx_m, first.field.dx_m, atol=0.01 * PIXEL_M)
    np.testing.assert_allclose(moved.field.sigma_m, first.field.sigma_m, atol=0.01 * PIXEL_M)


def test_turning_the_axes_turns_the_field() -> None:
    """A quarter turn. Neighbours at equal distance may be others then, hence the margin."""
    ground, grid = land(SHAPE, std_px=2.0, seed=2), grid_of(SHAPE)
    still = AffineCorrection.identity()
    points = measured(grid, still, ground, wrong=0.02, seed=2)
    top, left = grid.affine.f, grid.affine.c
    x, y = points.xy_m[:, 0] - left, top - points.xy_m[:, 1]
    turned = replace(
        points,
        xy_m=np.column_stack((left + y, top - (SHAPE[1] * PIXEL_M - x))),
        offset_m=np.column_stack((-points.offset_m[:, 1], points.offset_m[:, 0])),
        row=SHAPE[1] - TILE_PX - points.col,
        col=points.row,
    )
    first, second = fitted(points, grid), fitted(turned, grid)
    assert first.field is not None
    assert second.field is not None
    back = np.rot90(second.field.dy_m, -1)
    assert np.median(np.abs(back - first.field.dx_m)) < 0.06 * PIXEL_M
    assert np.quantile(np.abs(back - first.field.dx_m), 0.95) < 0.2 * PIXEL_M


@pytest.mark.parametrize(("noise_px", "roughness"), [(0.1, 0.8), (0.3, 0.8), (0.3, 1.0), (0.5, 1.0)])
def test_the_reported_error_flatters_nobody(noise_px: float, roughness: float) -> None:
    """Overlapping tiles share their noise: they must not be each other's proof."""
    reported, at_tiles, on_ground = [], [], []
    for seed in range(3):
        grid, ground = grid_of(SHAPE), land(SHAPE, std_px=2.0, roughness=roughness, seed=seed)
        fit = fitted(measured(grid, TREND, ground, noise_px=noise_px, seed=seed), grid)
        assert fit.field is not None
        px = places(grid)
        left = error_px(fit.field, grid, ground, px)
        on_ground.append(rms(left))
        at_tiles.append(rms(left + ground.at(px) - ground.seen_by_tile(px)))
        reported.append(fit.report.error_after.rmse_m / PIXEL_M)
        assert fit.report.error_after.rmse_m < fit.report.error_affine.rmse_m
    assert (np.array(reported) > at_tiles).all()
    # Nor of the ground within the tiles, which none of them shows.
    assert (np.array(reported) > on_ground).all()
    assert (np.array(reported) < 1.8 * np.array(on_ground)).all()


def test_sigma_covers_the_error() -> None:
    grid = grid_of(SHAPE)
    within = []
    for seed in range(3):
        ground = land(SHAPE, std_px=2.0, roughness=0.9, seed=seed)
        fit = fitted(measured(grid, TREND, ground, noise_px=0.3, seed=seed), grid)
        assert fit.field is not None
        px = places(grid)
        z = error_px(fit.field, grid, ground, px) / (fit.field.at(to_m(grid, px))[1] / PIXEL_M)[:, None]
        within.append([(np.abs(z) < 1).mean(), (np.abs(z) < 2).mean()])
    one, two = np.mean(within, axis=0)
    assert 0.68 <= one <= 0.92
    assert two >= 0.95


def test_away_from_the_points_the_field_fades_to_the_affine_and_knows_less() -> None:
    shape = (1536, 3072)
    grid, ground = grid_of(shape), land(shape, std_px=2.0, seed=4)
    points = measured(grid, TREND, ground, seed=4)
    points = points.keep(points.col <= 1536 - TILE_PX)
    fit = fitted(points, grid)
    assert fit.field is not None
    row = 12
    xy = to_m(grid, (np.stack([np.arange(48), np.full(48, row)], axis=1) + 0.5) * STRIDE_PX)
    affine = trend_offset(estimated(points).fitted, xy)
    offset, sigma = fit.field.at(xy)
    # The last centres lie at column 1440; three tiles on, at 2016, nothing is known.
    known = np.isfinite(sigma)
    last = int(np.flatnonzero(known)[-1])
    assert known[: last + 1].all()
    assert 1900 < (last + 0.5) * STRIDE_PX <= 2016
    assert np.hypot(*(offset - affine)[last]) < 0.3 * PIXEL_M
    outside = sigma[23 : last + 1]
    assert (np.diff(outside) > -0.05 * PIXEL_M).all()
    assert outside[-1] > 1.5 * np.median(sigma[:22])
    assert fit.report.coverage < 0.65


def test_places_outside_the_grid_are_unknown() -> None:
    grid = grid_of((640, 640))
    nodes = GeoBox((10, 10), grid.affine @ grid.affine.scale(STRIDE_PX), grid.crs)
    x = np.indices((10, 10))[1] + 0.5
    field = DisplacementField(nodes, x, 2 * x, np.ones((10, 10)))
    offset, sigma = field.at(
        to_m(grid, np.array([[320.0, 320.0], [-1.0, 320.0], [0.0, 0.0], [640.0, 640.0]]))
    )
    assert offset[0] == pytest.approx([5.0, 10.0])
    assert np.isnan(offset[1]).all()
    assert np.isnan(sigma[1])
    assert offset[2] == pytest.approx([0.5, 1.0])
    assert offset[3] == pytest.approx([9.5, 19.0])


def test_shapes_and_settings_are_checked() -> None:
    grid = grid_of((10, 10))
    with pytest.raises(ValueError, match="sigma_m must have the shape"):
        DisplacementField(grid, np.zeros((10, 10)), np.zeros((10, 10)), np.zeros((9, 10)))
    with pytest.raises(SettingsError, match=r"field\.min_gain is a share"):
        FieldSettings(min_gain=1.5)
    with pytest.raises(SettingsError, match=r"field\.min_points must be at least"):
        FieldSettings(min_points=3)
