"""Report the progress of a run: to nobody, to a terminal as bars, or to a log as lines."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from crosstie.flows.runs.in_words import counted
from crosstie.flows.runs.pace import PairPace

if TYPE_CHECKING:
    from rich.console import Console

    from crosstie.flows.registration.phases import Phase
    from crosstie.flows.runs.tally import Tally

LINE_EVERY_S = 30.0
"""Time between two log lines about the whole run, or about one pair, seconds."""

NAME_SHARE = 3
"""A name takes at most one part in so many of a terminal's width; two scene ids have 130 letters."""


class RunListener(Protocol):
    """Receives the progress of a run; called from several threads."""

    def phase(self, pair: str, phase: Phase) -> None:
        """A pair has come to the next phase."""

    def tiles(self, pair: str, done: int, planned: int) -> None:
        """`done` of the `planned` tiles of a pair are matched."""

    def finished(self, pair: str, text: str) -> None:
        """A pair has ended; `text` says how in a few words."""

    def run(self, tally: Tally) -> None:
        """The counts of the whole run have changed."""


class SilentListener:
    """For programs, which read the result instead."""

    def phase(self, pair: str, phase: Phase) -> None:
        del pair, phase

    def tiles(self, pair: str, done: int, planned: int) -> None:
        del pair, done, planned

    def finished(self, pair: str, text: str) -> None:
        del pair, text

    def run(self, tally: Tally) -> None:
        del tally


class LogListener:
    """For logs and pipes: a line when a pair begins and ends; now and then one about each, and about all."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._paces: defaultdict[str, PairPace] = defaultdict(PairPace)
        self._begun: set[str] = set()
        self._last_line_s: dict[str, float] = {}
        self._last_run_line_s = time.monotonic()

    def phase(self, pair: str, phase: Phase) -> None:
        self._paces[pair].begin(phase, now_s=time.monotonic())
        self._say_now_and_then(pair)

    def tiles(self, pair: str, done: int, planned: int) -> None:
        self._paces[pair].count_tiles(done, planned)
        if pair not in self._begun:
            self._begun.add(pair)
            self._last_line_s[pair] = time.monotonic()
            self._say(f"{pair}: {counted(planned, 'tile')} to match")
        self._say_now_and_then(pair)

    def finished(self, pair: str, text: str) -> None:
        self._begun.discard(pair)
        self._paces.pop(pair, None)
        self._last_line_s.pop(pair, None)
        self._say(f"{pair}: {text}")

    def run(self, tally: Tally) -> None:
        if time.monotonic() - self._last_run_line_s >= LINE_EVERY_S:
            self._last_run_line_s = time.monotonic()
            self._say(tally.line())

    def _say_now_and_then(self, pair: str) -> None:
        now_s = time.monotonic()
        if now_s - self._last_line_s.setdefault(pair, now_s) >= LINE_EVERY_S:
            self._last_line_s[pair] = now_s
            self._say(f"{pair}: {self._paces[pair].text(now_s)}")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)


class BarListener:
    """For terminals: one bar for the run, and one for each pair under way."""

    def __init__(self, progress: Progress, *, before: str | None = None) -> None:
        """Begin.

        Parameters
        ----------
        progress : rich.progress.Progress
        before : str, optional
            What is done until the counts of the run are known; None where there is no run.
        """
        self._progress = progress
        self._bars: dict[str, TaskID] = {}
        self._paces: defaultdict[str, PairPace] = defaultdict(PairPace)
        self._run: TaskID | None = None
        self._lock = threading.Lock()
        if before is not None:
            self._run = progress.add_task(before, total=None, said="")

    def phase(self, pair: str, phase: Phase) -> None:
        with self._lock:
            self._paces[pair].begin(phase, now_s=time.monotonic())
            self._draw(pair)

    def tiles(self, pair: str, done: int, planned: int) -> None:
        with self._lock:
            self._paces[pair].count_tiles(done, planned)
            self._draw(pair)

    def finished(self, pair: str, text: str) -> None:
        with self._lock:
            self._paces.pop(pair, None)
            bar = self._bars.pop(pair, None)
            if bar is not None:
                self._progress.remove_task(bar)
        self._progress.console.print(f"{pair}: {text}", highlight=False, soft_wrap=True, markup=False)

    def run(self, tally: Tally) -> None:
        expected = round(tally.expected)
        with self._lock:
            if self._run is None:
                self._run = self._progress.add_task("", total=expected, said="")
            left = "" if tally.left is None else f", {tally.left} left"
            self._progress.update(
                self._run,
                description="all pairs",
                completed=tally.over,
                total=expected,
                said=f"{tally.over} of {counted(expected, 'pair')}{left}",
            )

    def _draw(self, pair: str) -> None:
        if pair not in self._bars:
            name = shortened(pair, self._progress.console.width // NAME_SHARE)
            self._bars[pair] = self._progress.add_task(name, total=None, said="")
        pace = self._paces[pair]
        self._progress.update(
            self._bars[pair],
            completed=pace.done,
            total=pace.planned or None,
            said=pace.text(time.monotonic()),
        )


def shortened(name: str, most: int) -> str:
    """Cut the middle out of a name that is longer than `most` letters: both ends tell scenes apart."""
    if len(name) <= most:
        return name
    end = (most - 1) // 2
    return f"{name[: most - 1 - end]}…{name[len(name) - end :]}"


_RUN_LISTENER: ContextVar[RunListener | None] = ContextVar("crosstie_listener", default=None)
"""A context variable: a listener cannot be passed through Prefect, whose threads inherit the context."""


def run_listener() -> RunListener:
    """The listener of the run in this context."""
    return _RUN_LISTENER.get() or SilentListener()


@contextmanager
def report_run_to(console: Console, *, before: str | None = None) -> Iterator[None]:
    """Report runs inside this block to a console: as bars on a terminal, else as lines.

    Parameters
    ----------
    console : rich.console.Console
    before : str, optional
        What a terminal shows until the counts of the run are known.
    """
    if not console.is_terminal:
        with _heard_by(LogListener(console)):
            yield
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[said]}", markup=False),
        TimeElapsedColumn(),
    )
    with (
        Progress(*columns, console=console, transient=True) as progress,
        _heard_by(BarListener(progress, before=before)),
    ):
        yield


@contextmanager
def _heard_by(listener: RunListener) -> Iterator[None]:
    token = _RUN_LISTENER.set(listener)
    try:
        yield
    finally:
        _RUN_LISTENER.reset(token)
