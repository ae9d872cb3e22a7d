"""A run serves its figures while its process lasts, and a little longer."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import start_http_server
from prometheus_client.registry import Collector

from crosstie.flows.observe.run_metrics import RUN

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from crosstie.config import ObserveSettings

LOG = logging.getLogger(__name__)

PORTS_TRIED = 10
"""Runs of one machine that can be watched at the same time."""

ANSWER_S = 1.0
"""How long an answer may take to be sent once the figures are put together, seconds."""


class Fetched(Collector):
    """Notes that somebody fetches the figures."""

    def __init__(self) -> None:
        self._fetched = threading.Event()

    def collect(self) -> Iterable[Metric]:
        self._fetched.set()
        return ()

    def wait(self, seconds: float) -> None:
        """Return when the figures of now have been fetched, or after so many seconds."""
        self._fetched.clear()
        if self._fetched.wait(seconds):
            time.sleep(ANSWER_S)


_LOCK = threading.Lock()
_PORT: int | None = None


def serve_run(observe: ObserveSettings) -> int | None:
    """Serve the figures of the runs of this process, from now until it ends; once is enough.

    A run is not given up for its figures: where no port is free, the log says so.

    Returns
    -------
    The port; None where figures are not wanted, or no port is free.
    """
    global _PORT
    with _LOCK:
        if observe.metrics_port is None or _PORT is not None:
            return _PORT
        ports = range(observe.metrics_port, observe.metrics_port + PORTS_TRIED)
        for port in ports:
            try:
                start_http_server(port, observe.metrics_host, RUN)
            except OSError as problem:
                trouble = problem
                continue
            _PORT = port
            break
        else:
            LOG.warning(
                "the figures of this run are not served: no port of %s:%d to %d is free (%s); set "
                "observe.metrics_port to others",
                observe.metrics_host,
                ports[0],
                ports[-1],
                trouble.strerror,
            )
            return None
        LOG.info("figures of this run: http://%s:%d/metrics", observe.metrics_host, _PORT)
        if observe.linger_s:
            fetched = Fetched()
            RUN.register(fetched)
            atexit.register(fetched.wait, observe.linger_s)
        return _PORT
