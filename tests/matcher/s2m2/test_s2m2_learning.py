from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_land import shifted_scene

from crosstie.matcher.s2m2.learner import S2M2Learner, mass_at_peak, middle
from crosstie.matcher.s2m2.settings import S2M2Settings
from crosstie.matcher.training.loop import train
from crosstie.matcher.training.plan import TrainingPlan
from crosstie.matcher.training.samples import CropBatch, draw_batch
from crosstie.matcher.training.unlabelled import UnlabelledScene, Views, draw_views
from crosstie.types import Kind

GUARDED = S2M2Learner(settings=S2M2Settings.mended("small"), template_px=64, search_px=16)
UNGUARDED = replace(GUARDED, settings=S2M2Settings.published("small"), guarded=False)


def batch_of(learner: S2M2Learner) -> CropBatch:
    rng = np.random.default_rng(0)
    return draw_batch(
        [shifted_scene(5, -3)], rng, size=2, crop_px=96, jitter_px=6, augmented=False, prepare=learner.prepare
    )


def views_of(learner: S2M2Learner) -> Views:
    scene = shifted_scene(5, -3)
    pair = UnlabelledScene(scene.optical_rgb, scene.optical_valid, scene.sar_db, scene.centres_px)
    return draw_views(
        [pair], np.random.default_rng(0), size=2, crop_px=96, jitter_px=6, prepare=learner.prepare
    )


def test_raw_input_is_the_grey_value_that_was_stored() -> None:
    """8-bit SAR is read as power and logged; the published network gets the 8-bit value back."""
    grey = np.arange(1, 256, dtype=np.float64).reshape(15, 17)
    np.testing.assert_allclose(UNGUARDED.prepare(10 * np.log10(grey), Kind.SAR), grey, rtol=0, atol=1e-3)
    np.testing.assert_allclose(UNGUARDED.prepare(grey / 255, Kind.OPTICAL), grey, rtol=0, atol=1e-3)


def test_middle_of_a_lattice_is_its_value_at_the_centre_of_the_crop() -> None:
    ramp = np.arange(8, dtype=np.float32)
    lattice = np.broadcast_to(ramp, (1, 2, 8, 8)).copy()
    assert middle(lattice).tolist() == [[3.5, 3.5]]
    assert middle(lattice[..., :7, :7]).tolist() == [[3.0, 3.0]]


def test_mass_at_the_peak_is_what_lies_within_two_pixels() -> None:
    heatmap = torch.zeros(1, 33, 33)
    heatmap[0, 16 - 3, 16 + 5], heatmap[0, 16 - 3, 16 + 7], heatmap[0, 0, 0] = 0.5, 0.2, 0.3
    assert float(mass_at_peak(heatmap, torch.tensor([[5.0, -3.0]]))) == pytest.approx(0.7)


@pytest.mark.parametrize("learner", [GUARDED, UNGUARDED], ids=["guarded", "unguarded"])
def test_both_losses_teach_every_weight(learner: S2M2Learner) -> None:
    torch.manual_seed(0)
    network = learner.build()
    rng = np.random.default_rng(0)
    loss = learner.labelled_loss(network, batch_of(learner), rng, "cpu")
    eager = replace(learner, least_confidence=0.0)
    unlabelled, share = eager.unlabelled_loss(network, network, views_of(learner), rng, "cpu")
    (loss + unlabelled).backward()
    assert share == 1
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_unknown_truth_teaches_nothing_but_independence() -> None:
    network = GUARDED.build()
    batch = batch_of(GUARDED)
    unknown = CropBatch(batch.reference, batch.secondary, np.full_like(batch.truth_px, np.nan))
    alone = replace(GUARDED, settings=replace(GUARDED.settings, independence=False)).build()
    alone.load_state_dict(network.state_dict())
    rng = np.random.default_rng(0)
    assert float(GUARDED.labelled_loss(alone, unknown, rng, "cpu").detach()) == 0
    assert float(GUARDED.labelled_loss(network, unknown, rng, "cpu").detach()) > 0


def test_a_doubtful_teacher_teaches_nothing() -> None:
    """Random weights are sure of nothing: no pseudo-label passes the guard."""
    strict = replace(GUARDED, least_confidence=1.01, settings=replace(GUARDED.settings, independence=False))
    network = strict.build()
    loss, share = strict.unlabelled_loss(network, network, views_of(strict), np.random.default_rng(0), "cpu")
    assert (float(loss.detach()), share) == (0.0, 0.0)


@pytest.mark.slow
def test_the_small_network_learns_in_the_common_loop(tmp_path: Path) -> None:
    scene = shifted_scene(5, -3)
    pair = UnlabelledScene(scene.optical_rgb, scene.optical_valid, scene.sar_db, scene.centres_px)
    plan = TrainingPlan(
        steps=8, batch=2, unlabelled_batch=2, burn_in=4, crop_px=96, unlabelled_crop_px=96, search_px=16,
        jitter_px=8, unlabelled_jitter_px=6, learning_rate=2e-3, evaluate_every=8, watched="cmr1_64",
    )  # fmt: skip
    seen: list[dict[str, float]] = []
    train([scene], [scene], plan, tmp_path, learner=GUARDED, unlabelled=[pair],
          progress=lambda _, figures: seen.append(figures))  # fmt: skip
    assert seen[-1]["loss"] < seen[0]["loss"]
    assert "unlabelled_loss" not in seen[3]
    assert "unlabelled_loss" in seen[4]
    assert seen[-1]["cmr1_64"] > 0.9
