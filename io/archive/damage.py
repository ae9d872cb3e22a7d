"""Runs that are committed but damaged, as far as anybody has noticed.

Who finds damage records it as the run's failure, beside the commit. The record is a hint alone: whoever goes
by it compares the files again, so that a run whose files are put back is as good as before.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from crosstie.io.archive.failures import DAMAGED, read_failure
from crosstie.io.storage.commit import REPAIR, damage_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crosstie.io.archive.listing import ArchiveListing
    from crosstie.io.storage.commit import Damage
    from crosstie.io.storage.root_layout import ProductKey
    from crosstie.io.storage.store import Store

CHECKED_AT_ONCE = 8
"""Runs that are compared with their commits at once; each is read piece by piece."""


def known_damage(store: Store, listing: ArchiveListing) -> dict[ProductKey, str]:
    """Say what is wrong with the committed runs that somebody found damaged and that still are.

    Raises
    ------
    StoreError
        The store cannot be read.
    """

    def look(product: ProductKey) -> str | None:
        record = read_failure(store, *product)
        # Any other record is of a failure before the commit, left by a run that was killed.
        return harm_sentence(store, product) if record is not None and record.code == DAMAGED else None

    if not listing.doubted:
        return {}
    doubted = sorted(listing.doubted)
    with ThreadPoolExecutor(CHECKED_AT_ONCE) as pool:
        return {product: said for product, said in zip(doubted, pool.map(look, doubted), strict=True) if said}


def harm_sentence(store: Store, product: ProductKey) -> str | None:
    """Compare a run with its commit; say what harms it, or None.

    Raises
    ------
    StoreError
        The store cannot be read.
    """
    return damage_sentence(store, product, damage_of(store, product))


def damage_sentence(store: Store, product: ProductKey, damage: Sequence[Damage]) -> str | None:
    """Say in one sentence what harms a run; None where nothing does."""
    harms = [str(one) for one in damage if one.harms]
    if not harms:
        return None
    return f"{store.url_of(product.prefix)} is committed but damaged ({'; '.join(harms)}); {REPAIR}"
