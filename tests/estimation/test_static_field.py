"""The field of a track out of noisy dates, and a hidden date carried by it; relief is simulated."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from crosstie.estimation.static_field import align, average

NOISE_PX = 0.3
SHAPE = (30, 30)


def track(seed: int, *, dates: int = 12, wrong: float = 0.0, hidden: float = 0.1):
    """Fields (dates, 2, rows, cols) of one relief, each date shifted as a whole; the truth without shifts."""
    rng = np.random.default_rng(seed)
    relief = gaussian_filter(rng.normal(size=SHAPE), 2)
    relief *= 2 / relief.std()
    truth = np.stack([relief, 0.2 * relief])
    shift = rng.normal(0, 1, (dates, 2))
    shift -= shift.mean(axis=0)
    offset = truth + shift[:, :, None, None] + rng.normal(0, NOISE_PX, (dates, 2, *SHAPE))
    bad = rng.random((dates, *SHAPE)) < wrong
    offset[:, 0][bad] += rng.uniform(-20, 20, bad.sum())
    offset[np.broadcast_to((rng.random((dates, 1, *SHAPE)) < hidden), offset.shape)] = np.nan
    sigma = np.full((dates, *SHAPE), NOISE_PX)
    return truth, shift, offset, sigma


def rms(error: np.ndarray) -> float:
    return float(np.sqrt(np.nanmean(error**2)))


@pytest.mark.parametrize("wrong", [0.0, 0.05])
def test_the_tracks_field_is_sharper_than_any_date(wrong: float) -> None:
    truth, shift, offset, sigma = track(0, wrong=wrong)
    found = average(offset, sigma)
    assert rms(found.offset - truth) <= 0.12
    single = [rms(offset[n] - shift[n][:, None, None] - truth) for n in range(12)]
    assert min(single) >= 0.28
    assert found.shift == pytest.approx(shift, abs=0.06)


def test_each_sigma_of_the_field_holds() -> None:
    ratio = []
    for seed in range(5):
        truth, _, offset, sigma = track(seed, hidden=0.4)
        # Sigmas twice too small: the scatter of the dates says so.
        found = average(offset, sigma / 2)
        assert found.factor == pytest.approx(2, abs=0.1)
        ratio.append((found.offset - truth) / found.sigma)
    assert np.nanstd(ratio) == pytest.approx(1, abs=0.08)
    few, many = found.sigma[found.dates <= 5], found.sigma[found.dates >= 10]
    assert few.mean() > 1.2 * many.mean()


def test_a_date_with_80_percent_hidden_is_aligned_by_the_field() -> None:
    errors = []
    for seed in range(5):
        truth, _, offset, sigma = track(seed)
        field = average(offset, sigma)
        rng = np.random.default_rng(100 + seed)
        own = np.array([1.7, -0.9])
        date = truth + own[:, None, None] + rng.normal(0, NOISE_PX, truth.shape)
        date[:, rng.random(SHAPE) < 0.8] = np.nan
        date[0, :2] += 10  # two rows of what is left are wrong
        found = align(field, date, sigma[0])
        errors.append(found.offset - truth - own[:, None, None])
        assert found.shift == pytest.approx(own, abs=5 * found.shift_sigma)
        assert found.used < 0.25 * SHAPE[0] * SHAPE[1]
        assert np.isfinite(found.offset).all()
    assert rms(np.array(errors)) <= 0.15


def test_a_few_tie_points_are_enough() -> None:
    truth, _, offset, sigma = track(3)
    field = average(offset, sigma)
    date = np.full_like(truth, np.nan)
    for row, col in ((3, 4), (20, 7), (11, 25), (28, 28), (15, 15)):
        date[:, row, col] = truth[:, row, col] + 2
    found = align(field, date, sigma[0])
    assert rms(found.offset - truth - 2) <= 0.15
    assert found.used == 5
    assert found.shift_sigma == pytest.approx(np.hypot(0.3, 0.09) / np.sqrt(5), abs=0.03)


def test_ground_that_no_date_shows_stays_unknown() -> None:
    _, _, offset, sigma = track(4, hidden=0)
    offset[:, :, 5, 6] = np.nan
    found = average(offset, sigma)
    assert np.isnan(found.offset[:, 5, 6]).all()
    assert np.isnan(found.sigma[5, 6])
    assert found.dates[5, 6] == 0
    assert np.isfinite(found.offset).sum() == 2 * (SHAPE[0] * SHAPE[1] - 1)


def test_a_date_that_shows_nothing_has_no_shift_and_no_say() -> None:
    truth, _, offset, sigma = track(5)
    offset[3] = np.nan
    found = average(offset, sigma)
    assert np.isnan(found.shift[3]).all()
    assert rms(found.offset - truth - (np.nanmean(found.offset - truth, axis=(1, 2))[:, None, None])) <= 0.12


def test_what_cannot_be_averaged_is_refused() -> None:
    _, _, offset, sigma = track(6, dates=2, hidden=0)
    offset[0, :, :15], offset[1, :, 15:] = np.nan, np.nan
    with pytest.raises(ValueError, match="share no tile"):
        average(offset, sigma)
    with pytest.raises(ValueError, match="no date shows anything"):
        average(np.full_like(offset, np.nan), sigma)
    with pytest.raises(ValueError, match="must be"):
        average(offset[:, :1], sigma)
