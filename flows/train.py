"""Train a matcher on labelled scenes: read, train, calibrate on held-out places, write weights and card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from crosstie.errors import SettingsError
from crosstie.flows.loading import keep_freed_memory
from crosstie.io.labelled import LabelledScene, read_labelled
from crosstie.matcher.held_out import Draws, calibrate, measure
from crosstie.matcher.samples import TrainingScene
from crosstie.matcher.training import TrainingPlan, train
from crosstie.matcher.weights import save


def train_on_scenes(
    folders: Sequence[Path],
    out: Path,
    plan: TrainingPlan,
    *,
    hold_out_east_m: float,
    device: str = "auto",
    calibration_batches: int = 60,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Train, calibrate and save; a run that was cut goes on from its last checkpoint.

    Parameters
    ----------
    folders : labelled scenes (`crosstie.io.labelled`), all in one CRS
    out : receives `checkpoint.pt`, `log.csv`, `plan.json` and, at the end, `crosstie.safetensors`
    calibration_batches : batches of held-out crops that the confidence is fitted on
    hold_out_east_m : places east of this easting are never learnt from; confidence is calibrated on them

    Returns
    -------
    Figures on the held-out places: median error (px), CMR@1/2, expected calibration error.

    Raises
    ------
    UnreadableRasterError : a scene cannot be read
    SettingsError : the line leaves no place on one of its sides
    """
    keep_freed_memory()
    labelled = [read_labelled(folder) for folder in folders]
    scenes = [_places(scene, scene.centres_m[:, 0] <= hold_out_east_m) for scene in labelled]
    held_out = [_places(scene, scene.centres_m[:, 0] > hold_out_east_m) for scene in labelled]
    scenes, held_out = ([s for s in part if len(s.centres_px)] for part in (scenes, held_out))
    if not scenes or not held_out:
        side = "train on" if not scenes else "hold out"
        raise SettingsError(
            f"hold-out line at easting {hold_out_east_m:g} m leaves no place to {side}; move it"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    network = train(scenes, held_out, plan, out, device=device, progress=progress)
    draws = Draws(plan.crop_px, plan.search_px, plan.jitter_px)
    calibration, calibration_error = calibrate(
        network, held_out, draws, batches=calibration_batches, device=device
    )
    measured = measure(
        network,
        held_out,
        draws,
        sizes_px=(192, 128, 64),
        batches=calibration_batches // 3,
        seed=777,
        device=device,
    )
    figures = {name: v for size in (192, 128, 64) for name, v in measured.figures(size).items()}
    figures["calibration_error"] = calibration_error
    facts = {
        "plan": str(asdict(plan)),
        "scenes": ", ".join(folder.name for folder in folders),
        "hold_out_east_m": f"{hold_out_east_m:.0f}",
    }
    figures_text = {name: f"{value:.4f}" for name, value in figures.items()}
    save(out / "crosstie.safetensors", network.cpu(), calibration, facts=facts | figures_text)
    return figures


def _places(scene: LabelledScene, mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> TrainingScene:
    return TrainingScene(
        optical_rgb=scene.optical_rgb,
        optical_valid=scene.optical_valid,
        sar_db=scene.sar_db,
        truth_px=scene.truth_px,
        truth_step_px=scene.truth_step_px,
        centres_px=scene.centres_px[mask],
    )
