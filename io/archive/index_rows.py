"""One committed run as one row of the index: its STAC item, and the fields of its correction to query by."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import shapely

from crosstie.errors import StoreError
from crosstie.io.products.stac_item import ASSETS, RASTER_ASSETS

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEXT, _TEXTS, _NUMBERS = pa.string(), pa.list_(pa.string()), pa.list_(pa.float64())
_MOMENT = pa.timestamp("us", tz="UTC")
_ASSET = pa.struct({"href": _TEXT, "type": _TEXT, "title": _TEXT, "roles": _TEXTS})
_GRID = {
    "proj:code": _TEXT, "proj:wkt2": _TEXT, "proj:shape": pa.list_(pa.int64()), "proj:transform": _NUMBERS,
}  # fmt: skip
_RASTER_ASSET = pa.struct([*_ASSET, *(pa.field(name, kind) for name, kind in _GRID.items())])

ITEM = pa.schema(
    {
        "type": _TEXT,
        "stac_version": _TEXT,
        "stac_extensions": _TEXTS,
        "id": _TEXT,
        "geometry": pa.binary(),
        "bbox": pa.struct(dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), pa.float64())),
        "links": pa.list_(pa.struct({"rel": _TEXT, "href": _TEXT, "title": _TEXT})),
        "assets": pa.struct(dict.fromkeys(ASSETS, _ASSET) | dict.fromkeys(RASTER_ASSETS, _RASTER_ASSET)),
    }
)
"""Fields of an item besides its properties. An asset that a run does not have is null, as is one that the
index of an earlier version does not know."""

PROPERTIES = pa.schema(
    {
        "datetime": _MOMENT,
        "start_datetime": _MOMENT,
        "end_datetime": _MOMENT,
        "created": _MOMENT,
        "proj:code": _TEXT,
        "proj:shape": pa.list_(pa.int64()),
        "proj:wkt2": _TEXT,
        "proj:transform": _NUMBERS,
        "crosstie:verdict": _TEXT,
        "crosstie:reasons": _TEXTS,
        "crosstie:reference": _TEXT,
        "crosstie:secondary": _TEXT,
        "crosstie:model": _TEXT,
        "crosstie:offset_x_m": pa.float64(),
        "crosstie:offset_y_m": pa.float64(),
        "crosstie:rmse_before_m": pa.float64(),
        "crosstie:rmse_after_m": pa.float64(),
        "crosstie:tie_points_matched": pa.int64(),
        "crosstie:tie_points_used": pa.int64(),
        "crosstie:field_offered": pa.bool_(),
        "crosstie:field_rmse_after_m": pa.float64(),
    }
)
"""Properties of an item; each is a column of its own, as stac-geoparquet requires."""

CORRECTION = pa.schema(
    {
        "pair_key": _TEXT,
        "run_key": _TEXT,
        "latest": pa.bool_(),
        "reference_id": _TEXT,
        "secondary_id": _TEXT,
        "verdict": _TEXT,
        "reasons": _TEXTS,
        "model": _TEXT,
        "crs": _TEXT,
        "affine": _NUMBERS,
        "offset_x_m": pa.float64(),
        "offset_y_m": pa.float64(),
        "rmse_before_m": pa.float64(),
        "ce90_before_m": pa.float64(),
        "rmse_after_m": pa.float64(),
        "ce90_after_m": pa.float64(),
        "tie_points_planned": pa.int64(),
        "tie_points_matched": pa.int64(),
        "tie_points_used": pa.int64(),
        "weights_sha256": _TEXT,
        "settings_hash": _TEXT,
        "crosstie_version": _TEXT,
        "seconds": pa.float64(),
        "products": _TEXT,
        "updated": _MOMENT,
    }
)
"""Fields of a correction; names and units as in docs/results.md."""

ROW_SCHEMA = pa.unify_schemas([ITEM, PROPERTIES, CORRECTION])

ADDED_COLUMNS = frozenset(
    f"crosstie:{name}"
    for name in (
        "model", "offset_x_m", "offset_y_m", "rmse_before_m", "rmse_after_m", "tie_points_matched",
        "tie_points_used", "field_offered", "field_rmse_after_m",
    )
)  # fmt: skip
"""Columns that an index of version 0.1.0 lacks."""

NOWHERE = (math.inf, math.inf, -math.inf, -math.inf)
"""Box of a scene without coordinates: empty, so that no query by place finds it. Null breaks readers."""


class IncompleteProductError(StoreError):
    """A committed product lacks fields that its schema requires."""


def index_row(
    item: Mapping[str, Any],
    correction: Mapping[str, Any],
    *,
    pair_key: str,
    run_key: str,
    products: str,
    updated_utc: datetime,
) -> dict[str, Any]:
    """Make the row of a run. `latest` is set later, because it depends on the other runs of the pair.

    An item with a date gets `start_datetime` and `end_datetime` too, so that one condition on them finds all
    rows; STAC allows no null there.

    Parameters
    ----------
    item, correction : Mapping[str, Any]
        `item.json` and `correction.json` as read.
    products : str
        URL of their folder; makes relative hrefs absolute.
    updated_utc : datetime
        When the row was made; of two rows of one run the newer counts.

    Raises
    ------
    IncompleteProductError
        A product lacks fields that its schema requires.
    """
    try:
        row = {
            **_item(item, products),
            **_properties(item["properties"]),
            **_correction_columns(correction),
            "pair_key": pair_key,
            "run_key": run_key,
            "latest": False,
            "products": products,
            "updated": updated_utc,
        }
        pa.scalar(row, pa.struct(ROW_SCHEMA))  # a text in place of a number would make the whole batch fail
    except (
        KeyError, TypeError, ValueError, OverflowError, AttributeError, pa.ArrowException,
        shapely.errors.GEOSException,
    ) as problem:  # fmt: skip
        raise IncompleteProductError(
            f"{products} is committed, but its item.json or correction.json is incomplete "
            f"({type(problem).__name__}: {problem}); delete that folder and run the pair again"
        ) from None
    return row


def _item(item: Mapping[str, Any], products: str) -> dict[str, Any]:
    outline = shapely.from_geojson(json.dumps(item["geometry"])) if item["geometry"] else shapely.Polygon()
    # The box of the outline, not the item's own: across the antimeridian the item's box has west > east, and
    # readers that compare boxes (geopandas, DuckDB) would miss the row. The outline is cut there, so its box
    # is wide.
    box = NOWHERE if outline.is_empty else outline.bounds
    return {
        "type": "Feature",
        "stac_version": item["stac_version"],
        "stac_extensions": item["stac_extensions"],
        "id": item["id"],
        "geometry": shapely.to_wkb(outline, flavor="iso"),
        "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)),
        "links": item["links"],
        "assets": {
            key: {**asset, "href": _absolute_href(asset["href"], products)}
            for key, asset in item["assets"].items()
        },
    }


def _properties(said: Mapping[str, Any]) -> dict[str, Any]:
    row = {name: said.get(name) for name in PROPERTIES.names}
    for name in ("datetime", "start_datetime", "end_datetime"):
        text = said.get(name)
        row[name] = row["datetime"] if text is None else _parse_utc(text)
    return row


def _correction_columns(said: Mapping[str, Any]) -> dict[str, Any]:
    made = said["provenance"]
    return {
        "created": _parse_utc(made["created_utc"]),  # to the microsecond; the item has whole seconds
        "reference_id": said["pair"]["reference"]["id"],
        "secondary_id": said["pair"]["secondary"]["id"],
        "verdict": said["verdict"],
        "reasons": said["reasons"],
        "model": said["model"],
        "crs": said["crs"],
        "affine": said["affine"],
        "offset_x_m": said["offset_m"]["median_x"],
        "offset_y_m": said["offset_m"]["median_y"],
        "rmse_before_m": said["error_before_m"]["rmse"],
        "ce90_before_m": said["error_before_m"]["ce90"],
        "rmse_after_m": said["error_after_m"]["rmse"],
        "ce90_after_m": said["error_after_m"]["ce90"],
        "tie_points_planned": said["tie_points"]["planned"],
        "tie_points_matched": said["tie_points"]["matched"],
        "tie_points_used": said["tie_points"]["used"],
        "weights_sha256": made["weights_sha256"],
        "settings_hash": made["settings_hash"],
        "crosstie_version": made["versions"].get("crosstie"),
        "seconds": made["seconds"],
    }


def _absolute_href(href: str, products: str) -> str:
    return href if "://" in href or href.startswith("/") else f"{products}/{href}"


def _parse_utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
