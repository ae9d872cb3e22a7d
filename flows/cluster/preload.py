"""Preloaded by a Dask worker or scheduler: its metrics exist from the start, its log follows the settings.

DASK_DISTRIBUTED__WORKER__PRELOAD='["crosstie.flows.cluster.preload"]' dask worker tcp://…
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distributed import Worker

from crosstie.config import load_settings
from crosstie.flows.observe.gdal_requests import count_fetches
from crosstie.flows.observe.json_lines import write_log_as

if TYPE_CHECKING:
    from distributed import Scheduler


def dask_setup(server: Worker | Scheduler) -> None:
    """Called by Dask when the worker or scheduler starts."""
    write_log_as(load_settings().observe.log_format)
    if isinstance(server, Worker):
        count_fetches()
        # Registers the metrics that the worker serves at /metrics of its dashboard address.
        import crosstie.flows.cluster.worker_tasks  # noqa: F401
