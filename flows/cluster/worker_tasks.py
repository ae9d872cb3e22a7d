"""What runs inside a Dask worker: the network, loaded once, tasks that match with it, and tasks that read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from distributed import Status, WorkerPlugin, get_worker

from crosstie.errors import CrosstieError, WeightsError
from crosstie.flows.observe.tracing import continued
from crosstie.flows.observe.worker_metrics import READ_BYTES, READ_SECONDS, TILES, timed_match
from crosstie.flows.registration.measure import match_chunk, patch_probability, read_chunk, read_patch
from crosstie.io.raster import read_plane

if TYPE_CHECKING:
    from distributed import Worker
    from odc.geo.geobox import GeoBox

    from crosstie.flows.observe.context import About
    from crosstie.flows.registration.measure import MatchJob, Planes, TileMatcher
    from crosstie.grid import Chunk
    from crosstie.io.products.aligned import AlignTask
    from crosstie.io.products.drawing import Drawn, DrawTask
    from crosstie.io.raster import RasterSource
    from crosstie.io.storage.store import StoredFile
    from crosstie.types import Plane, TiePoints, Tile

LOG = logging.getLogger(__name__)

GPU = "GPU"
"""Dask resource of a worker that may hold a network."""

WORKER_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Does for all threads of a worker what `load_matcher.keep_freed_memory` does; glibc reads it when a process
starts. Dask's default returns memory to the kernel each time, which took half of a matching worker's time."""


class LoadMatcher(WorkerPlugin):
    """Loads a network once into every worker that offers `GPU`, also into those that join later.

    A worker that has loaded it offers a second resource, named after the network. Tasks ask for both, so none
    comes to a worker where loading failed or that holds the network of another run.
    """

    idempotent = True  # a second run with the same network finds it loaded

    def __init__(self, load: Callable[[], TileMatcher], name: str, *, weights_sha256: str | None) -> None:
        self.name = name
        self.matcher: TileMatcher | None = None
        self._load = load
        self._weights_sha256 = weights_sha256

    async def setup(self, worker: Worker) -> None:
        gpus = worker.state.total_resources.get(GPU)
        if not gpus:
            return
        # Tasks that found no worker are offered to a worker when it joins, before it holds the network, and
        # not again later. They are offered to a worker that resumes, so it is paused until the network is
        # loaded.
        worker.status = Status.paused
        try:
            self.matcher = self._checked(await asyncio.to_thread(self._load))
            await worker.set_resources(**{self.name: gpus})
        finally:
            if worker.status == Status.paused:
                worker.status = Status.running

    async def teardown(self, worker: Worker) -> None:
        if self.matcher is not None:
            self.matcher = None
            await worker.set_resources(**{self.name: 0})

    def _checked(self, matcher: TileMatcher) -> TileMatcher:
        if self._weights_sha256 not in {None, matcher.weights_sha256}:
            raise WeightsError(
                f"a worker loaded weights with sha256 {matcher.weights_sha256[:16]}…, the run wants "
                f"{str(self._weights_sha256)[:16]}…; install the same crosstie and the same weights on "
                "every worker"
            )
        return matcher


def halo_px(network: str, *, dask_worker: Worker) -> int | None:
    """Context that the network of a worker needs around a tile, px; None where it is not loaded.

    For `Client.run`, which passes `dask_worker` to a function that has such a parameter.
    """
    plugin = dask_worker.plugins.get(network)
    matcher = plugin.matcher if isinstance(plugin, LoadMatcher) else None
    return None if matcher is None else matcher.halo_px


def plane_here(source: RasterSource, geobox: GeoBox, trace_context: About) -> Plane:
    """Read a raster on a grid; raises what `read_plane` raises."""
    with _reading("read plane", trace_context):
        plane = read_plane(source, geobox)
    READ_BYTES.inc(plane.nbytes)
    return plane


def align_here(task: AlignTask, trace_context: About) -> StoredFile:
    """Write the aligned pixels of a pair to its store; raises what `write_aligned` raises."""
    with _for_pair("write aligned", trace_context):
        return task.write()


def draw_here(task: DrawTask, trace_context: About) -> Drawn:
    """Draw the pictures of a pair."""
    with _for_pair("draw", trace_context):
        return task.draw()


def read_here(job: MatchJob, chunk: Chunk, trace_context: About, *, halo_px: int) -> Planes:
    """Read what is needed to match a window; raises what `read_chunk` raises."""
    with _reading("read window", trace_context):
        return _counted(read_chunk(job, chunk, halo_px=halo_px))


def patch_here(job: MatchJob, spot: Tile, trace_context: About) -> Planes:
    """Read what the coarse step needs at a spot; raises what `read_patch` raises."""
    with _reading("read patch", trace_context):
        return _counted(read_patch(job, spot))


def match_here(network: str, job: MatchJob, chunk: Chunk, planes: Planes, trace_context: About) -> TiePoints:
    """Match all tiles of a window with the network of this worker; the matcher forms batches."""
    with continued("match window", trace_context), timed_match("fine"):
        points = match_chunk(job, chunk, planes, _matcher(network))
    TILES.inc(len(chunk.tiles))
    return points


def probability_here(network: str, job: MatchJob, spot: Tile, planes: Planes, trace_context: About) -> Plane:
    """Probability of each coarse offset at a spot, from the network of this worker."""
    del spot
    with continued("coarse offset", trace_context), timed_match("coarse"):
        return patch_probability(job, planes, _matcher(network))


@contextmanager
def _reading(what: str, trace_context: About) -> Iterator[None]:
    with _for_pair(what, trace_context), READ_SECONDS.time():
        yield


@contextmanager
def _for_pair(what: str, trace_context: About) -> Iterator[None]:
    with continued(what, trace_context):
        try:
            yield
        except CrosstieError as problem:
            LOG.info("%s: %s", what, problem)  # Dask logs it too, but without the pair
            # The GDAL error that caused it does not unpickle, and the run would see a bare `Exception`.
            problem.__context__ = None
            raise


def _counted(planes: Planes) -> Planes:
    READ_BYTES.inc(planes.reference.nbytes + planes.secondary.nbytes)
    return planes


def _matcher(network: str) -> TileMatcher:
    plugin = get_worker().plugins.get(network)
    if not isinstance(plugin, LoadMatcher) or plugin.matcher is None:
        raise RuntimeError(f"a task that asks for the resource {network} came to a worker without it")
    return plugin.matcher
