"""Status of an archive: done, failed, in progress, pending. Reads names and the index; writes nothing."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from crosstie.io.archive.claims import ClaimRecord, newest_claim
from crosstie.io.archive.damage import known_damage
from crosstie.io.archive.failures import DAMAGED, Failure, read_failure
from crosstie.io.archive.index import survey, why_no_row
from crosstie.io.archive.index_table import MERGE_COLUMNS, runs_of
from crosstie.io.archive.listing import list_archive
from crosstie.io.archive.run_log import RunLog, newest_logs
from crosstie.io.storage.root_layout import ProductKey
from crosstie.types import VerdictCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pyarrow as pa

    from crosstie.config import Settings
    from crosstie.io.archive.listing import ArchiveListing
    from crosstie.io.storage.store import Store

STATUS_SCHEMA = "crosstie/status/1"

STATUS_COLUMNS = (*MERGE_COLUMNS, "verdict", "reasons")
"""Columns of the index that a status needs."""

RECORDS_AT_ONCE = 16
"""Records read at once."""


@dataclass(frozen=True, slots=True)
class InProgress:
    """A run of a pair that is claimed."""

    pair_key: str
    run_key: str
    owner: str
    expires_utc: datetime | None
    """When the claim expires unless it is renewed; None where the claim cannot be read."""
    live: bool
    """False where the claim has expired or its owner is dead; the next run takes the pair over."""


@dataclass(frozen=True, slots=True)
class PlanStatus:
    """Status of the pairs of a catalog for the present settings and weights; each is counted once."""

    pairs: int
    done: int
    failed: int
    in_progress: int
    abandoned: int
    pending: tuple[str, ...]
    """Keys of the pairs that are neither done, failed nor claimed."""
    done_otherwise: int
    """Pending pairs that have a correction made with other settings or weights."""


@dataclass(frozen=True, slots=True)
class Status:
    """Status of an archive."""

    root: str
    done: Mapping[str, int]
    """Number of pairs by verdict of their latest correction."""
    reasons: Mapping[str, int]
    """Number of unreliable pairs by reason; a pair may have several."""
    failed: tuple[Failure, ...]
    """Runs given up or damaged, sorted by pair; without those being tried again and those committed by a
    later run."""
    in_progress: tuple[InProgress, ...]
    last_runs: tuple[RunLog, ...]
    """The last run of each flow."""
    plan: PlanStatus | None
    """None where no catalog was given."""

    @property
    def failures(self) -> Mapping[str, int]:
        """Number of failed pairs by code."""
        return Counter(failure.code for failure in self.failed)

    def as_dict(self) -> dict[str, Any]:
        """Values fit for JSON, schema `crosstie/status/1`."""
        return {
            "schema": STATUS_SCHEMA,
            "root": self.root,
            "done": dict(self.done),
            "unreliable_reasons": dict(self.reasons),
            "failed": dict(self.failures),
            "failed_pairs": [asdict(failure) for failure in self.failed],
            "in_progress": [
                asdict(claim)
                | {"expires_utc": claim.expires_utc.isoformat() if claim.expires_utc is not None else None}
                for claim in self.in_progress
            ],
            "last_runs": [asdict(log) for log in self.last_runs],
            "plan": None if self.plan is None else asdict(self.plan),
        }


def take_status(store: Store, settings: Settings, *, catalog: str | None = None) -> Status:
    """Take the status of an archive.

    Lists the root once. Verdicts come from the index; `correction.json` is read only for runs that the index
    does not hold yet.

    Parameters
    ----------
    catalog : str or None, optional
        Path or URL of a catalog; its pairs are planned to say what is pending.

    Raises
    ------
    StoreError
        The root cannot be read.
    CatalogError
        The catalog cannot be read.
    WeightsError
        A catalog is given, and the weights are missing or have another sha256.
    """
    listing = list_archive(store)
    whole = listing.committed - known_damage(store, listing).keys()
    rows = survey(store, whole, columns=STATUS_COLUMNS)
    status = status_of(store, listing, rows)
    if catalog is None:
        return status
    ever_done = rows["pair_key"].to_pylist()
    return replace(
        status, plan=_plan_status(catalog, settings, listing, ever_done, status.failed, status.in_progress)
    )


def status_of(store: Store, listing: ArchiveListing, rows: pa.Table) -> Status:
    """Take the status of an archive whose names and index have been read already; without a plan.

    Parameters
    ----------
    listing : ArchiveListing
        Names under the root.
    rows : pa.Table
        Rows of the index, with at least the columns `STATUS_COLUMNS`. A committed run without a row has
        failed: its products are damaged.

    Raises
    ------
    StoreError
        The root cannot be read.
    """
    latest = rows.select(STATUS_COLUMNS).to_pandas().query("latest").set_index("pair_key")
    created = dict(zip(latest.index, latest["created"].dt.to_pydatetime(), strict=True))
    with ThreadPoolExecutor(RECORDS_AT_ONCE) as pool:
        found = pool.map(partial(_in_progress, store), sorted(listing.claimed))
        claims = tuple(claim for claim in found if claim is not None)
        failures = list(pool.map(partial(_failure, store), sorted(listing.failed)))
        damaged = list(pool.map(partial(_damaged_run, store), sorted(listing.committed - set(runs_of(rows)))))
        logs = pool.map(lambda flow: next(newest_logs(store, flow), None), sorted(listing.flows))
        last_runs = tuple(log for log in logs if log is not None)
    tried_again = {(claim.pair_key, claim.run_key) for claim in claims if claim.live}
    failed = [
        failure
        for failure in failures
        if (failure.pair_key, failure.run_key) not in tried_again
        and not _made_good(failure, created.get(failure.pair_key))
    ]
    unreliable = latest[latest["verdict"] == VerdictCode.UNRELIABLE]
    return Status(
        root=store.url,
        done=Counter(latest["verdict"]),
        reasons=Counter(reason for reasons in unreliable["reasons"] for reason in reasons),
        failed=tuple(sorted([*failed, *damaged], key=lambda failure: (failure.pair_key, failure.run_key))),
        in_progress=claims,
        last_runs=last_runs,
        plan=None,
    )


def _made_good(failure: Failure, created_utc: datetime | None) -> bool:
    """Whether a run with other settings or weights has committed the pair after the failure."""
    try:
        return created_utc is not None and created_utc > datetime.fromisoformat(failure.failed_utc)
    except (ValueError, TypeError):  # no date, or one without a time zone
        return False


def _plan_status(
    catalog: str,
    settings: Settings,
    listing: ArchiveListing,
    ever_done: Iterable[str],
    failed: Iterable[Failure],
    claims: Iterable[InProgress],
) -> PlanStatus:
    # Only a plan needs the weights, and so torch.
    from crosstie.flows.discovery.pairs import find_pairs
    from crosstie.flows.registration.load_matcher import weights_sha256
    from crosstie.flows.registration.publish import run_key_of

    digest = weights_sha256(settings)
    keys = [pair.key for pair in find_pairs(catalog, settings)]
    products = [ProductKey(key, run_key_of(key, settings, weights_sha256=digest)) for key in keys]
    state: dict[ProductKey, str] = {
        ProductKey(claim.pair_key, claim.run_key): "in progress" if claim.live else "abandoned"
        for claim in claims
    }
    state |= dict.fromkeys(listing.committed, "done")
    state |= {ProductKey(failure.pair_key, failure.run_key): "failed" for failure in failed}
    count = Counter(state.get(product, "pending") for product in products)
    pending = tuple(product.pair_key for product in products if product not in state)
    return PlanStatus(
        pairs=len(products),
        done=count["done"],
        failed=count["failed"],
        in_progress=count["in progress"],
        abandoned=count["abandoned"],
        pending=pending,
        done_otherwise=len(set(pending) & set(ever_done)),
    )


def _in_progress(store: Store, product: ProductKey) -> InProgress | None:
    """Newest claim on a run; None where it was deleted this moment."""
    body = newest_claim(store, product)
    if body is None:
        return None
    record = ClaimRecord.parse(body)
    if record is None:
        return InProgress(*product, owner="unknown", expires_utc=None, live=False)
    return InProgress(*product, owner=record.owner, expires_utc=record.expires_utc, live=record.holds())


def _damaged_run(store: Store, product: ProductKey) -> Failure:
    """A committed run that cannot be gone by, as a failure."""
    said = why_no_row(store, product)
    found = read_failure(store, *product)
    if found is not None and found.code == DAMAGED:
        return replace(found, message=said)
    return Failure(
        *product, reference="", secondary="", code=DAMAGED, message=said, failed_utc="", attempts=0
    )


def _failure(store: Store, product: ProductKey) -> Failure:
    found = read_failure(store, *product)
    if found is not None:
        return found
    return Failure(
        *product,
        reference="",
        secondary="",
        code="unknown",
        message="the record of the failure cannot be read",
        failed_utc="",
        attempts=0,
    )
