"""Which rows and columns of a stac-geoparquet table are read. Imports little: each table starts a process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.dataset as ds

from crosstie.errors import CatalogError
from crosstie.io.catalog.asset_choice import (
    CLASS_WORDS,
    OPTICAL_WORDS,
    SAR_WORDS,
    by_preference,
)
from crosstie.io.catalog.declared import DECLARING_PARTS, SCALE_NAMES

if TYPE_CHECKING:
    from datetime import datetime

HREF = "href "
"""The name of a column of addresses is this, and the name of the asset."""

MAX_BY_WORDS = 32
"""Maximum number of assets of one kind that are read for what their names say."""

SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True)
class TableRequest:
    """What is wanted of a table."""

    ids: tuple[str, ...] = ()
    """Only these items, of any time and place; empty means all."""
    collection: str | None = None
    assets_only: bool = False
    """Only the assets of the items `ids` of `collection`."""
    collections: tuple[str, ...] = ()
    """Empty means any."""
    interval_utc: tuple[datetime | None, datetime | None] = (None, None)
    boxes: tuple[Sequence[float], ...] = ()
    """West, south, east, north, degrees."""
    assets: tuple[str, ...] = ()
    """Names of the assets whose addresses are read, besides those that are told by their words."""
    columns: tuple[str, ...] = ()
    """Names of further properties."""


def selection(
    schema: pa.Schema, request: TableRequest
) -> tuple[dict[str, ds.Expression], ds.Expression | None]:
    """Columns to read of a table, and the filter that Parquet can apply while reading.

    Raises
    ------
    CatalogError
        It is not stac-geoparquet.
    """
    if missing := [name for name in ("id", "geometry", "assets") if name not in schema.names]:
        raise CatalogError(f"Parquet but not stac-geoparquet: it has no column {', '.join(missing)}")
    for name in ("id", "collection"):
        kind = schema.field(name).type if name in schema.names else pa.string()
        inner = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_null(inner)):
            raise CatalogError(f"Parquet but not stac-geoparquet: its column {name} is {kind}, not text")
    if request.assets_only:
        one = _ids(request.ids)
        if request.collection is not None and "collection" in schema.names:
            one &= ds.field("collection") == request.collection
        return {"assets": ds.field("assets")}, one
    condition = _ids(request.ids) if request.ids else _condition(schema, request)
    return _Columns(schema, request).wanted(), condition


def _condition(schema: pa.Schema, request: TableRequest) -> ds.Expression | None:
    """Filter that Parquet can apply while reading. More than is wanted may pass, never less."""
    terms: list[ds.Expression] = []
    if request.collections and "collection" in schema.names:
        collection = ds.field("collection")
        terms.append(collection.isin(list(request.collections)) | collection.is_null())
    start, end = request.interval_utc
    if "datetime" in schema.names and pa.types.is_timestamp(kind := schema.field("datetime").type):
        moment = ds.field("datetime")
        if start is not None:
            terms.append(moment.is_null() | (moment >= _scalar(start, kind)))
        if end is not None:
            terms.append(moment.is_null() | (moment <= _scalar(end, kind)))
    boxes = request.boxes
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


class _Columns:
    """The places in a schema of the values that are needed of an item."""

    def __init__(self, schema: pa.Schema, request: TableRequest) -> None:
        self._schema = schema
        self._request = request
        kind = schema.field("assets").type if "assets" in schema.names else pa.null()
        self._nested = pa.types.is_struct(kind)
        offered = [field.name for field in kind] if self._nested else []
        told = [
            name
            for words in (SAR_WORDS, OPTICAL_WORDS, CLASS_WORDS)
            for name in by_preference(offered, (), words)[:MAX_BY_WORDS]
        ]
        self._assets = tuple(dict.fromkeys((*request.assets, *told)))

    def wanted(self) -> dict[str, ds.Expression]:
        """Columns to read, under the names that `rows` uses."""
        names = ("id", "collection", "geometry", "bbox", *self._request.columns)
        found = {name: place for name in names if (place := self._place(name)) is not None}
        if not self._nested:
            return found | {"assets": ds.field("assets")}
        for name in self._assets:
            asset = self._child(self._schema.field("assets").type, name)
            if asset is not None and self._child(asset, "href") is not None:
                found[HREF + name] = ds.field("assets", name, "href")
                found |= {
                    f"{part} {name}": ds.field("assets", name, part)
                    for part in DECLARING_PARTS
                    if self._declares(asset, part)
                }
        return found

    def _place(self, name: str) -> ds.Expression | None:
        if name in self._schema.names:
            return ds.field(name)
        if "properties" not in self._schema.names:
            return None
        # the form of early writers
        inside = self._child(self._schema.field("properties").type, name)
        return None if inside is None else ds.field("properties", name)

    def _declares(self, asset: pa.DataType, part: str) -> bool:
        """Say whether a part of an asset can hold a scale or an offset."""
        kind = self._child(asset, part)
        if kind is None or part not in SCALE_NAMES:
            return kind is not None and (pa.types.is_floating(kind) or pa.types.is_integer(kind))
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            return False
        return any(self._child(kind.value_type, name) is not None for name in SCALE_NAMES[part])

    @staticmethod
    def _child(kind: pa.DataType, name: str) -> pa.DataType | None:
        if not pa.types.is_struct(kind) or kind.get_field_index(name) < 0:
            return None
        return kind.field(name).type
