from __future__ import annotations

import numpy as np
import pytest

from crosstie.matcher.calibration import Calibration, expected_calibration_error, fit_confidence, fit_sigma


def simulated(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Offsets whose chance of being right grows with the lead, and whose error is 0.5 x the spread.

    Evidence, spread, error and template side of each.
    """
    rng = np.random.default_rng(seed)
    lead = rng.uniform(0, 0.5, n)
    right = rng.random(n) < 1 / (1 + np.exp(-(20 * lead - 4)))
    evidence = np.column_stack((-6 * lead, 30 * lead, 0 * lead))
    spread = rng.uniform(0.3, 1.2, n)
    error = np.where(
        right[:, None], rng.normal(size=(n, 2)) * 0.5 * spread[:, None], rng.uniform(5, 30, (n, 2))
    )
    return evidence, spread, error, np.full(n, 128)


def fitted() -> Calibration:
    evidence, _, error, sizes = simulated(4000, 0)
    right = np.hypot(*error.T) <= 1
    return Calibration(fit_confidence(evidence, right, sizes), np.zeros(4), np.zeros(2))


def test_confidence_is_the_share_of_right_offsets() -> None:
    calibration = fitted()
    evidence, _, error, _ = simulated(4000, 1)
    confidence = calibration.confidence(evidence, 128)
    good = np.hypot(error[:, 0], error[:, 1]) <= 1
    assert expected_calibration_error(confidence, good) < 0.05
    assert good[confidence > 0.9].mean() > 0.85
    assert good[confidence < 0.1].mean() < 0.15


@pytest.mark.parametrize("long_tailed", [False, True])
def test_68_per_cent_of_repeated_measurements_lie_within_one_sigma(*, long_tailed: bool) -> None:
    """Of all of them, and of those with little spread and with much."""

    def repeated(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        evidence, spread, _, sizes = simulated(4000, seed)
        rng = np.random.default_rng(seed + 10)
        noise = rng.standard_t(3, (4000, 2)) if long_tailed else rng.normal(size=(4000, 2))
        return evidence, spread, 0.05 * spread[:, None] * noise, sizes

    calibration = Calibration(np.zeros(5), fit_sigma(*repeated(0)), np.zeros(2))
    evidence, spread, error, _ = repeated(2)
    within = np.abs(error) <= calibration.sigma_px(evidence, spread, 128)[:, None]
    for part in (spread > 0, spread < 0.6, spread > 0.9):
        assert 0.64 < within[part].mean() < 0.72


def test_calibration_error_of_a_known_case() -> None:
    confidence = np.array([0.95] * 10 + [0.15] * 10)
    good = np.array([True] * 9 + [False] + [True] * 3 + [False] * 7)
    expected = 0.5 * abs(0.95 - 0.9) + 0.5 * abs(0.15 - 0.3)
    assert np.isclose(expected_calibration_error(confidence, good), expected)
