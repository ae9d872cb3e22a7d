"""What an archive holds of some pairs already: looked up side by side, for a far store is slow to answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from crosstie.flows.registration.publish import run_key_of
from crosstie.flows.runs.outcome import Outcome
from crosstie.io.archive.failures import Failure, read_failure
from crosstie.io.products.write import product_prefix, read_correction

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.io.storage.store import Store
    from crosstie.types import ScenePair

T = TypeVar("T")

AT_ONCE = 32
"""Requests under way: two thousand pairs take seconds at the 20 to 50 ms that a store takes to answer."""


def done_outcomes(
    store: Store, pairs: Sequence[ScenePair], settings: Settings, *, weights_sha256: str
) -> dict[str, Outcome]:
    """Outcome by pair key of the pairs whose products are committed, for these settings and weights.

    Raises
    ------
    StoreError : the store cannot be read
    """

    def look(pair: ScenePair) -> Outcome | None:
        key = run_key_of(pair.key, settings, weights_sha256=weights_sha256)
        correction = read_correction(store, pair.key, key)
        if correction is None:
            return None
        url = store.url_of(product_prefix(pair.key, key))
        return Outcome.of(pair.key, correction, products=url, already_done=True)

    return {found.pair_key: found for found in _side_by_side(look, pairs) if found is not None}


def failed_before(
    store: Store, pairs: Sequence[ScenePair], settings: Settings, *, weights_sha256: str
) -> dict[str, Failure]:
    """Failure by pair key of the pairs that a run has given up, for these settings and weights.

    Raises
    ------
    StoreError : the store cannot be read
    """

    def look(pair: ScenePair) -> Failure | None:
        return read_failure(store, pair.key, run_key_of(pair.key, settings, weights_sha256=weights_sha256))

    return {found.pair_key: found for found in _side_by_side(look, pairs) if found is not None}


def _side_by_side(look: Callable[[ScenePair], T], pairs: Sequence[ScenePair]) -> Iterable[T]:
    if not pairs:
        return []
    with ThreadPoolExecutor(max_workers=min(AT_ONCE, len(pairs))) as threads:
        return list(threads.map(look, pairs))
