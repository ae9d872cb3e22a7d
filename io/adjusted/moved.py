"""What the last look at an archive found to have moved: so that each change is told of once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from crosstie.io.adjusted.layout import ADJUSTED
from crosstie.io.adjusted.publish import as_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crosstie.io.storage.store import Store

MOVED = f"{ADJUSTED}/moved.json"
"""Key of the list."""

MOVED_SCHEMA = "crosstie/moved/1"


def known_moves(store: Store) -> set[str]:
    """Keys of the changes that were told of; none where there is no list or it is broken."""
    try:
        said = json.loads(store.get(MOVED) or b"null")
        return {str(finding["key"]) for finding in said["findings"]}
    except (ValueError, KeyError, TypeError):
        return set()


def write_moves(store: Store, findings: Sequence[dict[str, Any]]) -> str:
    """Write the list anew; returns its URL.

    Raises
    ------
    StoreError
        The root cannot be written.
    """
    store.put(MOVED, as_json({"schema": MOVED_SCHEMA, "findings": list(findings)}))
    return store.url_of(MOVED)
