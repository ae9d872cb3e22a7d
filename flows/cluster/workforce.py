"""Who is there to work: looked up now and then, and shared by all pairs that a process has under way."""

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
"""Windows under way for each worker: one that is worked on, one that waits."""

WORKER_POLL_S = 1.0
"""How old what is known of the workers may be where nothing comes back from them, seconds."""

LOOK_AGAIN_S = 5.0
"""The same while results come: then it only decides who gets how much."""


READER_PX = 10_980**2
"""A grid of so many pixels, those of a Sentinel-2 tile, is one reader's, one of twice as many may be two's:
a reader keeps what it has fetched, and what two have between them is fetched twice."""


@dataclass(frozen=True, slots=True)
class ClusterState:
    """The workers of a cluster at one moment."""

    address: str
    """Of the scheduler."""
    scheduler: str
    """Identity of the scheduler: another one at the same address knows nothing of before."""
    workers: int
    with_gpu: int
    """Workers that offer the resource `GPU`."""
    matchers: frozenset[str]
    """Addresses of those that hold the network."""
    readers: tuple[str, ...]
    """Addresses of those without `GPU`; of all where every worker has it."""


def look(client: Client, network: str | None = None) -> ClusterState:
    """Ask the scheduler who is there.

    Raises
    ------
    OSError : the scheduler does not answer
    """
    while client.status == "connecting":  # again, until it gives up: what it then knows is out of date
        time.sleep(0.1)
    scheduler: Any = client.scheduler
    if client.status != "running" or scheduler is None:
        raise OSError(f"the connection is {client.status}")
    # Not `client.scheduler_info`: now and then that answers with what it knew before, and without workers.
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
    """The workers of one connection, and how much of them each pair may have.

    Parameters
    ----------
    plugin : loads the network into workers; its name is the resource of those that hold it
    halo_px : context that the network needs round a tile, px
    gpu_wait_s : how long a pair waits for a matching worker once none is left, seconds
    readers_to_come : readers that may be started while work waits
    """

    def __init__(
        self, client: Client, plugin: LoadMatcher, *, halo_px: int, gpu_wait_s: float, readers_to_come: int
    ) -> None:
        self.network = plugin.name
        self.halo_px = halo_px
        self.gpu_wait_s = gpu_wait_s
        self.trial = threading.Lock()
        """Held by the pair that tries, alone, a window whose workers have died."""
        self._client = client
        self._plugin = plugin
        self._readers_to_come = readers_to_come
        self._looking = threading.Lock()
        self._seen = look(client, plugin.name)
        self._seen_at = time.monotonic()
        self._pairs = 0
        self._readers_of: WeakKeyDictionary[object, list[str]] = WeakKeyDictionary()

    def seen(self, *, max_age_s: float) -> ClusterState:
        """Who is there, as last looked up; looked up again where that is too long ago.

        Raises
        ------
        NoWorkerError : the scheduler does not answer
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
        """Windows that one pair may have under way.

        All pairs together have `AHEAD` for each worker (one each where there are more pairs than that):
        what is in memory depends neither on the number of pairs nor on their size.
        """
        seen = self.seen(max_age_s=LOOK_AGAIN_S)
        hands = max(len(seen.readers), self._readers_to_come) + len(seen.matchers)
        return max(1, AHEAD * hands // max(1, self._pairs))

    def readers(self, pair: object, *, px: int = 0) -> tuple[str, ...]:
        """Who reads for a pair: the same each time, as long as they live, and first those with fewest pairs.

        Parameters
        ----------
        pair : whatever stands for it; forgotten with it
        px : pixels of its grid
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
        """Inside, one pair more takes its part of the workers."""
        with self._looking:
            self._pairs += 1
        try:
            yield
        finally:
            with self._looking:
                self._pairs -= 1

    def missing(self, waited_s: float) -> NoWorkerError:
        """Nobody is left who can match."""
        return NoWorkerError(
            f"{self._nobody()}, and none came in {waited_s:g} s (compute.gpu_wait_s); "
            f"{how_to_start(self._seen.address)}"
        )

    def lost(self, problem: BaseException) -> NoWorkerError:
        """The scheduler is gone, and with it all that was under way."""
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
    """The command that starts a matching worker."""
    return f"start one with: dask worker {address} --nthreads 1 --resources {GPU}=1"


_WORKFORCES: dict[str, Workforce] = {}
"""By the client's id: a pair knows its client alone, and the pairs of one client share its workers."""


@contextmanager
def known(client: Client, workforce: Workforce) -> Iterator[None]:
    """Inside, `workforce_of` finds it."""
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
