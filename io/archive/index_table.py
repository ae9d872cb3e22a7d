"""Tables of the index: encode, decode and merge them. Knows no store."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from crosstie.errors import StoreError
from crosstie.io.archive.index_rows import ADDED_COLUMNS, NOWHERE, ROW_SCHEMA
from crosstie.io.storage.root_layout import ProductKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

INDEX_SCHEMA = "crosstie/index/1"

MERGE_COLUMNS = ("pair_key", "run_key", "latest", "created", "updated")
"""Columns that `merged` needs."""

INDEX_ROW_GROUP = 20_000
"""Rows of a row group, the least that a reader fetches: a query for one scene need not read everything."""


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """Rows, and the names of the parts that they came from."""

    table: pa.Table
    """One row for each committed run, in the columns of `index_rows.ROW_SCHEMA`."""
    parts: frozenset[str]
    """Names of the parts."""

    @classmethod
    def empty(cls, parts: Iterable[str] = (), columns: Sequence[str] | None = None) -> Index:
        return cls(narrowed(columns).empty_table(), frozenset(parts))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def runs(self) -> set[ProductKey]:
        """Runs of all rows."""
        return set(runs_of(self.table))


def table_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Make a table of rows from `index_row`."""
    return pa.Table.from_pylist(list(rows), schema=ROW_SCHEMA)


def merged(tables: Sequence[pa.Table]) -> pa.Table:
    """Merge tables: one row for each run (the row made last), sorted by pair, then by age.

    `latest` is true for the newest run of each pair; of two runs of the same moment, for the greater run key.
    """
    whole = pa.concat_tables(tables).combine_chunks()
    frame = pd.DataFrame(
        {name: whole[name].to_pandas() for name in ("pair_key", "run_key", "created", "updated")}
    )
    frame = frame.sort_values("updated", kind="stable").drop_duplicates(["pair_key", "run_key"], keep="last")
    frame = frame.sort_values(["pair_key", "created", "run_key"])
    latest = ~frame["pair_key"].duplicated(keep="last")
    whole = whole.take(pa.array(frame.index.to_numpy(), pa.int64()))
    place = whole.schema.get_field_index("latest")
    return whole.set_column(place, ROW_SCHEMA.field("latest"), pa.array(latest.to_numpy()))


def without(table: pa.Table, runs: AbstractSet[ProductKey]) -> pa.Table:
    """Leave out the rows of `runs`."""
    if not runs:
        return table
    return table.filter(pa.array([run not in runs for run in runs_of(table)], pa.bool_()))


def of_scene(table: pa.Table, scene_id: str) -> pa.Table:
    """Select the rows in which a scene is the secondary or the reference."""
    is_there = pc.or_(pc.equal(table["secondary_id"], scene_id), pc.equal(table["reference_id"], scene_id))
    return table.filter(is_there)


def encode(index: Index) -> bytes:
    """Encode as stac-geoparquet 1.1, which is GeoParquet 1.1 with more metadata."""
    metadata = {
        "geo": _geo(index.table),
        "stac-geoparquet": {"version": "1.1.0"},
        "crosstie": {"schema": INDEX_SCHEMA, "parts": sorted(index.parts)},
    }
    body = io.BytesIO()
    pq.write_table(
        index.table.replace_schema_metadata({name: json.dumps(value) for name, value in metadata.items()}),
        body,
        compression="zstd",
        row_group_size=INDEX_ROW_GROUP,
    )
    return body.getvalue()


def decode(body: bytes, url: str, columns: Sequence[str] | None = None) -> Index:
    """Decode what `encode` has written.

    Parameters
    ----------
    columns : Sequence[str] or None, optional
        Read these alone, in the order of the index; they must include those of `MERGE_COLUMNS`. None reads
        all.

    Raises
    ------
    StoreError
        The bytes are broken or of another schema.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(body))
        names = file.schema_arrow.names
        wanted = None if columns is None else [name for name in names if name in columns]
        # Arrow's threads may release Python's memory after the interpreter has ended, which aborts the
        # command.
        table = file.read(columns=wanted, use_threads=False)
        said = json.loads((file.schema_arrow.metadata or {}).get(b"crosstie", b"{}"))
    except (pa.ArrowException, OSError, ValueError) as problem:
        raise StoreError(
            f"{url} cannot be read ({' '.join(str(problem).split())[:200]}); "
            "`crosstie index --rebuild` makes the index anew from what is committed"
        ) from None
    # An index of an earlier version lacks the columns that came later: there they are null.
    expected = [name for name in ROW_SCHEMA.names if name in names or name not in ADDED_COLUMNS]
    if said.get("schema") != INDEX_SCHEMA or names != expected:
        raise StoreError(
            f"{url} is no index of this version ({said.get('schema')}, not {INDEX_SCHEMA}); "
            "`crosstie index --rebuild` makes it anew from what is committed"
        )
    return Index(_completed(table, narrowed(columns)), frozenset(said["parts"]))


def _completed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Bring a table to a schema; what it lacks is null."""
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(schema.names).cast(schema)


def narrowed(columns: Sequence[str] | None) -> pa.Schema:
    """Schema of some columns; None stands for all."""
    return (
        ROW_SCHEMA if columns is None else pa.schema([field for field in ROW_SCHEMA if field.name in columns])
    )


def runs_of(table: pa.Table) -> Iterator[ProductKey]:
    """Run of each row, in the order of the rows."""
    columns = (table[name].to_pylist() for name in ("pair_key", "run_key"))
    return map(ProductKey, *columns)


def _geo(table: pa.Table) -> dict[str, Any]:
    corners = ("xmin", "ymin", "xmax", "ymax")
    outlines = shapely.from_wkb(table["geometry"].to_numpy())
    column = {
        "encoding": "WKB",
        "geometry_types": sorted({outline.geom_type for outline in outlines}),
        "edges": "planar",
        "covering": {"bbox": {corner: ["bbox", corner] for corner in corners}},
    }
    bounds = shapely.total_bounds(outlines) if len(outlines) else np.array(NOWHERE)
    if np.isfinite(bounds).all():
        column["bbox"] = bounds.tolist()
    # no `crs`: the default of GeoParquet is OGC:CRS84, longitude and latitude, as in STAC
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
