"""Connect to the Dask cluster that `compute.cluster` names, and load the network on its workers."""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import dask
from distributed import Client

from crosstie.errors import CrosstieError, SettingsError
from crosstie.flows.cluster.engine import OnCluster
from crosstie.flows.cluster.local import local_cluster
from crosstie.flows.cluster.scaling import KeepMatchers
from crosstie.flows.cluster.worker_tasks import GPU, WORKER_ENVIRONMENT, LoadMatcher, halo_px
from crosstie.flows.cluster.workforce import Workforce, how_to_start, known, look

if TYPE_CHECKING:
    from crosstie.config import ComputeSettings
    from crosstie.flows.registration.measure import TileMatcher

__all__ = ["GPU", "WORKER_ENVIRONMENT", "OnCluster", "connected", "join", "require_gpu"]

LOG = logging.getLogger(__name__)

ROOM_FOR_IMAGES = {"distributed.admin.large-graph-warning-threshold": "64MB"}
"""What is to be drawn holds four images; Dask would warn of them as of a graph that is too large."""

JOIN_POLL_S = 0.2
"""Time between two looks for a first worker, seconds."""


@contextmanager
def connected(
    compute: ComputeSettings, load: Callable[[], TileMatcher], *, weights_sha256: str | None = None
) -> Iterator[Client]:
    """Start or join the cluster that `compute.cluster` names; inside, it is ready to match.

    Parameters
    ----------
    load : Callable[[], TileMatcher]
        Makes the matcher. It is called once in each worker with the resource `GPU`, now or when the worker
        joins, so it must pickle.
    weights_sha256 : str or None, optional
        Sha256 of what `load` will load. With it, runs on one scheduler share the network on its workers,
        where it stays for later runs, and a worker with other weights is not used. None loads it for this run
        alone.

    Raises
    ------
    SettingsError
        The cluster cannot be reached or started, or no worker has the resource in time.
    WeightsError
        Raised by `load` on every worker.
    """
    with dask.config.set(ROOM_FOR_IMAGES), _client(compute) as client:
        require_gpu(client, timeout_s=compute.worker_timeout_s)
        name = _network_name(compute, weights_sha256)
        plugin = LoadMatcher(load, name, weights_sha256=weights_sha256)
        workforce = Workforce(
            client,
            plugin,
            halo_px=_load_network(client, plugin, timeout_s=compute.worker_timeout_s),
            gpu_wait_s=compute.gpu_wait_s,
            readers_to_come=compute.adaptive_max or 0,
        )
        try:
            with known(client, workforce):
                yield client
        finally:
            if weights_sha256 is None:
                _unload(client, name)


def require_gpu(client: Client, *, timeout_s: float) -> None:
    """Wait for a worker with the resource `GPU`: without one, tasks that ask for it would wait for ever.

    Raises
    ------
    SettingsError
        No such worker came in time.
    """
    deadline = time.monotonic() + timeout_s
    while not (seen := look(client)).with_gpu:
        if time.monotonic() > deadline:
            raise SettingsError(
                f"Dask scheduler {seen.address}: none of its {seen.workers} workers offers the resource "
                f"{GPU}; {how_to_start(seen.address)}"
            )
        time.sleep(JOIN_POLL_S)


@contextmanager
def _client(compute: ComputeSettings) -> Iterator[Client]:
    if compute.cluster == "local":
        with local_cluster(compute) as cluster, Client(cluster, set_as_default=True) as client:
            client.register_plugin(KeepMatchers())
            yield client
    elif compute.cluster == "kubernetes":
        # Imported only when it is needed: its libraries are an extra.
        from crosstie.flows.cluster.kubernetes import kubernetes_cluster

        with kubernetes_cluster(compute) as cluster, Client(cluster, set_as_default=True) as client:
            client.register_plugin(KeepMatchers())
            yield client
    else:
        with join(compute.cluster, timeout_s=compute.worker_timeout_s) as client:
            yield client


def join(address: str, *, timeout_s: float) -> Client:
    """Join a cluster that others run.

    Raises
    ------
    SettingsError
        No scheduler answers there.
    """
    try:
        return Client(address, timeout=timeout_s, set_as_default=True)
    except (OSError, ValueError) as problem:
        raise SettingsError(
            f"setting compute.cluster = {address!r}: no Dask scheduler answers there ({problem})"
        ) from problem


def _network_name(compute: ComputeSettings, weights_sha256: str | None) -> str:
    """Name a network by everything that decides what a worker loads."""
    if weights_sha256 is None:
        return f"crosstie-{uuid.uuid4().hex[:16]}"
    identity = f"{weights_sha256} {compute.device} {compute.threads}"
    return f"crosstie-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def _load_network(client: Client, plugin: LoadMatcher, *, timeout_s: float) -> int:
    """Load the network on every worker with a GPU, also on those that join later; return its halo, px.

    Raises
    ------
    SettingsError
        No worker has loaded it in time.
    """
    try:
        client.register_plugin(plugin)
    except (CrosstieError, OSError, RuntimeError) as problem:
        if not look(client, plugin.name).matchers:
            _unload(client, plugin.name)
            raise
        LOG.warning("a worker could not load the network and is not used: %s", problem)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        seen = look(client, plugin.name)
        halos = client.run(halo_px, plugin.name, workers=list(seen.matchers), on_error="ignore")
        for halo in halos.values():
            if halo is not None:
                return int(halo)
        time.sleep(JOIN_POLL_S)
    raise SettingsError(
        f"Dask scheduler {seen.address}: no worker has loaded the network within {timeout_s:g} s "
        "(compute.worker_timeout_s); the logs of its workers say why"
    )


def _unload(client: Client, name: str) -> None:
    if client.status != "running":
        return
    # A scheduler that has gone, or that was restarted, has nothing to unload.
    with suppress(OSError, ValueError):
        client.unregister_worker_plugin(name)
