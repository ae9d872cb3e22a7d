"""The index: all committed corrections of a product root in one stac-geoparquet file.

`_COMMIT` alone says what is done, so the index can be rebuilt at any time. An update reads only the runs that
the index does not hold yet.
"""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, Any

from crosstie.errors import DamagedProductError, StoreError
from crosstie.io.archive.damage import harm_sentence, known_damage
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
from crosstie.io.products.correction import CORRECTION_FILE, SCHEMA
from crosstie.io.products.keys import is_committed
from crosstie.io.storage.commit import read_commit, read_committed
from crosstie.io.storage.root_layout import INDEX, ProductKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    import pyarrow as pa

    from crosstie.io.storage.store import Store

LOG = logging.getLogger(__name__)

RUNS_PER_PART = 4096
"""Runs whose rows become one part of the index; a build that is killed loses at most so many."""

READERS = 16
"""Runs read at once: a store answers many small requests in the time of one."""


@dataclass(frozen=True, slots=True)
class IndexUpdate:
    """What an update of the index has done."""

    url: str
    """URL of `_index/corrections.parquet`."""
    rows: int
    """Committed runs in the index."""
    added: int
    """Runs that were added or read again."""
    dropped: int
    """Runs that were removed because they are no longer committed."""
    unreadable: tuple[str, ...]
    """Why committed runs could not be indexed, one sentence each."""


def update_index(store: Store, *, rebuild: bool = False) -> IndexUpdate:
    """Update the index to hold exactly what is committed under a root.

    Lists the root once and reads the new runs. Several processes may update it at once, and each may be
    killed.

    Parameters
    ----------
    rebuild : bool, optional
        Ignore the present index and read every run again. Needed where the index is broken, of another
        version, or still holds the URLs from before the root was moved.

    Raises
    ------
    StoreError
        The root cannot be read or written; the index is broken.
    """
    # List the parts before the commits: a run in a part was committed earlier, so one without a commit is
    # gone.
    old: frozenset[str] = part_names(store) if rebuild else frozenset()
    index = Index.empty(old) if rebuild else _current(store)
    listing = list_archive(store)
    damaged = known_damage(store, listing)
    known = index.runs()
    gone = known - listing.committed
    out = gone | (known & damaged.keys())
    new = _new_parts(store, sorted(listing.committed - known - damaged.keys()))
    new = replace(new, problems=(*damaged.values(), *new.problems))
    index = Index(merged([without(index.table, out), *new.tables]), index.parts | new.names)
    settled = settle(store, index, changed=bool(new.names or out or old))
    delete_parts(store, old - new.names)
    return _update(store, _tidy(store, settled), new, dropped=len(gone))


def index_committed(
    store: Store, runs: Iterable[ProductKey], *, damaged: AbstractSet[ProductKey] = frozenset()
) -> IndexUpdate:
    """Add runs that were just committed; for the end of a flow. Lists nothing but the index.

    Runs that are not committed are skipped. Runs that the index holds already are read again.

    Parameters
    ----------
    damaged : set of ProductKey, optional
        Runs that were found damaged; their rows are removed.

    Raises
    ------
    StoreError
        The root cannot be read or written; the index is broken.
    """
    index = _current(store)
    wanted = sorted(set(runs))
    with ThreadPoolExecutor(READERS) as pool:
        there = pool.map(lambda run: is_committed(store, *run), wanted)
        new = _new_parts(store, list(compress(wanted, there)))
    out = index.runs() & damaged if damaged else damaged
    index = Index(merged([without(index.table, out), *new.tables]), index.parts | new.names)
    settled = settle(store, index, changed=bool(new.names or out))
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
    """Make the table that the index would be for these committed runs, without writing anything.

    Parameters
    ----------
    columns : Sequence[str] or None, optional
        Read these alone, which takes a tenth of the memory. They must include those of `MERGE_COLUMNS`.
    before : pa.Table or None, optional
        Result of an earlier call with these columns; its rows are not read again.

    Raises
    ------
    StoreError
        The root cannot be read, or the index is broken.
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


def why_no_row(store: Store, product: ProductKey) -> str:
    """Say why a committed run has no row.

    Raises
    ------
    StoreError
        The store cannot be read.
    """
    harm = harm_sentence(store, product)
    found = harm or _row(store, product)
    return found if isinstance(found, str) else "it was not committed when it was looked for"


@dataclass(frozen=True, slots=True, eq=False)
class _NewParts:
    """Parts of the index that this process has written."""

    names: frozenset[str]
    tables: tuple[pa.Table, ...]
    problems: tuple[str, ...]
    """Why some runs gave no row."""


def _current(store: Store) -> Index:
    """Read the index, after finishing the work of a writer that died."""
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
    """Read runs and write them as parts, one batch after another, so that a killed build keeps its parts."""
    names, tables, problems = set(), [], []
    for start in range(0, len(runs), RUNS_PER_PART):
        table, broken = _read_rows(store, runs[start : start + RUNS_PER_PART])
        problems += broken
        if table.num_rows:
            tables.append(table)
            names.add(create_part(store, table))
    return _NewParts(frozenset(names), tuple(tables), tuple(problems))


def _read_rows(store: Store, runs: Sequence[ProductKey]) -> tuple[pa.Table, list[str]]:
    """Rows of runs, and one sentence for each run whose products are broken; it does not stop the others."""
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(partial(_row, store), runs))
    rows = [row for row in found if not isinstance(row, str)]
    return table_of(rows), [problem for problem in found if isinstance(problem, str)]


def _row(store: Store, product: ProductKey) -> dict[str, Any] | str:
    try:
        files = read_commit(store, product) or {}
        bodies = [read_committed(store, product, name, files) for name in ("item.json", CORRECTION_FILE)]
        item, correction = map(json.loads, bodies)
    except DamagedProductError as problem:
        return str(problem)
    except (ValueError, RecursionError):
        item = correction = None
    if not (isinstance(item, dict) and isinstance(correction, dict) and correction.get("schema") == SCHEMA):
        return (
            f"{store.url_of(product.prefix)} is committed, but its item.json or correction.json is "
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
