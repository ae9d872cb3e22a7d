"""Looks at the archive again and again, in a thread; what was seen last stays until there is newer."""

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
"""Rest between two looks, at least so many times as long as the last one took: a large archive is not listed
without end."""

STOP_S = 2.0
"""How long a look under way is waited for at the end, seconds."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of the archive."""

    snapshot: Snapshot | None = None
    """The last good look; None before the first."""
    trouble: str | None = None
    """Why the last look failed; None where it did not."""
    failures: int = 0
    """Looks that failed since the start."""


class Watch:
    """As a context it looks once, and then every `every_s` seconds or less often."""

    def __init__(self, store: Store, *, every_s: float) -> None:
        self.store = store
        self._every_s = every_s
        self._seen = Seen()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    @property
    def seen(self) -> Seen:
        return self._seen

    @property
    def alive(self) -> bool:
        """Whether it still looks: a bug ends it, and the process is better started anew then."""
        return self._thread.is_alive()

    def look(self) -> float:
        """Look now; how long to rest afterwards, seconds."""
        before = self._seen
        try:
            snapshot = take_snapshot(self.store, before.snapshot)
        except StoreError as problem:
            if before.trouble is None:
                LOG.warning("the archive cannot be read, what was seen before stays: %s", problem)
            self._seen = Seen(before.snapshot, str(problem), before.failures + 1)
            return self._every_s
        if before.trouble is not None or before.snapshot is None:
            LOG.info("%d committed runs, read in %.1f s", snapshot.table.num_rows, snapshot.took_s)
        self._seen = Seen(snapshot, None, before.failures)
        return max(self._every_s, REST * snapshot.took_s)

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
