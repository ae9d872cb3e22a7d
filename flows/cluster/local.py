"""Dask on this machine: processes that read, and processes that hold the network.

Whoever reaches a scheduler or a worker can run code in it, and every user of this machine reaches its
loopback. So all of them speak TLS with one certificate that is made for this run, kept in memory, and asked
of both sides. Their HTTP servers, which know no TLS, serve nothing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
from distributed import Nanny, Scheduler, SpecCluster
from distributed.security import Security

from crosstie.flows.cluster.scaling import AdaptReaders
from crosstie.flows.cluster.worker_tasks import GPU, WORKER_ENVIRONMENT

if TYPE_CHECKING:
    from crosstie.config import ComputeSettings

LOCALHOST = "127.0.0.1"


@contextmanager
def local_cluster(compute: ComputeSettings) -> Iterator[SpecCluster]:
    """Run a scheduler and its workers until the block ends; workers that die are restarted."""
    security = Security.temporary()
    matchers = {
        f"matcher-{n}": _worker(security, resources={GPU: 1}, env=_gpu(n, compute.matchers))
        for n in range(compute.matchers)
    }
    readers = {f"reader-{n}": _worker(security) for n in range(compute.readers)}
    scheduler = {
        "cls": Scheduler,
        "options": {
            "host": LOCALHOST,
            "port": 0,
            "protocol": "tls",
            "security": security,
            "dashboard": False,
            "dashboard_address": f"{LOCALHOST}:0",
        },
    }
    with (
        dask.config.set(
            {
                "distributed.worker.profile.enabled": False,
                "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT,
                # Otherwise an idle matcher takes windows from a reader and fetches again what the reader has
                # fetched.
                "distributed.scheduler.work-stealing": False,
                "distributed.scheduler.http.routes": [],
                "distributed.worker.http.routes": [],
                "distributed.nanny.http.routes": [],
            }
        ),
        SpecCluster(
            workers=matchers | readers,
            worker=_worker(security),
            scheduler=scheduler,
            security=security,
            silence_logs=logging.ERROR,
        ) as cluster,
    ):
        if compute.adaptive_max is not None:
            cluster.adapt(
                Adaptive=AdaptReaders,
                minimum=compute.matchers + compute.readers,
                maximum=compute.matchers + max(compute.readers, compute.adaptive_max),
            )
        yield cluster


def _worker(security: Security, **options: Any) -> dict[str, Any]:
    """Describe a worker process with one thread."""
    always = {
        "protocol": "tls",
        "security": security,
        "nthreads": 1,
        "host": LOCALHOST,
        "dashboard": False,
        "dashboard_address": f"{LOCALHOST}:0",
        "silence_logs": logging.ERROR,
        # Workers hold few windows, and Dask would kill a worker for the memory that the network needs.
        "memory_limit": 0,
    }
    return {"cls": Nanny, "options": always | options}


def _gpu(n: int, matchers: int) -> dict[str, str]:
    """Show each matcher one GPU where there are several of both; torch would put all of them on the first."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        gpus = [str(i) for i, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]
    else:
        gpus = [name for name in visible.split(",") if name.strip()]
    return {"CUDA_VISIBLE_DEVICES": gpus[n % len(gpus)]} if len(gpus) > 1 and matchers > 1 else {}
