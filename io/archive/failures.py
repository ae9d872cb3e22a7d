"""What went wrong with a pair, kept beside its products: so that it can be counted, and tried again alone.

`<pair_key>/<run_key>/_FAILED.json` is written when a run gives a pair up, and removed when a later one
commits it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crosstie.io.storage.store import Store

SCHEMA = "crosstie/failure/1"
FAILED = "_FAILED.json"


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
    """A short word: `unreadable_raster`, `time_limit`, `storage`, `bug`, ..."""
    message: str
    """One line, without secrets."""
    failed_utc: str
    """ISO 8601."""
    attempts: int
    """How often the pair was tried, over all runs since it last succeeded."""


def record_failure(store: Store, failure: Failure) -> None:
    """Write a failure, over an earlier one of the same run of the pair.

    Raises
    ------
    StoreError : the store cannot be written
    """
    body = {"schema": SCHEMA, **asdict(failure)}
    store.put(_key(failure.pair_key, failure.run_key), (json.dumps(body, indent=1) + "\n").encode())


def read_failure(store: Store, pair_key: str, run_key: str) -> Failure | None:
    """Read the failure of a run of a pair; None where there is none that can be understood.

    Raises
    ------
    StoreError : the store cannot be read
    """
    return _parsed(store.get(_key(pair_key, run_key)))


def forget_failure(store: Store, pair_key: str, run_key: str) -> None:
    """Remove the failure of a run of a pair, if there is one.

    Raises
    ------
    StoreError : the store cannot be written
    """
    store.delete(_key(pair_key, run_key))


def failures(store: Store) -> Iterator[Failure]:
    """All failures under a root, in the order of their keys.

    Raises
    ------
    StoreError : the store cannot be read
    """
    for key in store.list():
        parts = key.split("/")
        if len(parts) == 3 and parts[2] == FAILED and not parts[0].startswith("_"):
            failure = _parsed(store.get(key))
            if failure is not None:
                yield failure


def _key(pair_key: str, run_key: str) -> str:
    return f"{pair_key}/{run_key}/{FAILED}"


def _parsed(body: bytes | None) -> Failure | None:
    try:
        said: Any = json.loads(body or b"")
    except ValueError:
        return None
    if not isinstance(said, dict) or said.get("schema") != SCHEMA:
        return None
    names = Failure.__dataclass_fields__
    try:
        return Failure(**{name: said[name] for name in names})
    except KeyError:
        return None
