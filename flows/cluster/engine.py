"""The engine on Dask: windows are read where there is room, and matched where the network is."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from distributed import Future, KilledWorker, as_completed
from distributed.scheduler import NoValidWorkerError

from crosstie.errors import NoWorkerError, WorkerLostError
from crosstie.flows.cluster.window_shares import Shares
from crosstie.flows.cluster.worker_tasks import (
    GPU,
    match_here,
    patch_here,
    plane_here,
    probability_here,
    read_here,
)
from crosstie.flows.cluster.workforce import WORKER_POLL_S, Workforce, workforce_of
from crosstie.flows.observe.run_metrics import RETRIES, UNDER_WAY, WINDOWS_DONE
from crosstie.flows.observe.tracing import trace_context
from crosstie.flows.registration import deadline
from crosstie.io.storage.href import public_href

if TYPE_CHECKING:
    from distributed import Client
    from odc.geo.geobox import GeoBox

    from crosstie.flows.registration.measure import MatchJob, Planes
    from crosstie.grid import Chunk
    from crosstie.io.raster import RasterSource
    from crosstie.types import Plane, TiePoints, Tile

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class OnCluster:
    """The workers behind a client that `crosstie.flows.cluster.connect.connected` has made, for one pair.

    Several pairs may work through one client at once, each in a thread of its own. A worker that dies costs
    what it held: Dask has that read and matched again by the others, or by one that comes.
    """

    client: Client

    def read(self, source: RasterSource, geobox: GeoBox) -> Plane:
        """Read a raster on a grid in a reader of this pair: it keeps what it fetches for the windows to come.

        Raises
        ------
        UnreadableRasterError : as `read_plane` raises it
        NoWorkerError : the scheduler is gone
        WorkerLostError : the workers die of it
        """
        workforce = workforce_of(self.client)
        try:
            future: Future[Any] = self.client.submit(
                plane_here,
                source,
                geobox,
                trace_context(),
                pure=False,
                workers=list(workforce.readers(self)[:1]),
                allow_other_workers=True,
            )
        except RuntimeError as problem:  # a client that has given up its scheduler
            raise workforce.lost(problem) from problem
        try:
            while True:
                deadline.check()
                with suppress(TimeoutError):
                    plane: Plane = future.result(WORKER_POLL_S)
                    return plane
        except CancelledError as problem:
            raise workforce.lost(problem) from problem
        except KilledWorker as problem:
            raise WorkerLostError(
                f"{problem.allowed_failures + 1} workers died that read {public_href(source.hrefs[0])}, the"
                f" last at {problem.last_worker.address}; its log says why"
            ) from problem

    def probabilities(self, job: MatchJob, spots: Sequence[Tile]) -> list[Plane]:
        """As in `Engine`.

        Raises
        ------
        NoWorkerError : nobody is left who can match, and none came in time
        WorkerLostError : the workers die of one of the spots
        """
        found = dict(self._walk(job, spots, patch_here, probability_here))
        return [found[n] for n in range(len(spots))]

    def match(self, job: MatchJob, work: Sequence[Chunk]) -> Iterator[tuple[Chunk, TiePoints]]:
        """As in `Engine`; raises what `probabilities` raises."""
        read = partial(read_here, halo_px=workforce_of(self.client).halo_px)
        for n, points in self._walk(job, work, read, match_here):
            yield work[n], points

    def _walk(
        self, job: MatchJob, work: Sequence[Any], read: Callable[..., Planes], measure: Callable[..., Any]
    ) -> Iterator[tuple[int, Any]]:
        """(position in `work`, result), as they come."""
        workforce, along = workforce_of(self.client), trace_context()

        def submit(n: int, reader: str) -> Future[Any]:
            # A reader that dies, or has its hands full, loses the window to another.
            planes = self.client.submit(
                read, job, work[n], along, pure=False, workers=[reader], allow_other_workers=True
            )
            needs = {GPU: 1, workforce.network: 1}
            return self.client.submit(
                measure, workforce.network, job, work[n], planes, along, pure=False, resources=needs
            )

        with workforce.shared():
            px = job.grid.shape[0] * job.grid.shape[1]
            readers = partial(workforce.readers, self, px=px)
            walk = _Walk(self.client, workforce, len(work), submit, readers)
            with UNDER_WAY.walking(walk):
                try:
                    yield from walk.results()
                finally:
                    walk.release()


class _Walk:
    """The windows of one pair: some under way, none lost, none in memory longer than it takes."""

    def __init__(
        self,
        client: Client,
        workforce: Workforce,
        count: int,
        submit: Callable[[int, str], Future[Any]],
        readers: Callable[[], Sequence[str]],
    ) -> None:
        self._client = client
        self._workforce = workforce
        self._submit = submit
        self._readers = readers
        self._left = count
        self._shares = Shares(count, len(readers()))
        self._completed = as_completed(with_results=True, loop=client.loop)
        self._under_way: dict[Future[Any], int] = {}
        self._suspects: deque[int] = deque()
        self._on_trial: int | None = None
        self._nobody_since: float | None = None

    def results(self) -> Iterator[tuple[int, Any]]:
        """(number of the window, what was measured in it), as they come."""
        self._fill()
        while self._left:
            deadline.check()
            found = [
                (n, result)
                for future, result in self._arrivals()
                if future in self._under_way and self._is_good(n := self._take(future), result)
            ]
            self._left -= len(found)
            WINDOWS_DONE.inc(len(found))
            self._fill()
            yield from found

    def depth(self) -> tuple[int, int]:
        """Windows not handed out yet, those to be tried again included, and windows with the workers."""
        under_way = len(self._under_way)
        return max(0, self._left - under_way), under_way

    def release(self) -> None:
        """Give back what is still under way: of a pair that failed, nobody wants the rest."""
        for future in self._under_way:
            future.release()
        self._under_way.clear()
        self._end_trial()

    def _fill(self) -> None:
        readers = self._readers()
        self._try_suspect(readers)
        room = self._workforce.allowance() - len(self._under_way)
        while room > 0 and readers and (share := self._shares.take(readers)) is not None:
            self._start(*share)
            room -= 1

    def _start(self, n: int, reader: str) -> None:
        try:
            future = self._submit(n, reader)
        except RuntimeError as problem:  # a client that has given up its scheduler
            raise self._workforce.lost(problem) from problem
        self._under_way[future] = n
        self._completed.add(future)

    def _arrivals(self) -> list[tuple[Future[Any], Any]]:
        """What has come; nothing, after a while, where nothing comes: then the workers are looked at."""
        with self._completed.thread_condition:
            if not self._completed.has_ready():
                self._completed.thread_condition.wait(WORKER_POLL_S)
        arrived: list[tuple[Future[Any], Any]] = self._completed.next_batch(block=False)
        if arrived:
            self._nobody_since = None
        else:
            self._be_patient()
        return arrived

    def _be_patient(self) -> None:
        """Wait for a matching worker, for as long as the settings allow.

        Raises
        ------
        NoWorkerError : none came in time
        """
        for future in self._under_way:
            if future.status in {"error", "cancelled"}:
                # It failed while its result was on the way from a worker that died: `as_completed` drops it.
                self._completed.add(future)
        seen = self._workforce.seen(max_age_s=WORKER_POLL_S)
        self._take_from_the_dead(seen.readers)
        if seen.matchers:
            self._nobody_since = None
            return
        now = time.monotonic()
        self._nobody_since = self._nobody_since or now
        if now - self._nobody_since > self._workforce.gpu_wait_s:
            raise self._workforce.missing(self._workforce.gpu_wait_s)

    def _take_from_the_dead(self, readers: Sequence[str]) -> None:
        """Have others read what was given to a reader that has gone.

        Dask does so itself, unless there was a moment when nobody was left: what it cannot place then it
        does not place later either, where a worker was asked for by name.
        """
        for future, n in list(self._under_way.items()):
            if readers and self._shares.reader_of(n) not in readers:
                del self._under_way[future]
                future.release()
                self._start(n, self._shares.again(n, readers))

    def _take(self, future: Future[Any]) -> int:
        n = self._under_way.pop(future)
        self._shares.done(n)
        return n

    def _is_good(self, n: int, result: Any) -> bool:
        """Tell a result from a window that is to be tried again.

        By what was fetched: of a future whose worker has died since, the status is another by now.

        Raises
        ------
        NoWorkerError : nobody can do it
        WorkerLostError : its workers die of it
        """
        if isinstance(result, CancelledError):
            raise self._workforce.lost(result)
        if not isinstance(result, tuple):
            if n == self._on_trial:
                self._end_trial()
            return True
        _, problem, trace = result
        if isinstance(problem, NoValidWorkerError):
            raise NoWorkerError(f"Dask gave a window up: {problem}") from problem
        if not isinstance(problem, KilledWorker):
            raise problem.with_traceback(trace)
        if n == self._on_trial:
            raise WorkerLostError(
                f"window {n + 1} of this pair: each of {2 * (problem.allowed_failures + 1)} workers that had "
                f"it died, the last at {problem.last_worker.address}; its log says why (out of memory? then "
                "a smaller compute.chunk_px helps)"
            ) from problem
        LOG.warning("a window has lost %d workers; it is tried once more", problem.allowed_failures + 1)
        RETRIES.labels("window").inc()
        self._suspects.append(n)
        return False

    def _try_suspect(self, readers: Sequence[str]) -> None:
        """Try again, one at a time, what was with workers that died.

        Dask counts a death against all that a worker was given, the innocent included: only what kills its
        workers without company is to blame.
        """
        if not self._suspects or self._on_trial is not None or not readers:
            return
        if self._workforce.trial.acquire(blocking=False):
            self._on_trial = self._suspects.popleft()
            self._start(self._on_trial, self._shares.again(self._on_trial, readers))

    def _end_trial(self) -> None:
        if self._on_trial is not None:
            self._on_trial = None
            self._workforce.trial.release()
