"""The files of the index, and how many writers keep them whole without a lock.

    _index/parts/<sha256>.parquet    rows of some runs; made once, never changed, named by their content
    _index/corrections.parquet       the rows of all parts, and the names of these parts: what readers read

A writer adds its rows as a part. Then it writes the whole and looks again, until the whole that it wrote last
holds every part that there is (`settle`). The last of several writers looks after its own write, so it sees
the part of every other: nothing is lost, although no store here can compare and swap. Rows that come in
twice are one row (`index_table.merged`). A writer that dies leaves its part to the next one.

Many small parts become one large part (`gather`): it is made first, the small ones go last, so the rows are
in some part at any moment, whoever else gathers at the same time.
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
"""Parts that may lie beside one another before they are gathered into one."""


def part_names(store: Store) -> frozenset[str]:
    """Names of the parts that there are."""
    names = (index_part_name(key) for key in store.list(INDEX_PARTS))
    return frozenset(name for name in names if name is not None)


def create_part(store: Store, table: pa.Table) -> str:
    """Write rows as a part; its name.

    Raises
    ------
    StoreError : the root cannot be written
    """
    body = encode(Index(table, frozenset()))
    name = f"{hashlib.sha256(body).hexdigest()[:32]}.parquet"
    store.create(index_part_key(name), body)
    return name


def read_whole(store: Store, columns: Sequence[str] | None = None) -> Index | None:
    """Read `_index/corrections.parquet`; None where there is none.

    Parameters
    ----------
    columns : see `decode`

    Raises
    ------
    StoreError : it cannot be read, or is of another version
    """
    body = store.get(INDEX)
    return None if body is None else decode(body, store.url_of(INDEX), columns)


def absorb(store: Store, index: Index, columns: Sequence[str] | None = None) -> Index:
    """Take in the rows of all parts that are not in it yet.

    Parameters
    ----------
    columns : those of `index`, where it has some alone

    Raises
    ------
    StoreError : a part cannot be read, or is of another version
    """
    while True:
        names = part_names(store)
        tables = [index.table]
        for name in sorted(names - index.parts):
            body = store.get(index_part_key(name))
            if body is None:
                break  # gathered meanwhile: its rows are in a part that is not in `names`
            tables.append(decode(body, store.url_of(index_part_key(name)), columns).table)
        else:
            return Index(merged(tables) if len(tables) > 1 else index.table, names)


def settle(store: Store, index: Index, *, changed: bool) -> Index:
    """Write the whole until it holds every part that there is.

    Parameters
    ----------
    changed : the whole in the store is known to be another; else it is written only for new parts

    Raises
    ------
    StoreError : the root cannot be read or written
    """
    while True:
        found = absorb(store, index)
        if not changed and found.parts <= index.parts:
            return index
        store.put(INDEX, encode(found))
        index, changed = found, False


def gather(store: Store, index: Index) -> Index:
    """Make one part of all parts of a settled index, and delete those.

    Raises
    ------
    StoreError : the root cannot be read or written
    """
    name = create_part(store, index.table)
    settled = settle(store, index, changed=False)
    delete_parts(store, index.parts - {name})
    return settled


def delete_parts(store: Store, names: Iterable[str]) -> None:
    """Delete parts whose rows are in another part."""
    for name in sorted(names):
        store.delete(index_part_key(name))
