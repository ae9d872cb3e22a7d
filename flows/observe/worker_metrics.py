"""Metrics of a Dask worker, in the registry that it serves itself: tiles, seconds, bytes, GPU memory."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
"""Buckets of the histograms: a window takes a tenth of a second on a GPU, some seconds on a CPU."""

TILES = Counter("crosstie_tiles", "Tiles that this worker matched.")

MATCH_SECONDS = Histogram(
    "crosstie_match_seconds", "Matching one window: fine, or the coarse step.", ("step",), buckets=SECONDS
)

READ_SECONDS = Histogram(
    "crosstie_read_seconds", "Reading one window of both images, or a plane for planning.", buckets=SECONDS
)

READ_BYTES = Counter(
    "crosstie_read_bytes", "Bytes of the planes that were read: float32 on the grid, not as stored."
)

for _step in ("fine", "coarse"):
    MATCH_SECONDS.labels(_step)


@contextmanager
def timed_match(step: str) -> Iterator[None]:
    """Inside, measure the time to match one window."""
    with MATCH_SECONDS.labels(step).time():
        yield


class GpuMemory(Collector):
    """Collects the memory of the GPUs that this process uses; touches no other GPU and does not start CUDA.

    Kinds: `allocated` and `reserved` by torch in this process, `peak` allocated so far, `used` by all
    processes, and `total`.
    """

    def collect(self) -> Iterable[Metric]:
        gauge = GaugeMetricFamily(
            "crosstie_gpu_memory_bytes",
            "Memory of a GPU: allocated, reserved and peak of this process, used by all, total.",
            labels=["device", "kind"],
        )
        torch = sys.modules.get("torch")  # a worker that only reads does not load torch
        if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
            for device in range(torch.cuda.device_count()):
                if not torch.cuda.memory_reserved(device):
                    continue
                free, total = torch.cuda.mem_get_info(device)
                for kind, value in (
                    ("allocated", torch.cuda.memory_allocated(device)),
                    ("reserved", torch.cuda.memory_reserved(device)),
                    ("peak", torch.cuda.max_memory_allocated(device)),
                    ("used", total - free),
                    ("total", total),
                ):
                    gauge.add_metric([str(device), kind], value)
        yield gauge


REGISTRY.register(GpuMemory())
