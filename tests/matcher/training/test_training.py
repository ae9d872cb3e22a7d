from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_land import shifted_scene, unlabelled_scene

from crosstie.errors import SettingsError
from crosstie.matcher.training.learner import CrosstieLearner, gaussian_target
from crosstie.matcher.training.loop import train
from crosstie.matcher.training.plan import TrainingPlan
from crosstie.matcher.training.run_folder import read_log
from crosstie.matcher.weights import load

LEARNER = CrosstieLearner(search_px=16, sizes_px=(64, 48), least_confidence=0.0)
SMALL = TrainingPlan(
    steps=4, batch=2, unlabelled_batch=2, burn_in=1, accumulate=2, crop_px=96, unlabelled_crop_px=96,
    search_px=16, jitter_px=12, unlabelled_jitter_px=8, evaluate_every=100, checkpoint_every=2,
    watched="cmr1_48",
)  # fmt: skip
LABELS_ONLY = replace(SMALL, accumulate=1, unlabelled_batch=0)


class KilledError(Exception):
    pass


def kill_at(step: int) -> Callable[[int, dict[str, float]], None]:
    def kill(done: int, _: dict[str, float]) -> None:
        if done == step:
            raise KilledError

    return kill


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(tensor, b.state_dict()[name]) for name, tensor in a.state_dict().items())


def test_target_sums_to_one_and_peaks_at_the_offset() -> None:
    target = gaussian_target(torch.tensor([[3.2, -5.0]]), 16, 0.8)[0]
    assert float(target.sum()) == pytest.approx(1, abs=1e-6)
    row, col = divmod(int(target.argmax()), 33)
    assert (col - 16, row - 16) == (3, -5)


@pytest.mark.slow
def test_loss_falls_on_land_that_both_images_show_alike(tmp_path: Path) -> None:
    losses: list[float] = []
    plan = replace(LABELS_ONLY, steps=25, learning_rate=4e-3)
    train(
        [shifted_scene(5, -3)], [], plan, tmp_path, learner=LEARNER,
        progress=lambda _, f: losses.append(f["loss"]),
    )  # fmt: skip
    assert losses[-1] < losses[0] - 0.4
    assert len(read_log(tmp_path / "log.csv")) == 3


def test_a_resumed_run_ends_with_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    """With labelled and unlabelled batches, and gradients of two of each added up."""
    scenes, unlabelled = [shifted_scene(5, -3)], [unlabelled_scene(-4, 6)]
    seen: list[dict[str, float]] = []

    def run(folder: str, progress: Callable[[int, dict[str, float]], None] | None = None) -> Any:
        return train(
            scenes, [], SMALL, tmp_path / folder, learner=LEARNER, unlabelled=unlabelled, progress=progress
        )

    whole = run("whole", lambda _, figures: seen.append(figures))
    assert "unlabelled_loss" not in seen[0]  # burn-in
    assert all(figures["pseudo_share"] > 0 for figures in seen[1:])
    with pytest.raises(KilledError):
        run("cut", kill_at(3))  # one step after the checkpoint: that step is lost and done again
    assert same(whole, run("cut"))
    assert [row["step"] for row in read_log(tmp_path / "cut" / "log.csv")] == ["4"]


def test_pseudo_labels_change_what_is_learnt(tmp_path: Path) -> None:
    """Or the test above would compare two runs that never heard the teacher."""
    runs = [
        train(
            [shifted_scene(5, -3)], [], replace(SMALL, steps=2), tmp_path / name, learner=LEARNER,
            unlabelled=unlabelled,
        )
        for name, unlabelled in (("with", [unlabelled_scene(-4, 6)]), ("without", []))
    ]  # fmt: skip
    assert not same(*runs)


def test_a_resumed_run_takes_back_the_lines_of_the_log_that_it_does_again(tmp_path: Path) -> None:
    plan = replace(LABELS_ONLY, steps=4, evaluate_every=1)

    def run(progress: Callable[[int, dict[str, float]], None] | None = None) -> None:
        train(
            [shifted_scene(5, -3)], [shifted_scene(2, 2)], plan, tmp_path, learner=Known(), progress=progress
        )

    with pytest.raises(KilledError):
        run(kill_at(3))  # one step after the checkpoint
    run()
    rows = read_log(tmp_path / "log.csv")
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["cmr1_48"] for row in rows] == ["0.5"] * 4
    with (tmp_path / "log.csv").open(newline="") as file:
        assert (csv.DictReader(file).fieldnames or [])[:3] == ["step", "rate", "loss"]


class Known(CrosstieLearner):
    """Held-out figures that never change: fast, and nothing that patience could wait for."""

    def __init__(self) -> None:
        super().__init__(search_px=16, sizes_px=(64, 48))

    def figures(self, network: Any, scenes: Any, draws: Any, device: str) -> dict[str, float]:
        return {"median_48": 3.0, "cmr1_48": 0.5}


def test_training_stops_when_the_watched_figure_rises_no_more(tmp_path: Path) -> None:
    plan = replace(LABELS_ONLY, steps=50, evaluate_every=1, patience=2)
    steps: list[int] = []
    scenes, held_out = [shifted_scene(5, -3)], [shifted_scene(2, 2)]
    train(scenes, held_out, plan, tmp_path, learner=Known(), progress=lambda step, _: steps.append(step))
    assert steps == [1, 2, 3]  # the best, and two that are no better


def test_a_figure_that_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    plan = replace(LABELS_ONLY, evaluate_every=1, patience=2, watched="cmr1_64")
    with pytest.raises(SettingsError, match=r"no figure 'cmr1_64'.*cmr1_48"):
        train([shifted_scene(5, -3)], [shifted_scene(2, 2)], plan, tmp_path, learner=Known())


def test_an_observer_sees_the_averaged_network_at_each_evaluation(tmp_path: Path) -> None:
    plan = replace(LABELS_ONLY, steps=3, evaluate_every=2)
    seen: list[tuple[int, dict[str, float], Any]] = []
    network = train(
        [shifted_scene(5, -3)], [shifted_scene(2, 2)], plan, tmp_path, learner=Known(),
        observe=lambda *told: seen.append(told),
    )  # fmt: skip
    assert [step for step, _, _ in seen] == [2, 3]
    assert seen[-1][1]["cmr1_48"] == 0.5
    assert seen[-1][2] is network


def test_a_run_is_not_continued_with_another_plan(tmp_path: Path) -> None:
    scenes = [shifted_scene(5, -3)]
    train(scenes, [], replace(LABELS_ONLY, steps=1), tmp_path, learner=LEARNER)
    with pytest.raises(SettingsError, match="seed 0, not 1"):
        train(scenes, [], replace(LABELS_ONLY, seed=1), tmp_path, learner=LEARNER)
    with pytest.raises(SettingsError, match=r"target_sigma_px 0\.8, not 1\.0"):
        train(scenes, [], LABELS_ONLY, tmp_path, learner=replace(LEARNER, target_sigma_px=1.0))
    train(scenes, [], replace(LABELS_ONLY, steps=2), tmp_path, learner=LEARNER)  # longer is allowed


def test_what_cannot_be_learnt_from_is_refused(tmp_path: Path) -> None:
    scene, unlabelled = shifted_scene(5, -3), unlabelled_scene(1, 1)
    with pytest.raises(SettingsError, match="nothing to learn from"):
        train([], [], SMALL, tmp_path, learner=LEARNER)
    with pytest.raises(SettingsError, match="nothing to learn from"):
        train([], [], SMALL, tmp_path, learner=LEARNER, unlabelled=[unlabelled])
    with pytest.raises(SettingsError, match="80 px are too small for the templates; they need 96"):
        train([scene], [], replace(SMALL, crop_px=80), tmp_path, learner=LEARNER)
    with pytest.raises(SettingsError, match=r"256 x 256 px, less than unlabelled_crop_px \(272\)"):
        train(
            [scene], [], replace(SMALL, unlabelled_crop_px=272), tmp_path, learner=LEARNER,
            unlabelled=[unlabelled],
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_without_a_label_it_goes_on_from_weights(tmp_path: Path) -> None:
    start = load(None).network.state_dict()  # random weights teach nothing: turned, they say something else
    plan = replace(SMALL, steps=2, burn_in=0, accumulate=1)
    unlabelled = [unlabelled_scene(-4, 6)]
    found = train([], [], plan, tmp_path, learner=LEARNER, unlabelled=unlabelled, start_from=start)
    moved = [float((tensor - start[name]).abs().max()) for name, tensor in found.named_parameters()]
    # The teacher is the slow average from the first step on: 2 steps of Adam, 0.5 % of each.
    assert 0 < max(moved) < 3 * 0.005 * plan.rate_at(1) * 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"burn_in": -1}, "burn_in"),
        ({"crop_px": 100}, "multiple of 16"),
    ],
)
def test_a_plan_refuses_nonsense(wrong: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainingPlan(**wrong)


def test_examples_are_the_same_each_time_and_their_maps_are_probabilities() -> None:
    network = LEARNER.build().eval()
    first, again = (LEARNER.examples(network, [shifted_scene(2, 2)], SMALL.draws, "cpu") for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.template, b.template)
        for surface in (a.deep, a.shallow, a.combined):
            assert surface.shape == (33, 33)
            assert float(surface.sum()) == pytest.approx(1, abs=1e-4)
        # What the picture marks as the truth is where the template really lies in the search.
        x, y = (round(value) for value in a.truth_px)
        there = a.search[16 + y : 16 + y + len(a.template), 16 + x : 16 + x + len(a.template)]
        assert np.corrcoef(a.template.ravel(), there.ravel())[0, 1] > 0.8
