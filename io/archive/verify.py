"""Every committed run of an archive against its commit; what is damaged can be freed to be computed again."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from crosstie.errors import StoreError
from crosstie.io.archive.claims import Held, take
from crosstie.io.archive.damage import CHECKED_AT_ONCE, damage_sentence
from crosstie.io.archive.failures import DAMAGED, Failure, forget_failure, read_failure, record_failure
from crosstie.io.storage.commit import damage_of
from crosstie.io.storage.root_layout import COMMIT, FAILURE, ProductKey, product_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from crosstie.io.storage.commit import Damage
    from crosstie.io.storage.store import Store

REPAIR_LEASE_S = 300.0
"""How long the claim of a repair holds, seconds."""

RUNS_PER_BATCH = 256
"""Runs that are handed to the readers at a time, so that a large archive keeps few results in memory."""


@dataclass(frozen=True, slots=True)
class DamagedRun:
    """A committed run that is not as its commit says."""

    product: ProductKey
    damage: tuple[Damage, ...]
    outcome: str
    """What became of it: `told`, `repaired`, or why it was left as it is."""


TOLD, REPAIRED = "told", "repaired"


def verify_archive(
    store: Store, *, repair: bool = False, progress: Callable[[int, int], None] | None = None
) -> Iterator[DamagedRun]:
    """Compare every committed run with its commit, and yield those that differ, in the order of their keys.

    Damage is recorded as the failure of its run, where `crosstie status` and the site look for it.

    Parameters
    ----------
    repair : bool, optional
        Take the commit of a damaged run away, so that the next run computes the pair again. Nothing else is
        removed. A run with a file too many is left: its products are whole.
    progress : callable, optional
        Called with (runs compared, runs in all).

    Raises
    ------
    StoreError
        The root is empty, or cannot be read or written.
    """
    names = _names_by_run(store)
    runs = sorted(product for product, found in names.items() if COMMIT in found)
    with ThreadPoolExecutor(CHECKED_AT_ONCE) as pool:
        for start in range(0, len(runs), RUNS_PER_BATCH):
            batch = runs[start : start + RUNS_PER_BATCH]
            found = pool.map(lambda product: damage_of(store, product, names[product]), batch)
            for number, (product, damage) in enumerate(zip(batch, found, strict=True), start + 1):
                if damage:
                    yield DamagedRun(product, tuple(damage), _treated(store, product, damage, repair=repair))
                elif FAILURE in names[product]:
                    _forget_damage(store, product)
                if progress is not None:
                    progress(number, len(runs))


def _names_by_run(store: Store) -> dict[ProductKey, list[str]]:
    """Names of the files of every run."""
    names: dict[ProductKey, list[str]] = defaultdict(list)
    empty = True
    for key in store.each_key():
        empty = False
        found = product_file(key)
        if found is not None:
            names[found.product].append(found.name)
    if empty:
        raise StoreError(f"{store.url} holds nothing; give the root that the runs write to")
    return names


def _treated(store: Store, product: ProductKey, damage: Sequence[Damage], *, repair: bool) -> str:
    said = damage_sentence(store, product, damage)
    if said is None:
        return "left: its products are whole"
    if repair:
        return _repaired(store, product)
    try:
        _record(store, product, said)
    except StoreError as problem:  # whoever may only read can verify, too
        return f"{TOLD}, but not recorded: {problem}"
    return TOLD


def _repaired(store: Store, product: ProductKey) -> str:
    """Take the commit of a damaged run away, unless somebody works on it or it is whole by now.

    With the claim no writer is at work, so that the commit that goes is the one that was found wrong.
    """
    claim = take(store, product, lease_s=REPAIR_LEASE_S)
    if isinstance(claim, Held):
        return f"left: {claim.owner} works on it"
    with claim:
        said = damage_sentence(store, product, damage_of(store, product))
        if said is None:
            return "left: it is whole by now"
        _record(store, product, said)  # before the commit goes: a repair that is killed stays to be seen
        claim.check()
        store.delete(product.commit)
    return REPAIRED


def _record(store: Store, product: ProductKey, said: str) -> None:
    before = read_failure(store, *product)
    if before is not None and before.code == DAMAGED:
        return
    record_failure(
        store,
        Failure(
            *product,
            reference="",
            secondary="",
            code=DAMAGED,
            message=said,
            failed_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            attempts=0,
        ),
    )


def _forget_damage(store: Store, product: ProductKey) -> None:
    """Delete the record of damage that is no more."""
    before = read_failure(store, *product)
    if before is not None and before.code == DAMAGED:
        with suppress(StoreError):  # the record is a hint: whoever goes by it compares the files again
            forget_failure(store, *product)
