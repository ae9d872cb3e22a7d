"""Who is told how far a run is: nobody, a terminal with bars, or a log with lines."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from rich.console import Console

    from crosstie.flows.runs.tally import Tally

EVERY_S = 30.0
"""Time between two lines of a log about the whole run, seconds."""


class Listener(Protocol):
    """Hears about every pair; called from several threads."""

    def tiles(self, pair: str, done: int, planned: int) -> None:
        """So many tiles of a pair are matched."""

    def finished(self, pair: str, text: str) -> None:
        """A pair is over; `text` says how, in a few words."""

    def run(self, tally: Tally) -> None:
        """How far the whole run is."""


class Silent:
    """For programs: the result says it all."""

    def tiles(self, pair: str, done: int, planned: int) -> None:
        del pair, done, planned

    def finished(self, pair: str, text: str) -> None:
        del pair, text

    def run(self, tally: Tally) -> None:
        del tally


class Lines:
    """For logs and pipes: a line when a pair begins and one when it ends; now and then one about the run."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun: set[str] = set()
        self._told = time.monotonic()

    def tiles(self, pair: str, done: int, planned: int) -> None:
        del done
        if pair not in self._begun:
            self._begun.add(pair)
            self._say(f"{pair}: {planned} tiles to match")

    def finished(self, pair: str, text: str) -> None:
        self._begun.discard(pair)
        self._say(f"{pair}: {text}")

    def run(self, tally: Tally) -> None:
        if time.monotonic() - self._told >= EVERY_S:
            self._told = time.monotonic()
            self._say(tally.line())

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)


class Bars:
    """For terminals: one bar for the run, and one a pair under way."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}
        self._run: TaskID | None = None
        self._lock = threading.Lock()

    def tiles(self, pair: str, done: int, planned: int) -> None:
        with self._lock:
            if pair not in self._bars:
                self._bars[pair] = self._progress.add_task(pair, total=planned, unit="tiles")
            self._progress.update(self._bars[pair], completed=done, total=planned)

    def finished(self, pair: str, text: str) -> None:
        with self._lock:
            bar = self._bars.pop(pair, None)
            if bar is not None:
                self._progress.remove_task(bar)
        self._progress.console.print(f"{pair}: {text}", highlight=False, soft_wrap=True, markup=False)

    def run(self, tally: Tally) -> None:
        expected = round(tally.expected)
        with self._lock:
            if self._run is None:
                self._run = self._progress.add_task("all pairs", total=expected, unit="pairs")
            about = "" if tally.left is None else f", {tally.left} left"
            self._progress.update(self._run, completed=tally.over, total=expected, unit=f"pairs{about}")


_LISTENER: ContextVar[Listener | None] = ContextVar("crosstie_listener", default=None)
"""A context variable, because a listener is no value that may cross a Prefect border, and Prefect's threads
inherit the context."""


def listener() -> Listener:
    """Who listens to the run in this context."""
    return _LISTENER.get() or Silent()


@contextmanager
def report_progress_to(console: Console) -> Iterator[None]:
    """Tell the runs inside this block to a console: bars where it is a terminal, lines where not."""
    if not console.is_terminal:
        token = _LISTENER.set(Lines(console))
        try:
            yield
        finally:
            _LISTENER.reset(token)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        token = _LISTENER.set(Bars(progress))
        try:
            yield
        finally:
            _LISTENER.reset(token)
