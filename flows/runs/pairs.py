"""Register many pairs, each in a Prefect task of its own; a pair that fails does not affect the others."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from queue import SimpleQueue
from threading import Event
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from dask.base import annotate
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from crosstie.errors import StoreError
from crosstie.flows.cluster.connect import connected
from crosstie.flows.cluster.workforce import workforce_of
from crosstie.flows.observe.run_metrics import RETRIES, UNDER_WAY
from crosstie.flows.registration.deadline import RunStoppedError, stopped_by
from crosstie.flows.registration.load_matcher import load_matcher, weights_sha256
from crosstie.flows.runs.failure_codes import BUG
from crosstie.flows.runs.outcome import IN_PROGRESS, Outcome
from crosstie.flows.runs.pair import PairBatch, PairFailedError, register_pair
from crosstie.flows.runs.waiting import released
from crosstie.io.archive.failures import Failure, read_failure, record_failure
from crosstie.io.storage.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect.futures import PrefectFuture

    from crosstie.config import Settings
    from crosstie.flows.registration.measure import TileMatcher
    from crosstie.types import ScenePair

LOG = logging.getLogger(__name__)

TAG = "crosstie-pair"
"""Tag of every pair's task: `prefect concurrency-limit create crosstie-pair 8` limits them over all runs."""

MOST_DELAY_S = 3600.0
"""Longest wait before a retry, seconds."""


class Registrar:
    """Registers pairs for a flow. Connects to the cluster at the first pair and disconnects at the end."""

    def __init__(
        self,
        out: str,
        settings: Settings,
        *,
        priority: int = 0,
        load: Callable[[], TileMatcher] | None = None,
    ) -> None:
        """Open the product root; nothing is connected yet.

        Parameters
        ----------
        out : str
            Root of the products.
        settings : Settings
        priority : int, optional
            On a Dask scheduler that several runs share, tiles of a higher priority go first.
        load : Callable[[], TileMatcher] or None, optional
            Makes the matcher; None loads that of the settings.
        """
        self.batch = PairBatch(out, settings, weights_sha256(settings))
        self.store = self.batch.store()
        self._priority = priority
        self._load = load
        self._opened = ExitStack()
        self._is_connected = False
        self._stop = Event()
        self._task = _with_retries(settings)

    def __enter__(self) -> Self:
        self._opened.enter_context(stopped_by(self._check))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()  # an interrupted run does not wait for the pairs under way
        self._opened.close()

    def register(self, pairs: Iterable[ScenePair]) -> Iterator[Outcome]:
        """Yield one outcome for each pair, as they end; `compute.pairs_at_once` of them run at once.

        Pairs that another run has claimed come last. Each is waited for until it is committed, until it is
        free (then it is registered here), or until its owner is seen to renew the claim.

        Raises
        ------
        SettingsError, WeightsError
            The cluster cannot be reached, or holds no network.
        """
        held = []
        for pair, outcome in self._run(pairs):
            if outcome.verdict == IN_PROGRESS:
                held.append(pair)
            else:
                yield outcome
        if held:
            LOG.info("%d pairs are claimed by another run: waiting to see whether it is alive", len(held))
        for pair, outcome in self._run(released(held, self.batch, self.store)):
            del pair
            yield outcome

    def _run(self, pairs: Iterable[ScenePair]) -> Iterator[tuple[ScenePair, Outcome]]:
        finished: SimpleQueue[PrefectFuture[Outcome]] = SimpleQueue()
        under_way: dict[Any, ScenePair] = {}
        room = self.batch.settings.compute.pairs_at_once
        for pair in pairs:
            self._connect()
            while len(under_way) >= room:
                yield self._collected(finished.get(), under_way)
            future = self._task.submit(pair, self.batch)
            under_way[future.task_run_id] = pair
            future.add_done_callback(finished.put)
        while under_way:
            yield self._collected(finished.get(), under_way)

    def _collected(
        self, future: PrefectFuture[Outcome], under_way: dict[Any, ScenePair]
    ) -> tuple[ScenePair, Outcome]:
        pair = under_way.pop(future.task_run_id)
        result = cast("Outcome | BaseException", future.result(raise_on_failure=False))
        return pair, result if isinstance(result, Outcome) else self._given_up(pair, result)

    def _given_up(self, pair: ScenePair, problem: BaseException) -> Outcome:
        if isinstance(problem, PairFailedError):
            code, message = problem.cause.code, problem.cause.message
        else:
            code, message = BUG, redacted(f"{type(problem).__name__}: {problem}")
            LOG.error("%s: failed: %s", pair.key, message)
        self.record(pair, code=code, message=message)
        return Outcome.failure(pair.key, code=code, message=message)

    def record(self, pair: ScenePair, *, code: str, message: str) -> None:
        """Record why a pair has no products that can be used, for the next run and `crosstie status`."""
        product = self.batch.product_of(pair.key)
        try:
            before = read_failure(self.store, *product)
            failure = Failure(
                pair_key=product.pair_key,
                run_key=product.run_key,
                reference=pair.reference.id,
                secondary=pair.secondary.id,
                code=code,
                message=message,
                failed_utc=datetime.now(UTC).isoformat(timespec="seconds"),
                attempts=1 + (before.attempts if before else 0),
            )
            record_failure(self.store, failure)
        except StoreError as error:
            LOG.warning("%s: its failure could not be recorded: %s", pair.key, redacted(str(error)))

    def _connect(self) -> None:
        if not self._is_connected:
            # A matcher of the caller is loaded for this run alone; that of the settings is shared with other
            # runs.
            sha256 = self.batch.weights_sha256 if self._load is None else None
            load = self._load or partial(load_matcher, self.batch.settings)
            compute = self.batch.settings.compute
            client = self._opened.enter_context(connected(compute, load, weights_sha256=sha256))
            self._opened.enter_context(UNDER_WAY.working(workforce_of(client)))
            if self._priority:
                self._opened.enter_context(annotate(priority=self._priority))
            self._is_connected = True

    def _check(self) -> None:
        if self._stop.is_set():
            raise RunStoppedError("the run was stopped before this pair was done")


def _may_help(task: object, task_run: object, state: Any) -> bool:
    """Whether to try again: after an I/O error, never after bad input or a bug."""
    del task, task_run
    problem = state.result(raise_on_failure=False)
    again = isinstance(problem, PairFailedError) and problem.cause.again
    if again:
        RETRIES.labels("pair").inc()  # called only while retries are left
    return again


def _with_retries(settings: Settings) -> Any:
    """The task of a pair, with retries after I/O errors; each waits longer."""
    runs = settings.runs
    delays = [min(MOST_DELAY_S, delay) for delay in exponential_backoff(runs.retry_delay_s)(runs.retries)]
    if not delays:
        return register_pair_task
    return register_pair_task.with_options(
        retries=runs.retries, retry_delay_seconds=delays, retry_jitter_factor=0.2
    )


register_pair_task = task(
    name="register pair",
    task_run_name="register {pair.key}",
    tags=[TAG],
    cache_policy=NO_CACHE,
    retry_condition_fn=_may_help,
)(register_pair)
