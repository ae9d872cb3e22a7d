"""What tie points tell of the ground within their tiles: simulated land whose roughness is known."""

from __future__ import annotations

import numpy as np
import pytest
from relief_truth import STRIDE_PX, TILE_PX, grid_of, land, measured
from tie_point_field import truth

from crosstie.estimation.field.roughness import unseen_variance

SHAPE = (3072, 3072)
STILL = truth()


def unseen(relief_px: np.ndarray, centre_px: np.ndarray) -> float:
    return unseen_variance(centre_px, relief_px, tile_px=TILE_PX, stride_px=STRIDE_PX)


def centres() -> np.ndarray:
    points = measured(grid_of(SHAPE), STILL, land(SHAPE, std_px=1.0), wrong=0.0)
    return np.stack([points.col, points.row], axis=1) + TILE_PX / 2


@pytest.mark.parametrize("roughness", [0.6, 0.8, 0.95])
def test_the_ground_within_tiles_is_foretold_from_the_means_over_them(roughness: float) -> None:
    """Within a factor of 1.5 of its deviation; the tiles themselves show none of it."""
    at, foretold, true = centres(), [], []
    for seed in range(4):
        ground = land(SHAPE, std_px=2.0, roughness=roughness, longest_px=4000.0, seed=seed)
        px = np.random.default_rng(seed).uniform(200, SHAPE[0] - 200, (5000, 2))
        within = ground.at(px) - ground.seen_by_tile(px)
        true.append((within**2).sum(axis=1).mean() * ((TILE_PX + STRIDE_PX) / TILE_PX) ** (2 * roughness))
        foretold.append(unseen(ground.seen_by_tile(at), at))
    assert np.sqrt(np.mean(foretold) / np.mean(true)) == pytest.approx(1, rel=0.5)


def test_noise_that_tiles_share_as_far_as_their_pixels_is_no_relief() -> None:
    at = centres()
    points = measured(grid_of(SHAPE), STILL, land(SHAPE, std_px=1e-9), noise_px=0.5, wrong=0.0)
    offset = (points.offset_m - points.offset_m.mean(axis=0)) / 10.0
    assert np.sqrt(unseen(offset, at)) < 0.25 * np.sqrt((offset**2).sum(axis=1).mean())


def test_tiles_that_lie_alone_tell_nothing() -> None:
    at = np.array([[0.0, 0.0], [5000.0, 0.0], [0.0, 7000.0]])
    assert unseen(np.ones((3, 2)), at) == 0.0
    assert unseen(np.zeros((len(centres()), 2)), centres()) == 0.0
