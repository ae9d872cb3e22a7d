"""List a product root once, and say what is there from the names of its objects alone: nothing is opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crosstie.io.storage.root_layout import COMMIT, FAILURE, ProductKey, flow_of_run_log, product_file

if TYPE_CHECKING:
    from crosstie.io.storage.store import Store


@dataclass(frozen=True, slots=True)
class ArchiveListing:
    """What a product root holds; a committed run counts as nothing else."""

    committed: frozenset[ProductKey]
    failed: frozenset[ProductKey]
    """Runs with a failure record and no commit."""
    doubted: frozenset[ProductKey]
    """Runs with a commit and a failure record: somebody may have found them damaged."""
    claimed: frozenset[ProductKey]
    """Runs with a claim and no commit."""
    flows: frozenset[str]
    """Flows that have logged a run."""


def list_archive(store: Store) -> ArchiveListing:
    """List a product root once and sort its keys.

    Raises
    ------
    StoreError
        The root cannot be read.
    """
    committed: set[ProductKey] = set()
    failed: set[ProductKey] = set()
    claimed: set[ProductKey] = set()
    flows: set[str] = set()
    for key in store.each_key():
        found = product_file(key)
        if found is None:
            flow = flow_of_run_log(key)
            if flow is not None:
                flows.add(flow)
        elif found.name == COMMIT:
            committed.add(found.product)
        elif found.name == FAILURE:
            failed.add(found.product)
        elif found.claim_number is not None:
            claimed.add(found.product)
    return ArchiveListing(
        committed=frozenset(committed),
        failed=frozenset(failed - committed),
        doubted=frozenset(failed & committed),
        claimed=frozenset(claimed - committed),
        flows=frozenset(flows),
    )
