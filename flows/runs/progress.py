"""Report the progress of a run: to nobody, to a terminal as bars, or to a log as lines."""

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

RUN_LINE_EVERY_S = 30.0
"""Time between two log lines about the whole run, seconds."""


class RunListener(Protocol):
    """Receives the progress of a run; called from several threads."""

    def tiles(self, pair: str, done: int, planned: int) -> None:
        """`done` of the `planned` tiles of a pair are matched."""

    def finished(self, pair: str, text: str) -> None:
        """A pair has ended; `text` says how in a few words."""

    def run(self, tally: Tally) -> None:
        """The counts of the whole run have changed."""


class SilentListener:
    """For programs, which read the result instead."""

    def tiles(self, pair: str, done: int, planned: int) -> None:
        del pair, done, planned

    def finished(self, pair: str, text: str) -> None:
        del pair, text

    def run(self, tally: Tally) -> None:
        del tally


class LogListener:
    """For logs and pipes: a line when a pair begins and when it ends, and one about the run now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun: set[str] = set()
        self._last_line_s = time.monotonic()

    def tiles(self, pair: str, done: int, planned: int) -> None:
        del done
        if pair not in self._begun:
            self._begun.add(pair)
            self._say(f"{pair}: {planned} tiles to match")

    def finished(self, pair: str, text: str) -> None:
        self._begun.discard(pair)
        self._say(f"{pair}: {text}")

    def run(self, tally: Tally) -> None:
        if time.monotonic() - self._last_line_s >= RUN_LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            self._say(tally.line())

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)


class BarListener:
    """For terminals: one bar for the run, and one for each pair under way."""

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


_RUN_LISTENER: ContextVar[RunListener | None] = ContextVar("crosstie_listener", default=None)
"""A context variable: a listener cannot be passed through Prefect, whose threads inherit the context."""


def run_listener() -> RunListener:
    """The listener of the run in this context."""
    return _RUN_LISTENER.get() or SilentListener()


@contextmanager
def report_run_to(console: Console) -> Iterator[None]:
    """Report runs inside this block to a console: as bars on a terminal, else as lines."""
    if not console.is_terminal:
        token = _RUN_LISTENER.set(LogListener(console))
        try:
            yield
        finally:
            _RUN_LISTENER.reset(token)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        token = _RUN_LISTENER.set(BarListener(progress))
        try:
            yield
        finally:
            _RUN_LISTENER.reset(token)
