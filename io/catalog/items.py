"""Items of a catalog as columns, unchanged. Every kind of catalog is first read into these.

All later steps are shared, so the same items give the same scenes from a file, a website, a table or an API.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from crosstie.errors import CatalogError
from crosstie.io.scenes.table import UNKNOWN, microseconds, objects

if TYPE_CHECKING:
    from crosstie.io.catalog.presets import Preset
    from crosstie.types import BoolArray, IntArray, Objects

Json = dict[str, Any]

KIND_PROPERTIES = ("constellation", "platform", "instruments")
OTHER_PROPERTIES = ("eo:cloud_cover",)
TIME_PROPERTIES = ("datetime", "start_datetime", "end_datetime")


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Items (N,) before any check."""

    id: Objects
    collection: Objects
    """None if the item names none."""
    times_us: Mapping[str, IntArray]
    """`TIME_PROPERTIES` in whole microseconds since 1970; `UNKNOWN` if the item does not give them."""
    geometry: Objects
    """As given; None if there is none that can be read."""
    bbox: Objects
    """Tuples of four or six numbers, or None."""
    properties: Mapping[str, Objects]
    """Values of `KIND_PROPERTIES`, `OTHER_PROPERTIES` and those of the preset."""
    hrefs: Mapping[str, Objects]
    """Asset name -> address as given; None if the item has no such asset."""
    base: Objects
    """Path or URL of the file that contains each item."""
    asset_names: Callable[[int], list[str]]
    """Gives the names of all assets of a row, for the message that none of them is known."""

    def __len__(self) -> int:
        return len(self.id)

    def take(self, keep: BoolArray) -> Rows:
        """Keep only these rows."""
        if keep.all():
            return self
        places, names = np.flatnonzero(keep), self.asset_names
        return Rows(
            id=self.id[keep],
            collection=self.collection[keep],
            times_us={name: values[keep] for name, values in self.times_us.items()},
            geometry=self.geometry[keep],
            bbox=self.bbox[keep],
            properties={name: values[keep] for name, values in self.properties.items()},
            hrefs={name: values[keep] for name, values in self.hrefs.items()},
            base=self.base[keep],
            asset_names=lambda row: names(int(places[row])),
        )


def rows_of(items: list[tuple[Json, str]], preset: Preset) -> Rows:
    """Make columns of STAC items.

    Parameters
    ----------
    items : list of (Json, str)
        (N,) items, each with the path or URL of the file that contains it.
    preset : Preset
        Names of the assets and properties to keep.

    Raises
    ------
    CatalogError
        One of them is not a STAC item.
    """
    for item, base in items:
        check_item(item, base)
    said = [item.get("properties") or {} for item, _ in items]
    assets = [_asset_hrefs(item) for item, _ in items]
    names = dict.fromkeys((*preset.sar_assets, *preset.optical_assets))
    properties = (*KIND_PROPERTIES, *OTHER_PROPERTIES, *preset.properties)
    return Rows(
        id=objects([item["id"] for item, _ in items]),
        collection=objects([item.get("collection") for item, _ in items]),
        times_us={
            name: np.array([time_us(values.get(name)) for values in said], np.int64)
            for name in TIME_PROPERTIES
        },
        geometry=_parse_geometries([item.get("geometry") for item, _ in items]),
        bbox=objects([_bbox_numbers(item.get("bbox")) for item, _ in items]),
        properties={name: objects([values.get(name) for values in said]) for name in properties},
        hrefs={name: objects([of.get(name) for of in assets]) for name in names},
        base=objects([base for _, base in items]),
        asset_names=lambda row: sorted(assets[row]),
    )


def check_item(item: Json, base: str) -> None:
    """Check that `item` has the form of a STAC item; `base` names its file in the message.

    Raises
    ------
    CatalogError
        It has another form.
    """
    wrong = None
    if not isinstance(item.get("id"), str) or not item["id"]:
        wrong = f"its id is {item.get('id')!r}"
    elif not isinstance(item.get("properties"), dict):
        wrong = "it has no properties"
    elif not isinstance(item.get("assets"), dict):
        wrong = "it has no assets"
    elif not isinstance(item.get("collection"), str | None):
        wrong = f"its collection is {item.get('collection')!r}"
    if wrong is not None:
        raise CatalogError(f"{base} is not a STAC item: {wrong}")


def time_us(value: object) -> int:
    """Convert RFC 3339 text (UTC if it has no zone) to microseconds since 1970; `UNKNOWN` for others."""
    if not isinstance(value, str):
        return int(UNKNOWN)
    try:
        when = datetime.fromisoformat(value.strip().upper())
    except ValueError:
        return int(UNKNOWN)
    return microseconds(when.replace(tzinfo=UTC) if when.tzinfo is None else when)


def finite_number(value: object) -> float | None:
    """Read a number; None for anything else, and for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # whole numbers of JSON have no limit
        return None
    return number if isfinite(number) else None


def _asset_hrefs(item: Json) -> dict[str, str]:
    found = {name: asset.get("href") for name, asset in item["assets"].items() if isinstance(asset, dict)}
    return {name: href for name, href in found.items() if isinstance(href, str)}


def _bbox_numbers(value: object) -> tuple[float, ...] | None:
    if not isinstance(value, list | tuple) or len(value) not in (4, 6):
        return None
    numbers = tuple(finite_number(number) for number in value)
    return None if None in numbers else numbers  # type: ignore[return-value]


def _parse_geometries(values: list[object]) -> Objects:
    import json

    text = [json.dumps(value) if isinstance(value, dict) else None for value in values]
    found: Objects = shapely.from_geojson(objects(text), on_invalid="ignore")
    return found
