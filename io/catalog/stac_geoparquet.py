"""Read stac-geoparquet, a catalog as one table: only the wanted rows and columns.

pyarrow reads it, not geopandas: the assets of an item are nested, and one address is needed, not a dictionary
of Python objects for each row. A process of its own decodes it: see `table_process`.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from crosstie.errors import CatalogError
from crosstie.io.catalog.asset_choice import (
    CLASS_WORDS,
    OPTICAL_WORDS,
    SAR_WORDS,
    best_by_words,
    by_preference,
    may_be_opened,
)
from crosstie.io.catalog.declared import DECLARING_PARTS, OFFSET_APPLIED, by_address
from crosstie.io.catalog.documents import parse_document
from crosstie.io.catalog.items import (
    KIND_PROPERTIES,
    MAX_ID,
    NO_ITEM,
    OTHER_PROPERTIES,
    TIME_PROPERTIES,
    Rows,
    known_us,
    named_assets,
    plain_value,
    rows_together,
    time_us,
)
from crosstie.io.catalog.outlines import bbox_numbers, geometries_of_wkb
from crosstie.io.catalog.table_process import TableFile, decoded
from crosstie.io.catalog.table_selection import HREF, SIDES, TableRequest
from crosstie.io.scenes.table import UNKNOWN, LeftOut, objects
from crosstie.io.storage.address import AddressPolicy
from crosstie.io.storage.budget import LIMITS, CatalogBudget
from crosstie.io.storage.href import public_href
from crosstie.io.storage.href_policy import is_url
from crosstie.io.storage.redaction import first_line
from crosstie.io.storage.s3 import FROM_ENVIRONMENT, S3Options, s3fs_options
from crosstie.io.storage.s3_session import sure_session
from crosstie.io.storage.trust import hint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crosstie.io.catalog.presets import Preset
    from crosstie.io.catalog.query import SceneQuery
    from crosstie.types import IntArray, Objects

MAX_EXPLAINED = 5
"""Maximum number of rows whose assets are looked up for a message: each reads the table again."""

REQUEST_S = 60
"""Longest time for one piece of a remote table, seconds."""


def read_table(
    root: str,
    query: SceneQuery,
    preset: Preset,
    *,
    ids: Sequence[str] = (),
    storage: S3Options = FROM_ENVIRONMENT,
    policy: AddressPolicy | None = None,
    budget: CatalogBudget | None = None,
) -> Rows:
    """Read the rows of the query's collections, near its time and place.

    Parameters
    ----------
    root : str
        Path, https or s3 address of a file, or of a folder of files.
    ids : sequence of str, optional
        Only these ids, of any time and place; empty means all.
    budget : CatalogBudget, optional
        What the catalog may cost.

    Raises
    ------
    CatalogError
        It cannot be read, is not stac-geoparquet, or exceeds a limit.
    """
    budget = budget or CatalogBudget()
    with _as_catalog_error(root):
        files = _files_of(root, storage, policy or AddressPolicy.of(root))
        if not files:
            raise CatalogError("it holds no file whose name ends with .parquet")
        if len(files) > budget.limits.table_files:
            raise budget.refusal("consists of", budget.limits.table_files, "files")
        found = decoded(files, _request(query, preset, ids), budget)
    explained: list[str] = []

    def asset_names(item: str, collection: str | None) -> list[str]:
        if len(explained) >= MAX_EXPLAINED:
            return ["other assets (see the table)"]
        explained.append(item)
        with _as_catalog_error(root):
            one = decoded(files, TableRequest(ids=(item,), collection=collection, assets_only=True), budget)
        named = [_as_dict(value) for part in one for value in part.column("assets").to_pylist()]
        return list(
            named_assets({name for assets in named for name, asset in assets.items() if asset is not None})
        )

    with _as_catalog_error(root):
        return rows_together([_rows_of_table(part, preset, asset_names) for part in found])


def _request(query: SceneQuery, preset: Preset, ids: Sequence[str]) -> TableRequest:
    told = query.takes_any_collection(sar=True) or query.takes_any_collection(sar=False)
    return TableRequest(
        ids=tuple(ids),
        collections=() if told else query.collections,
        interval_utc=query.interval_utc,
        boxes=query.boxes or (() if query.area is None else (query.area.bounds,)),
        assets=preset.assets,
        columns=(*TIME_PROPERTIES, *KIND_PROPERTIES, *OTHER_PROPERTIES, *preset.properties),
    )


def _files_of(root: str, storage: S3Options, policy: AddressPolicy) -> list[TableFile]:
    if not is_url(root):
        path = Path(root)
        parts = sorted(part for part in path.rglob("*.parquet") if not part.name.startswith(("_", ".")))
        return [TableFile(str(part)) for part in (parts if path.is_dir() else [path])]
    import fsspec  # only for files of other machines

    scheme = root.split(":", 1)[0].lower()
    options: dict[str, Any] = {"get_client": _http_client(policy)}
    if scheme == "s3":
        options = s3fs_options(storage)
        options |= {"session": sure_session(options.pop("profile", None)), "skip_instance_cache": True}
    files = fsspec.filesystem(scheme, **options)
    place = files._strip_protocol(root)
    found = [place]
    if scheme == "s3" and files.isdir(place):
        found = [path for path in sorted(files.find(place)) if path.endswith(".parquet")]
    return [TableFile(path, files) for path in found]


def _http_client(policy: AddressPolicy) -> Callable[..., Any]:
    """Make a factory of HTTP clients for fsspec. They only connect where the policy allows."""

    def checked_socket(info: Any) -> socket.socket:
        family, kind, protocol, _, place = info
        policy.check_ip(str(place[0]))
        return socket.socket(family, kind, protocol)

    async def make(**options: Any) -> Any:
        import aiohttp  # only for files of other machines

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=checked_socket),
            timeout=aiohttp.ClientTimeout(total=REQUEST_S),
            **options,
        )

    return make


def _faults(root: str) -> tuple[type[Exception], ...]:
    """Errors that a table and its server can make."""
    faults: tuple[type[Exception], ...] = (OSError, pa.ArrowException, CatalogError)
    if root[:3].lower() == "s3:":
        from botocore.exceptions import BotoCoreError  # only for tables on S3

        faults = (*faults, BotoCoreError)
    return faults


@contextmanager
def _as_catalog_error(root: str) -> Iterator[None]:
    try:
        yield
    except _faults(root) as error:
        text = first_line(error)
        if text.startswith("Parquet but not"):
            raise CatalogError(f"{public_href(root)} is {text}") from None
        raise CatalogError(f"cannot read the catalog {public_href(root)}: {text}{hint(error)}") from None


def _rows_of_table(table: pa.Table, preset: Preset, asset_names: Callable[..., list[str]]) -> Rows:
    """Convert a table to the columns that all catalogs share."""
    named = [isinstance(name, str) and 0 < len(name) <= MAX_ID for name in _column(table, "id")]
    unnamed, table = len(named) - sum(named), table.filter(pa.array(named, pa.bool_()))
    ids, collections = _column(table, "id"), _column(table, "collection")
    geometry, problem = _geometry_column(table)
    properties = dict.fromkeys((*KIND_PROPERTIES, *OTHER_PROPERTIES, *preset.properties))
    assets = _assets_of_table(table, preset)
    return Rows(
        id=ids,
        collection=collections,
        times_us={name: _time_column(table, name) for name in TIME_PROPERTIES},
        geometry=geometry,
        outline_problem=problem,
        bbox=_bbox_column(table),
        properties={name: _column(table, name) for name in properties},
        hrefs=assets.hrefs,
        by_words=assets.by_words,
        declared=assets.declared,
        classes=assets.classes,
        base=objects([None] * len(table)),
        asset_names=lambda row: asset_names(ids[row], collections[row]),
        no_items=(
            LeftOut(
                f"{unnamed} rows", NO_ITEM, f"not STAC items: they have no id of 1 to {MAX_ID} characters"
            ),
        )
        if unnamed
        else (),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _TableAssets:
    """What `Rows` need of the assets of a table."""

    hrefs: dict[str, Objects]
    by_words: dict[bool, Objects]
    declared: Objects
    classes: Objects


def _assets_of_table(table: pa.Table, preset: Preset) -> _TableAssets:
    if "assets" in table.column_names:
        return _assets_of_rows(table, preset)
    by_words = {
        sar: _best_columns(table, words) for sar, words in ((True, SAR_WORDS), (False, OPTICAL_WORDS))
    }
    return _TableAssets(
        hrefs={name: _addresses(_column(table, HREF + name)) for name in preset.assets},
        by_words=by_words,
        declared=_declared_of_table(table, preset, by_words),
        classes=_best_columns(table, CLASS_WORDS),
    )


def _best_columns(table: pa.Table, words: tuple[str, ...]) -> Objects:
    """Best address of each row for what the names of assets say."""
    offered = [name.removeprefix(HREF) for name in table.column_names if name.startswith(HREF)]
    columns = [_addresses(_column(table, HREF + name)) for name in by_preference(offered, (), words)]
    found = objects([None] * len(table))
    for may_be in (_is_there, may_be_opened):  # one that cannot be opened only where no other is
        for column in reversed(columns):
            has = np.array([may_be(href) for href in column], bool)
            found[has] = column[has]
    return found


def _assets_of_rows(table: pa.Table, preset: Preset) -> _TableAssets:
    """Read assets that are a map or JSON text, row by row."""
    applied = _column(table, OFFSET_APPLIED)
    none = [None] * len(table)
    found = _TableAssets(
        hrefs={name: objects(none) for name in preset.assets},
        by_words={sar: objects(none) for sar in (True, False)},
        declared=objects(none),
        classes=objects(none),
    )
    kinds = {True: (preset.sar_assets, SAR_WORDS), False: (preset.optical_assets, OPTICAL_WORDS)}
    for row, value in enumerate(table.column("assets")):
        assets = _as_dict(value.as_py())
        hrefs = {name: _address(one.get("href")) for name, one in assets.items() if isinstance(one, dict)}
        for name in preset.assets:
            found.hrefs[name][row] = hrefs.get(name)
        for sar, (preferred, words) in kinds.items():
            found.by_words[sar][row] = best_by_words(hrefs, preferred, words)
        chosen = [found.by_words[sar][row] for sar in kinds]
        readable = (*preset.assets, *(name for name, href in hrefs.items() if href in chosen))
        found.declared[row] = by_address(
            ((hrefs.get(name), assets.get(name)) for name in readable), offset_applied=applied[row]
        )
        found.classes[row] = best_by_words(hrefs, (), CLASS_WORDS)
    return found


def _declared_of_table(table: pa.Table, preset: Preset, by_words: dict[bool, Objects]) -> Objects:
    """What is declared of the assets that may be read, where each has columns of its own."""
    offered = [name.removeprefix(HREF) for name in table.column_names if name.startswith(HREF)]
    names = [*(name for name in preset.assets if name in offered), *offered]
    columns = {
        name: (_addresses(_column(table, HREF + name)), parts)
        for name in names
        if (
            parts := {
                part: _python_values(table, f"{part} {name}")
                for part in DECLARING_PARTS
                if _has_values(table, part, name)
            }
        )
    }
    applied, declared = _column(table, OFFSET_APPLIED), objects([None] * len(table))
    for row in range(len(table) if columns else 0):
        chosen = [words[row] for words in by_words.values()]
        declared[row] = by_address(
            (
                (hrefs[row], {part: values[row] for part, values in parts.items()})
                for name, (hrefs, parts) in columns.items()
                if name in preset.assets or hrefs[row] in chosen
            ),
            offset_applied=applied[row],
        )
    return declared


def _has_values(table: pa.Table, part: str, name: str) -> bool:
    place = f"{part} {name}"
    return place in table.column_names and table.column(place).null_count < len(table)


def _python_values(table: pa.Table, name: str) -> Objects:
    return objects(table.column(name).to_pylist())


def _addresses(column: Objects) -> Objects:
    return objects([_address(href) for href in column])


def _address(href: object) -> str | None:
    return href if isinstance(href, str) and len(href) <= LIMITS.text else None


def _is_there(href: str | None) -> bool:
    return href is not None


def _as_dict(value: object) -> dict[str, Any]:
    """Read assets that are a struct, a map or JSON text."""
    try:
        if isinstance(value, str):
            value = parse_document(value, LIMITS)
        if isinstance(value, list):
            value = dict(value)
    except (ValueError, TypeError, CatalogError):
        return {}
    return value if isinstance(value, dict) else {}


def _column(table: pa.Table, name: str) -> Objects:
    """Python values of a column, None where missing; times as whole microseconds. Equal texts are one."""
    if name not in table.column_names:
        return objects([None] * len(table))
    column = table.column(name)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = column.dictionary_encode()
    if pa.types.is_dictionary(column.type):
        parts = [_of_dictionary(part) for part in column.chunks]
        return np.concatenate([objects([]), *parts])
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
    elif pa.types.is_nested(column.type):
        return objects([value if name == "bbox" else plain_value(value) for value in column.to_pylist()])
    return objects(column.to_pylist())


def _of_dictionary(part: pa.DictionaryArray) -> Objects:
    values = objects([*part.dictionary.to_pylist(), None])
    places = part.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False)
    found: Objects = values[places.astype(np.int64)]
    return found


def _time_column(table: pa.Table, name: str) -> IntArray:
    values = _column(table, name)
    unknown = int(UNKNOWN)
    return np.array(
        [
            known_us(value) if isinstance(value, int) else unknown if value is None else time_us(value)
            for value in values
        ],
        np.int64,
    )


def _geometry_column(table: pa.Table) -> tuple[Objects, Objects]:
    kind = table.schema.field("geometry").type
    inner = kind.storage_type if isinstance(kind, pa.ExtensionType) else kind
    if not (pa.types.is_binary(inner) or pa.types.is_large_binary(inner) or pa.types.is_null(inner)):
        raise CatalogError("its geometry is not WKB: write it as GeoParquet with encoding WKB")
    return geometries_of_wkb(_column(table, "geometry"))


def _bbox_column(table: pa.Table) -> Objects:
    found = []
    for value in _column(table, "bbox"):
        if isinstance(value, dict):
            value = [value.get(side) for side in SIDES]
        found.append(bbox_numbers(value))
    return objects(found)
