"""A pair that is committed already: open its product, or make way for a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crosstie.errors import StoreError
from crosstie.io.archive.claims import Held, take
from crosstie.io.products.keys import is_committed
from crosstie.io.products.product import Product, open_product

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.io.storage.root_layout import ProductKey
    from crosstie.io.storage.store import Store

LEASE_S = 60.0
"""How long a claim keeps writers away while a commit is taken away, seconds; it takes two requests."""


def open_committed(store: Store, product: ProductKey, settings: Settings) -> Product | None:
    """Open the product of a run; None where it is not committed.

    Raises
    ------
    StoreError
        The root cannot be read, or the product is no longer what was committed.
    """
    if not is_committed(store, *product):
        return None
    return open_product(
        store.url_of(product.prefix),
        storage=settings.storage,
        allow_hosts=settings.catalog.allow_hosts,
        allow_buckets=settings.catalog.allow_buckets,
    )


def withdraw(store: Store, product: ProductKey) -> bool:
    """Take the commit of a run away, so that it can be written again; False where there was none.

    Raises
    ------
    StoreError
        The root cannot be written, or another run works on the pair at this moment.
    """
    if not is_committed(store, *product):
        return False
    claim = take(store, product, lease_s=LEASE_S)
    if isinstance(claim, Held):
        raise StoreError(
            f"{store.url_of(product.prefix)}: {claim.owner} works on it; wait until it ends, and try again"
        )
    with claim:
        claim.check()
        store.delete(product.commit)
    return True
