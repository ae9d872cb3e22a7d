from __future__ import annotations

import numpy as np

from crosstie.matcher.calibration import expected_calibration_error, fit_calibration


def simulated(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Offsets whose chance of being right grows with the lead, and whose error is 0.5 x the spread."""
    rng = np.random.default_rng(seed)
    lead = rng.uniform(0, 0.5, n)
    right = rng.random(n) < 1 / (1 + np.exp(-(20 * lead - 4)))
    evidence = np.column_stack((0.2 + lead, lead, -6 * lead, 30 * lead, 0.3 + lead, 0 * lead))
    spread = rng.uniform(0.3, 1.2, n)
    error = np.where(
        right[:, None], rng.normal(size=(n, 2)) * 0.5 * spread[:, None], rng.uniform(5, 30, (n, 2))
    )
    return evidence, spread, error, np.full(n, 128)


def test_confidence_is_the_share_of_right_offsets() -> None:
    calibration = fit_calibration(*simulated(4000, 0))
    evidence, _, error, _ = simulated(4000, 1)
    confidence = calibration.confidence(evidence, 128)
    good = np.hypot(error[:, 0], error[:, 1]) <= 1
    assert expected_calibration_error(confidence, good) < 0.05
    assert good[confidence > 0.9].mean() > 0.85
    assert good[confidence < 0.1].mean() < 0.15


def test_sigma_is_the_standard_deviation_of_the_right_ones() -> None:
    calibration = fit_calibration(*simulated(4000, 0))
    evidence, spread, error, _ = simulated(4000, 2)
    near = np.hypot(error[:, 0], error[:, 1]) <= 3
    ratio = error[near] / calibration.sigma_px(evidence, spread, 128)[near, None]
    assert 0.9 < ratio.std() < 1.1


def test_calibration_error_of_a_known_case() -> None:
    confidence = np.array([0.95] * 10 + [0.15] * 10)
    good = np.array([True] * 9 + [False] + [True] * 3 + [False] * 7)
    expected = 0.5 * abs(0.95 - 0.9) + 0.5 * abs(0.15 - 0.3)
    assert np.isclose(expected_calibration_error(confidence, good), expected)
