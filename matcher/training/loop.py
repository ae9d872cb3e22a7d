"""Semi-supervised training: labelled and unlabelled batches in one loop. Seeded, resumable, with a log.

Arrays only. `crosstie.matcher.training.learner` says what a configuration learns from a batch.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crosstie.errors import SettingsError
from crosstie.matcher.training.examples import Example
from crosstie.matcher.training.held_out import Draws
from crosstie.matcher.training.plan import TrainingPlan
from crosstie.matcher.training.run_folder import (
    Learning,
    RunState,
    add_log_row,
    begin_run,
    resume,
    save_checkpoint,
)
from crosstie.matcher.training.samples import CropBatch, TrainingScene, draw_batch
from crosstie.matcher.training.unlabelled import UnlabelledScene, Views, draw_views
from crosstie.types import Kind


class Learner(Protocol):
    """What one configuration of the matcher brings to the loop: a network, and losses on it."""

    @property
    def least_crop_px(self) -> int:
        """Smallest side of a labelled crop, px."""

    def build(self) -> Any:
        """A new network with random weights."""

    def prepare(self, plane: NDArray[np.floating], kind: Kind) -> NDArray[np.float32]:
        """Network input (rows, cols) from luminance or dB, NaN where invalid."""

    def labelled_loss(self, network: Any, batch: CropBatch, rng: np.random.Generator, device: str) -> Tensor:
        """Loss of a batch whose offsets are known."""

    def unlabelled_loss(
        self, network: Any, teacher: Any, views: Views, rng: np.random.Generator, device: str
    ) -> tuple[Tensor, float]:
        """Loss, and the share of pairs whose pseudo-label was learnt from."""

    def figures(
        self, network: Any, scenes: Sequence[TrainingScene], draws: Draws, device: str
    ) -> dict[str, float]:
        """What the network reaches on places never learnt from."""

    def examples(
        self, network: Any, scenes: Sequence[TrainingScene], draws: Draws, device: str
    ) -> list[Example]:
        """A few crops of those places, and how probable the network finds each offset there."""


Observe = Callable[[int, dict[str, float], Any], None]
"""Called with the step, its figures and the averaged network; it changes none of them."""


@dataclass(frozen=True, slots=True)
class _Step:
    """Batches of one step."""

    number: int
    labelled: tuple[CropBatch, ...]
    unlabelled: tuple[Views, ...]


def train(
    scenes: Sequence[TrainingScene],
    held_out: Sequence[TrainingScene],
    plan: TrainingPlan,
    folder: Path,
    *,
    learner: Learner,
    unlabelled: Sequence[UnlabelledScene] = (),
    start_from: dict[str, Tensor] | None = None,
    device: str = "cpu",
    progress: Callable[[int, dict[str, float]], None] | None = None,
    observe: Observe | None = None,
) -> Any:
    """Train and return the averaged network.

    `folder` receives `checkpoint.pt` (a run that finds one resumes from it), `log.csv` and
    `plan.json`. On the CPU a resumed run ends with the same weights as an uninterrupted one.

    Parameters
    ----------
    scenes, held_out : Sequence[TrainingScene]
        Places to learn from, and places never learnt from that the log is evaluated on; no `scenes` at all is
        allowed where `unlabelled` pairs and weights to start from are given.
    unlabelled : Sequence[UnlabelledScene]
        Pairs whose offset is unknown.
    start_from : dict[str, Tensor] | None
        Weights to go on from (state dict); random ones without.
    progress : Callable[[int, dict[str, float]], None] | None
        Called after each step with the step and its figures.
    observe : Observe | None
        Called after each evaluation, and at the same steps where no place is held out.

    Raises
    ------
    SettingsError
        `folder` holds a run with another plan (only `steps` may differ), crops too small for the learner or
        images too small for the crops, nothing to learn from, or no such figure to watch.
    """
    _check_data(scenes, unlabelled, plan, learner, start_from)
    begin_run(folder, _plan_record(plan, learner))
    learning = _begin(plan, learner, start_from, device)
    resume(folder, learning, device)
    learning.network.train()
    state = learning.state
    means: dict[str, float] = {}
    began, first = time.monotonic(), state.step
    for step in _steps(scenes, unlabelled, plan, learner, first):
        if plan.patience and state.evaluations_since_best >= plan.patience:
            break
        now = _learn(learning, step, plan, learner, device)
        # Random weights are soon forgotten; those that a run starts from are the teacher.
        young = 1.0 if start_from is not None else (1 + step.number) / (10 + step.number)
        _update_average(learning.average, learning.network, min(plan.average_decay, young))
        for name, value in now.items():
            means[name] = value if name not in means else 0.95 * means[name] + 0.05 * value
        done = state.step = step.number + 1
        figures = means | {"seconds_per_step": (time.monotonic() - began) / (done - first)}
        evaluated = done % plan.evaluate_every == 0 or done == plan.steps
        if evaluated and held_out:
            figures |= learner.figures(learning.average, held_out, plan.draws, device)
            _watch(state, figures, plan)
        if done % 10 == 0 or evaluated:
            add_log_row(folder, done, plan.rate_at(done - 1), figures)
        if done % plan.checkpoint_every == 0 or done == plan.steps:
            save_checkpoint(folder, learning)
        if evaluated and observe is not None:
            observe(done, figures, learning.average)
        if progress is not None:
            progress(done, figures)
    return learning.average


def _check_data(
    scenes: Sequence[TrainingScene],
    unlabelled: Sequence[UnlabelledScene],
    plan: TrainingPlan,
    learner: Learner,
    start_from: dict[str, Tensor] | None,
) -> None:
    """Refuse crops, images and data that nothing can be learnt from."""
    if plan.crop_px < learner.least_crop_px:
        raise SettingsError(
            f"crops of {plan.crop_px} px are too small for the templates; they need {learner.least_crop_px}"
        )
    if not scenes and (not unlabelled or start_from is None):
        raise SettingsError(
            "nothing to learn from: give labelled scenes, or unlabelled pairs and weights to start from"
        )
    smallest = min((scene.sar_db.shape for scene in unlabelled), key=min, default=(plan.unlabelled_crop_px,))
    if min(smallest) < plan.unlabelled_crop_px:
        raise SettingsError(
            f"an unlabelled pair has {' x '.join(map(str, smallest))} px, less than unlabelled_crop_px "
            f"({plan.unlabelled_crop_px}); leave such pairs out, or make the crops smaller"
        )


def _plan_record(plan: TrainingPlan, learner: Learner) -> dict[str, Any]:
    """Plan and learner as JSON holds them."""
    record: dict[str, Any] = json.loads(
        json.dumps(asdict(plan) | {"learner": type(learner).__name__} | asdict(learner))  # type: ignore[call-overload]
    )
    return record


def _begin(
    plan: TrainingPlan, learner: Learner, start_from: dict[str, Tensor] | None, device: str
) -> Learning:
    """Network, its average and its optimiser before the first step."""
    torch.manual_seed(plan.seed)
    network = learner.build()
    if start_from is not None:
        network.load_state_dict(start_from)
    network.to(device).to(memory_format=torch.channels_last)
    average = deepcopy(network).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    return Learning(network, average, optimiser, RunState())


def _learn(
    learning: Learning, step: _Step, plan: TrainingPlan, learner: Learner, device: str
) -> dict[str, float]:
    """One optimiser step over the batches of `step`; returns its losses."""
    network, optimiser = learning.network, learning.optimiser
    for group in optimiser.param_groups:
        group["lr"] = plan.rate_at(step.number)
    found: dict[str, float] = {}
    optimiser.zero_grad(set_to_none=True)
    for n, batch in enumerate(step.labelled):
        rng = np.random.default_rng((plan.seed, step.number, 1, n))
        loss = learner.labelled_loss(network, batch, rng, device) / plan.accumulate
        if loss.requires_grad:  # else the truth of no template was known
            loss.backward()  # type: ignore[no-untyped-call]
        found["loss"] = found.get("loss", 0.0) + float(loss.detach())
    for n, views in enumerate(step.unlabelled):
        rng = np.random.default_rng((plan.seed, step.number, 2, n))
        loss, kept = learner.unlabelled_loss(network, learning.average, views, rng, device)
        if loss.requires_grad:  # else the teacher was sure of nothing
            (loss * plan.unlabelled_weight_at(step.number) / len(step.unlabelled)).backward()  # type: ignore[no-untyped-call]
        found["unlabelled_loss"] = found.get("unlabelled_loss", 0.0) + float(loss.detach()) / len(
            step.unlabelled
        )
        found["pseudo_share"] = found.get("pseudo_share", 0.0) + kept / len(step.unlabelled)
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return found


def _watch(state: RunState, figures: dict[str, float], plan: TrainingPlan) -> None:
    """Note whether the figure that `patience` waits for has risen."""
    if plan.patience and plan.watched not in figures:
        raise SettingsError(f"watched: there is no figure {plan.watched!r}; there are {', '.join(figures)}")
    value = figures.get(plan.watched, -math.inf)
    if value > state.best:
        state.best, state.evaluations_since_best = value, 0
    else:
        state.evaluations_since_best += 1


def _steps(
    scenes: Sequence[TrainingScene],
    unlabelled: Sequence[UnlabelledScene],
    plan: TrainingPlan,
    learner: Learner,
    start: int,
) -> Iterator[_Step]:
    """Batches drawn ahead in a thread, each from its own seed: a resumed run sees the same batches."""

    def draw(step: int) -> _Step:
        labelled = [
            draw_batch(
                scenes,
                np.random.default_rng((plan.seed, step, 3, n)),
                size=plan.batch,
                crop_px=plan.crop_px,
                jitter_px=plan.jitter_px,
                prepare=learner.prepare,
            )
            for n in range(plan.accumulate if scenes else 0)
        ]
        asked = unlabelled and plan.unlabelled_batch and step >= plan.burn_in
        views = [
            draw_views(
                unlabelled,
                np.random.default_rng((plan.seed, step, 4, n)),
                size=plan.unlabelled_batch,
                crop_px=plan.unlabelled_crop_px,
                jitter_px=plan.unlabelled_jitter_px,
                prepare=learner.prepare,
            )
            for n in range(plan.accumulate * plan.unlabelled_rounds if asked else 0)
        ]
        return _Step(step, tuple(labelled), tuple(views))

    with ThreadPoolExecutor(1) as pool:
        pending = [pool.submit(draw, s) for s in range(start, min(start + 2, plan.steps))]
        for following in range(start + 2, plan.steps + 2):
            if not pending:
                break
            step = pending.pop(0).result()
            if following < plan.steps:
                pending.append(pool.submit(draw, following))
            yield step


@torch.no_grad()
def _update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average a little towards the network."""
    for a, b in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if a.dtype.is_floating_point:
            a.lerp_(b, 1 - decay)
        else:
            a.copy_(b)
