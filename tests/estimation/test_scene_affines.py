"""Affines of scenes out of those of their pairs: known ones come back, and noise gives none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, chi2
from turned_network import CORNERS_M, MIDDLE_M, Turned, turned_network

from crosstie.estimation.adjustment import Datum, SceneAffines
from crosstie.estimation.adjustment.agreement import agreement
from crosstie.estimation.pair_offset import offset_at


def squares(made: Turned, found: SceneAffines) -> np.ndarray:
    """(scenes, corners) squared error at the corners of the tile, in sigmas."""
    out = []
    for scene in made.shift_m:
        correction = found.of(scene)
        if correction is None:
            continue
        covariance = offset_at_corners(correction)[1]
        error = offset_at_corners(correction)[0] - made.offset_m(scene, CORNERS_M)
        out.append(np.einsum("ni,nij,nj->n", error, np.linalg.inv(covariance), error))
    return np.array(out)


def offset_at_corners(correction) -> tuple[np.ndarray, np.ndarray]:
    affine, spread = np.array([correction.affine]), correction.covariance[None]
    at = [offset_at(affine, spread, corner) for corner in CORNERS_M]
    return np.concatenate([offset for offset, _ in at]), np.concatenate([cov for _, cov in at])


@pytest.mark.parametrize("translations", [0.0, 0.4])
def test_known_affines_come_back_and_ellipses_hold_at_the_corners(translations: float) -> None:
    """Also where some scenes have pairs of translations alone: these stay without an affine."""
    inside = []
    for seed in range(5):
        made = turned_network(seed, translations=translations)
        _, found = made.solved()
        assert found.test.supported, found.test.sentence
        flat = {scene for scene, linear in made.linear.items() if not linear.any()}
        assert {scene for scene in made.shift_m if found.of(scene) is None} == flat
        inside.append(squares(made, found) < chi2.isf(0.05, 2))
    assert np.concatenate(inside).mean() == pytest.approx(0.95, abs=0.03)


def test_where_tie_points_lie_to_one_side_shift_and_affine_are_known_together() -> None:
    """Half of the pairs know the shift alone: the affines of the others follow it, and ellipses hold."""
    inside, error = [], []
    for seed in range(6):
        made = turned_network(seed, optical=8, mixed=True, one_sided=0)
        _, found = made.solved()
        secondaries = [scene for scene in made.shift_m if found.of(scene) and scene not in made.optical]
        assert len(secondaries) == 14
        # The datum of the affines is the mean of every second reference, that of the shifts the mean of all.
        tied = [made.linear[scene] for scene in made.optical[::2]]
        for scene in secondaries:
            offset, covariance = offset_at_corners(found.of(scene))
            true = made.offset_m(scene, MIDDLE_M[None])
            true = true + (CORNERS_M - MIDDLE_M) @ (made.linear[scene] - np.mean(tied, axis=0)).T
            away = offset - true
            square = np.einsum("ni,nij,nj->n", away, np.linalg.inv(covariance), away)
            inside.append(square < chi2.isf(0.05, 2))
            error.append(away)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)
    assert np.sqrt(np.mean(np.square(error))) < 0.7


def test_an_affine_is_a_tenth_of_a_shift_off_where_shifts_alone_are_off_by_all_of_it() -> None:
    made = turned_network(3)
    shifts, found = made.solved()
    with_affine, without = [], []
    for scene in made.shift_m:
        true = made.offset_m(scene, CORNERS_M)
        with_affine.append(offset_at_corners(found.of(scene))[0] - true)
        without.append(shifts.scenes.position_m[shifts.scenes.index(scene)] - true)
    # 3e-5 over 50 km along both axes: 2 m; a pair knows 0.4 m of it, six or fourteen pairs 0.15 m.
    assert np.sqrt(np.mean(np.square(without))) > 1.8
    assert np.sqrt(np.mean(np.square(with_affine))) < 0.5


def test_scenes_that_are_only_shifted_get_no_affine() -> None:
    """Although half of the pairs are four times as noisy as they say."""
    for seed in range(12):
        _, found = turned_network(seed, turn=0, optical=4, sar=6, unlike=4.0).solved()
        assert not found.test.supported, found.test.sentence
        assert found.of("s1-00") is None


def test_noise_agrees_in_no_more_than_the_set_rate() -> None:
    """Whatever the sigmas are worth: weights here have nothing to do with the noise."""
    draws, rate, rng = 200, 0.05, np.random.default_rng(0)
    i, j = (side.ravel() for side in np.meshgrid(np.arange(4), np.arange(4, 10)))
    found = []
    for _ in range(draws):
        noise = rng.normal(0, rng.choice([1.0, 8.0], (len(i), 1)), (len(i), 4))
        weight = np.eye(4) * rng.choice([1.0, 16.0], (len(i), 1, 1))
        found.append(agreement((i, j), noise, weight, false_alarm=rate / 5))
    gain, chance = np.array(found).T
    assert ((chance < rate) & (gain > 0)).sum() <= binom.isf(1e-3, draws, rate)
    # The chance is one: as many below a half as above.
    low, high = binom.interval(0.999, draws, 0.5)
    assert low <= (chance < 0.5).sum() <= high


def test_without_any_affine_of_a_pair_there_is_nothing_to_solve() -> None:
    made = turned_network(0, translations=1.0)
    _, found = made.solved()
    assert (found.scenes, found.test.pairs) == (None, 0)
    assert found.of("s1-00") is None


def test_two_pairs_are_too_few_for_affines() -> None:
    _, found = turned_network(0, optical=1, sar=2).solved()
    assert not found.test.supported


def test_an_affine_has_the_position_of_the_shifts_at_the_middle() -> None:
    made = turned_network(5)
    shifts, found = made.solved()
    middle = made.centre_m.mean(axis=0)
    for scene in made.shift_m:
        correction, row = found.of(scene), shifts.scenes.index(scene)
        offset, covariance = offset_at(np.array([correction.affine]), correction.covariance[None], middle)
        assert offset[0] == pytest.approx(shifts.scenes.position_m[row], abs=1e-6)
        assert covariance[0] == pytest.approx(shifts.scenes.covariance[row], rel=1e-3, abs=1e-6)
        assert np.linalg.eigvalsh(found.scenes.covariance[found.scenes.index(scene)]).min() > 0


def test_the_mean_affine_of_the_datum_is_none() -> None:
    made = turned_network(1)
    _, found = made.solved()
    linear = np.array([found.of(scene).affine for scene in made.optical])[:, [0, 1, 3, 4]]
    assert linear.mean(axis=0) == pytest.approx([1, 0, 0, 1], abs=1e-6)


@pytest.mark.parametrize("held", [False, True])
def test_a_scene_that_is_the_datum_has_no_affine_and_the_others_are_told_against_it(held: bool) -> None:
    made = turned_network(2, one_sided=0)
    datum = Datum(fixed=(("s2-01", (0.0, 0.0)),)) if held else Datum(scene="s2-01")
    _, found = made.solved(datum=datum)
    assert found.of("s2-01").affine == pytest.approx((1, 0, 0, 0, 1, 0), abs=1e-6)
    against = made.offset_m("s1-03", CORNERS_M) - made.offset_m("s2-01", CORNERS_M)
    assert offset_at_corners(found.of("s1-03"))[0] == pytest.approx(against, abs=1.5)


def test_affines_that_are_tied_to_no_scene_of_the_datum_are_left_out() -> None:
    """All pairs of the named scene measured translations."""
    made = turned_network(2)
    pairs = np.array(["s2-01" in ends for ends in made.ends])
    made.covariance[np.ix_(pairs, [0, 1, 3, 4])] = 0
    made.covariance[np.ix_(pairs, range(6), [0, 1, 3, 4])] = 0
    _, found = made.solved(datum=Datum(scene="s2-01"))
    assert (found.scenes, found.test.supported) == (None, False)
    assert "position 0" in found.test.sentence


def test_agreement_by_hand() -> None:
    """Two scenes, three pairs that say 1, 1 and 4: each is told by the mean of the others."""
    i, j = np.zeros(3, np.int64), np.ones(3, np.int64)
    measured = np.array([[1.0], [1.0], [4.0]])
    gain, chance = agreement((i, j), measured, np.ones((3, 1, 1)), false_alarm=1e-3)
    assert gain == pytest.approx(1 - (1.5**2 + 1.5**2 + 3**2) / 18, abs=1e-12)
    # Signs (+++) and (---) give that much, the other six less: one in four.
    assert chance == pytest.approx(0.25, abs=0.05)


def test_middle_is_where_the_truth_is_drawn() -> None:
    made = turned_network(0, one_sided=0)
    assert made.centre_m.mean(axis=0) == pytest.approx(MIDDLE_M, abs=1e-6)
