"""Items of a catalog as columns, unchanged. Every kind of catalog is first read into these.

All later steps are shared, so the same items give the same scenes from a file, a website, a table or an API.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from crosstie.errors import CatalogError
from crosstie.io.catalog.asset_choice import may_be_read
from crosstie.io.scenes.table import UNKNOWN, LeftOut, microseconds, objects
from crosstie.io.storage.href import public_href

if TYPE_CHECKING:
    from crosstie.io.catalog.presets import Preset
    from crosstie.types import BoolArray, IntArray, Objects

Json = dict[str, Any]

KIND_PROPERTIES = (
    "constellation",
    "platform",
    "instruments",
    "mission",
    "sar:instrument_mode",
    "sar:product_type",
    "sar:frequency_band",
    "sar:polarizations",
    "product:type",
    "s1:product_type",
    "s2:product_type",
    "s2:mgrs_tile",
)
"""What tells the sensor of an item."""

OTHER_PROPERTIES = ("eo:cloud_cover",)
MAX_SHOWN = 60
"""Longest text of a catalog that a message repeats, characters."""

NO_ITEM = "no STAC item"
"""Heading for what has not the form of an item."""

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
    no_items: tuple[LeftOut, ...] = ()
    """What the catalog holds in the place of items."""

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
            no_items=self.no_items,
        )


def rows_together(parts: Sequence[Rows]) -> Rows:
    """Put the rows of several tables together, which may have different assets."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *map(len, parts)])

    def assets_of(row: int) -> list[str]:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[part].asset_names(row - int(starts[part]))

    def stacked(of: Callable[[Rows], Mapping[str, Objects]]) -> dict[str, Objects]:
        names = dict.fromkeys(name for part in parts for name in of(part))
        empty = [objects([None] * len(part)) for part in parts]
        return {
            name: np.concatenate([of(part).get(name, none) for part, none in zip(parts, empty, strict=True)])
            for name in names
        }

    return Rows(
        id=np.concatenate([part.id for part in parts]),
        collection=np.concatenate([part.collection for part in parts]),
        times_us={name: np.concatenate([part.times_us[name] for part in parts]) for name in TIME_PROPERTIES},
        geometry=np.concatenate([part.geometry for part in parts]),
        bbox=np.concatenate([part.bbox for part in parts]),
        properties=stacked(lambda part: part.properties),
        hrefs=stacked(lambda part: part.hrefs),
        base=np.concatenate([part.base for part in parts]),
        asset_names=assets_of,
        no_items=tuple(out for part in parts for out in part.no_items),
    )


def rows_of(found: Sequence[tuple[object, str]], preset: Preset) -> Rows:
    """Make columns of STAC items. What has not the form of an item is told, and the others are read.

    Parameters
    ----------
    found : sequence of (object, str)
        What a catalog holds, each with the path or URL of the file that contains it.
    preset : Preset
        Names of the assets and properties to keep.

    Raises
    ------
    CatalogError
        None of them is a STAC item.
    """
    items: list[tuple[Json, str]] = []
    no_items = []
    for place, (one, base) in enumerate(found):
        wrong = _no_item(one)
        if wrong is None and isinstance(one, dict):
            items.append((one, base))
        elif wrong is not None:
            name = one.get("id") if isinstance(one, dict) else None
            known = str(name)[:MAX_SHOWN] if name else f"item {place + 1} of {public_href(base)}"
            no_items.append(LeftOut(known, NO_ITEM, f"not a STAC item: {wrong}"))
    if no_items and not items:
        raise CatalogError(
            f"{public_href(found[0][1])} holds {len(no_items)} of what should be items, and none is:"
            f" {no_items[0].scene} is {no_items[0].why}"
        )
    said = [item.get("properties") or {} for item, _ in items]
    assets = [_asset_hrefs(item) for item, _ in items]
    offered = dict.fromkeys(name for of in assets for name in of)
    names = dict.fromkeys(
        (*preset.sar_assets, *preset.optical_assets, *(name for name in offered if may_be_read(name)))
    )
    properties = dict.fromkeys((*KIND_PROPERTIES, *OTHER_PROPERTIES, *preset.properties))
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
        no_items=tuple(no_items),
    )


def _no_item(item: object) -> str | None:
    """Say what `item` lacks to be a STAC item; None if nothing."""
    if not isinstance(item, dict):
        return f"it is {_shown(item)}"
    if not isinstance(item.get("id"), str) or not item["id"]:
        return f"its id is {_shown(item.get('id'))}"
    for part in ("properties", "assets"):
        if part not in item:
            return f"it has no {part}"
        if not isinstance(item[part], dict):
            return f"its {part} are {_shown(item[part])}"
    if not isinstance(item.get("collection"), str | None):
        return f"its collection is {_shown(item['collection'])}"
    return None


def _shown(value: object) -> str:
    """Write a value of JSON as JSON, short."""
    import json

    text = json.dumps(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


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
