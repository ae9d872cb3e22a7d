"""Wait for pairs that other runs have claimed, but not for ever."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from crosstie.io.archive.claims import LEASES_BELIEVED, standing_claim
from crosstie.io.products.keys import is_committed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crosstie.flows.runs.pair import PairBatch
    from crosstie.io.archive.claims import Held
    from crosstie.io.storage.store import Store
    from crosstie.types import ScenePair

CLAIM_POLL_S = 2.0
"""Time between two reads of another run's claim, seconds."""


def released(
    held: Sequence[ScenePair], batch: PairBatch, store: Store, *, poll_s: float = CLAIM_POLL_S
) -> Iterator[ScenePair]:
    """Yield each pair once it is free or committed, or its owner has renewed the claim.

    No pair is waited for longer than a claim can hold, whatever the clocks of other machines say.

    Parameters
    ----------
    held : Sequence[ScenePair]
        Pairs that other runs have claimed.
    batch : PairBatch
    store : Store
        Root of the products.
    poll_s : float, optional
        Time between two looks at a claim, seconds.

    Raises
    ------
    StoreError
        The root cannot be read.
    """
    lease_s = batch.settings.runs.claim_s
    patience_ends_s = time.monotonic() + LEASES_BELIEVED * lease_s
    first_seen: dict[str, Held | None] = {}
    waiting = list(held)
    while waiting:
        still = []
        for pair in waiting:
            product = batch.product_of(pair.key)
            claim = standing_claim(store, product, lease_s=lease_s)
            before = first_seen.setdefault(pair.key, claim)
            over = time.monotonic() >= patience_ends_s
            if over or claim is None or claim != before or is_committed(store, *product):
                yield pair
            else:
                still.append(pair)
        waiting = still
        if waiting:
            time.sleep(poll_s)
