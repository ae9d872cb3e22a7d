"""Scale the readers with the windows that wait to be read; matchers stay."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from distributed import SchedulerPlugin
from distributed.deploy.adaptive import Adaptive

from crosstie.flows.cluster.worker_tasks import GPU
from crosstie.flows.cluster.workforce import AHEAD

if TYPE_CHECKING:
    from distributed import Scheduler, SpecCluster
    from distributed.scheduler import TaskState, WorkerState


class KeepMatchers(SchedulerPlugin):
    """Never offers a worker with `GPU` for closing."""

    name = "crosstie-keep-matchers"

    def valid_workers_downscaling(
        self, scheduler: Scheduler, workers: list[WorkerState]
    ) -> list[WorkerState]:
        del scheduler
        return [worker for worker in workers if not worker.resources.get(GPU)]


class AdaptReaders(Adaptive):
    """Asks for as many readers as there are windows that wait to be read.

    Dask's own estimate counts all work, and would add readers when it is matching that takes the time.
    """

    async def target(self) -> int:
        # The scheduler runs in this process.
        scheduler = cast("Scheduler", cast("SpecCluster", self.cluster).scheduler)
        matchers = sum(bool(worker.resources.get(GPU)) for worker in scheduler.workers.values())
        return matchers + readers_wanted(scheduler)


def readers_wanted(scheduler: Scheduler) -> int:
    """Number of readers for the windows that wait to be read; each may have `AHEAD` of them."""
    return math.ceil(sum(_waits_for_a_reader(task) for task in scheduler.tasks.values()) / AHEAD)


def _waits_for_a_reader(task: TaskState) -> bool:
    return task.state in {"processing", "queued", "no-worker"} and not task.resource_restrictions
