"""The workers of a cluster: looked up now and then, and shared by all pairs of this process."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from crosstie.errors import NoWorkerError
from crosstie.flows.cluster.worker_tasks import GPU, LoadMatcher

if TYPE_CHECKING:
    from distributed import Client

LOG = logging.getLogger(__name__)

AHEAD = 2
"""Windows under way for each worker: one in work, one that waits."""

WORKER_POLL_S = 1.0
"""Maximum age of what is known of the workers while no results come, seconds."""

LOOK_AGAIN_S = 5.0
"""The same while results come, seconds: then it only decides how the work is shared."""


READER_PX = 10_980**2
"""Pixels of a grid for each reader: a Sentinel-2 tile has one reader, a grid twice as large may have two.
Readers cache what they fetch, so more readers for a small grid would fetch the same blocks twice."""


@dataclass(frozen=True, slots=True)
class ClusterState:
    """The workers of a cluster at one moment."""

    address: str
    """Address of the scheduler."""
    scheduler: str
    """Identity of the scheduler; a restarted one at the same address has another."""
    workers: int
    with_gpu: int
    """Workers that offer the resource `GPU`."""
    matchers: frozenset[str]
    """Addresses of the workers that hold the network."""
    readers: tuple[str, ...]
    """Addresses of the workers without `GPU`; of all workers where every one has it."""


def look(client: Client, network: str | None = None) -> ClusterState:
    """Ask the scheduler for its workers.

    Raises
    ------
    OSError
        The scheduler does not answer.
    """
    while (
        client.status == "connecting"
    ):  # the client reconnects until it gives up; meanwhile its knowledge is out of date
        time.sleep(0.1)
    scheduler: Any = client.scheduler
    if client.status != "running" or scheduler is None:
        raise OSError(f"the connection is {client.status}")
    # Not `client.scheduler_info`, which now and then returns an old answer without workers.
    about: Any = client.sync(scheduler.identity, n_workers=-1)
    known: dict[str, dict[str, Any]] = about["workers"]
    with_gpu = {name for name, worker in known.items() if worker["resources"].get(GPU)}
    return ClusterState(
        address=about["address"],
        scheduler=about["id"],
        workers=len(known),
        with_gpu=len(with_gpu),
        matchers=frozenset(name for name in with_gpu if known[name]["resources"].get(network)),
        readers=tuple(sorted(known.keys() - with_gpu or known)),
    )


class Workforce:
    """The workers of one connection, and the share of them that each pair may use.

    Parameters
    ----------
    plugin : LoadMatcher
        Loads the network into workers. Its name is the resource of the workers that hold it.
    halo_px : int
        Context that the network needs around a tile, px.
    gpu_wait_s : float
        Time that a pair waits for a matching worker once none is left, seconds.
    readers_to_come : int
        Number of readers that may be started while work waits.
    """

    def __init__(
        self, client: Client, plugin: LoadMatcher, *, halo_px: int, gpu_wait_s: float, readers_to_come: int
    ) -> None:
        self.network = plugin.name
        self.halo_px = halo_px
        self.gpu_wait_s = gpu_wait_s
        self.trial = threading.Lock()
        """Held by the pair that tries a window alone whose workers have died."""
        self._client = client
        self._plugin = plugin
        self._readers_to_come = readers_to_come
        self._looking = threading.Lock()
        self._seen = look(client, plugin.name)
        self._seen_at = time.monotonic()
        self._pairs = 0
        self._readers_of: WeakKeyDictionary[object, list[str]] = WeakKeyDictionary()

    def seen(self, *, max_age_s: float) -> ClusterState:
        """The workers as last looked up; looked up again if that is more than `max_age_s` ago.

        Raises
        ------
        NoWorkerError
            The scheduler does not answer.
        """
        with self._looking:
            if time.monotonic() - self._seen_at > max_age_s:
                before = self._seen
                try:
                    self._seen = look(self._client, self.network)
                    if self._seen.scheduler != before.scheduler:
                        self._client.register_plugin(self._plugin)
                except OSError as problem:
                    raise self.lost(problem) from problem
                self._seen_at = time.monotonic()
                self._tell(before)
            return self._seen

    def allowance(self) -> int:
        """Number of windows that one pair may have under way.

        All pairs together have `AHEAD` windows for each worker, or one window each if there are more pairs
        than that. So memory depends neither on the number of pairs nor on their size.
        """
        seen = self.seen(max_age_s=LOOK_AGAIN_S)
        hands = max(len(seen.readers), self._readers_to_come) + len(seen.matchers)
        return max(1, AHEAD * hands // max(1, self._pairs))

    def readers(self, pair: object, *, px: int = 0) -> tuple[str, ...]:
        """Readers of a pair: the same each time while they live; new ones are those with the fewest pairs.

        Parameters
        ----------
        pair : object
            Any object that stands for the pair; kept by a weak reference.
        px : int, optional
            Number of pixels of its grid.
        """
        known = self.seen(max_age_s=LOOK_AGAIN_S).readers
        with self._looking:
            mine = [name for name in self._readers_of.get(pair, ()) if name in known]
            busy = Counter(chain.from_iterable(self._readers_of.values()))
            most = max(1, min(px // READER_PX, len(known) // max(1, self._pairs)))
            idle = sorted(set(known).difference(mine), key=lambda name: (busy[name], name))
            mine += idle[: max(0, most - len(mine))]
            self._readers_of[pair] = mine
            return tuple(mine[:most])

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Inside, one more pair has a share of the workers."""
        with self._looking:
            self._pairs += 1
        try:
            yield
        finally:
            with self._looking:
                self._pairs -= 1

    def missing(self, waited_s: float) -> NoWorkerError:
        """Make the error for: no worker that can match is left."""
        return NoWorkerError(
            f"{self._nobody()}, and none came in {waited_s:g} s (compute.gpu_wait_s); "
            f"{how_to_start(self._seen.address)}"
        )

    def lost(self, problem: BaseException) -> NoWorkerError:
        """Make the error for: the scheduler is gone, and all work under way with it."""
        return NoWorkerError(
            f"Dask scheduler {self._seen.address} does not answer any more ({problem}); what was under way "
            "is lost: start the scheduler and its workers, then run this again"
        )

    def _tell(self, before: ClusterState) -> None:
        if before.matchers and not self._seen.matchers:
            LOG.warning(
                "%s; pairs under way wait for one for up to %g s; %s",
                self._nobody(),
                self.gpu_wait_s,
                how_to_start(self._seen.address),
            )
        elif self._seen.matchers and not before.matchers:
            LOG.warning("Dask scheduler %s: a worker that can match is there again", self._seen.address)

    def _nobody(self) -> str:
        seen = self._seen
        idle = f", {seen.with_gpu} of them with it but without the network" if seen.with_gpu else ""
        return (
            f"Dask scheduler {seen.address}: no worker that offers the resource {GPU} and holds the network "
            f"is left ({seen.workers} workers{idle})"
        )


def how_to_start(address: str) -> str:
    """Say which command starts a matching worker."""
    return f"start one with: dask worker {address} --nthreads 1 --resources {GPU}=1"


_WORKFORCES: dict[str, Workforce] = {}
"""By id of the client: a pair knows only its client, and the pairs of one client share its workers."""


@contextmanager
def known(client: Client, workforce: Workforce) -> Iterator[None]:
    """Inside, `workforce_of` finds this workforce by its client."""
    _WORKFORCES[client.id] = workforce
    try:
        yield
    finally:
        del _WORKFORCES[client.id]


def workforce_of(client: Client) -> Workforce:
    """The workers of a client that `crosstie.flows.cluster.connect.connected` has made."""
    try:
        return _WORKFORCES[client.id]
    except KeyError:
        raise RuntimeError(f"{client} has loaded no network; make it with `connected`") from None
