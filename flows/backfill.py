"""Register an archive over years, period by period: each is planned in its turn, so memory stays bounded.

A backfill may be killed at any moment and started again. It then skips what is committed and takes over the
claims of the dead run.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from crosstie.codes import Order
from crosstie.flows.archive.stage import after_run
from crosstie.flows.discovery.backfill import Backfill, periods_of
from crosstie.flows.discovery.periods import Period, now_utc, pairs_of_period
from crosstie.flows.registration.load_matcher import weights_sha256
from crosstie.flows.runs.done import done_outcomes, failed_before
from crosstie.flows.runs.parameters import as_parameter, private, settings_of, shown
from crosstie.flows.runs.run import BACKFILL, NEW_SCENE, NIGHTLY, Run
from crosstie.flows.runs.tally import Tally
from crosstie.io.archive import run_log
from crosstie.io.storage.store import open_store

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.io.archive.failures import Failure
    from crosstie.io.storage.store import Store
    from crosstie.types import ScenePair


@dataclass(frozen=True, slots=True)
class PeriodPlan:
    """What a backfill would do in one period."""

    period: Period
    pairs: int
    done: int
    failed: int
    """Given up by an earlier run, or damaged since."""
    to_do: int
    estimated_s: float | None
    """Wall time, estimated from earlier pairs, seconds; None where there were none."""


def planned(catalog: str, out: str, settings: Settings, asked: Backfill) -> Iterator[PeriodPlan]:
    """Dry run: say for each period what would be done and how long it would take. Reads metadata only.

    Raises
    ------
    BadInputError
        The catalog, the root of the products, the settings or the weights are wrong.
    """
    store, digest = open_store(out, settings.storage), weights_sha256(settings)
    seconds = _seconds_per_pair(store)
    took: list[float] = []
    left = asked.limit
    for period in periods_of(settings, asked.order):
        if left == 0:
            return
        pairs = pairs_of_period(catalog, settings, period)
        if not asked.only_failed:
            pairs = pairs[:left]
        done = done_outcomes(store, pairs, settings, weights_sha256=digest)
        failed = failed_before(store, pairs, settings, weights_sha256=digest)
        failed = {key: failure for key, failure in failed.items() if key not in done}
        damaged = sum(not outcome.already_done for outcome in done.values())
        again = _with_code(failed, asked.code)[:left]
        to_do = len(again) if asked.only_failed else len(pairs) - len(done)
        left = None if left is None else left - len(again if asked.only_failed else pairs)
        took += [outcome.seconds for outcome in done.values() if outcome.seconds]
        # Pairs with these settings tell more than a run with other settings.
        each = statistics.fmean(took) if took else seconds
        estimated = None if each is None else to_do * each / settings.compute.pairs_at_once
        yield PeriodPlan(period, len(pairs), len(done) - damaged, len(failed) + damaged, to_do, estimated)


plan_period_task = task(name="plan period", task_run_name="plan {period}", cache_policy=NO_CACHE)(
    pairs_of_period
)


@flow(name="crosstie-backfill", persist_result=False)
def backfill(
    catalog: str,
    out: str,
    settings: dict[str, Any] | None = None,
    order: Order = "newest",
    priority: Annotated[int, Field(ge=-100, le=100)] = 0,
    only_failed: bool = False,
    code: str | None = None,
    limit: Annotated[int | None, Field(ge=1)] = None,
) -> Tally:
    """Register all pairs of an area and a time that are not registered yet; return counts and first outcomes.

    The area is `catalog.bbox` or `catalog.intersects` of the settings, the time `catalog.start_utc` and
    `catalog.end_utc`.

    Args:
        catalog: Path or URL of a STAC catalog or a stac-geoparquet file. It must not contain a secret,
            because Prefect stores and shows parameters.
        out: Folder or URL of the products, such as s3://products. It must not contain a secret.
        settings: Settings, as in a settings file: {"catalog": {"start_utc": "2024-01-01"}}. `crosstie config`
            prints all. Settings that are left out come from the worker's CROSSTIE_… variables.
        order: Which references are registered first.
        priority: Where several runs share a Dask scheduler, tiles of the run with the highest priority go
            first. A nightly run has 5, a new scene 10.
        only_failed: Retry only the pairs that failed in an earlier run.
        code: With only_failed, retry only pairs with this failure code, such as time_limit; `crosstie status`
            lists the codes.
        limit: Maximum number of pairs, for a trial, done ones included; leave it empty for all. With
            only_failed, of failed pairs that are tried again.
    """
    known = settings_of(settings)
    ask = Backfill(order=order, priority=priority, only_failed=only_failed, code=code, limit=limit)
    started = now_utc()
    periods = periods_of(known, ask.order)
    plan = partial(plan_period_task, private(catalog), known, newest_first=order == "newest")
    # Plan the first period before anything is written, so that a catalog that cannot be read leaves no trace.
    pairs = plan(periods[0])
    asked = _shown_parameters(catalog, out, known, ask, periods)
    with Run(
        BACKFILL,
        out,
        known,
        asked=asked,
        started=started,
        whole=False,
        periods=len(periods),
        priority=priority,
    ) as run:
        left = limit
        for n, period in enumerate(periods):
            if left == 0:
                break
            if n > 0:
                pairs = plan(period)
            again = _failed_keys(pairs, out, known, ask.code)[:left] if only_failed else None
            if again is None:
                pairs = pairs[:left]
            left = None if left is None else left - len(pairs if again is None else again)
            for _ in run.take(pairs, only=again):
                pass
            pairs = []  # so that only one period is in memory while the next is planned
    after_run(private(out), known)
    return run.tally


def run_backfill(catalog: str, out: str, settings: Settings, asked: Backfill) -> Tally:
    """Run the flow in this process. Here addresses may carry secrets; Prefect does not see them."""
    with shown(catalog) as public, shown(out) as products:
        tally: Tally = backfill(
            public,
            products,
            as_parameter(settings),
            order=asked.order,
            priority=asked.priority,
            only_failed=asked.only_failed,
            code=asked.code,
            limit=asked.limit,
        )
    return tally


def _shown_parameters(
    catalog: str, out: str, settings: Settings, asked: Backfill, periods: Sequence[Period]
) -> dict[str, Any]:
    """Parameters of a backfill, as its log and its page show them."""
    return {
        "catalog": catalog,
        "out": out,
        "acquired from": str(settings.catalog.start_utc),
        "acquired until": settings.catalog.end_utc and str(settings.catalog.end_utc),
        "periods": f"{len(periods)} of {settings.backfill.partition_days:g} days, {asked.order} first",
        "only failed": (asked.code or "all") if asked.only_failed else None,
        "limit": asked.limit,
    }


def _failed_keys(pairs: list[ScenePair], out: str, settings: Settings, code: str | None) -> list[str]:
    """Keys of the pairs that failed before and are not done since, in the order of the pairs."""
    store, digest = open_store(out, settings.storage), weights_sha256(settings)
    failed = set(_with_code(failed_before(store, pairs, settings, weights_sha256=digest), code))
    # A pair may be done although its failure still lies there: a run was cut off between commit and clean-up.
    candidates = [pair for pair in pairs if pair.key in failed]
    done = done_outcomes(store, candidates, settings, weights_sha256=digest)
    return [pair.key for pair in candidates if pair.key not in done]


def _with_code(failed: Mapping[str, Failure], code: str | None) -> list[str]:
    return [key for key, failure in failed.items() if code in {None, failure.code}]


def _seconds_per_pair(store: Store) -> float | None:
    """Seconds of a pair in the latest run that registered any."""
    for name in (BACKFILL, NIGHTLY, NEW_SCENE):
        for log in run_log.newest_logs(store, name):
            if log.seconds_per_pair is not None:
                return log.seconds_per_pair
    return None
