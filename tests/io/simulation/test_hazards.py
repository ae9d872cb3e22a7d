from __future__ import annotations

import numpy as np
import pytest

from crosstie.io.simulation.hazards import endangered_pair
from crosstie.io.simulation.landscape import WATER
from crosstie.io.simulation.terrain import Relief, patch_rank
from crosstie.io.simulation.tie_points import PIXEL_M, Hazard, simulate_tie_points

SIZE_PX = 192


def test_nothing_is_done_where_nothing_threatens() -> None:
    made = endangered_pair(5, 1, size_px=SIZE_PX, hazard=Hazard.NONE)
    np.testing.assert_array_equal(made.sar, made.pair.sar)
    np.testing.assert_array_equal(made.optical, made.pair.optical)
    assert made.best_affine == made.pair.true_affine


@pytest.mark.parametrize("hazard", [Hazard.CLOUD, Hazard.WATER, Hazard.CHANGE])
def test_a_patch_of_the_scene_is_hidden_and_the_rest_is_as_it_was(hazard: Hazard) -> None:
    made = endangered_pair(5, 1, size_px=SIZE_PX, hazard=hazard)
    changed = (made.sar != made.pair.sar) | (made.optical != made.pair.optical).any(axis=0)
    assert 0.15 < changed.mean() < 0.85
    if hazard is Hazard.CLOUD:
        np.testing.assert_array_equal(made.sar, made.pair.sar)
        assert made.optical[:, changed].min() > 240
    if hazard is Hazard.WATER:
        assert np.abs(made.optical[:, changed].mean(axis=1) - WATER).max() < 1
        assert made.sar[changed].mean() < 0.3 * made.pair.sar[changed].mean()


def test_an_unrelated_image_shows_another_land() -> None:
    made = endangered_pair(5, 1, size_px=SIZE_PX, hazard=Hazard.UNRELATED)
    first, second = (image.astype(float).ravel() for image in (made.sar, made.pair.sar))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2


def test_relief_moves_what_the_image_shows_by_what_it_says() -> None:
    """Sampled where the relief says that the ground is, the moved image is the one that was there."""
    from scipy.ndimage import map_coordinates

    made = endangered_pair(5, 1, size_px=SIZE_PX, hazard=Hazard.RELIEF)
    assert made.relief is not None
    row, col = np.mgrid[16 : SIZE_PX - 16, 16 : SIZE_PX - 16].astype(float)
    east, south = made.relief.at(np.stack([col.ravel() + 0.5, row.ravel() + 0.5], axis=1)).T
    assert np.hypot(east, south).max() > 0.3
    seen = map_coordinates(made.sar.astype(float), [row.ravel() + south, col.ravel() + east], order=3)
    back = np.corrcoef(seen, made.pair.sar[16:-16, 16:-16].ravel())[0, 1]
    unmoved = np.corrcoef(made.sar[16:-16, 16:-16].ravel(), made.pair.sar[16:-16, 16:-16].ravel())[0, 1]
    assert back > 0.97
    assert back > unmoved


def test_the_best_affine_undoes_a_relief_that_is_an_affine() -> None:
    size = 256
    row, col = (np.mgrid[0:300, 0:300] + 0.5) * 16
    field = np.stack([1.5 + 0.002 * col - 0.001 * row, -0.5 + 0.003 * row], axis=-1)
    relief = Relief(field, size)
    at = np.array([[0.0, 0.0], [256.0, 0.0], [100.0, 200.0]])
    moved = at + np.stack([1.5 + 0.002 * at[:, 0] - 0.001 * at[:, 1], -0.5 + 0.003 * at[:, 1]], axis=1)
    back = relief.best_affine((600_000.0, 5_300_000.0))
    on_map = back @ (600_000 + PIXEL_M * moved[:, 0], 5_300_000 - PIXEL_M * moved[:, 1])
    expected = np.stack([600_000 + PIXEL_M * at[:, 0], 5_300_000 - PIXEL_M * at[:, 1]])
    np.testing.assert_allclose(on_map, expected, rtol=0, atol=1e-5)


def test_places_of_low_rank_lie_together() -> None:
    row, col = np.mgrid[0:512:8, 0:512:8] + 4.0
    rank = patch_rank(np.random.default_rng(0), np.stack([col.ravel(), row.ravel()], axis=1), 512)
    hidden = (rank < 0.4).reshape(row.shape)
    assert hidden.mean() == pytest.approx(0.4, abs=0.01)
    assert (hidden[1:] == hidden[:-1]).mean() > 0.85


def test_drawn_tie_points_lie_where_the_errors_say() -> None:
    """Good ones within their noise and relief of the true place, whatever the error of the scene."""
    for index in range(12):
        scene = simulate_tie_points(2, index, size_px=512, hazard=Hazard.NONE)
        points = scene.points.keep(scene.points.confidence > 0.9)
        at = points.xy_m + points.offset_m
        left = np.stack(scene.true_affine @ (at[:, 0], at[:, 1]), axis=1) - points.xy_m
        assert np.median(np.hypot(*left.T)) < 2.5 * PIXEL_M * scene.noise_px
