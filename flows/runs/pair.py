"""One pair of a run: claim, measure on the cluster and commit it, or give it up with a code and a message."""

from __future__ import annotations

import functools
import logging
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from distributed import Client

from crosstie.errors import CrosstieError
from crosstie.flows.cluster.connect import OnCluster
from crosstie.flows.observe.context import bind_context
from crosstie.flows.observe.run_metrics import RUN_TILES
from crosstie.flows.observe.tracing import step
from crosstie.flows.registration import deadline
from crosstie.flows.registration.deadline import Deadline, stopped_by
from crosstie.flows.registration.phases import Phase
from crosstie.flows.registration.pipeline import Progress, register_plan
from crosstie.flows.registration.plan import plan_pair
from crosstie.flows.registration.publish import PairNames, assemble, publish, run_key_of
from crosstie.flows.registration.scenes import open_scenes
from crosstie.flows.runs.failure_codes import BUG, FailureCause, failure_cause
from crosstie.flows.runs.outcome import Outcome
from crosstie.flows.runs.progress import run_listener
from crosstie.io.archive.claims import Claim, ClaimLostError, Held, take
from crosstie.io.archive.failures import forget_failure
from crosstie.io.products.correction import correction_dict, read_correction_of
from crosstie.io.storage.redaction import redacted
from crosstie.io.storage.root_layout import ProductKey
from crosstie.io.storage.store import open_store

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.io.storage.store import Store
    from crosstie.types import ScenePair

Result = TypeVar("Result")

LOG = logging.getLogger(__name__)

GRACE_S = 5.0
"""Time after its deadline in which a pair may still stop by itself, seconds; then its thread is abandoned."""


@dataclass(frozen=True, slots=True)
class PairBatch:
    """What all pairs of a run have in common."""

    out: str
    """Root of the products."""
    settings: Settings
    weights_sha256: str

    def store(self) -> Store:
        return open_store(self.out, self.settings.storage)

    def product_of(self, pair_key: str) -> ProductKey:
        """Where the products of a pair lie, for the settings and weights of this run."""
        return ProductKey(pair_key, run_key_of(pair_key, self.settings, weights_sha256=self.weights_sha256))


class PairFailedError(CrosstieError):
    """An attempt at a pair failed; the message may be stored and shown."""

    def __init__(self, cause: FailureCause) -> None:
        super().__init__(f"{cause.code}: {cause.message}")
        self.cause = cause


def register_pair(pair: ScenePair, batch: PairBatch) -> Outcome:
    """Register one pair on the cluster that this process is connected to, and commit its products.

    If another run works on the pair, the outcome says so. If another run has committed the pair meanwhile,
    the outcome is taken from its products.

    Raises
    ------
    PairFailedError
        The attempt failed, for whatever reason. The message is one line without secrets.
    """
    try:
        deadline.check()
        with bind_context(pair_key=pair.key):
            return _claimed(pair, batch)
    except PairFailedError:
        raise
    except CrosstieError as problem:
        raise _failed(problem, pair, batch) from None


def _claimed(pair: ScenePair, batch: PairBatch) -> Outcome:
    store, product = batch.store(), batch.product_of(pair.key)
    claim = take(store, product, lease_s=batch.settings.runs.claim_s)
    if isinstance(claim, Held):
        return Outcome.elsewhere(pair.key, until_utc=claim.expires_utc)
    with claim:
        correction = read_correction_of(store, product, pair)
        if correction is not None:
            return Outcome.of(pair.key, correction, products=store.url_of(product.prefix), already_done=True)
        limit = Deadline.after(batch.settings.runs.pair_timeout_s)
        with stopped_by(limit.check, claim.check):
            work = in_thread(functools.partial(_registered, pair, batch, store), name=pair.key)
        try:
            problem = work.exception(limit.left_s + GRACE_S)
        except TimeoutError:
            # Raises; the thread is inside code that does not check the deadline, and will commit nothing.
            limit.check()
            raise
        if problem is None:
            return work.result()
        if isinstance(problem, ClaimLostError):
            return _taken_over(pair, claim)
        # Raises where the run is being stopped: the problem is then only that the cluster has gone.
        deadline.check()
        raise _failed(problem, pair, batch) from None


def _registered(pair: ScenePair, batch: PairBatch, store: Store) -> Outcome:
    """Plan, measure, render and commit; checks between the steps whether to go on."""
    begin = time.monotonic()
    settings = batch.settings
    tell_phase, progress = functools.partial(run_listener().phase, pair.key), _progress_of(pair.key)
    tell_phase(Phase.PLAN)
    names = PairNames(
        reference_id=pair.reference.id,
        secondary_id=pair.secondary.id,
        reference_hrefs=pair.reference.hrefs,
        secondary_hrefs=pair.secondary.hrefs,
        secondary_acquired_utc=pair.secondary.acquired_utc,
    )
    sources = open_scenes(pair.reference, pair.secondary, settings)
    deadline.check()
    engine = OnCluster(Client.current())
    with step("plan"):
        plan = plan_pair(*sources, settings, read=engine.read)
    deadline.check()
    with step("measure"):
        measured = register_plan(plan, engine, settings, progress=progress, tell_phase=tell_phase)
    registration = assemble(
        names,
        plan,
        measured,
        settings,
        weights_sha256=batch.weights_sha256,
        seconds=time.monotonic() - begin,
    )
    deadline.check()
    tell_phase(Phase.WRITE)
    with step("publish"):
        url = publish(
            store, registration, plan, names, settings,
            read=engine.read, align=engine.align, draw=engine.draw,
        )  # fmt: skip
    forget_failure(store, pair.key, registration.run_key)
    return Outcome.of(pair.key, correction_dict(registration), products=url, already_done=False)


def _progress_of(pair_key: str) -> Progress:
    """Report the tiles of a pair to metrics and listener, and stop the work where it must not go on."""
    tell = functools.partial(run_listener().tiles, pair_key)
    counted = 0

    def progress(done: int, planned: int) -> None:
        nonlocal counted
        deadline.check()
        RUN_TILES.inc(done - counted)
        counted = done
        tell(done, planned)

    return progress


def _taken_over(pair: ScenePair, claim: Claim) -> Outcome:
    LOG.warning(
        "%s: another run has taken it over, because its claim %s was not renewed in time", pair.key, claim.key
    )
    return Outcome.elsewhere(pair.key, until_utc=claim.expires_utc)


def _failed(problem: BaseException, pair: ScenePair, batch: PairBatch) -> PairFailedError:
    cause = failure_cause(problem, (*pair.reference.hrefs, *pair.secondary.hrefs), batch.out)
    if cause.code == BUG:
        LOG.error("%s: failed\n%s", pair.key, redacted("".join(traceback.format_exception(problem))))
    return PairFailedError(cause)


def in_thread(work: Callable[[], Result], *, name: str) -> Future[Result]:
    """Run `work` in a thread of its own, in this context. A thread that hangs can be abandoned.

    The interpreter waits at its end for the threads of an executor, but not for this one.
    """
    future: Future[Result] = Future()
    context = copy_context()

    def run() -> None:
        try:
            result = context.run(work)
        except BaseException as problem:  # noqa: BLE001  (handed over, not swallowed)
            future.set_exception(problem)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
