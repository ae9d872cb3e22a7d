"""An archive over years: cut into periods, each planned when its turn comes, so that memory stays bounded.

Killed at any moment and started again it goes on: what is committed is looked up, not computed, and the
claims of the dead run are taken over.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from crosstie.errors import SettingsError
from crosstie.flows.discovery.periods import Period, now_utc, pairs_of_period, parted
from crosstie.flows.registration.load_matcher import weights_sha256
from crosstie.flows.runs.done import done_outcomes, failed_before
from crosstie.flows.runs.parameters import as_parameter, private, settings_of, shown
from crosstie.flows.runs.run import BACKFILL, NEW_SCENE, NIGHTLY, Run
from crosstie.flows.runs.tally import Tally
from crosstie.io.archive import run_log
from crosstie.io.storage.store import open_store

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.io.storage.store import Store
    from crosstie.types import ScenePair

Order = Literal["newest", "oldest"]


@dataclass(frozen=True, slots=True)
class Backfill:
    """What a backfill is asked for, beside the settings."""

    order: Order = "newest"
    """Which references go first."""
    priority: int = 0
    """On a Dask scheduler that several runs share: tiles of a higher one go first. (A nightly run has 5, a
    scene that has just come 10.)"""
    only_failed: bool = False
    """Only the pairs that a run has given up before."""
    code: str | None = None
    """With `only_failed`: only those that were given up for this reason."""

    def __post_init__(self) -> None:
        if self.code is not None and not self.only_failed:
            raise SettingsError(f"a code ({self.code}) chooses among failed pairs; ask for only_failed, too")


@dataclass(frozen=True, slots=True)
class PeriodPlan:
    """What a backfill would do in one period."""

    period: Period
    pairs: int
    done: int
    failed: int
    """Given up by an earlier run."""
    to_do: int
    estimated_s: float | None
    """Wall time, from what earlier pairs took; None where there were none."""


def periods_of(settings: Settings, order: Order) -> list[Period]:
    """Periods of the span that the settings ask for, in the order in which they are done.

    Raises
    ------
    SettingsError : the span has no beginning
    """
    start, end = settings.catalog.interval_utc
    if start is None:
        raise SettingsError(
            "a backfill needs to know from when on: give --start, or set catalog.start_utc (where the end "
            "is left open it is today)"
        )
    days = settings.backfill.partition_days
    if settings.pairing.best_n_per_tile is not None:  # which pairs are best is not known before all are
        days = 1 + ((end or now_utc()) - start) / timedelta(days=1)
    return parted(start, end or now_utc(), days=days, newest_first=order == "newest")


def planned(catalog: str, out: str, settings: Settings, asked: Backfill) -> Iterator[PeriodPlan]:
    """Dry run: period by period what would be done, and how long it would take. Reads metadata only.

    Raises
    ------
    BadInputError : the catalog, the root of the products, the settings or the weights are wrong
    """
    store, digest = open_store(out, settings.storage), weights_sha256(settings)
    seconds = _seconds_per_pair(store)
    took: list[float] = []
    for period in periods_of(settings, asked.order):
        pairs = pairs_of_period(catalog, settings, period)
        done = done_outcomes(store, pairs, settings, weights_sha256=digest)
        failed = failed_before(store, pairs, settings, weights_sha256=digest)
        failed = {key: failure for key, failure in failed.items() if key not in done}
        wanted = [f for f in failed.values() if asked.code in {None, f.code}]
        to_do = len(wanted) if asked.only_failed else len(pairs) - len(done)
        took += [outcome.seconds for outcome in done.values() if outcome.seconds]
        # What pairs of this very run took says more than what a run with other settings took.
        each = statistics.fmean(took) if took else seconds
        estimated = None if each is None else to_do * each / settings.compute.pairs_at_once
        yield PeriodPlan(period, len(pairs), len(done), len(failed), to_do, estimated)


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
) -> Tally:
    """Register the pairs of an area and a time that are not done yet; counts, and the first of each sort.

    The area is `catalog.bbox` or `catalog.intersects` of the settings, the time `catalog.start_utc` and
    `catalog.end_utc`.

    Args:
        catalog: Path or URL of a STAC catalog or a stac-geoparquet file. Without a secret: parameters are
            stored and shown.
        out: Folder or URL of the products, such as s3://products. Without a secret.
        settings: What a settings file would hold, in part: {"catalog": {"start_utc": "2024-01-01"}}.
            `crosstie config` prints all; what is left out, the worker's CROSSTIE_… variables say.
        order: Which references go first.
        priority: On a Dask scheduler that several runs share, tiles of a higher one go first. A nightly run
            has 5, a scene that has just come 10.
        only_failed: Only the pairs that an earlier run has given up.
        code: With only_failed: only those with this reason, time_limit say; `crosstie status` lists them.
    """
    known = settings_of(settings)
    ask = Backfill(order=order, priority=priority, only_failed=only_failed, code=code)
    started = now_utc()
    periods = periods_of(known, ask.order)
    asked = {
        "catalog": catalog,
        "out": out,
        "acquired from": str(known.catalog.start_utc),
        "acquired until": known.catalog.end_utc and str(known.catalog.end_utc),
        "periods": f"{len(periods)} of {known.backfill.partition_days:g} days, {order} first",
        "only failed": (code or "all") if only_failed else None,
    }
    # The first period is planned before anything is written: a catalog that cannot be read leaves nothing.
    first = plan_period_task(private(catalog), known, periods[0], newest_first=order == "newest")
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
        for n, period in enumerate(periods):
            pairs = (
                first
                if n == 0
                else plan_period_task(private(catalog), known, period, newest_first=order == "newest")
            )
            wanted = _failed_only(pairs, out, known, ask) if only_failed else None
            for _ in run.take(pairs, only=wanted):
                pass
            first = pairs = []
    return run.tally


def run_backfill(catalog: str, out: str, settings: Settings, asked: Backfill) -> Tally:
    """Run the flow in this process; as `backfill`, but addresses may carry what Prefect must not store."""
    with shown(catalog) as public, shown(out) as products:
        tally: Tally = backfill(
            public,
            products,
            as_parameter(settings),
            order=asked.order,
            priority=asked.priority,
            only_failed=asked.only_failed,
            code=asked.code,
        )
    return tally


def _failed_only(
    pairs: list[ScenePair], out: str, settings: Settings, asked: Backfill
) -> Callable[[ScenePair], bool]:
    store, digest = open_store(out, settings.storage), weights_sha256(settings)
    failed = failed_before(store, pairs, settings, weights_sha256=digest)
    keys = {key for key, failure in failed.items() if asked.code in {None, failure.code}}
    return lambda pair: pair.key in keys


def _seconds_per_pair(store: Store) -> float | None:
    """What a pair took in the latest run that registered any."""
    for name in (BACKFILL, NIGHTLY, NEW_SCENE):
        for log in run_log.newest_logs(store, name):
            if log.seconds_per_pair is not None:
                return log.seconds_per_pair
    return None
