"""Semi-supervised training: labelled and unlabelled batches in one loop. Seeded, resumable, with a log.

Arrays only. `crosstie.matcher.training.learner` says what a configuration learns from a batch.
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
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crosstie.errors import SettingsError
from crosstie.matcher.training.examples import Example
from crosstie.matcher.training.held_out import Draws
from crosstie.matcher.training.samples import Batch, TrainingScene, draw_batch
from crosstie.matcher.training.unlabelled import UnlabelledScene, Views, draw_views
from crosstie.types import Kind


class Learner(Protocol):
    """What one configuration of the matcher brings to the loop: a network, and losses on it."""

    @property
    def least_crop_px(self) -> int: ...

    def build(self) -> Any:
        """A new network with random weights."""

    def prepare(self, plane: NDArray[np.floating], kind: Kind) -> NDArray[np.float32]:
        """Network input (rows, cols) from luminance or dB, NaN where invalid."""

    def labelled_loss(self, network: Any, batch: Batch, rng: np.random.Generator, device: str) -> Tensor: ...

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


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """All that decides what comes out of a training run, beside the data and the learner."""

    steps: int = 2600
    """Optimiser steps in all."""
    batch: int = 8
    """Labelled crops a step."""
    unlabelled_rounds: int = 1
    """Unlabelled batches for each labelled one."""
    unlabelled_batch: int = 6
    """Unlabelled crops a step, once `burn_in` is over."""
    burn_in: int = 700
    """Steps before the teacher is asked: what knows nothing must not teach."""
    unlabelled_weight: float = 0.5
    """Of the loss on pseudo-labels; it rises to this over 200 steps after `burn_in`."""
    accumulate: int = 1
    """Batches whose gradients are added before each optimiser step."""
    learning_rate: float = 2e-3
    """Peak, after 50 steps of warm-up; it falls to zero over the last 30 % of the steps."""
    weight_decay: float = 1e-2
    seed: int = 0
    """Of the first weights and of all that is drawn; the same seed gives the same weights on a CPU."""
    crop_px: int = 288
    """Side of the labelled crops, a multiple of 16."""
    unlabelled_crop_px: int = 224
    """Smaller than the labelled ones: archives of chips of 256 px leave 16 px to move in."""
    search_px: int = 32
    """How far an offset is searched per axis, px."""
    jitter_px: int = 24
    """Known extra shift, drawn uniformly per axis: a network that sticks to zero learns nothing."""
    unlabelled_jitter_px: int = 16
    """Known shift of each of the two views, drawn uniformly per axis."""
    average_decay: float = 0.995
    """Of the exponential moving average of the weights, which teaches, and which is what is saved."""
    evaluate_every: int = 200
    """Steps between measurements on the held-out places."""
    checkpoint_every: int = 50
    """Steps that a killed run loses at most."""
    patience: int = 0
    """Evaluations without a better `watched` figure before training stops early; 0 for never."""
    watched: str = "cmr1_64"
    """Held-out figure that `patience` waits for; larger is better."""

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "batch",
            "accumulate",
            "crop_px",
            "search_px",
            "evaluate_every",
            "checkpoint_every",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("unlabelled_batch", "burn_in", "jitter_px", "unlabelled_jitter_px", "patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("crop_px", "unlabelled_crop_px"):
            if getattr(self, name) % 16:
                raise ValueError(f"{name} must be a multiple of 16, got {getattr(self, name)}")

    def rate_at(self, step: int) -> float:
        """Learning rate at `step`: warm-up, plateau, linear fall (so that a run can be extended)."""
        fall = max(1, round(0.3 * self.steps))
        return self.learning_rate * min(1.0, (step + 1) / 50, (self.steps - step) / fall)

    def unlabelled_weight_at(self, step: int) -> float:
        return self.unlabelled_weight * min(1.0, max(0.0, (step - self.burn_in + 1) / 200))

    @property
    def draws(self) -> Draws:
        return Draws(self.crop_px, self.search_px, self.jitter_px)


LOGGED = (
    *("step", "rate", "loss", "unlabelled_loss", "pseudo_share", "seconds_per_step"),
    *(f"{figure}_{size}" for size in (192, 128, 64) for figure in ("median", "cmr1", "cmr2")),
)
"""First columns of `log.csv`; other figures of a learner follow."""

Observe = Callable[[int, dict[str, float], Any], None]
"""Called with the step, its figures and the averaged network; it changes none of them."""


@dataclass(slots=True)
class _State:
    """What a checkpoint holds beside the tensors."""

    step: int = 0
    best: float = -math.inf
    evaluations_since_best: int = 0


@dataclass(frozen=True, slots=True)
class _Step:
    number: int
    labelled: tuple[Batch, ...]
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

    `folder` receives `checkpoint.pt` (to resume from; a run that finds one goes on with it), `log.csv` and
    `plan.json`. On the CPU a resumed run ends with the same weights as an uninterrupted one.

    Parameters
    ----------
    scenes, held_out : places to learn from, and places never learnt from that the log is evaluated on; no
        `scenes` at all is allowed where `unlabelled` pairs and weights to start from are given
    unlabelled : pairs whose offset nobody knows
    start_from : weights to go on from (state dict); random ones without
    progress : called after each step with the step and its figures
    observe : called after each evaluation, or where one would be were any place held out

    Raises
    ------
    SettingsError : `folder` holds a run with another plan (only `steps` may differ), crops too small for the
        learner or images too small for the crops, nothing to learn from, or no such figure to watch
    """
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
    folder.mkdir(parents=True, exist_ok=True)
    _same_run(folder, plan, learner)
    (folder / "plan.json").write_text(json.dumps(_described(plan, learner), indent=1))
    torch.manual_seed(plan.seed)
    network = learner.build()
    if start_from is not None:
        network.load_state_dict(start_from)
    network.to(device).to(memory_format=torch.channels_last)
    average = deepcopy(network).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay)
    state = _resume(folder / "checkpoint.pt", network, average, optimiser, device)

    network.train()
    means: dict[str, float] = {}
    began, first = time.monotonic(), state.step
    for step in _steps(scenes, unlabelled, plan, learner, first):
        if plan.patience and state.evaluations_since_best >= plan.patience:
            break
        for group in optimiser.param_groups:
            group["lr"] = plan.rate_at(step.number)
        now = _learn(network, average, optimiser, step, plan, learner, device)
        # Random weights are soon forgotten; those that a run starts from are the teacher.
        young = 1.0 if start_from is not None else (1 + step.number) / (10 + step.number)
        _update_average(average, network, min(plan.average_decay, young))
        for name, value in now.items():
            means[name] = value if name not in means else 0.95 * means[name] + 0.05 * value
        done = state.step = step.number + 1
        figures = means | {"seconds_per_step": (time.monotonic() - began) / (done - first)}
        evaluated = done % plan.evaluate_every == 0 or done == plan.steps
        if evaluated and held_out:
            figures |= learner.figures(average, held_out, plan.draws, device)
            _watch(state, figures, plan)
        if done % 10 == 0 or evaluated:
            _log(folder / "log.csv", plan, done, figures)
        if done % plan.checkpoint_every == 0 or done == plan.steps:
            _save(folder / "checkpoint.pt", network, average, optimiser, state)
        if evaluated and observe is not None:
            observe(done, figures, average)
        if progress is not None:
            progress(done, figures)
    return average


def _learn(
    network: nn.Module,
    average: nn.Module,
    optimiser: torch.optim.Optimizer,
    step: _Step,
    plan: TrainingPlan,
    learner: Learner,
    device: str,
) -> dict[str, float]:
    """One optimiser step over the batches of `step`."""
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
        loss, kept = learner.unlabelled_loss(network, average, views, rng, device)
        if loss.requires_grad:  # else the teacher was sure of nothing
            (loss * plan.unlabelled_weight_at(step.number) / len(step.unlabelled)).backward()  # type: ignore[no-untyped-call]
        found["unlabelled_loss"] = found.get("unlabelled_loss", 0.0) + float(loss.detach()) / len(
            step.unlabelled
        )
        found["pseudo_share"] = found.get("pseudo_share", 0.0) + kept / len(step.unlabelled)
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return found


def _watch(state: _State, figures: dict[str, float], plan: TrainingPlan) -> None:
    if plan.patience and plan.watched not in figures:
        raise SettingsError(f"watched: there is no figure {plan.watched!r}; there are {', '.join(figures)}")
    value = figures.get(plan.watched, -math.inf)
    if value > state.best:
        state.best, state.evaluations_since_best = value, 0
    else:
        state.evaluations_since_best += 1


def _described(plan: TrainingPlan, learner: Learner) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(
        json.dumps(asdict(plan) | {"learner": type(learner).__name__} | asdict(learner))  # type: ignore[call-overload]
    )
    return described


def _same_run(folder: Path, plan: TrainingPlan, learner: Learner) -> None:
    """Refuse to go on with a run of another plan: its weights would be of neither."""
    path = folder / "plan.json"
    if not (path.exists() and (folder / "checkpoint.pt").exists()):
        return
    before = json.loads(path.read_text())
    now = _described(plan, learner)
    other = [name for name in now if name != "steps" and before.get(name) != now[name]]
    if other:
        said = ", ".join(f"{name} {before.get(name)}, not {now[name]}" for name in other)
        raise SettingsError(f"{folder}: holds a run with {said}; choose another folder, or remove it")


def _steps(
    scenes: Sequence[TrainingScene],
    unlabelled: Sequence[UnlabelledScene],
    plan: TrainingPlan,
    learner: Learner,
    start: int,
) -> Iterator[_Step]:
    """Batches drawn ahead in a thread, each from its own seed: a resumed run sees what it would have seen."""

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
    for a, b in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if a.dtype.is_floating_point:
            a.lerp_(b, 1 - decay)
        else:
            a.copy_(b)


def _resume(
    path: Path, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, device: str
) -> _State:
    if not path.exists():
        return _State()
    saved = torch.load(path, map_location=device, weights_only=True)
    network.load_state_dict(saved["network"])
    average.load_state_dict(saved["average"])
    optimiser.load_state_dict(saved["optimiser"])
    return _State(**saved["state"])


def _save(
    path: Path, network: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, state: _State
) -> None:
    """Write beside and rename: a run killed while saving keeps its last good checkpoint."""
    partial = path.with_suffix(".partial")
    saved = {
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "state": asdict(state),
    }
    torch.save(saved, partial)
    partial.replace(path)


def _log(path: Path, plan: TrainingPlan, step: int, figures: dict[str, float]) -> None:
    """Add one row; held-out figures stay empty where there was no evaluation.

    Written anew each time: new figures are new columns, and a resumed run takes back what it does again.
    """
    rows = [row for row in read_log(path) if int(row["step"]) < step]
    rounded = {name: f"{value:.5g}" for name, value in figures.items()}
    rows.append({"step": str(step), "rate": f"{plan.rate_at(step - 1):.3g}", **rounded})
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(
            file, list(dict.fromkeys([*LOGGED, *(n for row in rows for n in row)])), restval=""
        )
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)


def read_log(path: Path) -> list[dict[str, str]]:
    """Rows of a `log.csv`, oldest first; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
