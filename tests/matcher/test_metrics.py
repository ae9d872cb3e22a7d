from __future__ import annotations

import math

import numpy as np
import pytest

from crosstie.matcher.evaluation.metrics import error_metrics

BY_HAND = np.array([(0, 0), (0.6, -0.8), (0, 2), (-3, 4), (6, 8)], np.float64)
"""Lengths 0, 1, 2, 5 and 10 px."""


def test_figures_of_five_errors_worked_out_by_hand() -> None:
    found = error_metrics(BY_HAND)
    assert found.n == 5
    assert (found.cmr_1, found.cmr_2, found.cmr_5) == (2 / 5, 3 / 5, 4 / 5)  # a limit itself counts as within
    assert found.mean_distance_px == pytest.approx(18 / 5)
    assert found.rmse_px == pytest.approx(math.sqrt(130 / 5))
    assert found.rmse_t5_px == pytest.approx(math.sqrt(30 / 4))
    assert found.median_px == 2


def test_the_mean_distance_never_exceeds_the_rmse() -> None:
    errors = np.random.default_rng(0).normal(size=(200, 2)) * 3
    assert error_metrics(errors).mean_distance_px <= error_metrics(errors).rmse_px


def test_where_all_are_lost_the_rmse_without_failures_is_unknown() -> None:
    found = error_metrics(np.full((4, 2), 20.0))
    assert found.cmr_5 == 0
    assert math.isnan(found.rmse_t5_px)


def test_no_pair_has_no_figures() -> None:
    found = error_metrics(np.zeros((0, 2)))
    assert found.n == 0
    assert math.isnan(found.cmr_1)
    assert math.isnan(found.median_px)


def test_an_error_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="1 errors are not finite"):
        error_metrics(np.array([(0, 0), (np.nan, 1)]))
