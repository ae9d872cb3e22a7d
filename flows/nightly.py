"""Every night: find the pairs of a catalogue, register those not done yet, say what became of each."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from distributed import Client
from prefect import flow, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from crosstie.config import Settings
from crosstie.errors import CrosstieError
from crosstie.flows.cluster import OnCluster, connected
from crosstie.flows.loading import load_matcher, weights_sha256
from crosstie.flows.outcome import Outcome
from crosstie.flows.pipeline import register_plan
from crosstie.flows.plan import plan_pair
from crosstie.flows.plan_pairs import find_pairs, look_up
from crosstie.flows.publish import Names, assemble, publish
from crosstie.flows.reporting import listener
from crosstie.io.products import read_correction
from crosstie.io.raster import open_pair
from crosstie.io.store import open_store
from crosstie.types import ScenePair

if TYPE_CHECKING:
    from uuid import UUID

LOG = logging.getLogger(__name__)

TABLE_KEY = "crosstie-nightly"
PROGRESS_KEY = "crosstie-nightly-progress"


def register_pair(pair: ScenePair, out: str, settings: Settings) -> Outcome:
    """Register one pair on the cluster that this process is connected to, and commit its products.

    What is wrong with one pair (an unreadable raster, say) is its outcome, and no concern of the others.
    """
    begin = time.monotonic()
    tell = listener()
    names = Names(
        reference_id=pair.reference.id,
        secondary_id=pair.secondary.id,
        reference_hrefs=pair.reference.hrefs,
        secondary_hrefs=pair.secondary.hrefs,
        secondary_acquired_utc=pair.secondary.acquired_utc,
    )
    try:
        sources = open_pair(
            pair.reference.hrefs,
            pair.secondary.hrefs,
            reference_kind=pair.reference.kind,
            secondary_kind=pair.secondary.kind,
            from_catalogue=True,
        )
        plan = plan_pair(*sources, settings)
        engine = OnCluster(Client.current())
        measured = register_plan(plan, engine, settings, progress=partial(tell.tiles, pair.key))
        digest = weights_sha256(settings)
        registration = assemble(
            names, plan, measured, settings, weights_sha256=digest, seconds=time.monotonic() - begin
        )
        url = publish(open_store(out), registration, plan, names)
        correction = read_correction(open_store(out), pair.key, registration.run_key)
    except CrosstieError as problem:
        return Outcome.failure(pair.key, problem)
    if correction is None:
        raise RuntimeError(f"{url} was committed and is gone")
    return Outcome.of(pair.key, correction, products=url, already_done=False)


find_pairs_task = task(name="find pairs", cache_policy=NO_CACHE)(find_pairs)
look_up_task = task(name="look up what is done", cache_policy=NO_CACHE)(look_up)
register_pair_task = task(name="register pair", task_run_name="register {pair.key}", cache_policy=NO_CACHE)(
    register_pair
)


@flow(name="crosstie-nightly", persist_result=False)
def nightly(catalogue: str, out: str, settings: Settings, limit: int | None = None) -> list[Outcome]:
    """Register all pairs of a catalogue that are not done yet; one outcome a pair, sorted by key.

    Parameters
    ----------
    catalogue : path or URL of a STAC catalogue
    out : folder or URL of the products
    limit : pairs at most; None for all
    """
    pairs = find_pairs_task(catalogue, settings, limit)
    outcomes = look_up_task(pairs, out, settings)
    done = {outcome.pair_key for outcome in outcomes}
    todo = [pair for pair in pairs if pair.key not in done]
    for outcome in outcomes:
        listener().finished(outcome.pair_key, f"already done: {outcome.verdict}")
    if todo:
        with connected(settings.compute, partial(load_matcher, settings)):
            outcomes += _register_all(todo, out, settings)
    outcomes.sort(key=lambda outcome: outcome.pair_key)
    create_table_artifact(
        [outcome.row() for outcome in outcomes],
        key=TABLE_KEY,
        description=f"{catalogue}: {len(todo)} of {len(pairs)} pairs registered, the others done before",
    )
    return outcomes


def run_nightly(catalogue: str, out: str, settings: Settings, *, limit: int | None = None) -> list[Outcome]:
    """Run the flow with as many pairs at once as the settings say."""
    runner: Any = ThreadPoolTaskRunner(max_workers=settings.compute.pairs_at_once)
    outcomes: list[Outcome] = nightly.with_options(task_runner=runner)(catalogue, out, settings, limit)
    return outcomes


def _register_all(todo: Sequence[ScenePair], out: str, settings: Settings) -> Iterator[Outcome]:
    """Outcomes as they come; a pair that a bug breaks is one of them, with its traceback in the log."""
    progress = cast("UUID", create_progress_artifact(0.0, key=PROGRESS_KEY, description=f"{len(todo)} pairs"))
    pair_of = {register_pair_task.submit(pair, out, settings): pair for pair in todo}
    futures: list[PrefectFuture[Outcome]] = list(pair_of)
    for n, future in enumerate(as_completed(futures), start=1):
        result = cast("Outcome | BaseException", future.result(raise_on_failure=False))
        key = pair_of[future].key
        if isinstance(result, Outcome):
            outcome = result
        else:
            LOG.error("%s: broke off", key, exc_info=result)
            outcome = Outcome.failure(key, result)
        listener().finished(key, ", ".join([outcome.verdict, *outcome.reasons]))
        update_progress_artifact(progress, 100 * n / len(todo))
        yield outcome
