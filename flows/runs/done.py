"""Look up which of some pairs are done or failed; many at a time, because a remote store answers slowly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from crosstie.errors import DamagedProductError
from crosstie.flows.registration.publish import run_key_of
from crosstie.flows.runs.outcome import Outcome
from crosstie.io.archive.failures import DAMAGED, Failure, read_failure
from crosstie.io.products.correction import read_correction_of
from crosstie.io.storage.redaction import redacted
from crosstie.io.storage.root_layout import ProductKey

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.io.storage.store import Store
    from crosstie.types import ScenePair

Found = TypeVar("Found")

REQUESTS_AT_ONCE = 32
"""A store takes 20 to 50 ms to answer: with so many requests at once two thousand pairs take seconds."""


def done_outcomes(
    store: Store, pairs: Sequence[ScenePair], settings: Settings, *, weights_sha256: str
) -> dict[str, Outcome]:
    """Outcomes of the pairs that are committed for these settings and weights, by pair key.

    A pair whose products are not what was committed has failed; the others are not affected.

    Raises
    ------
    StoreError
        The store cannot be read.
    """

    def look(pair: ScenePair) -> Outcome | None:
        product = ProductKey(pair.key, run_key_of(pair.key, settings, weights_sha256=weights_sha256))
        try:
            correction = read_correction_of(store, product, pair)
        except DamagedProductError as problem:
            return Outcome.failure(pair.key, code=DAMAGED, message=redacted(str(problem)))
        if correction is None:
            return None
        url = store.url_of(product.prefix)
        return Outcome.of(pair.key, correction, products=url, already_done=True)

    return {found.pair_key: found for found in _side_by_side(look, pairs) if found is not None}


def failed_before(
    store: Store, pairs: Sequence[ScenePair], settings: Settings, *, weights_sha256: str
) -> dict[str, Failure]:
    """Failures of the pairs that a run gave up with these settings and weights, by pair key.

    Raises
    ------
    StoreError
        The store cannot be read.
    """

    def look(pair: ScenePair) -> Failure | None:
        return read_failure(store, pair.key, run_key_of(pair.key, settings, weights_sha256=weights_sha256))

    return {found.pair_key: found for found in _side_by_side(look, pairs) if found is not None}


def _side_by_side(look: Callable[[ScenePair], Found], pairs: Sequence[ScenePair]) -> Iterable[Found]:
    if not pairs:
        return []
    with ThreadPoolExecutor(max_workers=min(REQUESTS_AT_ONCE, len(pairs))) as threads:
        return list(threads.map(look, pairs))
