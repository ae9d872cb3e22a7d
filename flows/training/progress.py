"""Where the progress of a training run is shown: nowhere, as bars on a terminal, or as lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from rich.console import Console

LINE_EVERY_STEPS = 50
"""Steps between two lines of a log."""


class TrainingListener(Protocol):
    """Hears about a training run."""

    def mined(self, done: int, planned: int) -> None:
        """`done` of `planned` pairs of the catalog are mined."""

    def step(self, done: int, planned: int, figures: Mapping[str, float]) -> None:
        """`done` of `planned` steps are done."""

    def say(self, text: str) -> None:
        """A message for the user, one line."""


class SilentTraining:
    """For programs, which need the result only."""

    def mined(self, done: int, planned: int) -> None:
        del done, planned

    def step(self, done: int, planned: int, figures: Mapping[str, float]) -> None:
        del done, planned, figures

    def say(self, text: str) -> None:
        del text


class OnConsole:
    """Bars on a terminal; elsewhere a line now and then."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._first: tuple[int, float] | None = None

    def mined(self, done: int, planned: int) -> None:
        self._show("mine", done, planned, "")

    def step(self, done: int, planned: int, figures: Mapping[str, float]) -> None:
        shown = [f"{name} {figures[name]:.3f}" for name in ("loss", "unlabelled_loss") if name in figures]
        self._show("train", done, planned, ", ".join(shown))
        held_out = {name: value for name, value in figures.items() if name.startswith(("median", "cmr"))}
        if held_out:
            said = ", ".join(f"{name} {value:.3g}" for name, value in held_out.items())
            self.say(f"step {done}, held-out places: {said}")
        self._first = self._first or (done - 1, time.monotonic())
        if not self._bars.console.is_terminal and (done % LINE_EVERY_STEPS == 0 or done == planned):
            pace = (time.monotonic() - self._first[1]) / (done - self._first[0])
            left = timedelta(seconds=round(pace * (planned - done)))
            self.say(f"step {done} of {planned}, {', '.join(shown)}, {left} left")

    def say(self, text: str) -> None:
        self._bars.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def _show(self, name: str, done: int, planned: int, text: str) -> None:
        if name not in self._tasks:  # a resumed run begins where it is, or its pace would be wrong
            self._tasks[name] = self._bars.add_task(name, total=planned, completed=done, text=text)
        self._bars.update(self._tasks[name], completed=done, total=planned, text=text)


_TRAINING_LISTENER: ContextVar[TrainingListener | None] = ContextVar(
    "crosstie_training_listener", default=None
)
"""A context variable, as in `crosstie.flows.runs.progress`: a listener may not cross a Prefect border."""


def training_listener() -> TrainingListener:
    """The listener of this context."""
    return _TRAINING_LISTENER.get() or SilentTraining()


@contextmanager
def report_training_to(console: Console) -> Iterator[None]:
    """Show the training runs of this block on a console."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        token = _TRAINING_LISTENER.set(OnConsole(bars))
        try:
            yield
        finally:
            _TRAINING_LISTENER.reset(token)
