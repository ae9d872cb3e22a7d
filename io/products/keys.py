"""How the products of a run are named, and whether they are there."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from crosstie.io.storage.root_layout import ProductKey

if TYPE_CHECKING:
    from crosstie.io.storage.store import Store


def run_key(
    *,
    pair_key: str,
    weights_sha256: str,
    settings_hash: str,
    algorithm_version: str,
    given: tuple[str, ...] = (),
) -> str:
    """Name a run by all that its result depends on: 16 hex digits of a sha256.

    `given` is what the user said of this pair alone; a run of which nothing was said has the key that it had
    before there was anything to say.
    """
    text = json.dumps([pair_key, weights_sha256, settings_hash, algorithm_version, *given])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_committed(store: Store, pair_key: str, run_key: str) -> bool:
    """Whether this run is done and its products are whole."""
    return store.exists(ProductKey(pair_key, run_key).commit)
