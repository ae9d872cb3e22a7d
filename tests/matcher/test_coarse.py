from __future__ import annotations

import numpy as np

from crosstie.matcher.coarse import vote_on_offset


def vote(radius: int, centre: tuple[float, float], sigma: float = 1.5) -> np.ndarray:
    axis = np.arange(-radius, radius + 1)
    bump = np.exp(-0.5 * (((axis[None] - centre[0]) ** 2 + (axis[:, None] - centre[1]) ** 2) / sigma**2))
    return (bump / bump.sum()).astype(np.float32)


def wrong_vote(rng: np.random.Generator, radius: int) -> np.ndarray:
    return vote(radius, tuple(rng.uniform(-radius, radius, 2)))


def test_a_minority_that_agrees_beats_a_majority_that_does_not() -> None:
    rng = np.random.default_rng(0)
    agreeing = [vote(72, (-41 + rng.normal(0, 2), 60 + rng.normal(0, 2))) for _ in range(9)]
    found = vote_on_offset(agreeing + [wrong_vote(rng, 72) for _ in range(16)])
    assert found.reliable
    assert abs(found.dx_px + 41) <= 3
    assert abs(found.dy_px - 60) <= 3


def test_noise_is_hardly_ever_reliable() -> None:
    rng = np.random.default_rng(1)
    wrong = [vote_on_offset([wrong_vote(rng, 72) for _ in range(25)]).reliable for _ in range(300)]
    assert np.mean(wrong) <= 0.01


def test_flat_spots_weigh_nothing() -> None:
    flat = np.full((145, 145), 1 / 145**2, np.float32)
    found = vote_on_offset([flat] * 20 + [vote(72, (10, -30))] * 5)
    assert (found.dx_px, found.dy_px) == (10, -30)
    assert found.reliable


def test_no_spots_is_not_reliable() -> None:
    assert not vote_on_offset([]).reliable
