"""Reads the archive again and again in a thread, and keeps the last good reading."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crosstie.errors import StoreError
from crosstie.flows.site.snapshot import Snapshot, take_snapshot

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from crosstie.io.storage.store import Store

LOG = logging.getLogger("crosstie.site")

REST = 3.0
"""Least rest between two readings, as a multiple of the last one's length, so that a large archive is not
listed without end."""

STOP_S = 2.0
"""How long to wait for a reading under way when the service stops, seconds."""


@dataclass(frozen=True, slots=True)
class LastReading:
    """The last reading of the archive."""

    snapshot: Snapshot | None = None
    """The last good one; None before the first."""
    problem: str | None = None
    """Why the last reading failed; None if it succeeded."""
    failures: int = 0
    """Number of failed readings since the start."""


class Watch:
    """Context manager that reads once, and then every `every_s` seconds or less often."""

    def __init__(self, store: Store, *, every_s: float) -> None:
        self.store = store
        self.every_s = every_s
        self._seen = LastReading()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    @property
    def seen(self) -> LastReading:
        return self._seen

    @property
    def alive(self) -> bool:
        """Whether the thread runs. A bug ends it, and the process should be restarted then."""
        return self._thread.is_alive()

    def look(self) -> float:
        """Read now; return how long to rest afterwards, seconds."""
        before = self._seen
        try:
            snapshot = take_snapshot(self.store, before.snapshot)
        except StoreError as problem:
            if before.problem is None:
                LOG.warning("the archive cannot be read, the last reading is kept: %s", problem)
            self._seen = LastReading(before.snapshot, str(problem), before.failures + 1)
            return self.every_s
        if before.problem is not None or before.snapshot is None:
            LOG.info("%d committed runs, read in %.1f s", snapshot.table.num_rows, snapshot.took_s)
        self._seen = LastReading(snapshot, None, before.failures)
        return max(self.every_s, REST * snapshot.took_s)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(STOP_S)

    def _run(self) -> None:
        rest_s = self.look()
        while not self._over.wait(rest_s):
            rest_s = self.look()
