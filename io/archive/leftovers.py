"""What killed and overtaken runs left in an archive: old, claimed by nobody, and part of no commit."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from crosstie.errors import DamagedProductError
from crosstie.io.archive.claims import Held, standing_claim, take
from crosstie.io.products.aligned import ALIGNED
from crosstie.io.products.displacement import DISPLACEMENT
from crosstie.io.storage.commit import read_commit
from crosstie.io.storage.root_layout import (
    CLAIM_PREFIX,
    COMMIT,
    WRITER,
    WRITING_PREFIX,
    ProductKey,
    is_reserved,
)
from crosstie.io.storage.store import SCRATCH_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import timedelta

    from crosstie.io.storage.listing import StoredObject
    from crosstie.io.storage.store import Store

GC_LEASE_S = 300.0
"""How long the claim on a run whose leftovers are removed holds, seconds."""

OURS = re.compile(
    r"(?:correction\.json|tie_points\.parquet|item\.json|corrected\.vrt|overview\.png|report\.html"
    rf"|{re.escape(DISPLACEMENT)}|{re.escape(ALIGNED)}|{WRITER}|{re.escape(CLAIM_PREFIX)}\d+"
    rf"|(?:{re.escape(WRITING_PREFIX)}|{re.escape(SCRATCH_PREFIX)})[^/]+/.+)"
)
"""Names of what crosstie writes into the folder of a run, besides commit and failure. Only these are removed:
a root may hold other files, even scenes."""

_RUN_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that belongs to nothing."""

    key: str
    size_bytes: int


def remove_leftovers(store: Store, *, older_than: timedelta, dry_run: bool = False) -> Iterator[Leftover]:
    """Remove what is uncommitted, unclaimed and old, and yield it; failure records stay.

    A folder without a commit is left as long as anything in it is younger than `older_than`. While a folder
    is cleaned it is claimed, so that no run begins to write there.

    Parameters
    ----------
    older_than : timedelta
        Age since the last write.
    dry_run : bool, optional
        Remove nothing.

    Raises
    ------
    StoreError
        The root cannot be read or written.
    """
    before = datetime.now(UTC) - older_than
    for product, found in sorted(_objects_by_run(store).items()):
        left = _leftovers(store, product, found, before)
        if not left or standing_claim(store, product) is not None:
            continue
        if dry_run or _removed(store, product, left, committed=COMMIT in found):
            yield from (Leftover(product.file(name), left[name].size_bytes) for name in sorted(left))


def _objects_by_run(store: Store) -> dict[ProductKey, dict[str, StoredObject]]:
    """The objects of every run, by their name in its folder."""
    found: dict[ProductKey, dict[str, StoredObject]] = defaultdict(dict)
    for stored in store.each_object():
        pair_key, _, rest = stored.key.partition("/")
        run_key, _, name = rest.partition("/")
        if name and _RUN_KEY.fullmatch(run_key) and not is_reserved(pair_key):
            found[ProductKey(pair_key, run_key)][name] = stored
    return found


def _leftovers(
    store: Store, product: ProductKey, found: Mapping[str, StoredObject], before: datetime
) -> dict[str, StoredObject]:
    """What of a run may go."""
    ours = {name: stored for name, stored in found.items() if OURS.fullmatch(name)}
    old = {name: stored for name, stored in ours.items() if stored.modified_utc < before}
    if COMMIT in found:
        return {name: old[name] for name in old.keys() - _committed(store, product, found)}
    return old if len(old) == len(ours) else {}


def _committed(store: Store, product: ProductKey, found: Mapping[str, StoredObject]) -> set[str]:
    """Names that the commit of a run keeps; all of them where it makes no sense."""
    try:
        return set(read_commit(store, product) or found)
    except DamagedProductError:
        return set(found)


def _removed(store: Store, product: ProductKey, left: Mapping[str, StoredObject], *, committed: bool) -> bool:
    """Remove files under a claim; False where somebody works on the run, or has committed it meanwhile."""
    claim = take(store, product, lease_s=GC_LEASE_S)
    if isinstance(claim, Held):
        return False
    with claim:  # which removes the claims that have run out, too
        if store.exists(product.commit) is not committed:
            return False
        # The files of writers first, and which of them was chosen: without these no writer that wakes up can
        # go on. One that was done just before has committed what is looked at next.
        for folder in _folders(left):
            store.delete_folder(product.file(folder))
        if not committed and WRITER in left:
            store.delete(product.writer)
        if store.exists(product.commit) is not committed:
            return False
        for name in sorted(left):
            if "/" not in name and not name.startswith(CLAIM_PREFIX):
                claim.check()
                store.delete(product.file(name))
    return True


def _folders(names: Sequence[str] | Mapping[str, StoredObject]) -> list[str]:
    return sorted({name.partition("/")[0] for name in names if "/" in name})
