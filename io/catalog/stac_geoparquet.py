"""Read stac-geoparquet, a catalog as one table: only the wanted rows and columns.

pyarrow reads it, not geopandas: the assets of an item are nested, and one address is needed, not a dictionary
of Python objects for each row.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import shapely

from crosstie.errors import CatalogError
from crosstie.io.catalog.asset_choice import may_be_read
from crosstie.io.catalog.items import (
    KIND_PROPERTIES,
    NO_ITEM,
    OTHER_PROPERTIES,
    TIME_PROPERTIES,
    Rows,
    rows_together,
    time_us,
)
from crosstie.io.scenes.table import LeftOut, objects
from crosstie.io.storage.address import AddressPolicy
from crosstie.io.storage.href import public_href
from crosstie.io.storage.href_policy import is_url
from crosstie.io.storage.redaction import first_line
from crosstie.io.storage.s3 import FROM_ENVIRONMENT, S3Options, s3fs_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from crosstie.io.catalog.presets import Preset
    from crosstie.io.catalog.query import SceneQuery
    from crosstie.types import IntArray, Objects

SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_table(
    root: str,
    query: SceneQuery,
    preset: Preset,
    *,
    ids: Sequence[str] = (),
    storage: S3Options = FROM_ENVIRONMENT,
    policy: AddressPolicy | None = None,
) -> Rows:
    """Read the rows of the query's collections, near its time and place.

    Parameters
    ----------
    root : str
        Path, https or s3 address of a file, or of a folder of files.
    ids : sequence of str, optional
        Only these ids, of any time and place; empty means all.

    Raises
    ------
    CatalogError
        It cannot be read, or is not stac-geoparquet.
    """
    with _as_catalog_error(root):
        parts = _by_schema(_open_dataset(root, storage, policy or AddressPolicy.of(root)))
        return rows_together([_rows_of_part(part, root, query, preset, ids) for part in parts])


def _rows_of_part(
    table: ds.Dataset, root: str, query: SceneQuery, preset: Preset, ids: Sequence[str]
) -> Rows:
    columns = _Columns(table.schema, preset)
    if missing := [name for name in ("id", "geometry", "assets") if name not in table.schema.names]:
        raise CatalogError(
            f"{public_href(root)} is Parquet but not stac-geoparquet: it has no column {', '.join(missing)}"
        )
    condition = _ids(ids) if ids else _condition(table.schema, query)
    # Arrow's threads may release a file that Python opened after the interpreter has ended, which aborts.
    found = table.to_table(columns=columns.wanted(), filter=condition, use_threads=not is_url(root))
    return columns.rows(found, lambda *item: _asset_names(table, *item))


def _by_schema(folder: ds.Dataset) -> list[ds.Dataset]:
    """Divide a folder into files of equal columns: Arrow reads structs of different children only apart."""
    groups: dict[str, list[Any]] = {}
    for fragment in folder.get_fragments():
        groups.setdefault(str(fragment.physical_schema), []).append(fragment)
    if len(groups) < 2:
        return [folder]
    return [
        ds.FileSystemDataset(files, files[0].physical_schema, folder.format, folder.filesystem)
        for files in groups.values()
    ]


def _open_dataset(root: str, storage: S3Options, policy: AddressPolicy) -> ds.Dataset:
    if not is_url(root):
        return ds.dataset(root, format="parquet")
    import fsspec  # only for files of other machines

    scheme = root.split(":", 1)[0].lower()
    options = s3fs_options(storage) if scheme == "s3" else {"get_client": _http_client(policy)}
    files = fsspec.filesystem(scheme, **options)
    return ds.dataset(files._strip_protocol(root), filesystem=files, format="parquet")


def _http_client(policy: AddressPolicy) -> Callable[..., Any]:
    """Make a factory of HTTP clients for fsspec. They only connect where the policy allows."""

    def checked_socket(info: Any) -> socket.socket:
        family, kind, protocol, _, place = info
        policy.check_ip(str(place[0]))
        return socket.socket(family, kind, protocol)

    async def make(**options: Any) -> Any:
        import aiohttp  # only for files of other machines

        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=checked_socket), **options)

    return make


@contextmanager
def _as_catalog_error(root: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise CatalogError(f"cannot read the catalog {public_href(root)}: {first_line(error)}") from None


def _condition(schema: pa.Schema, query: SceneQuery) -> ds.Expression | None:
    """Filter that Parquet can apply while reading. More than is wanted may pass, never less."""
    terms: list[ds.Expression] = []
    if "collection" in schema.names:
        collection = ds.field("collection")
        if not (query.takes_any_collection(sar=True) or query.takes_any_collection(sar=False)):
            terms.append(collection.isin(list(query.collections)) | collection.is_null())
    start, end = query.interval_utc
    if "datetime" in schema.names and pa.types.is_timestamp(kind := schema.field("datetime").type):
        moment = ds.field("datetime")
        if start is not None:
            terms.append(moment.is_null() | (moment >= _scalar(start, kind)))
        if end is not None:
            terms.append(moment.is_null() | (moment <= _scalar(end, kind)))
    boxes = [*query.boxes] or ([query.area.bounds] if query.area is not None else [])
    if boxes and "bbox" in schema.names and pa.types.is_struct(schema.field("bbox").type):
        terms.append(_any([_meets(box) for box in boxes]) | ds.field("bbox").is_null())
    return None if not terms else _all(terms)


def _meets(box: Sequence[float]) -> ds.Expression:
    west, south, east, north = box
    xmin, ymin, xmax, ymax = (ds.field("bbox", side) for side in SIDES)
    # over the antimeridian some writers give west > east, others longitudes beyond 180
    over = (xmin > xmax) | (xmax > 180) | (xmin < -180) | (xmax - xmin > 180)
    return (ymin <= north) & (ymax >= south) & (over | ((xmin <= east) & (xmax >= west)))


def _scalar(bound: datetime, kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(bound if kind.tz else bound.replace(tzinfo=None), pa.timestamp("us", kind.tz))


def _ids(ids: Sequence[str]) -> ds.Expression:
    return ds.field("id").isin(list(ids))


def _any(terms: list[ds.Expression]) -> ds.Expression:
    result = terms[0]
    for term in terms[1:]:
        result = result | term
    return result


def _all(terms: list[ds.Expression]) -> ds.Expression:
    result = terms[0]
    for term in terms[1:]:
        result = result & term
    return result


def _asset_names(table: ds.Dataset, item: str, collection: str | None) -> list[str]:
    one = _ids([item])
    if collection is not None:
        one &= ds.field("collection") == collection
    found = table.to_table(columns=["assets"], filter=one, use_threads=False).column("assets").to_pylist()
    return sorted({name for assets in found for name, asset in _as_dict(assets).items() if asset is not None})


class _Columns:
    """The places in a schema of the values that are needed of an item."""

    def __init__(self, schema: pa.Schema, preset: Preset) -> None:
        self._schema = schema
        self._preferred = tuple(dict.fromkeys((*preset.sar_assets, *preset.optical_assets)))
        self._properties = tuple(dict.fromkeys((*KIND_PROPERTIES, *OTHER_PROPERTIES, *preset.properties)))
        kind = schema.field("assets").type if "assets" in schema.names else pa.null()
        self._nested = pa.types.is_struct(kind)
        offered = [field.name for field in kind] if pa.types.is_struct(kind) else []
        self._assets = self._names(offered)

    def wanted(self) -> dict[str, ds.Expression]:
        """Columns to read, under the names that `rows` uses."""
        names = ("id", "collection", "geometry", "bbox", *TIME_PROPERTIES, *self._properties)
        found = {name: place for name in names if (place := self._place(name)) is not None}
        if not self._nested:
            return found | {"assets": ds.field("assets")}
        for name in self._assets:
            asset = self._child(self._schema.field("assets").type, name)
            if asset is not None and self._child(asset, "href") is not None:
                found[f"href {name}"] = ds.field("assets", name, "href")
        return found

    def rows(self, table: pa.Table, asset_names: Any) -> Rows:
        """Convert a table to the columns that all catalogs share."""
        named = [isinstance(value, str) and value != "" for value in _column(table, "id")]
        unnamed, table = len(named) - sum(named), table.filter(pa.array(named, pa.bool_()))
        count = len(table)
        ids, collections = _column(table, "id"), _column(table, "collection")
        return Rows(
            id=ids,
            collection=collections,
            times_us={name: _time_column(table, name) for name in TIME_PROPERTIES},
            geometry=_geometry_column(table),
            bbox=_bbox_column(table),
            properties={name: _column(table, name) for name in self._properties},
            hrefs=self._hrefs(table),
            base=objects([None] * count),
            asset_names=lambda row: asset_names(ids[row], collections[row]),
            no_items=(LeftOut(f"{unnamed} rows", NO_ITEM, "not STAC items: they have no id"),)
            if unnamed
            else (),
        )

    def _names(self, offered: Iterable[str]) -> tuple[str, ...]:
        """Names of the assets that may be read."""
        return tuple(dict.fromkeys((*self._preferred, *(name for name in offered if may_be_read(name)))))

    def _hrefs(self, table: pa.Table) -> dict[str, Objects]:
        if self._nested:
            return {name: _column(table, f"href {name}") for name in self._assets}
        assets = [_as_dict(value) for value in table.column("assets").to_pylist()]
        found = {}
        for name in self._names(name for of in assets for name in of):
            offered = [of.get(name) for of in assets]
            found[name] = objects([one.get("href") if isinstance(one, dict) else None for one in offered])
        return found

    def _place(self, name: str) -> ds.Expression | None:
        if name in self._schema.names:
            return ds.field(name)
        if "properties" not in self._schema.names:
            return None
        # the form of early writers
        inside = self._child(self._schema.field("properties").type, name)
        return None if inside is None else ds.field("properties", name)

    @staticmethod
    def _child(kind: pa.DataType, name: str) -> pa.DataType | None:
        if not pa.types.is_struct(kind) or kind.get_field_index(name) < 0:
            return None
        return kind.field(name).type


def _as_dict(value: object) -> dict[str, Any]:
    """Read assets that are a struct, a map or JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    if isinstance(value, list):
        value = dict(value)
    return value if isinstance(value, dict) else {}


def _column(table: pa.Table, name: str) -> Objects:
    """Python values of a column, None where missing; times as whole microseconds."""
    if name not in table.column_names:
        return objects([None] * len(table))
    column = table.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
    return objects(column.to_pylist())


def _time_column(table: pa.Table, name: str) -> IntArray:
    values = _column(table, name)
    return np.array([value if isinstance(value, int) else time_us(value) for value in values], np.int64)


def _geometry_column(table: pa.Table) -> Objects:
    values = _column(table, "geometry")
    if len(values) and not any(isinstance(value, bytes | None) for value in values[:1]):
        raise CatalogError("its geometry is not WKB: write it as GeoParquet with encoding WKB")
    found: Objects = shapely.from_wkb(values, on_invalid="ignore")
    return found


def _bbox_column(table: pa.Table) -> Objects:
    found = []
    for value in _column(table, "bbox"):
        if isinstance(value, dict):
            value = [value.get(side) for side in SIDES]
        whole = value is not None and len(value) in (4, 6) and all(v is not None for v in value)
        found.append(tuple(map(float, value)) if whole else None)
    return objects(found)
