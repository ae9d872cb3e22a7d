"""Serve the metrics of a run as long as its process lasts, and a little longer."""

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
"""Ports that are tried: as many runs of one machine can be watched at the same time."""

ANSWER_S = 1.0
"""Time to send an answer once its metrics are collected, seconds."""


class Fetched(Collector):
    """Notices when the metrics are fetched."""

    def __init__(self) -> None:
        self._fetched = threading.Event()

    def collect(self) -> Iterable[Metric]:
        self._fetched.set()
        return ()

    def wait(self, seconds: float) -> None:
        """Return once the metrics have been fetched, or after so many seconds."""
        self._fetched.clear()
        if self._fetched.wait(seconds):
            time.sleep(ANSWER_S)


_LOCK = threading.Lock()
_PORT: int | None = None


def serve_run(observe: ObserveSettings) -> int | None:
    """Serve the metrics of all runs of this process until it ends; later calls change nothing.

    If no port is free, the log says so and the run goes on.

    Parameters
    ----------
    observe : ObserveSettings

    Returns
    -------
    int or None
        The port; None where no metrics are wanted, or no port is free.
    """
    global _PORT
    with _LOCK:
        if observe.metrics_port is None or _PORT is not None:
            return _PORT
        _PORT = _start_server(observe.metrics_host, observe.metrics_port)
        if _PORT is None:
            return None
        LOG.info("metrics of this run: http://%s:%d/metrics", observe.metrics_host, _PORT)
        if observe.linger_s:
            fetched = Fetched()
            RUN.register(fetched)
            atexit.register(fetched.wait, observe.linger_s)
        return _PORT


def _start_server(host: str, first_port: int) -> int | None:
    """Serve on the first free port of `PORTS_TRIED`; None, and a line in the log, where none is free."""
    ports = range(first_port, first_port + PORTS_TRIED)
    reason = ""
    for port in ports:
        try:
            start_http_server(port, host, RUN)
        except OSError as error:
            reason = str(error.strerror)
        else:
            return port
    LOG.warning(
        "the metrics of this run are not served: no port of %s:%d to %d is free (%s); set "
        "observe.metrics_port to others",
        host,
        ports[0],
        ports[-1],
        reason,
    )
    return None
