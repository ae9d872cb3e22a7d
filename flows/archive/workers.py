"""Places solved by the workers of a Dask cluster, where `compute.cluster` gives the address of one.

Workers compute and nothing else: the process that adjusts reads the pairs and writes the result, so that a
worker needs no access to the archive. A cluster that goes away costs time and no place: what it has not
solved is solved here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crosstie.flows.archive.solving import SolvedPlace, solve_place

if TYPE_CHECKING:
    from distributed import Client, Future

    from crosstie.config import ComputeSettings
    from crosstie.flows.archive.solving import AdjustOptions
    from crosstie.io.adjusted.places import ArchivePair, ArchivePlace
    from crosstie.io.adjusted.tables import MeasuredPairs

    SolvePlace = Callable[
        [ArchivePlace, Sequence[ArchivePair], MeasuredPairs, AdjustOptions, str], SolvedPlace
    ]

LOG = logging.getLogger(__name__)

LOOK_S = 5.0
"""Time between two looks whether any worker is left, seconds."""


@dataclass(frozen=True, slots=True)
class PlaceSolver:
    """How places are solved, and how many are at once."""

    solve: SolvePlace = solve_place
    at_once: int = 1


@contextmanager
def place_solver(compute: ComputeSettings) -> Iterator[PlaceSolver]:
    """Solve places on the cluster whose address `compute.cluster` is; in this process for `local`.

    With `kubernetes` they are solved in this process, too: a place is solved before a pod has started.

    Raises
    ------
    SettingsError
        No scheduler answers at the address.
    """
    if compute.cluster in {"local", "kubernetes"}:
        yield PlaceSolver()
        return
    from crosstie.flows.cluster.connect import join

    with join(compute.cluster, timeout_s=compute.worker_timeout_s) as client:
        # One more than there are threads: while one is read or written here, no worker waits.
        yield PlaceSolver(OnWorkers(client), at_once=sum(client.nthreads().values()) + 1)


class OnWorkers:
    """Has a worker solve a place, and waits for it; called from several threads at once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._gone = False
        """The scheduler does not answer any more, and is not asked again."""

    def __call__(self, place: ArchivePlace, *measured: Any) -> SolvedPlace:
        """As `solve_place`."""
        from distributed import KilledWorker

        if self._gone:
            return solve_place(place, *measured)
        try:
            self._must_have_workers()
            return self._result(self._client.submit(solve_place, place, *measured, pure=False))
        except (KilledWorker, CancelledError, OSError) as problem:
            self._gone = isinstance(problem, OSError)
            LOG.warning(
                "place %s: the Dask cluster has not solved it (%s); it is solved here", place.name, problem
            )
            return solve_place(place, *measured)

    def _must_have_workers(self) -> None:
        """Raise CancelledError where no worker is left: Dask would wait for the next one, without an end."""
        if not self._client.nthreads():
            raise CancelledError("no worker is left")

    def _result(self, future: Future[SolvedPlace]) -> SolvedPlace:
        while True:
            try:
                return future.result(timeout=LOOK_S)
            except TimeoutError:
                self._must_have_workers()
