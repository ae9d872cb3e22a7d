"""Systematic parts of simulated positions come back, each with a sigma that holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosstie.estimation.systematic import (
    SceneFacts,
    lean_of_optical,
    lean_of_sar,
    look_azimuth_of_sentinel1,
    tell_apart,
)

INCIDENCE_DEG, LATITUDE_DEG = 39.0, 62.0
NOISE_M, SCATTER_M = 0.5, 1.0


def scenes(
    seed: int,
    *,
    height_m: float = 20.0,
    per_track: int = 30,
    years: float = 2.0,
    passes=("ascending", "descending"),
    drift=(0.0, 0.0),
    baseline_m=0.0,
    platform_m=0.0,
    season_m=0.0,
) -> SceneFacts:
    rng = np.random.default_rng(seed)
    n = per_track * len(passes)
    track = np.array([f"{name}-{58 + k}" for k, name in enumerate(passes) for _ in range(per_track)])
    azimuth = np.array([look_azimuth_of_sentinel1(name.split("-")[0], LATITUDE_DEG) for name in track])
    days = np.sort(rng.uniform(0, years * 365.25, (len(passes), per_track)), axis=1).ravel()
    lean = lean_of_sar(azimuth, np.full(n, INCIDENCE_DEG))
    platform = np.array(["s1a", "s1c"])[rng.integers(0, 2, n)]
    late = days > years * 365.25 / 2
    position = np.array([2.0, -7.0]) + height_m * lean + np.outer(days / 365.25, drift)
    position[:, 0] += np.where(platform == "s1c", platform_m, 0) + np.where(late, baseline_m, 0)
    position[:, 1] += season_m * np.cos(2 * np.pi * days / 365.25)
    position += rng.normal(0, np.hypot(NOISE_M, SCATTER_M), (n, 2))
    return SceneFacts(
        position_m=position,
        covariance=np.tile(np.eye(2) * NOISE_M**2, (n, 1, 1)),
        days=days,
        platform=platform,
        track=track,
        baseline=np.where(late, "004.00", "003.71"),
        lean=lean,
        incidence_deg=np.full(n, INCIDENCE_DEG),
    )


def test_a_height_error_of_20_m_is_told_to_2_m_and_its_sigma_holds() -> None:
    heights = [tell_apart(scenes(seed)).part("height") for seed in range(40)]
    value = np.array([part.value[0] for part in heights])
    sigma = np.array([part.sigma[0] for part in heights])
    assert np.abs(value - 20).max() <= 2
    assert sigma.max() <= 2
    # sigma allows for tracks that differ by 1 m without any height; here they do not.
    assert np.std(value) < sigma.mean()
    assert all(part.seen for part in heights)
    assert "higher than the products assumed" in heights[0].sentence
    assert "incidence 39 degrees" in heights[0].sentence


def test_a_height_is_told_with_the_whole_range_of_its_incidence_angles() -> None:
    facts = scenes(0)
    angles = np.resize([38.2, 31.0, 45.9, 35.5], len(facts.days))
    told = tell_apart(replace(facts, incidence_deg=angles)).part("height")
    assert "incidence 31 to 45.9 degrees" in told.sentence


def test_where_the_ground_is_as_assumed_no_height_is_seen() -> None:
    seen = [tell_apart(scenes(seed, height_m=0)).part("height").seen for seed in range(100)]
    assert sum(seen) <= 3


def test_higher_ground_is_shown_towards_the_radar_and_away_from_a_camera() -> None:
    # Looking east from the west at 45 degrees: towards the radar is west, a metre for a metre.
    assert lean_of_sar(np.array([90.0]), np.array([45.0])) == pytest.approx(
        np.array([[-1.0, 0.0]]), abs=1e-12
    )
    assert lean_of_optical(np.array([270.0]), np.array([45.0])) == pytest.approx(
        np.array([[1.0, 0.0]]), abs=1e-12
    )


def test_sentinel1_looks_east_going_up_and_west_going_down() -> None:
    # Headings of -12 and -168 degrees at the equator, as products state them.
    assert look_azimuth_of_sentinel1("ascending", 0) == pytest.approx(78, abs=1)
    assert look_azimuth_of_sentinel1("descending", 0) == pytest.approx(282, abs=1)
    assert look_azimuth_of_sentinel1("ascending", 62) < look_azimuth_of_sentinel1("ascending", 0)
    with pytest.raises(ValueError, match="does not fly over latitude 85"):
        look_azimuth_of_sentinel1("ascending", 85)


def test_drift_season_platform_and_baseline_come_back_within_their_sigmas() -> None:
    off = []
    for seed in range(20):
        found = tell_apart(
            scenes(seed, per_track=60, years=3, drift=(1.5, 0.0), baseline_m=3, platform_m=2, season_m=1.5)
        )
        drift, season = found.part("drift"), found.part("season_cosine")
        platforms = found.part("platform", "s1c").value[0] - found.part("platform", "s1a").value[0]
        off.append(
            [
                (drift.value[0] - 1.5) / drift.sigma[0],
                (season.value[1] - 1.5) / season.sigma[1],
                platforms - 2,
            ]
        )
        assert season.seen
        assert found.scatter_m == pytest.approx(SCATTER_M, abs=0.25)
    off = np.array(off)
    assert 0.4 < off[:, 1].std() < 1.6
    assert np.abs(off[:, 0]).max() < 3.5
    assert np.abs(off[:, 2]).max() < 1
    assert np.abs(off[:, 2].mean()) < 0.2


def test_a_processor_change_is_seen_where_nothing_else_changes() -> None:
    found = [tell_apart(scenes(seed, baseline_m=3, per_track=60, years=3)) for seed in range(10)]
    step = [f.part("baseline", "004.00").value[0] - f.part("baseline", "003.71").value[0] for f in found]
    assert np.mean(step) == pytest.approx(3, abs=0.5)


def test_what_cannot_be_told_is_said() -> None:
    found = tell_apart(scenes(0, passes=("ascending",), years=0.3))
    assert {part.kind for part in found.parts} >= {"constant", "platform"}
    assert not any(part.kind in ("height", "drift", "track") for part in found.parts)
    assert any("look from one side" in sentence for sentence in found.untold)
    assert any("too few to tell a drift" in sentence for sentence in found.untold)
    with pytest.raises(KeyError, match="no part height"):
        found.part("height")


def test_scenes_without_a_position_have_no_say() -> None:
    facts = scenes(1)
    holed = facts.position_m.copy()
    holed[0] = np.nan
    one = tell_apart(
        SceneFacts(
            holed,
            *(
                getattr(facts, f)
                for f in ("covariance", "days", "platform", "track", "baseline", "lean", "incidence_deg")
            ),
        )
    )
    assert np.isnan(one.residual_m[0]).all()
    assert abs(one.part("height").value[0] - 20) <= 2
    with pytest.raises(ValueError, match="no scene has a position"):
        tell_apart(
            SceneFacts(
                np.full_like(holed, np.nan),
                *(
                    getattr(facts, f)
                    for f in ("covariance", "days", "platform", "track", "baseline", "lean", "incidence_deg")
                ),
            )
        )
