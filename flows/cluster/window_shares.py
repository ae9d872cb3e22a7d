"""Which reader reads which window: one reader gets neighbours, and its block cache serves their overlap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise


class Shares:
    """Divides the windows of a scene, in row order, into one run for each reader.

    Readers may come and go. A new or idle reader takes half of the longest run; the run of a reader that has
    gone is taken over.

    Parameters
    ----------
    count : int
        Number of windows of the scene.
    readers : int
        Number of readers at the start.
    """

    def __init__(self, count: int, readers: int) -> None:
        parts = max(1, min(count, readers))
        ends = [count * n // parts for n in range(parts + 1)]
        self._free = [range(*span) for span in pairwise(ends) if span[0] < span[1]]
        self._run: dict[str, range] = {}
        self._reader: dict[int, str] = {}
        self._busy: Counter[str] = Counter()

    def take(self, readers: Sequence[str]) -> tuple[int, str] | None:
        """Take the next window for the reader with the fewest under way; None where all have been taken."""
        self._forget_all_but(readers)
        reader = min(readers, key=lambda name: self._busy[name])
        run = self._run.get(reader) or self._another_run()
        if not run:
            return None
        self._run[reader] = run[1:]
        self._give(run[0], reader)
        return run[0], reader

    def again(self, window: int, readers: Sequence[str]) -> str:
        """Choose the reader of a window that must be read once more."""
        self.done(window)
        reader = min(readers, key=lambda name: self._busy[name])
        self._give(window, reader)
        return reader

    def reader_of(self, window: int) -> str:
        """Reader that was given a window that is under way."""
        return self._reader[window]

    def done(self, window: int) -> None:
        """Note that a window is no longer under way."""
        reader = self._reader.pop(window, None)
        if reader is not None and self._busy[reader]:
            self._busy[reader] -= 1

    def _give(self, window: int, reader: str) -> None:
        self._reader[window] = reader
        self._busy[reader] += 1

    def _another_run(self) -> range:
        if self._free:
            return self._free.pop(0)
        longest = max(self._run, key=lambda name: len(self._run[name]), default=None)
        if longest is None:
            return range(0)
        run = self._run[longest]
        self._run[longest] = run[: len(run) // 2]
        return run[len(run) // 2 :]

    def _forget_all_but(self, readers: Sequence[str]) -> None:
        for gone in self._run.keys() - set(readers):
            if run := self._run.pop(gone):
                self._free.append(run)
            del self._busy[gone]
