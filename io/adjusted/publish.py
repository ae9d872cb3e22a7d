"""Commit a version of a place, make it the current one, and read what holds.

The version is named by all that its result depends on. Its files are written first, `_COMMIT` next, and the
current table last, whole. A writer that is killed leaves the table of before; the next one takes up its work.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import geopandas as gpd
import pandas as pd
import pyarrow as pa

from crosstie.errors import StoreError
from crosstie.io.adjusted.layout import (
    ADJUSTED,
    EDGES,
    SCENES,
    SUMMARY,
    PlaceVersion,
    current_key,
    is_place_name,
    place_of_current,
)
from crosstie.io.adjusted.tables import (
    ADJUSTED_SCHEMA,
    broken_table,
    decode_edges,
    decode_positions,
    decode_scenes,
    measured_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from crosstie.io.adjusted.tables import MeasuredPairs
    from crosstie.io.storage.store import Store

Table = TypeVar("Table")

TABLES_AT_ONCE = 8
"""Tables of places read at once: a store answers many small requests in the time of one."""


def publish_place(store: Store, version: PlaceVersion, files: Mapping[str, bytes]) -> str:
    """Write the files of a version, commit it, and make it the current one.

    Parameters
    ----------
    files : Mapping[str, bytes]
        Name -> body; with `scenes.parquet`.

    Returns
    -------
    str
        URL of the current table.

    Raises
    ------
    StoreError
        The root cannot be written.
    """
    for name, body in files.items():
        store.put(version.file(name), body)
    listing = {
        name: {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()} for name, body in files.items()
    }
    store.create(version.commit, as_json({"files": listing}))
    return make_current(store, version, files[SCENES])


def make_current(store: Store, version: PlaceVersion, scenes: bytes | None = None) -> str:
    """Make a committed version the current one; `scenes` are its scenes.parquet, read if not given."""
    body = store.get(version.file(SCENES)) if scenes is None else scenes
    if body is None:
        raise broken_table(store.url_of(version.file(SCENES)), ValueError("committed, but missing"))
    key = current_key(version.place)
    store.put(key, body)
    return store.url_of(key)


def adjusted_places(store: Store) -> list[str]:
    """Places that have a current table, by name."""
    found = (place_of_current(key) for key in store.list(ADJUSTED))
    return [place for place in found if place is not None]


def read_place(store: Store, place: str) -> gpd.GeoDataFrame | None:
    """Read the current table of a place; None where there is none.

    Raises
    ------
    StoreError
        It is broken.
    """
    body = store.get(current_key(place)) if is_place_name(place) else None
    return None if body is None else decode_scenes(body, store.url_of(current_key(place)))


def read_adjusted(store: Store, place: str | None = None) -> gpd.GeoDataFrame:
    """Read the adjusted positions of an archive.

    Parameters
    ----------
    store : Store
        Product root, from `crosstie.open_store`.
    place : str, optional
        Name of one place; None for all.

    Returns
    -------
    geopandas.GeoDataFrame
        One row per scene and place, with the columns of `scenes.parquet`.

    Raises
    ------
    StoreError
        Nothing is adjusted yet, or a table is broken.
    """
    found = _each_current(store, place, decode_scenes)
    return gpd.GeoDataFrame(pd.concat(found, ignore_index=True), geometry="geometry", crs=found[0].crs)


def read_positions(store: Store, place: str | None = None) -> pd.DataFrame:
    """Read of the adjusted positions of an archive what series in time are made of: the columns `POSITIONS`.

    Raises
    ------
    StoreError
        Nothing is adjusted yet, or a table is broken.
    """
    frame: pd.DataFrame = pa.concat_tables(_each_current(store, place, decode_positions)).to_pandas()
    return frame


def _each_current(store: Store, place: str | None, decode: Callable[[bytes, str], Table]) -> list[Table]:
    """Decode the current table of one place, or of all, in order of their names."""

    def read(name: str) -> Table | None:
        body = store.get(current_key(name)) if is_place_name(name) else None
        return None if body is None else decode(body, store.url_of(current_key(name)))

    names = adjusted_places(store) if place is None else [place]
    with ThreadPoolExecutor(TABLES_AT_ONCE) as pool:
        found = [table for table in pool.map(read, names) if table is not None]
    if not found:
        what = f"{store.url} has no adjusted scenes yet" if place is None else _no_place(store, place)
        raise StoreError(f"{what}; `crosstie adjust --out {store.url}` makes them")
    return found


def read_edges(store: Store, version: PlaceVersion) -> pd.DataFrame | None:
    """Read the pairs of a version; None where it is not committed.

    Raises
    ------
    StoreError
        They are broken.
    """
    if not store.exists(version.commit):
        return None
    body = store.get(version.file(EDGES))
    url = store.url_of(version.file(EDGES))
    if body is None:
        raise broken_table(url, ValueError("committed, but missing"))
    return decode_edges(body, url)


def known_measurements(store: Store, version: PlaceVersion) -> MeasuredPairs | None:
    """Measurements that an earlier version holds; None where it is not committed."""
    edges = read_edges(store, version)
    return None if edges is None else measured_of(edges, store.url_of(version.file(EDGES)))


def read_summary(store: Store, version: PlaceVersion) -> dict[str, Any]:
    """Read adjustment.json of a version.

    Raises
    ------
    StoreError
        It is missing, broken or of another schema.
    """
    body = store.get(version.file(SUMMARY))
    try:
        said = json.loads(body or b"null")
    except ValueError:
        said = None
    if not isinstance(said, dict) or said.get("schema") != ADJUSTED_SCHEMA:
        raise broken_table(store.url_of(version.file(SUMMARY)), ValueError(f"not of {ADJUSTED_SCHEMA}"))
    return said


def as_json(value: dict[str, Any]) -> bytes:
    """Write JSON as the products do."""
    return (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _no_place(store: Store, place: str) -> str:
    there = adjusted_places(store)
    return f"{store.url} has no adjusted place {place[:80]!r} ({len(there)} others: {', '.join(there[:5])})"
