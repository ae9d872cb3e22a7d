"""Simulated errors: which matcher is better is known."""

from __future__ import annotations

import numpy as np
import pytest

from crosstie.matcher.evaluation.comparison import compare

N = 400
PLACES = [f"place {n % 20}" for n in range(N)]


def errors(rng: np.random.Generator, *, sigma_px: float, lost: float = 0.0) -> np.ndarray:
    """Gaussian errors, a share of them lost anywhere in the search."""
    found = rng.normal(0, sigma_px, (N, 2))
    away = rng.random(N) < lost
    found[away] = rng.choice([-1, 1], (int(away.sum()), 2)) * rng.uniform(6, 30, (int(away.sum()), 2))
    return found


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_better_is_better_and_worse_is_not(rng: np.random.Generator) -> None:
    sharp, blunt = errors(rng, sigma_px=0.5), errors(rng, sigma_px=0.9)
    found = compare(blunt, sharp, PLACES)
    assert found.better
    assert found.reasons == ()
    assert found.changes[0].low > 0
    assert not compare(sharp, blunt, PLACES).better


def test_the_same_errors_are_no_gain(rng: np.random.Generator) -> None:
    same = errors(rng, sigma_px=0.7)
    found = compare(same, same, PLACES)
    assert not found.better
    assert found.sign_test_p == 1
    assert [change.gain for change in found.changes] == [0, 0, 0]


def test_equally_good_matchers_are_seldom_taken_for_better() -> None:
    passed = [
        compare(errors(rng, sigma_px=0.7), errors(rng, sigma_px=0.7), PLACES).better
        for rng in map(np.random.default_rng, range(40))
    ]
    assert sum(passed) <= 4  # 2 are expected of 40 at 5 %


def test_sharper_but_lost_more_often_is_refused(rng: np.random.Generator) -> None:
    old = errors(rng, sigma_px=0.9)
    found = compare(old, errors(rng, sigma_px=0.4, lost=0.08), PLACES)
    assert found.changes[0].low > 0  # within 1 px it is better beyond doubt
    assert not found.better
    assert any("within 5 px" in reason for reason in found.reasons)


def test_a_few_pairs_prove_nothing() -> None:
    old, new = np.full((4, 2), 3.0), np.zeros((4, 2))
    assert not compare(old, new, ["a", "b", "c", "d"]).better
    assert compare(np.tile(old, (3, 1)), np.tile(new, (3, 1)), list("abcdefghijkl")).better


def test_a_gain_at_one_place_alone_is_not_enough() -> None:
    """One place of ten holds all that was won: another draw of places might hold nothing."""
    old, new = np.full((100, 2), 0.1), np.full((100, 2), 0.1)
    old[:10] = 3.0
    places = [f"place {n // 10}" for n in range(100)]
    assert compare(old, new, places).sign_test_p < 0.05
    assert not compare(old, new, places).better


def test_errors_of_other_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="same pairs"):
        compare(np.zeros((3, 2)), np.zeros((4, 2)), ["a"] * 4)
