"""TensorBoard events, curves and heatmaps of a training run. They change nothing that is learnt."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

from crosstie.io.plots.training import curves_png, heatmaps_png
from crosstie.matcher.training.held_out import Draws
from crosstie.matcher.training.loop import Learner
from crosstie.matcher.training.run_folder import read_log
from crosstie.matcher.training.samples import TrainingScene

EVENT_EVERY_STEPS = 10
"""Steps between two events of a curve."""


class TrainingLog:
    """Writes `tensorboard/`, `curves.png` and `heatmaps.png` into a run's folder."""

    def __init__(
        self, folder: Path, learner: Learner, held_out: Sequence[TrainingScene], draws: Draws, device: str
    ) -> None:
        self._folder = folder
        self._learner = learner
        self._held_out = held_out
        self._draws = draws
        self._device = device
        self._writer: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def stepped(self, step: int, figures: Mapping[str, float]) -> None:
        """Write events now and then, and all of an evaluation."""
        if step % EVENT_EVERY_STEPS and not any(name.startswith(("median", "cmr")) for name in figures):
            return
        writer = self._events(step)
        for name, value in figures.items():
            group = "held_out" if name.startswith(("median", "cmr")) else "training"
            writer.add_scalar(f"{group}/{name}", value, step)

    def evaluated(self, step: int, figures: Mapping[str, float], network: Any) -> None:
        """Draw the curves up to now, and what the network sees on held-out places."""
        del figures  # they are in the log
        (self._folder / "curves.png").write_bytes(curves_png(read_log(self._folder / "log.csv")))
        if not self._held_out:
            return
        found = self._learner.examples(network, self._held_out, self._draws, self._device)
        drawn = heatmaps_png(f"Held-out places after step {step}", found)
        (self._folder / "heatmaps.png").write_bytes(drawn)
        pixels = np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB"))
        self._events(step).add_image("held_out/heatmaps", pixels, step, dataformats="HWC")

    def _events(self, step: int) -> Any:
        """The writer, made at the first event; events that a cut run wrote for later steps are hidden."""
        if self._writer is None:
            self._writer = SummaryWriter(str(self._folder / "tensorboard"), purge_step=step)
        return self._writer
