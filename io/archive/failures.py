"""Failure records: why a run gave a pair up, kept where its products would be.

`<pair_key>/<run_key>/_FAILED.json` is written when a run gives a pair up or finds it damaged, and deleted
when a later run commits the pair. It lets failures be counted and tried again by themselves.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from crosstie.io.storage.root_layout import ProductKey

if TYPE_CHECKING:
    from crosstie.io.storage.store import Store

FAILURE_SCHEMA = "crosstie/failure/1"

DAMAGED = "damaged_product"
"""Code of a run whose products are not what it committed. The only failure that stands beside a commit."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a pair has no products."""

    pair_key: str
    run_key: str
    reference: str
    """Id of the reference."""
    secondary: str
    """Id of the secondary."""
    code: str
    """`unreadable_raster`, `time_limit`, `storage`, `bug`, …"""
    message: str
    """One line, without secrets."""
    failed_utc: str
    """ISO 8601."""
    attempts: int
    """Attempts of all runs since the pair last succeeded."""


def record_failure(store: Store, failure: Failure) -> None:
    """Write a failure record; it replaces an earlier one of the same run of the pair.

    Raises
    ------
    StoreError
        The store cannot be written.
    """
    body = {"schema": FAILURE_SCHEMA, **asdict(failure)}
    store.put(
        ProductKey(failure.pair_key, failure.run_key).failure, (json.dumps(body, indent=1) + "\n").encode()
    )


def read_failure(store: Store, pair_key: str, run_key: str) -> Failure | None:
    """Read the failure record of a run of a pair; None where there is none, or it is broken.

    Raises
    ------
    StoreError
        The store cannot be read.
    """
    return _parse_failure(store.get(ProductKey(pair_key, run_key).failure))


def forget_failure(store: Store, pair_key: str, run_key: str) -> None:
    """Delete the failure record of a run of a pair, if there is one.

    Raises
    ------
    StoreError
        The store cannot be written.
    """
    store.delete(ProductKey(pair_key, run_key).failure)


def _parse_failure(body: bytes | None) -> Failure | None:
    try:
        said: Any = json.loads(body or b"")
    except ValueError:
        return None
    if not isinstance(said, dict) or said.get("schema") != FAILURE_SCHEMA:
        return None
    names = Failure.__dataclass_fields__
    try:
        return Failure(**{name: said[name] for name in names})
    except KeyError:
        return None
