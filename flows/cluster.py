"""Dask: processes that read, and one that holds the network: it offers the resource `GPU` (a CPU serves)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster, WorkerPlugin, as_completed, get_worker

from crosstie.errors import SettingsError
from crosstie.flows.measure import match_chunk, patch_probability, read_chunk, read_patch

if TYPE_CHECKING:
    from distributed import Worker

    from crosstie.config import ComputeSettings
    from crosstie.flows.measure import MatchJob, Plane, Planes, TileMatcher
    from crosstie.grid import Chunk
    from crosstie.types import TiePoints, Tile

GPU = "GPU"
"""Resource of a worker that holds the network."""

LOOPBACK = "127.0.0.1"

WORKER_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""What `loading.keep_freed_memory` does, for the threads of a worker: glibc reads it when a process starts.
Dask's own default hands memory back at every turn, which cost half of a matching worker's time."""

AHEAD = 2
"""Windows under way for each worker: one that is worked on, one that waits."""


class LoadMatcher(WorkerPlugin):
    """Loads the network once into every worker that offers the resource `GPU`."""

    name = "crosstie-matcher"

    def __init__(self, load: Callable[[], TileMatcher]) -> None:
        self._load = load
        self.matcher: TileMatcher | None = None

    def setup(self, worker: Worker) -> None:
        if worker.state.total_resources.get(GPU):
            self.matcher = self._load()


@contextmanager
def connected(compute: ComputeSettings, load: Callable[[], TileMatcher]) -> Iterator[Client]:
    """Start a local cluster, or join the scheduler that the settings name; ready to match when it yields.

    Parameters
    ----------
    load : makes the matcher; called once in each worker with the resource `GPU`, so it must pickle

    Raises
    ------
    SettingsError : the scheduler cannot be reached, or no worker has the resource in time
    WeightsError : as `load` raises it
    """
    if compute.cluster == "local":
        with _local_cluster(compute.readers) as cluster, Client(cluster, set_as_default=True) as client:
            client.register_plugin(LoadMatcher(load))
            yield client
        return
    try:
        client = Client(compute.cluster, timeout=compute.worker_timeout_s, set_as_default=True)
    except (OSError, ValueError) as problem:
        raise SettingsError(
            f"setting compute.cluster = {compute.cluster!r}: no Dask scheduler answers there ({problem})"
        ) from problem
    with client:
        require_gpu(client, timeout_s=compute.worker_timeout_s)
        client.register_plugin(LoadMatcher(load))
        yield client


def require_gpu(client: Client, *, timeout_s: float) -> None:
    """Wait for a worker with the resource: a task that asks for what no worker has would wait for ever.

    Raises
    ------
    SettingsError : none came in time
    """
    deadline = time.monotonic() + timeout_s
    while not _workers(client, with_gpu=True):
        if time.monotonic() > deadline:
            count = len(_workers(client, with_gpu=False))
            address = client.scheduler_info(n_workers=0)["address"]
            raise SettingsError(
                f"Dask scheduler {address}: none of its {count} workers offers the resource {GPU}; "
                f"start one with: dask worker {address} --nthreads 1 --resources {GPU}=1"
            )
        time.sleep(0.2)


@contextmanager
def _local_cluster(readers: int) -> Iterator[SpecCluster]:
    options: dict[str, Any] = {
        "nthreads": 1,
        "host": LOOPBACK,
        "dashboard": False,
        "dashboard_address": f"{LOOPBACK}:0",
        "silence_logs": logging.ERROR,
        # A window more or less is what they hold; Dask would kill a worker for what the network needs.
        "memory_limit": 0,
    }
    workers = {"matcher": {"cls": Nanny, "options": {**options, "resources": {GPU: 1}}}}
    workers |= {f"reader-{n}": {"cls": Nanny, "options": options} for n in range(readers)}
    scheduler = {
        "cls": Scheduler,
        "options": {"host": LOOPBACK, "port": 0, "dashboard": False, "dashboard_address": f"{LOOPBACK}:0"},
    }
    with (
        dask.config.set(
            {
                "distributed.worker.profile.enabled": False,
                "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT,
            }
        ),
        SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.ERROR) as cluster,
    ):
        yield cluster


@dataclass(frozen=True, slots=True, eq=False)
class OnCluster:
    """An engine: windows are read where there is room, and matched where the network is."""

    client: Client

    def probabilities(self, job: MatchJob, spots: Sequence[Tile]) -> list[Plane]:
        found = dict(self._walk(job, spots, read_patch, _probability_here))
        return [found[n] for n in range(len(spots))]

    def match(self, job: MatchJob, work: Sequence[Chunk]) -> Iterator[tuple[Chunk, TiePoints]]:
        halo_px = self.client.submit(_halo_px, pure=False, resources={GPU: 1}).result()
        for n, points in self._walk(job, work, _Reading(halo_px), _match_here):
            yield work[n], points

    def _walk(
        self, job: MatchJob, work: Sequence[Any], read: Callable[..., Planes], measure: Callable[..., Any]
    ) -> Iterator[tuple[int, Any]]:
        """(position in `work`, result), as they come; so many windows at once as there are hands for."""
        everyone = _workers(self.client, with_gpu=False)
        readers = sorted(everyone - _workers(self.client, with_gpu=True)) or sorted(everyone)
        waiting = iter(enumerate(work))
        under_way = as_completed(with_results=True)
        place = {}
        for n, item in islice(waiting, AHEAD * (len(readers) + 1)):
            future = self._submit(job, item, read, measure, readers)
            place[future.key] = n
            under_way.add(future)
        for future, result in under_way:
            yield place.pop(future.key), result
            for n, item in islice(waiting, 1):
                upcoming = self._submit(job, item, read, measure, readers)
                place[upcoming.key] = n
                under_way.add(upcoming)

    def _submit(
        self,
        job: MatchJob,
        item: Any,
        read: Callable[..., Planes],
        measure: Callable[..., Any],
        readers: list[str],
    ) -> Any:
        planes = self.client.submit(read, job, item, pure=False, workers=readers, allow_other_workers=True)
        return self.client.submit(measure, job, item, planes, pure=False, resources={GPU: 1})


@dataclass(frozen=True, slots=True)
class _Reading:
    """`read_chunk` with its halo: a value, so that every task shares one small pickle."""

    halo_px: int

    def __call__(self, job: MatchJob, chunk: Chunk) -> Planes:
        return read_chunk(job, chunk, halo_px=self.halo_px)


def _halo_px() -> int:
    return _matcher().halo_px


def _match_here(job: MatchJob, chunk: Chunk, planes: Planes) -> TiePoints:
    return match_chunk(job, chunk, planes, _matcher())


def _probability_here(job: MatchJob, spot: Tile, planes: Planes) -> Plane:
    del spot
    return patch_probability(job, planes, _matcher())


def _matcher() -> TileMatcher:
    plugin = get_worker().plugins[LoadMatcher.name]
    matcher = plugin.matcher if isinstance(plugin, LoadMatcher) else None
    if matcher is None:
        raise RuntimeError("a task with the resource GPU came to a worker that holds no network")
    return matcher


def _workers(client: Client, *, with_gpu: bool) -> set[str]:
    known: dict[str, dict[str, Any]] = client.scheduler_info(n_workers=-1)["workers"]
    return {address for address, about in known.items() if not with_gpu or about["resources"].get(GPU)}
