"""What a training run keeps in its folder, to go on from and to look at: plan, checkpoint and log."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from crosstie.errors import SettingsError

CHECKPOINT, PLAN, LOG_CSV = "checkpoint.pt", "plan.json", "log.csv"
"""Names of the files."""

LOG_COLUMNS = (
    *("step", "rate", "loss", "unlabelled_loss", "pseudo_share", "seconds_per_step"),
    *(f"{figure}_{size}" for size in (192, 128, 64) for figure in ("median", "cmr1", "cmr2")),
)
"""First columns of `log.csv`; other figures of a learner follow."""


@dataclass(slots=True)
class RunState:
    """What a checkpoint holds beside the tensors."""

    step: int = 0
    """Steps that are done."""
    best: float = -math.inf
    """Best figure that was watched."""
    evaluations_since_best: int = 0


@dataclass(frozen=True, slots=True)
class Learning:
    """All that a step of training changes."""

    network: nn.Module
    average: nn.Module
    """Exponential moving average of `network`: the teacher, and what is saved in the end."""
    optimiser: torch.optim.Optimizer
    state: RunState


def begin_run(folder: Path, plan: Mapping[str, Any]) -> None:
    """Make the folder of a run and write its plan there.

    Parameters
    ----------
    folder : Path
        New, or of a run that was cut short.
    plan : Mapping[str, Any]
        All that decides what is learnt, as JSON holds it.

    Raises
    ------
    SettingsError
        The folder holds a run with another plan: only `steps` may differ.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PLAN
    if path.exists() and (folder / CHECKPOINT).exists():
        before = json.loads(path.read_text())
        other = [name for name in plan if name != "steps" and before.get(name) != plan[name]]
        if other:
            said = ", ".join(f"{name} {before.get(name)}, not {plan[name]}" for name in other)
            raise SettingsError(f"{folder}: holds a run with {said}; choose another folder, or remove it")
    path.write_text(json.dumps(plan, indent=1))


def resume(folder: Path, learning: Learning, device: str) -> None:
    """Go on where the checkpoint of a run was written, if there is one."""
    path = folder / CHECKPOINT
    if not path.exists():
        return
    saved = torch.load(path, map_location=device, weights_only=True)
    learning.network.load_state_dict(saved["network"])
    learning.average.load_state_dict(saved["average"])
    learning.optimiser.load_state_dict(saved["optimiser"])
    for name, value in saved["state"].items():
        setattr(learning.state, name, value)


def save_checkpoint(folder: Path, learning: Learning) -> None:
    """Write beside and rename: a run killed while saving keeps its last good checkpoint."""
    path = folder / CHECKPOINT
    partial = path.with_suffix(".partial")
    saved = {
        "network": learning.network.state_dict(),
        "average": learning.average.state_dict(),
        "optimiser": learning.optimiser.state_dict(),
        "state": asdict(learning.state),
    }
    torch.save(saved, partial)
    partial.replace(path)


def add_log_row(folder: Path, step: int, rate: float, figures: Mapping[str, float]) -> None:
    """Add one row to the log; held-out figures stay empty where there was no evaluation.

    The file is written anew each time: new figures are new columns, and a resumed run takes back what it does
    again.
    """
    path = folder / LOG_CSV
    rows = [row for row in read_log(path) if int(row["step"]) < step]
    rounded = {name: f"{value:.5g}" for name, value in figures.items()}
    rows.append({"step": str(step), "rate": f"{rate:.3g}", **rounded})
    columns = list(dict.fromkeys([*LOG_COLUMNS, *(name for row in rows for name in row)]))
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)


def read_log(path: Path) -> list[dict[str, str]]:
    """Rows of a `log.csv`, oldest first; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
