"""Every night: find the pairs that are new since the last success, and register them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from crosstie.flows.archive.stage import after_run
from crosstie.flows.discovery.periods import find, now_utc, pairs_since
from crosstie.flows.runs.outcome import Outcome
from crosstie.flows.runs.parameters import as_parameter, private, settings_of, shown
from crosstie.flows.runs.run import NIGHTLY, Run
from crosstie.io.archive import run_log
from crosstie.io.storage.store import open_store

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.types import ScenePair


def since(out: str, settings: Settings, scope: str) -> datetime | None:
    """Earliest acquisition that counts as new: the last success minus the look-back; None stands for all.

    Raises
    ------
    StoreError
        The root of the products cannot be read.
    """
    days = settings.nightly.look_back_days
    if days is None:
        return None
    log = run_log.last_success(open_store(out, settings.storage), NIGHTLY, scope=scope)
    if log is None or log.until_utc is None:
        return None
    return datetime.fromisoformat(log.until_utc) - timedelta(days=days)


def new_pairs(catalog: str, settings: Settings, since_utc: datetime | None) -> list[ScenePair]:
    """Pairs of a catalog with a scene acquired at `since_utc` or later; None stands for all pairs."""
    if since_utc is None:
        return find(catalog, settings)
    return pairs_since(catalog, settings, since_utc)


find_pairs_task = task(name="find pairs", cache_policy=NO_CACHE)(new_pairs)


@flow(name="crosstie-nightly", persist_result=False)
def nightly(
    catalog: str,
    out: str,
    settings: dict[str, Any] | None = None,
    limit: Annotated[int | None, Field(ge=1)] = None,
) -> list[Outcome]:
    """Register the new pairs of a catalog; return one outcome per pair, sorted by key.

    Args:
        catalog: Path or URL of a STAC catalog or a stac-geoparquet file. It must not contain a secret,
            because Prefect stores and shows parameters.
        out: Folder or URL of the products, such as s3://products. It must not contain a secret.
        settings: Settings, as in a settings file: {"catalog": {"start_utc": "2024-01-01"}}. `crosstie config`
            prints all. Settings that are left out come from the worker's CROSSTIE_… variables.
        limit: Maximum number of pairs, for a trial, done ones included; leave it empty for all.
    """
    known = settings_of(settings)
    started = now_utc()
    scope = scope_of(catalog, known)
    since_utc = since(out, known, scope)
    pairs = find_pairs_task(private(catalog), known, since_utc)[:limit]
    asked = {
        "catalog": catalog,
        "out": out,
        "acquired from": known.catalog.start_utc and str(known.catalog.start_utc),
        "acquired until": known.catalog.end_utc and str(known.catalog.end_utc),
        "new since": since_utc and since_utc.isoformat(timespec="seconds"),
        "limit": limit,
    }
    with Run(
        NIGHTLY,
        out,
        known,
        asked=asked,
        scope=scope,
        started=started,
        until=known.catalog.interval_utc[1],
        whole=limit is None,
    ) as run:
        outcomes = list(run.take(pairs))
    after_run(private(out), known)
    return sorted(outcomes, key=lambda outcome: outcome.pair_key)


def scope_of(catalog: str, settings: Settings) -> str:
    """Hash what decides which pairs there are, except time: a success in one area says nothing of another."""
    values = as_parameter(settings)
    # Limits that are not set decide nothing, and are no part of the hashes that earlier versions wrote.
    limits = ("allow_hosts", "allow_buckets", "sar_assets", "optical_assets")
    unset = {name for name in limits if not values["catalog"][name]}
    # Whether clouds are masked changes what is found for a pair, and not which pairs there are.
    left_out = {"start_utc", "end_utc", "cloud_masks"} | unset
    place = {name: value for name, value in values["catalog"].items() if name not in left_out}
    pairing = dict(values["pairing"])
    if pairing["graph"] == "nearest":
        # As for the limits above; and what a network is made of decides nothing without one.
        del pairing["graph"], pairing["partners"], pairing["same_kind"]
    elif not pairing["same_kind"]:
        del pairing["same_kind"]
    return run_log.scope_hash(catalog, place, pairing)


def run_nightly(catalog: str, out: str, settings: Settings, *, limit: int | None = None) -> list[Outcome]:
    """Run the flow in this process. Here addresses may carry secrets; Prefect does not see them."""
    with shown(catalog) as public, shown(out) as products:
        outcomes: list[Outcome] = nightly(public, products, as_parameter(settings), limit)
    return outcomes
