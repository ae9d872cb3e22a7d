"""The files of the index, and how several writers keep it complete without a lock.

    _index/parts/<sha256>.parquet    rows of some runs; written once, never changed, named by their content
    _index/corrections.parquet       what readers read: the rows of all parts, and the names of these parts

A writer first adds its rows as a part. Then it writes the whole index and lists the parts again, until the
index that it wrote holds every part that exists (`settle`). The last of several writers lists the parts after
its own write, so it sees the parts of all others. Nothing is lost, although these stores have no
compare-and-swap. Rows that arrive twice become one row (`index_table.merged`). If a writer dies, the next one
takes its part in.

`gather` joins many small parts into one large part. It writes the large part first and deletes the small
parts last, so every row is in some part at any moment, even if several writers gather at once.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from crosstie.io.archive.index_table import Index, decode, encode, merged
from crosstie.io.storage.root_layout import INDEX, INDEX_PARTS, index_part_key, index_part_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa

    from crosstie.io.storage.store import Store

MOST_PARTS = 16
"""Maximum number of parts; more are gathered into one."""


def part_names(store: Store) -> frozenset[str]:
    """Names of the parts that exist."""
    names = (index_part_name(key) for key in store.list(INDEX_PARTS))
    return frozenset(name for name in names if name is not None)


def create_part(store: Store, table: pa.Table) -> str:
    """Write rows as a part and return its name.

    Raises
    ------
    StoreError
        The root cannot be written.
    """
    body = encode(Index(table, frozenset()))
    name = f"{hashlib.sha256(body).hexdigest()[:32]}.parquet"
    store.create(index_part_key(name), body)
    return name


def read_whole(store: Store, columns: Sequence[str] | None = None) -> Index | None:
    """Read `_index/corrections.parquet`; None where there is none.

    Parameters
    ----------
    columns : Sequence[str] or None, optional
        See `decode`.

    Raises
    ------
    StoreError
        It cannot be read, or is of another version.
    """
    body = store.get(INDEX)
    return None if body is None else decode(body, store.url_of(INDEX), columns)


def absorb(store: Store, index: Index, columns: Sequence[str] | None = None) -> Index:
    """Add the rows of all parts that the index does not hold yet.

    Parameters
    ----------
    columns : Sequence[str] or None, optional
        The columns of `index`, where it does not have all of them.

    Raises
    ------
    StoreError
        A part cannot be read, or is of another version.
    """
    while True:
        names = part_names(store)
        tables = [index.table]
        for name in sorted(names - index.parts):
            body = store.get(index_part_key(name))
            if body is None:
                break  # gathered meanwhile: its rows are now in a part that is not in `names`
            tables.append(decode(body, store.url_of(index_part_key(name)), columns).table)
        else:
            return Index(merged(tables) if len(tables) > 1 else index.table, names)


def settle(store: Store, index: Index, *, changed: bool) -> Index:
    """Write the whole index until it holds every part that exists.

    Parameters
    ----------
    changed : bool
        Whether the index in the store is known to differ. If not, it is written only when there are new
        parts.

    Raises
    ------
    StoreError
        The root cannot be read or written.
    """
    while True:
        found = absorb(store, index)
        if not changed and found.parts <= index.parts:
            return index
        store.put(INDEX, encode(found))
        index, changed = found, False


def gather(store: Store, index: Index) -> Index:
    """Join all parts of a settled index into one, and delete the old ones.

    Raises
    ------
    StoreError
        The root cannot be read or written.
    """
    name = create_part(store, index.table)
    settled = settle(store, index, changed=False)
    delete_parts(store, index.parts - {name})
    return settled


def delete_parts(store: Store, names: Iterable[str]) -> None:
    """Delete parts whose rows are in another part."""
    for name in sorted(names):
        store.delete(index_part_key(name))
