"""The engine on Dask: windows are read by any worker, and matched by workers that hold the network."""

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

from crosstie.errors import NoWorkerError, StoreError, WorkerLostError
from crosstie.flows.cluster.window_shares import Shares
from crosstie.flows.cluster.worker_tasks import (
    GPU,
    align_here,
    draw_here,
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
    from crosstie.io.products.aligned import AlignTask
    from crosstie.io.products.drawing import Drawn, DrawTask
    from crosstie.io.raster import RasterSource
    from crosstie.io.storage.store import StoredFile
    from crosstie.types import Plane, TiePoints, Tile

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class OnCluster:
    """Works for one pair on the workers of a client that `crosstie.flows.cluster.connect.connected` has made.

    Several pairs may use one client at once, each in a thread of its own. When a worker dies, Dask has the
    windows that it held read and matched again by other workers.
    """

    client: Client

    def read(self, source: RasterSource, geobox: GeoBox) -> Plane:
        """Read a raster on a grid in a reader of this pair, which keeps what it fetches for later windows.

        Raises
        ------
        UnreadableRasterError
            As raised by `read_plane`.
        NoWorkerError
            The scheduler does not answer any more.
        WorkerLostError
            The workers that read it die.
        """
        doing = f"read {public_href(str(source.hrefs[0]))}"
        plane: Plane = self._by_a_reader(plane_here, source, geobox, doing=doing)
        return plane

    def align(self, task: AlignTask) -> StoredFile:
        """Have a reader of this pair write the aligned pixels, so that this process stays light.

        A worker that cannot write to the store, or whose disk is not this machine's, leaves it to this
        process.

        Raises
        ------
        StoreError
            This process cannot write them either.
        UnreadableRasterError
            The raster is gone.
        NoWorkerError, WorkerLostError
            As raised by `read`.
        """
        try:
            doing = f"aligned {public_href(str(task.href))}"
            written: StoredFile = self._by_a_reader(align_here, task, doing=doing)
            found = task.store.open(task.key)
            if found is not None and found.size_bytes == written.size_bytes:
                return written
            cause = f"{written.url}, which a worker has written, is not seen from here"
        except StoreError as problem:
            cause = str(problem)
        LOG.warning("%s; this process writes it itself: let the workers write to the product root", cause)
        return task.write()

    def draw(self, task: DrawTask) -> Drawn:
        """Have a reader of this pair draw its pictures: this process serves all pairs of a run.

        Raises
        ------
        NoWorkerError, WorkerLostError
            As raised by `read`.
        """
        drawn: Drawn = self._by_a_reader(draw_here, task, doing=f"drew {task.registration.pair_key}")
        return drawn

    def _by_a_reader(self, task: Callable[..., Any], *arguments: Any, doing: str) -> Any:
        """Have one task done by a reader of this pair, and wait for it."""
        workforce = workforce_of(self.client)
        try:
            future: Future[Any] = self.client.submit(
                task,
                *arguments,
                trace_context(),
                pure=False,
                workers=list(workforce.readers(self)[:1]),
                allow_other_workers=True,
            )
        except RuntimeError as problem:  # the client has given up its scheduler
            raise workforce.lost(problem) from problem
        try:
            while True:
                deadline.check()
                with suppress(TimeoutError):
                    return future.result(WORKER_POLL_S)
        except CancelledError as problem:
            raise workforce.lost(problem) from problem
        except KilledWorker as problem:
            raise WorkerLostError(
                f"{problem.allowed_failures + 1} workers died that {doing}, the last at "
                f"{problem.last_worker.address}; its log says why"
            ) from problem

    def probabilities(self, job: MatchJob, spots: Sequence[Tile]) -> list[Plane]:
        """As in `Engine`.

        Raises
        ------
        NoWorkerError
            No worker that can match is left, and none came in time.
        WorkerLostError
            The workers that match a certain spot die.
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
            # A reader that dies or is busy loses the window to another.
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
    """Hands the windows of one pair to the workers, a few at a time, and loses none when workers die."""

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
        """Cancel what is still under way; the rest of a pair that failed is not needed."""
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
        except RuntimeError as problem:  # the client has given up its scheduler
            raise self._workforce.lost(problem) from problem
        self._under_way[future] = n
        self._completed.add(future)

    def _arrivals(self) -> list[tuple[Future[Any], Any]]:
        """Results that have arrived; empty after a while without any, when the workers are checked."""
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
        """Check that a matching worker exists; without one, wait for `compute.gpu_wait_s` in all.

        Raises
        ------
        NoWorkerError
            None came in time.
        """
        for future in self._under_way:
            if future.status in {"error", "cancelled"}:
                # It failed while its result was on the way from a worker that died; `as_completed` drops such
                # a future.
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
        """Hand the windows of readers that have gone to other readers.

        Dask usually does so itself. But if no worker was left at some moment, it does not place a task later
        that asks for a worker by name.
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
        """Whether `result` is a measurement; False for a window that will be tried again.

        The fetched result decides, because the status of a future changes when its worker dies afterwards.

        Raises
        ------
        NoWorkerError
            No worker can match the window.
        WorkerLostError
            The workers that match this window die.
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
        """Try one window again whose workers have died.

        Dask counts a death against every window that the worker held. Only a window that kills its workers
        while it is tried alone is to blame.
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
