from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosstie.estimation import estimate
from crosstie.estimation.correlation import (
    Correlation,
    Correlations,
    correlations,
    overlap,
    smooth,
)
from crosstie.estimation.field.kriging import OWN_NOISE
from crosstie.estimation.fit import Fit, Frame, estimator
from crosstie.estimation.model_error import TYPICAL_LINEAR, evidence, unsaid_px2
from crosstie.io.simulation.tie_points import PIXEL_M, Hazard, SimulatedTiePoints, simulate_tie_points
from crosstie.types import AffineCorrection, Model

TILE_PX = 128
ROW, COL = (axis.ravel() for axis in np.meshgrid(np.arange(0, 385, 32), np.arange(0, 385, 32), indexing="ij"))
CORNER_PX = np.stack([ROW, COL], axis=1).astype(np.int64)
DESIGN = np.stack([COL / 200 - 1, 1 - ROW / 200, np.ones(len(ROW))], axis=1)


def matrix(corner_px: np.ndarray, length_px: float, share: float) -> np.ndarray:
    """Correlation of all points with all others, entry by entry."""
    rows, cols = (np.abs(axis[:, None] - axis).astype(float) for axis in corner_px.T)
    noise = (1 - OWN_NOISE) * overlap(rows, cols, TILE_PX) + OWN_NOISE * np.eye(len(corner_px))
    return share * smooth(np.hypot(rows, cols), length_px) + (1 - share) * noise


@pytest.mark.parametrize("edge_px", [0, 5])
def test_sums_over_the_lattice_are_sums_over_all_pairs(edge_px: int) -> None:
    """Also where the last tiles are moved to the edge of the scene, off the lattice."""
    corner = np.where(CORNER_PX == 384, 384 - edge_px, CORNER_PX)
    variance = np.array([[2.0, 0.3], [0.3, 0.5]])
    answers = (Correlation(0.4, 90.0, 0.6, variance), Correlation(0.6, 250.0, 0.1, 3 * variance))
    shares = estimator(DESIGN, np.random.default_rng(0).uniform(0.5, 1, len(corner)))
    expected = sum(
        one.probability
        * np.kron(one.variance_px2, shares @ matrix(corner, one.length_px, one.relief_share) @ shares.T)
        for one in answers
    )
    found = Correlations(answers, TILE_PX).covariance(shares, corner)
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=(1e-9 if edge_px == 0 else 0.02) * expected.max()
    )


@pytest.mark.parametrize(("length_px", "share"), [(128.0, 0.9), (256.0, 0.6), (100.0, 0.0)])
def test_the_covariance_of_drawn_errors_comes_back(length_px: float, share: float) -> None:
    """Whatever the errors have in common: on average over scenes what is said is what is seen."""
    truth = np.array([[2.0, 0.4], [0.4, 0.5]])
    root = np.linalg.cholesky(matrix(CORNER_PX, length_px, share) + 1e-9 * np.eye(len(ROW)))
    shares = estimator(DESIGN, np.ones(len(ROW)))
    rng = np.random.default_rng(1)
    said, seen = [], []
    for _ in range(40):
        error = root @ rng.normal(size=(len(ROW), 2)) @ np.linalg.cholesky(truth).T
        found = correlations(DESIGN, error, CORNER_PX, tile_px=TILE_PX)
        assert sum(one.probability for one in found.answers) == pytest.approx(1)
        said.append(np.diag(found.covariance(shares, CORNER_PX)))
        seen.append((shares @ error).T.ravel() ** 2)
    # 40 scenes of two axes tell a variance to within a fifth
    ratio = np.mean(said, axis=0) / np.mean(seen, axis=0)
    assert 0.6 < float(np.exp(np.log(ratio).mean())) < 1.7


def test_points_beyond_the_first_few_hundred_are_seen_in_groups() -> None:
    """Of a large scene near and far pairs are looked at: its noise does not pass for relief."""
    at = np.arange(0, 64 * 60, 64)
    row, col = (axis.ravel() for axis in np.meshgrid(at, at, indexing="ij"))
    corner = np.stack([row, col], axis=1)
    white = np.random.default_rng(0).normal(size=(62, 62, 2))
    noise = sum(white[i : i + 60, j : j + 60] for i in range(2) for j in range(2)).reshape(-1, 2) / 2
    found = correlations(np.ones((len(row), 1)), noise, corner, tile_px=TILE_PX)
    relief = sum(one.probability * one.relief_share for one in found.answers)
    assert relief < 0.15


# --- what a translation leaves unsaid


def fit_of(linear: float, sigma: float) -> tuple[Fit, Frame, np.ndarray]:
    s_m = 10.0 * np.stack([COL, -ROW], axis=1).astype(np.float64)
    frame = Frame.around(s_m, 10.0)
    beta = np.zeros((3, 2))
    beta[0, 0] = linear
    return Fit(Model.AFFINE, beta, sigma**2 * np.eye(6)), frame, s_m


def test_what_is_unsaid_is_what_was_found_where_that_is_sure() -> None:
    affine, frame, s_m = fit_of(linear=0.1, sigma=1e-6)
    low, high = s_m.min(axis=0), s_m.max(axis=0)
    across = ((high - low) / 2 / frame.scale_m)[0]
    found = unsaid_px2(affine, frame, s_m, margin_m=0.0)
    np.testing.assert_allclose(found, [[(0.1 * across) ** 2, 0], [0, 0]], rtol=0, atol=1e-6)


def test_what_is_unsaid_is_what_deliveries_have_where_nothing_was_found() -> None:
    vague, frame, s_m = fit_of(linear=0.1, sigma=1e3)
    half_px = 192.0
    expected = 2 * (TYPICAL_LINEAR * half_px) ** 2 * np.eye(2)
    for affine in (vague, None):
        found = unsaid_px2(affine, frame, s_m, margin_m=0.0)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9)


def test_evidence_is_the_squared_length_in_variances() -> None:
    fit = Fit(Model.TRANSLATION, np.array([[3.0, 4.0]]), np.diag([1.0, 4.0]))
    assert evidence(fit, [0, 1]) == pytest.approx(9 + 4)


# --- ellipses


def inside(scene: SimulatedTiePoints, found: AffineCorrection) -> np.ndarray:
    """(4,) whether the true place of each corner lies in its 95 % ellipse."""
    at = scene.corners_m
    x, y = scene.best_affine @ (at[:, 0], at[:, 1])
    error = found.apply(at) - np.stack([x, y], axis=1)
    row = np.hstack([at, np.ones((4, 1))])
    covariance = np.einsum("ci,aibj,cj->cab", row, found.covariance.reshape(2, 3, 2, 3), row)
    return np.einsum("ca,cab,cb->c", error, np.linalg.inv(covariance), error) <= 5.991


@pytest.mark.parametrize("size_px", [512, 1024])
def test_ellipses_hold_what_they_promise(size_px: int) -> None:
    """Noise, wrong matches, relief, hidden ground: 95 % of the corners, within what 40 scenes tell."""
    held = []
    for index in range(40):
        scene = simulate_tie_points(11, index, size_px=size_px, hazard=list(Hazard)[index % 4])
        found = estimate(
            scene.points, planned=scene.planned, pixel_m=PIXEL_M,
            tile_px=scene.tile_px, stride_px=scene.stride_px,
        )  # fmt: skip
        if found.fitted.model is not Model.IDENTITY:
            held.append(inside(scene, found.fitted))
    assert len(held) >= 30
    assert np.mean(held) >= 0.88


def test_a_scene_is_drawn_by_its_number_alone() -> None:
    first, second = (simulate_tie_points(3, 7) for _ in range(2))
    np.testing.assert_array_equal(first.points.offset_m, second.points.offset_m)
    assert first.error == second.error
    other = replace(second, error=simulate_tie_points(3, 8).error)
    assert other.error != first.error


def test_the_best_affine_undoes_the_relief_on_average() -> None:
    """What it leaves of the relief of a scene has no mean and no slope, on the ground itself."""
    scene = simulate_tie_points(3, 1, size_px=1024, hazard=Hazard.RELIEF)
    assert scene.relief is not None
    assert scene.best_affine != scene.true_affine
    place = np.arange(8.0, 1024, 16)
    x, y = (axis.ravel() for axis in np.meshgrid(place, place))
    relief_px = scene.relief.at(np.stack([x, y], axis=1))
    west, north = scene.corners_m[0]
    seen = np.stack([west + PIXEL_M * (x + relief_px[:, 0]), north - PIXEL_M * (y + relief_px[:, 1])])
    back = np.stack(~scene.true_affine @ tuple(seen))
    left_px = (np.stack(scene.best_affine @ tuple(back)).T - np.stack([west + 10 * x, north - 10 * y]).T) / 10
    slopes = np.linalg.lstsq(np.stack([x / 512 - 1, y / 512 - 1, np.ones(x.size)], axis=1), left_px)[0]
    # To first order in the relief: its slope of 0.01 times itself is neglected.
    assert np.abs(slopes).max() < 0.02 * scene.relief_px + 0.01
    assert np.hypot(*left_px.T).std() > 0.05 * scene.relief_px
