"""What lies under a product root, told by the names of its objects alone: listed once, nothing is opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crosstie.io.archive.claims import CLAIM
from crosstie.io.archive.failures import FAILED
from crosstie.io.products.write import COMMIT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crosstie.io.storage.store import Store

ProductKey = tuple[str, str]
"""(pair_key, run_key)."""

LOGS = "_runs"


@dataclass(frozen=True, slots=True)
class ArchiveListing:
    """Runs by what they left; what is committed is nothing else any more."""

    committed: frozenset[ProductKey]
    failures: Mapping[ProductKey, str]
    """Key of the failure record of each run that has one and no commit."""
    claims: Mapping[ProductKey, str]
    """Key of the newest claim on each run that has one and no commit."""
    flows: frozenset[str]
    """Flows that have logged a run."""


def list_archive(store: Store) -> ArchiveListing:
    """List the root once and sort its keys out.

    Raises
    ------
    StoreError : the root cannot be read
    """
    committed: set[ProductKey] = set()
    failures: dict[ProductKey, str] = {}
    claims: dict[ProductKey, tuple[int, str]] = {}
    flows: set[str] = set()
    for key in store.each_key():
        parts = key.split("/")
        if len(parts) != 3:
            continue
        first, second, name = parts
        run = first, second
        if first == LOGS:
            flows.add(second)
        elif first.startswith("_"):
            continue
        elif name == COMMIT:
            committed.add(run)
        elif name == FAILED:
            failures[run] = key
        elif name.startswith(CLAIM) and name.removeprefix(CLAIM).isdecimal():
            claims[run] = max(claims.get(run, (0, "")), (int(name.removeprefix(CLAIM)), key))
    return ArchiveListing(
        committed=frozenset(committed),
        failures={run: key for run, key in failures.items() if run not in committed},
        claims={run: key for run, (_, key) in claims.items() if run not in committed},
        flows=frozenset(flows),
    )
