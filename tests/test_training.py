from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_land import shifted_scene

from crosstie.errors import SettingsError
from crosstie.matcher.training import TrainingPlan, gaussian_target, train

SMALL = TrainingPlan(
    steps=6, batch=2, crop_px=128, search_px=16, jitter_px=12, sizes_px=(64, 48), evaluate_every=100,
    checkpoint_every=3,
)  # fmt: skip


def test_target_sums_to_one_and_peaks_at_the_offset() -> None:
    target = gaussian_target(torch.tensor([[3.2, -5.0]]), 16, 0.8)[0]
    assert float(target.sum()) == pytest.approx(1, abs=1e-6)
    row, col = divmod(int(target.argmax()), 33)
    assert (col - 16, row - 16) == (3, -5)


@pytest.mark.slow
def test_loss_falls_on_land_that_both_images_show_alike(tmp_path: Path) -> None:
    losses: list[float] = []
    plan = replace(SMALL, steps=25, learning_rate=4e-3)
    train([shifted_scene(5, -3)], [], plan, tmp_path, progress=lambda _, f: losses.append(f["loss"]))
    assert losses[-1] < losses[0] - 0.4
    assert (tmp_path / "log.csv").read_text().count("\n") >= 3


def test_a_resumed_run_ends_with_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    scenes = [shifted_scene(5, -3)]
    whole = train(scenes, [], SMALL, tmp_path / "whole")

    class KilledError(Exception):
        pass

    def kill_at_4(step: int, _: dict[str, float]) -> None:
        if step == 4:  # one step after the checkpoint: that step is lost and done again
            raise KilledError

    with pytest.raises(KilledError):
        train(scenes, [], SMALL, tmp_path / "cut", progress=kill_at_4)
    resumed = train(scenes, [], SMALL, tmp_path / "cut")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_run_is_not_continued_with_another_plan(tmp_path: Path) -> None:
    scenes = [shifted_scene(5, -3)]
    train(scenes, [], replace(SMALL, steps=1), tmp_path)
    with pytest.raises(SettingsError, match="seed 0, not 1"):
        train(scenes, [], replace(SMALL, seed=1), tmp_path)
    train(scenes, [], replace(SMALL, steps=2), tmp_path)  # longer is allowed


def test_a_plan_whose_templates_do_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="192 px do not fit a crop of 200 px"):
        TrainingPlan(crop_px=200)
