"""All committed corrections of a product root in one stac-geoparquet, `_index/corrections.parquet`.

`_COMMIT` stays the only truth: the index can be made anew from it at any time. Bringing it up to date reads
only the runs that are not in it yet.
"""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, Any

from crosstie.errors import StoreError
from crosstie.io.archive.index_parts import (
    MOST_PARTS,
    absorb,
    create_part,
    delete_parts,
    gather,
    part_names,
    read_whole,
    settle,
)
from crosstie.io.archive.index_rows import IncompleteProductError, index_row
from crosstie.io.archive.index_table import Index, merged, table_of, without
from crosstie.io.archive.listing import list_archive
from crosstie.io.products.write import SCHEMA, is_committed
from crosstie.io.storage.root_layout import INDEX, ProductKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    import pyarrow as pa

    from crosstie.io.storage.store import Store

LOG = logging.getLogger(__name__)

RUNS_PER_PART = 4096
"""Runs whose rows become one part: what a first build has to do again when it is killed."""

READERS = 16
"""Runs read at once: a store answers many small requests in the time of one."""


@dataclass(frozen=True, slots=True)
class IndexUpdate:
    """What bringing the index up to date came to."""

    url: str
    """Of `_index/corrections.parquet`."""
    rows: int
    """Committed runs in the index now."""
    added: int
    """Runs that came in, or came in anew."""
    dropped: int
    """Runs that went out since they are committed no more."""
    unreadable: tuple[str, ...]
    """What is wrong with runs that are committed but cannot be indexed, one sentence each."""


def update_index(store: Store, *, rebuild: bool = False) -> IndexUpdate:
    """Bring the index in line with all that is committed under a root.

    Lists the root once and reads the runs that are new. Any number may do so at once, and be killed.

    Parameters
    ----------
    rebuild : read every run again, and nothing of the index that there is: where that is broken, of another
        version, or says where things were before the root was moved

    Raises
    ------
    StoreError : the root cannot be read or written; the index is broken
    """
    # Parts before commits: what is in a part was committed before, so a commit not found now was deleted.
    old: frozenset[str] = part_names(store) if rebuild else frozenset()
    index = Index.empty(old) if rebuild else _current(store)
    committed = list_archive(store).committed
    known = index.runs()
    gone = known - committed
    new = _new_parts(store, sorted(committed - known))
    index = Index(merged([without(index.table, gone), *new.tables]), index.parts | new.names)
    settled = settle(store, index, changed=bool(new.names or gone or old))
    delete_parts(store, old - new.names)
    return _update(store, _tidy(store, settled), new, dropped=len(gone))


def index_committed(store: Store, runs: Iterable[ProductKey]) -> IndexUpdate:
    """Take in runs that were committed just now: for the end of a flow. Lists nothing but the index.

    Runs that are not committed are passed over; runs that are in the index already are read again.

    Raises
    ------
    StoreError : the root cannot be read or written; the index is broken
    """
    index = _current(store)
    wanted = sorted(set(runs))
    with ThreadPoolExecutor(READERS) as pool:
        there = pool.map(lambda run: is_committed(store, *run), wanted)
        new = _new_parts(store, list(compress(wanted, there)))
    index = Index(merged([index.table, *new.tables]), index.parts | new.names)
    settled = settle(store, index, changed=bool(new.names))
    return _update(store, _tidy(store, settled), new)


def read_index(store: Store) -> pa.Table:
    """Read the index of an archive as it is, without a look at what else is committed.

    Parameters
    ----------
    store : Store
        Product root, from `crosstie.open_store`.

    Returns
    -------
    pyarrow.Table
        One row per committed run, with the columns of `_index/corrections.parquet`.

    Raises
    ------
    StoreError
        There is no index yet, or it is broken.
    """
    index = read_whole(store)
    if index is None:
        raise StoreError(f"{store.url} has no index yet; `crosstie index --out {store.url}` makes it")
    return index.table


def survey(
    store: Store,
    committed: AbstractSet[ProductKey],
    *,
    columns: Sequence[str] | None = None,
    before: pa.Table | None = None,
) -> pa.Table:
    """What the index would be for these committed runs, without writing anything.

    Parameters
    ----------
    columns : only these, which take a tenth of the memory; those of `OF_MERGED` must be among them
    before : an earlier survey of these columns; its rows are not read again

    Raises
    ------
    StoreError : the root cannot be read, or the index is broken
    """
    index = absorb(store, read_whole(store, columns) or Index.empty(columns=columns), columns)
    known = index.runs()
    tables = [without(index.table, known - committed)]
    new = set(committed - known)
    if before is not None and new:
        seen = Index(before, frozenset()).runs()
        tables.append(without(before, seen - new))
        new -= seen
    missing = sorted(new)
    for start in range(0, len(missing), RUNS_PER_PART):
        table, problems = _read_rows(store, missing[start : start + RUNS_PER_PART])
        _warn(problems)
        tables.append(table.select(index.table.column_names))
    return merged(tables)


@dataclass(frozen=True, slots=True, eq=False)
class _NewParts:
    """Parts that this writer has made."""

    names: frozenset[str]
    tables: tuple[pa.Table, ...]
    problems: tuple[str, ...]
    """Runs that made no row, and why."""


def _current(store: Store) -> Index:
    """Read the index, made whole where its last writer died before that."""
    return settle(store, read_whole(store) or Index.empty(), changed=False)


def _tidy(store: Store, index: Index) -> Index:
    return gather(store, index) if len(index.parts) > MOST_PARTS else index


def _update(store: Store, index: Index, new: _NewParts, *, dropped: int = 0) -> IndexUpdate:
    _warn(new.problems)
    return IndexUpdate(
        url=store.url_of(INDEX),
        rows=len(index),
        added=sum(table.num_rows for table in new.tables),
        dropped=dropped,
        unreadable=new.problems,
    )


def _warn(problems: Iterable[str]) -> None:
    for problem in problems:
        LOG.warning("not indexed: %s", problem)


def _new_parts(store: Store, runs: Sequence[ProductKey]) -> _NewParts:
    """Read runs and write them as parts, a batch at once: what a killed build has made is not made again."""
    names, tables, problems = set(), [], []
    for start in range(0, len(runs), RUNS_PER_PART):
        table, broken = _read_rows(store, runs[start : start + RUNS_PER_PART])
        problems += broken
        if table.num_rows:
            tables.append(table)
            names.add(create_part(store, table))
    return _NewParts(frozenset(names), tuple(tables), tuple(problems))


def _read_rows(store: Store, runs: Sequence[ProductKey]) -> tuple[pa.Table, list[str]]:
    """Rows of runs, and a sentence for each whose products are broken: it must not keep the others out."""
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(partial(_row, store), runs))
    rows = [row for row in found if not isinstance(row, str)]
    return table_of(rows), [problem for problem in found if isinstance(problem, str)]


def _row(store: Store, product: ProductKey) -> dict[str, Any] | str:
    bodies = [store.get(product.file(name)) for name in ("item.json", "correction.json")]
    try:
        item, correction = (json.loads(body or b"null") for body in bodies)
    except ValueError:
        item = correction = None
    if not (isinstance(item, dict) and isinstance(correction, dict) and correction.get("schema") == SCHEMA):
        return (
            f"{store.url_of(product.prefix)} is committed, but its item.json or correction.json is missing, "
            f"broken or not of schema {SCHEMA}; delete that folder and run the pair again"
        )
    try:
        return index_row(
            item,
            correction,
            pair_key=product.pair_key,
            run_key=product.run_key,
            products=store.url_of(product.prefix),
            updated_utc=datetime.now(UTC),
        )
    except IncompleteProductError as problem:
        return str(problem)
