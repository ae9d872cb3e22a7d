"""An archive as one network: known positions come back, wrong pairs are named, covariances hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, chi2
from simulated_network import NOISE_PX, PIXEL_M, Archive, archive

from crosstie.errors import SettingsError
from crosstie.estimation.adjustment import (
    Adjustment,
    AdjustmentSettings,
    AffineFrame,
    Datum,
    Edges,
    adjust,
    extend,
)
from crosstie.estimation.adjustment.noise import adjust_with_seen_noise
from crosstie.estimation.adjustment.reliability import contradicted
from crosstie.types import AffineCorrection, Model

SIGMA_M = NOISE_PX * PIXEL_M


def line(*pairs: tuple[str, str, float], sigma_m: float = SIGMA_M) -> Edges:
    """Edges whose offset is (value, 0)."""
    reference, secondary, value = zip(*pairs, strict=True)
    offset = np.column_stack([value, np.zeros(len(value))])
    return Edges.of_shifts(reference, secondary, offset, covariance=np.full(len(value), sigma_m))


def errors_m(found: Adjustment, truth: Archive) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) errors of the scenes that have a position, and the mask (N,) of those."""
    has = np.isfinite(found.scenes.position_m[:, 0])
    true = np.array([truth.truth_m[name] for name in found.scenes.id])
    return (found.scenes.position_m - true)[has], has


@pytest.fixture(scope="module")
def solved() -> list[tuple[Archive, Adjustment]]:
    drawn = [archive(seed) for seed in range(6)]
    return [(a, adjust(a.edges)) for a in drawn]


def test_known_positions_come_back(solved) -> None:
    for truth, found in solved:
        assert len(found.scenes) == 300
        errors, has = errors_m(found, truth)
        # Scenes of two pairs that contradict one another have no position; nearly all others do.
        assert has.mean() > 0.96
        assert np.sqrt((errors**2).sum(axis=1).mean()) <= 0.05 * PIXEL_M


def test_ellipses_of_95_percent_hold_95_percent(solved) -> None:
    inside = total = 0
    for truth, found in solved:
        errors, has = errors_m(found, truth)
        square = np.einsum("ni,nij,nj->n", errors, np.linalg.inv(found.scenes.covariance[has]), errors)
        inside += int((square < chi2.isf(0.05, 2)).sum())
        total += len(errors)
    assert inside / total == pytest.approx(0.95, abs=0.02)


def test_wrong_pairs_are_named_and_right_ones_are_not(solved) -> None:
    for truth, found in solved:
        named = ~found.adjusted.kept
        assert named[truth.wrong & (found.adjusted.redundancy > 0.3)].all()
        assert named[truth.wrong].all()
        assert named[~truth.wrong].mean() <= 0.01
        ends = set(zip(truth.edges.reference[truth.wrong], truth.edges.secondary[truth.wrong], strict=True))
        assert ends <= set(found.rejected)


def test_places_without_a_common_pair_have_a_datum_each(solved) -> None:
    _, found = solved[0]
    large = [part for part in found.parts if part.scenes > 1]
    assert len(large) == 3
    assert all(part.tied and "mean of the 25 reference scenes" in part.datum for part in large)
    for place in ("forest", "coast", "city"):
        optical = np.array([name.startswith(f"{place}-s2") for name in found.scenes.id])
        assert len(np.unique(found.scenes.part[optical])) == 1
        assert np.abs(found.scenes.position_m[optical].mean(axis=0)).max() < 1e-6


def test_redundancy_sums_to_the_degrees_of_freedom() -> None:
    found = adjust(archive(0, wrong=0).edges)
    kept = found.adjusted.kept
    free = 2 * (kept.sum() - len(found.scenes) + len(found.parts))
    assert found.test.degrees_of_freedom == pytest.approx(free, abs=1e-6)
    assert 2 * found.adjusted.redundancy[kept].sum() == pytest.approx(free, abs=1e-6)
    assert found.test.probability > 0.001


def test_two_pairs_of_one_scene_by_hand() -> None:
    # a -> c and b -> c twice each way round: c seen from the mean of a and b, which one pair ties.
    found = adjust(line(("a", "c", 4.0), ("b", "c", 2.0), ("a", "b", 2.5)), datum=Datum(scene="a"))
    # Misclosure 4 - 2 - 2.5 = -0.5, a third of it on each pair.
    assert found.scenes.position_m[:, 0] == pytest.approx([0, 2.5 - 0.5 / 3, 4 + 0.5 / 3], abs=1e-9)
    assert found.adjusted.redundancy == pytest.approx([1 / 3] * 3, abs=1e-9)
    # Two paths to each: sigma^2 and 2 sigma^2 side by side.
    assert found.scenes.covariance[1] == pytest.approx(np.eye(2) * SIGMA_M**2 * 2 / 3, abs=1e-9)
    assert found.scenes.covariance[0] == pytest.approx(np.zeros((2, 2)), abs=1e-12)


def test_smallest_detectable_error_is_detected_with_the_power_asked_for() -> None:
    truth = archive(1, wrong=0, few=0, per_track=3, references=6, partners=6)
    edges = truth.edges.keep(np.char.startswith(truth.edges.secondary, "forest"))
    settings, at = AdjustmentSettings(false_alarm=0.01), 10
    least = adjust(edges, settings=settings).adjusted.detectable_m[at]
    # The sigma is given, 1 m, and only roughly known from so few pairs: ask at the given one.
    least /= adjust(edges, settings=settings).test.sigma_factor
    assert least < adjust(edges).adjusted.detectable_m[at]
    ends = zip(edges.reference, edges.secondary, strict=True)
    true = np.array([truth.truth_m[s] - truth.truth_m[r] for r, s in ends])
    rng, seen, draws = np.random.default_rng(0), 0, 100
    for _ in range(draws):
        offset = true + rng.normal(0, SIGMA_M, true.shape)
        offset[at, 0] += least
        sigma = np.full(len(true), SIGMA_M)
        again = Edges.of_shifts(edges.reference, edges.secondary, offset, covariance=sigma)
        seen += not adjust(again, settings=settings).adjusted.kept[at]
    low, high = binom.interval(0.999, draws, 0.8)
    assert low <= seen <= high


def test_a_scene_of_two_pairs_that_contradict_one_another_has_no_position() -> None:
    good = [
        ("r1", "a", 1.0),
        ("r2", "a", 1.0),
        ("r3", "a", 1.0),
        ("r1", "b", 2.0),
        ("r2", "b", 2.0),
        ("r3", "b", 2.0),
    ]
    found = adjust(line(*good, ("r1", "torn", 0.0), ("r2", "torn", 30.0)))
    assert sorted(found.rejected) == [("r1", "torn"), ("r2", "torn")]
    row = found.scenes.index("torn")
    assert np.isnan(found.scenes.position_m[row]).all()
    assert "torn" in found.parts[found.scenes.part[row]].datum
    assert found.scenes.position_m[found.scenes.index("b"), 0] == pytest.approx(2.0, abs=1e-9)


def test_the_sigmas_of_the_result_follow_the_scatter_seen() -> None:
    truth = archive(2, wrong=0)
    shy = Edges(
        truth.edges.reference, truth.edges.secondary, truth.edges.offset_m, truth.edges.information * 4
    )
    honest, bold = adjust(truth.edges), adjust(shy)
    assert honest.test.sigma_factor == pytest.approx(1, abs=0.05)
    assert bold.test.sigma_factor == pytest.approx(2, abs=0.1)
    assert bold.test.probability < 1e-6
    assert "times 2.0" in bold.test.sentence or "times 1.9" in bold.test.sentence
    assert np.nanmax(np.abs(bold.scenes.sigma_m - honest.scenes.sigma_m)) < 1e-3


def test_the_datum_moves_positions_and_nothing_else() -> None:
    truth = archive(3, few=0)
    mean = adjust(truth.edges)
    one = str(mean.scenes.id[0])
    named = adjust(truth.edges, datum=Datum(scene=one))
    assert (named.adjusted.kept == mean.adjusted.kept).all()
    assert named.adjusted.residual_m == pytest.approx(mean.adjusted.residual_m, abs=1e-6, nan_ok=True)
    assert named.scenes.position_m[0] == pytest.approx([0, 0], abs=1e-9)
    assert named.scenes.sigma_m[0] == pytest.approx([0, 0], abs=1e-6)
    other = next(part for part in named.parts if one not in part.datum)
    assert not other.tied
    same = named.scenes.part == named.scenes.part[0]
    moved = named.scenes.position_m[same] - mean.scenes.position_m[same]
    assert np.ptp(moved, axis=0) == pytest.approx([0, 0], abs=1e-6)


def test_scenes_held_fixed_stay_and_carry_the_rest() -> None:
    edges = line(("a", "b", 1.0), ("b", "c", 1.0), ("c", "d", 1.0))
    found = adjust(edges, datum=Datum(fixed=(("a", (10.0, 5.0)), ("d", (16.0, 5.0)))))
    assert found.scenes.position_m == pytest.approx(
        np.array([[10, 5], [12, 5], [14, 5], [16, 5]], float), abs=1e-9
    )
    assert found.scenes.covariance[[0, 3]] == pytest.approx(0)
    assert "held fixed" in found.parts[0].datum


def test_where_all_scenes_are_held_nothing_moves_and_a_wrong_pair_shows() -> None:
    edges = line(("a", "b", 1.0), ("b", "c", 1.0), ("a", "c", 30.0))
    found = adjust(edges, datum=Datum(fixed=(("a", (0.0, 0.0)), ("b", (1.0, 0.0)), ("c", (2.0, 0.0)))))
    assert found.scenes.position_m[:, 0] == pytest.approx([0, 1, 2], abs=1e-12)
    assert found.scenes.covariance == pytest.approx(0)
    assert found.rejected == [("a", "c")]
    assert found.adjusted.residual_m[:, 0] == pytest.approx([0, 0, 28], abs=1e-12)
    assert found.adjusted.redundancy == pytest.approx(1)


def test_a_datum_that_names_no_scene_of_the_network_is_refused() -> None:
    with pytest.raises(ValueError, match="names z, which is in no edge"):
        adjust(line(("a", "b", 1.0)), datum=Datum(scene="z"))
    with pytest.raises(ValueError, match="give 2 finite numbers"):
        adjust(line(("a", "b", 1.0)), datum=Datum(fixed=(("a", (1.0,)),)))
    with pytest.raises(ValueError, match="not both"):
        Datum(scene="a", fixed=(("a", (0.0, 0.0)),))


def test_edges_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="a is paired with itself"):
        line(("a", "a", 1.0))
    with pytest.raises(ValueError, match="finite"):
        line(("a", "b", np.nan))
    with pytest.raises(ValueError, match="above 0"):
        line(("a", "b", 1.0), sigma_m=0)
    with pytest.raises(SettingsError, match="false_alarm must be below 1"):
        AdjustmentSettings(false_alarm=2)


def test_adding_scenes_gives_what_solving_all_at_once_gives() -> None:
    truth = archive(4)
    late = np.char.startswith(truth.edges.secondary, "city-s1c-asc-58-02")
    assert late.any()
    before = adjust(truth.edges.keep(~late))
    grown = extend(before, truth.edges.keep(late))
    whole = adjust(Edges.concatenate([truth.edges.keep(~late), truth.edges.keep(late)]))
    assert (grown.scenes.id == whole.scenes.id).all()
    assert (grown.adjusted.kept == whole.adjusted.kept).all()
    assert grown.scenes.position_m == pytest.approx(whole.scenes.position_m, abs=1e-6, nan_ok=True)
    assert grown.scenes.covariance == pytest.approx(whole.scenes.covariance, abs=1e-6, nan_ok=True)
    assert grown.adjusted.statistic == pytest.approx(whole.adjusted.statistic, abs=1e-4, nan_ok=True)


def test_a_pair_that_joins_two_places_joins_their_datum() -> None:
    left = [("r1", "a", 1.0), ("r2", "a", 1.0)]
    right = [("q1", "b", 5.0), ("q2", "b", 5.0)]
    apart = adjust(line(*left, *right))
    assert len(apart.parts) == 2
    joined = extend(apart, line(("r1", "b", 6.0)))
    assert len(joined.parts) == 1
    r1, b = (joined.scenes.position_m[joined.scenes.index(name), 0] for name in ("r1", "b"))
    assert b - r1 == pytest.approx(6.0, abs=1e-9)


def test_unlike_axes_weigh_each_by_its_own_sigma() -> None:
    flat = np.array([np.diag([1.0, 100.0]), np.diag([100.0, 1.0])])
    edges = Edges.of_shifts(["a", "a"], ["b", "b"], np.array([[0.0, 0.0], [10.0, 10.0]]), covariance=flat)
    found = adjust(edges, datum=Datum(scene="a"))
    assert found.scenes.position_m[1] == pytest.approx([10 / 101, 1000 / 101], abs=1e-9)


def test_affines_of_pairs_come_back_as_affines_of_scenes() -> None:
    rng = np.random.default_rng(7)
    frame = AffineFrame(centre_m=(500_000.0, 6_900_000.0), scale_m=50_000.0)
    jacobian = frame.jacobian()
    names = [f"s2-{n}" for n in range(5)] + [f"s1-{n}" for n in range(10)]
    truth = {name: rng.normal(0, 8, 6) for name in names}
    mean = np.mean([truth[name] for name in names[:5]], axis=0)
    reference, secondary, corrections = [], [], []
    noise = np.diag([1.0, 1, 2, 2, 2, 2])
    for s in names[5:]:
        for r in names[:5]:
            offset = truth[s] - truth[r] + rng.normal(0, np.sqrt(np.diag(noise)))
            reference.append(r)
            secondary.append(s)
            affine = np.array([1.0, 0, 0, 0, 1, 0]) - jacobian @ offset
            corrections.append(AffineCorrection(Model.AFFINE, tuple(affine), jacobian @ noise @ jacobian.T))
    edges = Edges.of_corrections(reference, secondary, corrections, frame)
    found = adjust(edges)
    errors = np.array(
        [found.scenes.position_m[n] - (truth[str(s)] - mean) for n, s in enumerate(found.scenes.id)]
    )
    sigma = np.sqrt(np.diagonal(found.scenes.covariance, axis1=1, axis2=2))
    assert np.sqrt(((errors / sigma) ** 2).mean()) == pytest.approx(1, abs=0.25)
    # The correction moves the scene's ground back, at the centre and at a corner 50 km off.
    s1 = found.scenes.correction("s1-0", frame)
    at = np.array([[500_000.0, 6_900_000.0], [550_000.0, 6_950_000.0]])
    x, y, xu, xv, yu, yv = truth["s1-0"] - mean
    true = np.array([[x, y], [x + xu + xv, y + yu + yv]])
    assert at - s1.apply(at) == pytest.approx(true, abs=5)


def test_a_large_network_is_solved_as_a_small_one_is() -> None:
    """Elimination and its way back against a dense inverse, references paired with one another, too."""
    rng = np.random.default_rng(0)
    n, ends = 40, []
    while len(ends) < 150:
        a, b = rng.integers(0, n, 2)
        if a != b:
            ends.append((int(a), int(b)))
    sigma = rng.uniform(0.5, 2, len(ends))
    names = [f"s{k:02d}" for k in range(n)]
    offset = rng.normal(0, 1, (len(ends), 2)) * sigma[:, None] * 0.5
    edges = Edges.of_shifts(
        [names[a] for a, _ in ends], [names[b] for _, b in ends], offset, covariance=sigma
    )
    found = adjust(edges, datum=Datum(scene="s00"), settings=AdjustmentSettings(false_alarm=1e-9))
    design = np.zeros((len(ends), n))
    for row, (a, b) in enumerate(ends):
        design[row, a], design[row, b] = -1, 1
    design = design[:, 1:]
    inverse = np.linalg.inv(design.T @ (design / sigma[:, None] ** 2))
    expected = inverse @ design.T @ (offset / sigma[:, None] ** 2)
    assert found.adjusted.kept.all()
    assert found.scenes.position_m[1:] == pytest.approx(expected, abs=1e-9)
    variance = found.test.sigma_factor**2
    assert found.scenes.covariance[1:, 0, 0] == pytest.approx(np.diag(inverse) * variance, abs=1e-9)
    share = 1 - np.einsum("ei,ij,ej->e", design, inverse, design) / sigma**2
    assert found.adjusted.redundancy == pytest.approx(share, abs=1e-9)


def test_bridges_that_a_dropped_pair_contradicts_are_named_and_no_others() -> None:
    # Ring 0-1-2 is firm; 3 and 4 hang on it in a row; 5 hangs on 0. The pair 1-4 was left out.
    i = np.array([0, 1, 2, 2, 3, 0, 1])
    j = np.array([1, 2, 0, 3, 4, 5, 4])
    kept = np.array([True] * 6 + [False])
    bridge = np.array([False, False, False, True, True, True, False])
    named = contradicted(kept, bridge, i, j, 6)
    assert named.tolist() == [False, False, False, True, True, False, False]
    assert not contradicted(np.ones(7, bool), np.zeros(7, bool), i, j, 6).any()


def test_noise_that_all_pairs_share_is_found_beside_their_own() -> None:
    rng = np.random.default_rng(3)
    ends = [(f"r{a}", f"s{b}") for a in range(15) for b in range(40)]
    truth = {name: rng.normal(0, 5, 2) for pair in ends for name in pair}
    own = rng.choice([0.05, 2.0], len(ends))
    true = np.array([truth[s] - truth[r] for r, s in ends])
    offset = true + rng.normal(0, 1, true.shape) * np.hypot(1.5 * own, 0.8)[:, None]
    reference, secondary = zip(*ends, strict=True)
    edges = Edges.of_shifts(reference, secondary, offset, covariance=own)
    found, noise = adjust_with_seen_noise(edges)
    assert noise.factor == pytest.approx(1.5, abs=0.15)
    assert noise.common_m == pytest.approx(0.8, abs=0.05)
    assert found.test.sigma_factor == pytest.approx(1, abs=0.05)
    mean = np.mean([truth[f"r{a}"] for a in range(15)], axis=0)
    errors = found.scenes.position_m - np.array([truth[str(name)] - mean for name in found.scenes.id])
    assert np.sqrt(((errors / found.scenes.sigma_m) ** 2).mean()) == pytest.approx(1, abs=0.2)
    # Without it the network leans on the few that seem perfect.
    blind = adjust(edges).scenes.position_m - np.array([truth[str(n)] - mean for n in found.scenes.id])
    assert np.sqrt((errors**2).mean()) < 0.9 * np.sqrt((blind**2).mean())
