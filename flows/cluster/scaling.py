"""More readers while windows wait to be read, fewer when none does; matchers stay."""

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
    """Never offers a worker with `GPU` to those who look for workers to close."""

    name = "crosstie-keep-matchers"

    def valid_workers_downscaling(
        self, scheduler: Scheduler, workers: list[WorkerState]
    ) -> list[WorkerState]:
        del scheduler
        return [worker for worker in workers if not worker.resources.get(GPU)]


class AdaptReaders(Adaptive):
    """As many readers as there are windows that wait to be read.

    Dask's own estimate takes the work that is under way for all the work there is, and would add readers
    where it is matching that takes the time.
    """

    async def target(self) -> int:
        # It runs in this process.
        scheduler = cast("Scheduler", cast("SpecCluster", self.cluster).scheduler)
        matchers = sum(bool(worker.resources.get(GPU)) for worker in scheduler.workers.values())
        return matchers + readers_wanted(scheduler)


def readers_wanted(scheduler: Scheduler) -> int:
    """As many as windows wait to be read, by what each may have ahead."""
    return math.ceil(sum(_waits_for_a_reader(task) for task in scheduler.tasks.values()) / AHEAD)


def _waits_for_a_reader(task: TaskState) -> bool:
    return task.state in {"processing", "queued", "no-worker"} and not task.resource_restrictions
