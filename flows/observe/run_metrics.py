"""Metrics of a run, in the process that drives it: pairs by verdict, windows under way, workers."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from prometheus_client import CollectorRegistry, Counter, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from crosstie.errors import CrosstieError

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

RUN = CollectorRegistry()
"""Metrics that a run serves; separate from the registry of the process, where Prefect and Dask put theirs."""

PAIRS = Counter(
    "crosstie_pairs",
    "Pairs that runs of this process worked on, by what became of them; reason: the first one, of a failure "
    "its code, else empty.",
    ("flow", "verdict", "reason"),
    registry=RUN,
)

RETRIES = Counter(
    "crosstie_retries",
    "What was tried again: a pair after an I/O error, a window whose workers died.",
    ("kind",),
    registry=RUN,
)

WINDOWS_DONE = Counter(
    "crosstie_windows_done", "Windows that came back from the workers, measured.", registry=RUN
)

RUN_TILES = Counter(
    "crosstie_run_tiles", "Tiles whose windows came back from the workers, measured.", registry=RUN
)

PLACES = Counter(
    "crosstie_places",
    "Places of the archive that runs of this process adjusted, by what became of them.",
    ("action",),
    registry=RUN,
)

FINDINGS = Counter(
    "crosstie_moved",
    "Changes of adjusted positions that were not known before.",
    ("scope", "what"),
    registry=RUN,
)

for _kind in ("pair", "window"):
    RETRIES.labels(_kind)  # present from the start at 0, so that Prometheus sees the first one as an increase


class Walk(Protocol):
    """The windows of a pair."""

    def depth(self) -> tuple[int, int]:
        """Number of windows not handed out yet, and of windows with the workers."""


class Staff(Protocol):
    """Workers by what they do."""

    @property
    def readers(self) -> Sized: ...
    @property
    def matchers(self) -> Sized: ...


class Workers(Protocol):
    """The workers of one connection."""

    def seen(self, *, max_age_s: float) -> Staff:
        """The workers as last looked up."""


class UnderWay(Collector):
    """Collects what is under way at the moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._walks: WeakSet[Walk] = WeakSet()
        self._workforces: WeakSet[Workers] = WeakSet()

    @contextmanager
    def walking(self, walk: Walk) -> Iterator[None]:
        """Inside, the windows of a pair are counted."""
        with self._lock:
            self._walks.add(walk)
        try:
            yield
        finally:
            with self._lock:
                self._walks.discard(walk)

    @contextmanager
    def working(self, workforce: Workers) -> Iterator[None]:
        """Inside, the workers of a cluster are counted."""
        with self._lock:
            self._workforces.add(workforce)
        try:
            yield
        finally:
            with self._lock:
                self._workforces.discard(workforce)

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            walks, workforces = list(self._walks), list(self._workforces)
        depths = [walk.depth() for walk in walks]
        windows = GaugeMetricFamily(
            "crosstie_windows",
            "Windows of the pairs under way: waiting to be handed out, or under_way with the workers.",
            labels=["state"],
        )
        windows.add_metric(["waiting"], sum(waiting for waiting, _ in depths))
        windows.add_metric(["under_way"], sum(under_way for _, under_way in depths))
        yield windows
        workers = GaugeMetricFamily(
            "crosstie_workers",
            "Workers that this run has: reader, or matcher with the network loaded.",
            labels=["role"],
        )
        for workforce in workforces:
            try:
                seen = workforce.seen(max_age_s=math.inf)  # as last looked up, so that a scrape does not wait
            except CrosstieError:
                continue
            workers.add_metric(["reader"], len(seen.readers))
            workers.add_metric(["matcher"], len(seen.matchers))
        yield workers


UNDER_WAY = UnderWay()

RUN.register(UNDER_WAY)
ProcessCollector(registry=RUN)
