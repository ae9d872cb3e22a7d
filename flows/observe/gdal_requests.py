"""Count what GDAL fetches over the network: it keeps the counts itself, but rasterio cannot read them."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from crosstie.io.storage.http import PROBES

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric


def count_fetches() -> None:
    """Make GDAL count; call it before GDAL opens its first remote file."""
    os.environ.setdefault("CPL_VSIL_NETWORK_STATS_ENABLED", "YES")


def fetched() -> tuple[int, int] | None:
    """Requests and bytes for rasters in this process, redirects included; None where that is not known."""
    gdal = _gdal_library() if "rasterio" in sys.modules else None
    if gdal is None:
        return None
    text = gdal.VSINetworkStatsGetAsSerializedJSON(None)
    if not text:
        return 0, 0
    try:
        said = json.loads(ctypes.string_at(text) or b"{}")
    finally:
        gdal.VSIFree(text)
    methods = said.get("methods", {}).values()
    probes, probed_bytes = PROBES.sent()
    return (
        probes + sum(m.get("count", 0) for m in methods),
        probed_bytes + sum(m.get("downloaded_bytes", 0) for m in methods),
    )


@cache
def _gdal_library() -> ctypes.CDLL | None:
    """The GDAL library that rasterio has loaded into this process; its file name differs between builds."""
    try:
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return None
    names = (line.rpartition(" ")[2] for line in mapped.splitlines())
    path = next((name for name in names if Path(name).name.startswith("libgdal")), None)
    if path is None:
        return None
    gdal = ctypes.CDLL(path)
    if not hasattr(gdal, "VSINetworkStatsGetAsSerializedJSON"):  # a build without curl
        return None
    gdal.VSINetworkStatsGetAsSerializedJSON.restype = ctypes.c_void_p
    gdal.VSINetworkStatsGetAsSerializedJSON.argtypes = [ctypes.c_void_p]
    gdal.VSIFree.argtypes = [ctypes.c_void_p]
    return gdal


class Fetches(Collector):
    """Collects the requests and bytes that GDAL has fetched over the network."""

    def collect(self) -> Iterable[Metric]:
        found = fetched()
        if found is None:
            return
        requests, size = found
        yield CounterMetricFamily(
            "crosstie_fetch_requests", "Requests of GDAL for parts of remote files.", value=requests
        )
        yield CounterMetricFamily(
            "crosstie_fetched_bytes", "Bytes that GDAL fetched over the network, as stored.", value=size
        )


REGISTRY.register(Fetches())
