"""The monitor: what moves is noticed in time, and what stands still raises no more alarms than were set."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from crosstie.errors import SettingsError
from crosstie.estimation.change_points import (
    ChangeKind,
    MonitorSettings,
    Scatter,
    Series,
    detectable_jump_m,
    pooled_shift,
    scatter_of,
    watch,
)

STEP_DAYS = 12.0
SIGMA_M = 0.4
"""Of the network."""


def series(rng: np.random.Generator, n: int, *, scatter_m: float, name: str = "forest s1a 58") -> Series:
    noise = np.hypot(SIGMA_M, scatter_m)
    position = np.array([3.0, -12.0]) + rng.normal(0, noise, (n, 2))
    return Series(name, np.arange(n) * STEP_DAYS, position, np.full(n, SIGMA_M))


def moved(one: Series, by: np.ndarray) -> Series:
    return Series(one.name, one.days, one.position_m + by, one.sigma_m)


@pytest.mark.parametrize("rate", [1e-3, 1e-2])
def test_stable_scenes_raise_no_more_alarms_than_were_set(rate: float) -> None:
    rng = np.random.default_rng(0)
    stable = [series(rng, 100, scatter_m=3.0) for _ in range(50)]
    scatter = scatter_of(stable)
    assert scatter.sigma_m == pytest.approx(3.0, abs=0.15)
    settings = MonitorSettings(false_alarms_per_scene=rate)
    alarms = sum(len(watch(one, scatter, settings)) for one in stable)
    # 5,000 scenes: below the 99 % point of what the rate set would give.
    assert alarms <= binom.ppf(0.99, 5000, rate)


def test_a_series_alone_that_knows_its_scatter_badly_is_no_more_nervous() -> None:
    rng = np.random.default_rng(1)
    alarms = sum(len(watch(series(rng, 50, scatter_m=3.0))) for _ in range(100))
    assert alarms <= binom.ppf(0.99, 5000, MonitorSettings().false_alarms_per_scene)


def test_a_jump_of_20_m_is_noticed_within_three_scenes_and_dated() -> None:
    dated = []
    for seed in range(50):
        one = series(np.random.default_rng(seed), 40, scatter_m=3.0)
        jump = np.where(np.arange(40)[:, None] >= 20, [16.0, 12.0], 0.0)
        found = [alarm for alarm in watch(moved(one, jump), Scatter(3.0, 1000)) if alarm.at >= 20]
        assert found[0].at <= 22
        jumps = [alarm for alarm in found if alarm.change is ChangeKind.JUMP]
        assert jumps
        assert jumps[0].at <= 23
        dated.append(jumps[0].since)
        assert np.hypot(*(np.array(jumps[0].size_m) - (16, 12))) < 5 * jumps[0].sigma_m
        # The new place is the new normal: no alarm a scene for ever.
        assert len(found) <= 4
        assert f"from scene {jumps[0].since} on" in jumps[0].sentence
    assert np.mean(np.array(dated) == 20) >= 0.9
    assert set(dated) <= {19, 20, 21}


def test_a_drift_of_2_m_a_year_is_noticed_within_a_year() -> None:
    for seed in range(50):
        # Two satellites, 6 days: with one, a tenth of the drifts takes a little longer.
        late = series(np.random.default_rng(seed), 61, scatter_m=0.4)
        one = Series(late.name, late.days / 2, late.position_m, late.sigma_m)
        drift = np.outer(one.days / 365.25, [1.6, -1.2])
        found = watch(moved(one, drift), Scatter(0.4, 1000))
        assert found, seed
        assert one.days[found[0].at] <= 365.25


def test_one_outlier_is_an_outlier_and_no_jump() -> None:
    for seed in range(50):
        one = series(np.random.default_rng(seed), 40, scatter_m=3.0)
        off = np.zeros((40, 2))
        off[20] = (0, 30)
        found = watch(moved(one, off), Scatter(3.0, 1000))
        assert [(a.change, a.at) for a in found if a.at in range(20, 30)] == [(ChangeKind.OUTLIER, 20)]


def test_a_new_processor_of_3_m_is_noticed_over_20_places() -> None:
    shifts, chances = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        places = [series(rng, 30, scatter_m=3.0, name=f"place {n}") for n in range(20)]
        change = 15 * STEP_DAYS
        new = [moved(one, np.where((one.days >= change)[:, None], [3.0, 0.0], 0.0)) for one in places]
        months = np.arange(60, 330, 30.0)
        found = pooled_shift(new, months)
        assert found is not None
        assert found.probability < 1e-3
        assert found.days == pytest.approx(change)
        assert found.places == 20
        shifts.append(found.size_m)
        still = pooled_shift(places, months)
        assert still is not None
        chances.append(still.probability)
    assert np.mean(shifts, axis=0) == pytest.approx([3, 0], abs=0.15)
    assert (np.array(chances) < 0.05).sum() <= binom.ppf(0.99, 30, 0.05)


def test_a_place_alone_does_not_show_what_twenty_show() -> None:
    one = series(np.random.default_rng(5), 30, scatter_m=3.0)
    new = moved(one, np.where((one.days >= 180)[:, None], [3.0, 0.0], 0.0))
    alone = pooled_shift([new], [180.0], Scatter(3.0, 1000))
    assert alone is not None
    assert alone.sigma_m > 1
    assert pooled_shift([one], [-100.0], Scatter(3.0, 1000)) is None


def test_the_smallest_jump_it_promises_to_notice_is_noticed_that_often() -> None:
    scatter = Scatter(3.0, 1000)
    least = detectable_jump_m(scatter, before=20, after=3)
    seen, draws = 0, 200
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        position = rng.normal(0, 3.0, (23, 2))
        position[20:, 0] += least
        one = Series("x", np.arange(23) * STEP_DAYS, position, np.full(23, 1e-3))
        seen += any(alarm.at >= 20 for alarm in watch(one, scatter))
    assert seen >= binom.ppf(0.01, draws, 0.8)
    assert least < detectable_jump_m(scatter, before=20, after=1)


def test_scatter_is_not_fooled_by_what_it_is_meant_to_show() -> None:
    rng = np.random.default_rng(2)
    still = [series(rng, 100, scatter_m=3.0) for _ in range(10)]
    jumpy = [moved(one, np.where(one.days[:, None] >= 600, 20.0, 0.0)) for one in still]
    assert scatter_of(jumpy).sigma_m == pytest.approx(scatter_of(still).sigma_m, rel=0.02)
    quiet = [Series("q", np.arange(50) * 1.0, rng.normal(0, 0.1, (50, 2)), np.full(50, 1.0))]
    assert scatter_of(quiet).sigma_m == 0


def test_series_and_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="in order of time"):
        Series("x", np.array([2.0, 1.0]), np.zeros((2, 2)), np.ones(2))
    with pytest.raises(ValueError, match="must be finite"):
        Series("x", np.array([1.0]), np.full((1, 2), np.nan), np.ones(1))
    with pytest.raises(ValueError, match="two scenes"):
        scatter_of([Series("x", np.array([1.0]), np.zeros((1, 2)), np.ones(1))])
    with pytest.raises(SettingsError, match="false_alarms_per_scene must be below 1"):
        MonitorSettings(false_alarms_per_scene=1)
