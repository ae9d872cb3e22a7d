"""Supervised training of the matching network: seeded, resumable, with a log. Arrays only.

The loss is the cross-entropy between softmax(scale * correlation) and a Gaussian around the sub-pixel truth,
for templates of several sizes cut from the same dense features, so that one network serves every tile size.
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from crosstie.errors import SettingsError
from crosstie.matcher.held_out import Draws, measure
from crosstie.matcher.network import MatchingNetwork
from crosstie.matcher.placement import place, to_tensor
from crosstie.matcher.samples import Batch, TrainingScene, draw_batch
from crosstie.types import Kind


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """All that decides what comes out of a training run."""

    steps: int = 1300
    """Optimiser steps in all."""
    batch: int = 8
    """Crops a step."""
    learning_rate: float = 2e-3
    """Peak, after 50 steps of warm-up; it falls to zero over the last 30 % of the steps."""
    weight_decay: float = 1e-2
    seed: int = 0
    crop_px: int = 288
    search_px: int = 32
    jitter_px: int = 24
    """Known extra shift, drawn uniformly per axis: a network that sticks to zero learns nothing."""
    sizes_px: tuple[int, ...] = (192, 128, 96, 64, 64)
    """Template sides; one loss term each, every step."""
    target_sigma_px: float = 0.8
    """Width of the Gaussian target; about the noise of the truth."""
    average_decay: float = 0.995
    """Of the exponential moving average of the weights, which is what is saved."""
    evaluate_every: int = 200
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        room = self.crop_px - 2 * self.search_px
        if max(self.sizes_px) > room:
            raise ValueError(f"templates of {max(self.sizes_px)} px do not fit a crop of {self.crop_px} px")

    @property
    def reported_sizes_px(self) -> tuple[int, int]:
        """Template sides that held-out figures are given for: the largest and the smallest."""
        return max(self.sizes_px), min(self.sizes_px)

    def rate_at(self, step: int) -> float:
        """Learning rate at `step`: warm-up, plateau, linear fall (so that a run can be extended)."""
        fall = max(1, round(0.3 * self.steps))
        return self.learning_rate * min(1.0, (step + 1) / 50, (self.steps - step) / fall)


def train(
    scenes: Sequence[TrainingScene],
    held_out: Sequence[TrainingScene],
    plan: TrainingPlan,
    folder: Path,
    *,
    device: str = "cpu",
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> MatchingNetwork:
    """Train and return the averaged network.

    `folder` receives `checkpoint.pt` (to resume from; a run that finds one goes on with it), `log.csv` and
    `plan.json`. On the CPU a resumed run ends with the same weights as an uninterrupted one.

    Parameters
    ----------
    scenes, held_out : places to learn from, and places never learnt from that the log is evaluated on
    progress : called after each step with the step and its figures

    Raises
    ------
    SettingsError : `folder` holds a run with another plan; only `steps` may differ
    """
    folder.mkdir(parents=True, exist_ok=True)
    _same_run(folder, plan)
    (folder / "plan.json").write_text(json.dumps(asdict(plan), indent=1))
    torch.manual_seed(plan.seed)
    network = MatchingNetwork()
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = deepcopy(network).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    checkpoint = folder / "checkpoint.pt"
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        start = int(state["step"])

    network.train()
    loss_mean = math.nan
    began = time.monotonic()
    for step, batch in _batches(scenes, plan, start):
        for group in optimiser.param_groups:
            group["lr"] = plan.rate_at(step)
        loss = batch_loss(network, batch, plan, np.random.default_rng((plan.seed, step, 1)), device)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        _update_average(average, network, min(plan.average_decay, (1 + step) / (10 + step)))

        value = float(loss.detach())
        loss_mean = value if math.isnan(loss_mean) else 0.95 * loss_mean + 0.05 * value
        figures = {"loss": loss_mean, "seconds_per_step": (time.monotonic() - began) / (step - start + 1)}
        done = step + 1
        if held_out and (done % plan.evaluate_every == 0 or done == plan.steps):
            figures |= evaluate_held_out(average, held_out, plan, device)
        if done % 10 == 0 or done == plan.steps:
            _log(folder / "log.csv", plan, done, figures)
        if done % plan.checkpoint_every == 0 or done == plan.steps:
            _save(checkpoint, network, average, optimiser, done)
        if progress is not None:
            progress(done, figures)
    return average


def _same_run(folder: Path, plan: TrainingPlan) -> None:
    """Refuse to go on with a run of another plan: its weights would be of neither."""
    path = folder / "plan.json"
    if not (path.exists() and (folder / "checkpoint.pt").exists()):
        return
    before = json.loads(path.read_text())
    now = json.loads(json.dumps(asdict(plan)))
    other = [name for name in now if name != "steps" and before.get(name) != now[name]]
    if other:
        said = ", ".join(f"{name} {before.get(name)}, not {now[name]}" for name in other)
        raise SettingsError(f"{folder}: holds a run with {said}; choose another folder, or remove it")


def batch_loss(
    network: MatchingNetwork, batch: Batch, plan: TrainingPlan, rng: np.random.Generator, device: str
) -> Tensor:
    """Mean cross-entropy over template sizes; templates with unknown truth carry no weight."""
    # bfloat16 doubles the speed on CPUs and GPUs that know it; correlations stay in float32.
    with torch.autocast(device.partition(":")[0], dtype=torch.bfloat16):
        reference = network.features(to_tensor(batch.reference, device), Kind.OPTICAL)
        secondary = network.features(to_tensor(batch.secondary, device), Kind.SAR)
    truth = torch.from_numpy(batch.truth_px).to(device)
    total = torch.zeros((), device=device)
    for size in plan.sizes_px:
        surface, target = place(reference, secondary, truth, rng, size_px=size, search_px=plan.search_px)
        known = torch.isfinite(target).all(1) & (target.abs() < plan.search_px - 1).all(1)
        if not known.any():
            continue
        log_p = torch.log_softmax(surface[known].flatten(1) * network.logit_scale(size), dim=1)
        gaussian = gaussian_target(target[known], plan.search_px, plan.target_sigma_px).flatten(1)
        total = total - (gaussian * log_p).sum(1).mean()
    return total / len(plan.sizes_px)


def gaussian_target(offset_px: Tensor, search_px: int, sigma_px: float) -> Tensor:
    """Probability (B, 2R + 1, 2R + 1) of each integer offset, a Gaussian round (B, 2) dx, dy; sums to one."""
    axis = torch.arange(-search_px, search_px + 1, device=offset_px.device)
    x = torch.exp(-0.5 * ((axis[None] - offset_px[:, :1]) / sigma_px) ** 2)
    y = torch.exp(-0.5 * ((axis[None] - offset_px[:, 1:]) / sigma_px) ** 2)
    product = y[:, :, None] * x[:, None, :]
    return product / product.sum(dim=(1, 2), keepdim=True)


def evaluate_held_out(
    network: MatchingNetwork, scenes: Sequence[TrainingScene], plan: TrainingPlan, device: str
) -> dict[str, float]:
    """Median error and CMR@1/2 (px) at the largest and the smallest size; always the same draws."""
    sizes = plan.reported_sizes_px
    draws = Draws(plan.crop_px, plan.search_px, plan.jitter_px)
    measured = measure(network, scenes, draws, sizes_px=sizes, batches=8, device=device)
    return {name: value for size in sizes for name, value in measured.figures(size).items()}


def _batches(scenes: Sequence[TrainingScene], plan: TrainingPlan, start: int) -> Iterator[tuple[int, Batch]]:
    """Batches drawn ahead in a thread, each from its own seed: a resumed run sees what it would have seen."""

    def draw(step: int) -> Batch:
        rng = np.random.default_rng((plan.seed, step))
        return draw_batch(scenes, rng, size=plan.batch, crop_px=plan.crop_px, jitter_px=plan.jitter_px)

    with ThreadPoolExecutor(1) as pool:
        pending = [(s, pool.submit(draw, s)) for s in range(start, min(start + 2, plan.steps))]
        while pending:
            step, future = pending.pop(0)
            batch = future.result()
            if step + 2 < plan.steps:
                pending.append((step + 2, pool.submit(draw, step + 2)))
            yield step, batch


@torch.no_grad()
def _update_average(average: MatchingNetwork, network: MatchingNetwork, decay: float) -> None:
    for a, b in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if a.dtype.is_floating_point:
            a.lerp_(b, 1 - decay)
        else:
            a.copy_(b)


def _save(
    path: Path,
    network: MatchingNetwork,
    average: MatchingNetwork,
    optimiser: torch.optim.Optimizer,
    step: int,
) -> None:
    """Write beside and rename: a run killed while saving keeps its last good checkpoint."""
    partial = path.with_suffix(".partial")
    state = {
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
    }
    torch.save(state, partial)
    partial.replace(path)


def _log(path: Path, plan: TrainingPlan, step: int, figures: dict[str, float]) -> None:
    """Append one line; held-out figures stay empty where there was no evaluation."""
    names = ["step", "rate", "loss", "seconds_per_step"]
    names += [f"{figure}_{size}" for size in plan.reported_sizes_px for figure in ("median", "cmr1", "cmr2")]
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        if new:
            writer.writeheader()
        rounded = {name: f"{value:.5g}" for name, value in figures.items()}
        writer.writerow({"step": step, "rate": f"{plan.rate_at(step - 1):.3g}", **rounded})
