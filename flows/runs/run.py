"""One run of a flow over pairs: look up what is done, register the rest, and report progress and results."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from prefect import task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from crosstie.errors import StoreError
from crosstie.flows.observe.context import bind_context
from crosstie.flows.observe.json_lines import write_log_as
from crosstie.flows.observe.run_server import serve_run
from crosstie.flows.runs.done import done_outcomes
from crosstie.flows.runs.in_words import counted
from crosstie.flows.runs.pairs import Registrar
from crosstie.flows.runs.progress import run_listener
from crosstie.flows.runs.record import note
from crosstie.flows.runs.summary import markdown
from crosstie.flows.runs.tally import MOST_ROWS, Tally
from crosstie.io.archive import run_log
from crosstie.io.archive.failures import DAMAGED
from crosstie.io.archive.index import index_committed

if TYPE_CHECKING:
    from uuid import UUID

    from crosstie.config import Settings
    from crosstie.flows.registration.measure import TileMatcher
    from crosstie.flows.runs.outcome import Outcome
    from crosstie.types import ScenePair

LOG = logging.getLogger(__name__)

PROGRESS_EVERY_S = 5.0
"""Time between two progress reports to the server, seconds; a run of small pairs would do little else."""

NIGHTLY, BACKFILL, NEW_SCENE = "nightly", "backfill", "new-scene"
"""Names of the flows, in logs, metrics and artifacts."""

PRIORITY = {NEW_SCENE: 10, NIGHTLY: 5, BACKFILL: 0}
"""Priority of a flow's tiles on a Dask scheduler that several runs share: the most urgent go first."""


class Run:
    """A run of a flow. As a context it writes a run log and Prefect artifacts at its end."""

    def __init__(
        self,
        name: str,
        out: str,
        settings: Settings,
        *,
        asked: dict[str, Any],
        scope: str = "",
        started: datetime,
        until: datetime | None = None,
        whole: bool = True,
        periods: int = 1,
        priority: int | None = None,
        load: Callable[[], TileMatcher] | None = None,
    ) -> None:
        """Log the beginning. The other parameters are those of `run_log.begin` and `Registrar`.

        Parameters
        ----------
        name : str
            Name of the flow; artifacts and logs are named by it.
        whole : bool, optional
            Whether the run was asked for all pairs of the catalog.
        periods : int, optional
            Number of periods that the run is planned in.
        """
        self.tally = Tally(periods=periods)
        self._name = name
        self._asked = asked
        self._whole = whole
        priority = PRIORITY.get(name, 0) if priority is None else priority
        self._registrar = Registrar(out, settings, priority=priority, load=load)
        self._log = run_log.begin(
            self._registrar.store, name, scope=scope, asked=asked, started=started, until=until
        )
        self._progress: UUID | None = None
        self._last_report_s = 0.0
        self._observe = settings.observe
        self._context = ExitStack()

    def __enter__(self) -> Self:
        write_log_as(self._observe.log_format)
        serve_run(self._observe)
        self._context.enter_context(bind_context(flow=self._name, flow_run_id=_flow_run_id()))
        self._registrar.__enter__()
        self._progress = cast(
            "UUID", create_progress_artifact(0.0, key=progress_key(self._name), description="begun")
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._registrar.__exit__(kind, value, trace)
        if value is None:
            self._end()
        self._context.close()

    def take(self, pairs: Sequence[ScenePair], *, only: Sequence[str] | None = None) -> Iterator[Outcome]:
        """Yield outcomes of more pairs: those registered earlier first, then the rest.

        Parameters
        ----------
        pairs : Sequence[ScenePair]
        only : Sequence[str] or None, optional
            Keys of the pairs that may be registered; None for all.

        Raises
        ------
        StoreError
            The root of the products cannot be read.
        SettingsError, WeightsError
            There is no cluster, or its workers hold no network.
        """
        done = self.look_up(pairs)
        wanted = None if only is None else set(only)
        to_do = [pair for pair in pairs if pair.key not in done and (wanted is None or pair.key in wanted)]
        damaged = [pair for pair in pairs if pair.key in done and not done[pair.key].already_done]
        self.tally.plan(len(done) + len(to_do), to_do=len(damaged) + len(to_do))
        for pair in damaged:
            self._registrar.record(pair, code=DAMAGED, message=" ".join(done[pair.key].explanation))
        for outcome in done.values():
            self.tally.add(outcome)
            yield outcome
        self._report(now=True)
        committed: list[Outcome] = []
        try:
            for outcome in self._registrar.register(to_do):
                self.tally.add(outcome)
                note(self._name, outcome)
                committed += [outcome] if outcome.products is not None else []
                before = "already done: " if outcome.already_done else ""
                run_listener().finished(
                    outcome.pair_key, before + ", ".join([outcome.verdict, *outcome.reasons])
                )
                self._report()
                yield outcome
        finally:
            self._index(committed, damaged)

    def look_up(self, pairs: Sequence[ScenePair]) -> dict[str, Outcome]:
        """Outcomes of the pairs that are done, or damaged, for these settings and weights, by pair key."""
        batch = self._registrar.batch
        found: dict[str, Outcome] = look_up_task(
            self._registrar.store, pairs, batch.settings, weights_sha256=batch.weights_sha256
        )
        return found

    def _index(self, outcomes: Sequence[Outcome], damaged: Sequence[ScenePair]) -> None:
        """Add what was committed to the index, and take out what is damaged.

        A failure here loses nothing, since `_COMMIT` alone counts.
        """
        if not (outcomes or damaged):
            return
        try:
            batch = self._registrar.batch
            index_committed(
                self._registrar.store,
                [batch.product_of(outcome.pair_key) for outcome in outcomes],
                damaged={batch.product_of(pair.key) for pair in damaged},
            )
        except StoreError as error:
            LOG.warning("the index was not updated; `crosstie index` does it: %s", error)

    def _report(self, *, now: bool = False) -> None:
        run_listener().run(self.tally)
        if self._progress is not None and (now or time.monotonic() - self._last_report_s >= PROGRESS_EVERY_S):
            update_progress_artifact(self._progress, self.tally.done_pct, description=self.tally.line())
            self._last_report_s = time.monotonic()

    def _end(self) -> None:
        tally, key = self.tally, table_key(self._name)
        if self._progress is not None:
            update_progress_artifact(self._progress, 100.0, description=tally.line())
        rows = [*tally.unwell, *tally.well][:MOST_ROWS]
        create_table_artifact(
            [outcome.row() for outcome in sorted(rows, key=lambda outcome: outcome.pair_key)],
            key=key,
            description=f"{len(rows)} of {counted(tally.over, 'pair')}"
            + ("" if len(rows) == tally.over else "; failed and unreliable pairs go first"),
        )
        took = timedelta(seconds=time.monotonic() - tally.begun_s)
        page = markdown(f"crosstie {self._name}", self._asked, tally, took=took, next_step=NEXT_STEP)
        create_markdown_artifact(page, key=f"{key}-summary", description=tally.line())
        run_log.end(self._registrar.store, self._log, tally, whole=self._whole)


def table_key(flow: str) -> str:
    """Key of the Prefect artifact that lists the outcomes of a flow's runs."""
    return f"crosstie-{flow}"


def progress_key(flow: str) -> str:
    """Key of the Prefect artifact that shows the progress of a flow's runs."""
    return f"crosstie-{flow}-progress"


def _flow_run_id() -> str:
    """Id of the flow run around this call; empty outside a flow."""
    context = FlowRunContext.get()
    return "" if context is None or context.flow_run is None else str(context.flow_run.id)


NEXT_STEP = (
    "The next run tries these again; `crosstie backfill --only-failed` tries only these. `crosstie status` "
    "lists every pair with its message."
)

look_up_task = task(name="look up what is done", cache_policy=NO_CACHE)(done_outcomes)
