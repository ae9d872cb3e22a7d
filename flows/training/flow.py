"""`crosstie train --flow`: the stages of a training run as tasks of a Prefect flow.

Arrays never cross a task's border: mining leaves its tiles on disk, training its weights.
"""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from crosstie.flows.training.checks import check_settings
from crosstie.flows.training.handover import hand_over, handover_line
from crosstie.flows.training.progress import training_listener
from crosstie.flows.training.train import mine, train_and_save
from crosstie.train_settings import TrainSettings

TRAIN_TABLE_KEY = "crosstie-train"


def hand_over_and_say(settings: TrainSettings) -> str:
    """Promote the new weights if they are better; say in one line what became of those in use."""
    decision = hand_over(settings)
    line = "nothing was to be replaced" if decision is None else handover_line(settings, decision)
    training_listener().say(line)
    return line


mine_task = task(name="mine unlabelled tiles", cache_policy=NO_CACHE)(mine)
train_task = task(name="train and calibrate", cache_policy=NO_CACHE)(train_and_save)
hand_over_task = task(name="compare and promote", cache_policy=NO_CACHE)(hand_over_and_say)


@flow(name="crosstie-train", persist_result=False)
def training(settings: TrainSettings) -> dict[str, float]:
    """Mine, train and hand over; returns the figures on the held-out places."""
    check_settings(settings)
    pairs = mine_task(settings)
    figures: dict[str, float] = train_task(settings)
    line = hand_over_task(settings)
    rows: list[dict[str, Any]] = [
        {"figure": name, "value": f"{value:.4f}"} for name, value in figures.items()
    ]
    create_table_artifact(
        [*rows, {"figure": "pairs mined", "value": str(pairs)}, {"figure": "weights in use", "value": line}],
        key=TRAIN_TABLE_KEY,
        description=f"{settings.weights_path}, on places never learnt from",
    )
    return figures
