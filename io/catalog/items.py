"""Items of a catalog as columns, unchanged. Every kind of catalog is first read into these.

All later steps are shared, so the same items give the same scenes from a file, a website, a table or an API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from crosstie.errors import CatalogError
from crosstie.io.catalog.asset_choice import (
    CLASS_WORDS,
    LONGEST_NAME,
    OPTICAL_WORDS,
    SAR_WORDS,
    best_by_words,
)
from crosstie.io.catalog.declared import OFFSET_APPLIED, DeclaredBands, by_address
from crosstie.io.catalog.outlines import bbox_numbers, geometry_of_json
from crosstie.io.scenes.table import UNKNOWN, LeftOut, microseconds, objects
from crosstie.io.storage.budget import LIMITS, CatalogBudget
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

OTHER_PROPERTIES = ("eo:cloud_cover", OFFSET_APPLIED)
MAX_SHOWN = 60
"""Longest text of a catalog that a message repeats, characters."""

NO_ITEM = "no STAC item"
"""Heading for what has not the form of an item."""

UNUSABLE = "cannot be used"
"""Heading for items that have an error themselves."""

TIME_PROPERTIES = ("datetime", "start_datetime", "end_datetime")

YEARS_US = (-62_135_596_800_000_000, 253_402_300_799_999_999)
"""First and last microsecond since 1970 of the years 1 to 9999, which Python can tell."""

MAX_ID = 1024
"""Maximum number of characters of an id, and of the name of a collection."""

MAX_NAMED = 20
"""Maximum number of assets that a message names."""


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
    outline_problem: Objects
    """Why a geometry was refused before it was read; None if it was not."""
    bbox: Objects
    """Tuples of four or six numbers, or None."""
    properties: Mapping[str, Objects]
    """Values of `KIND_PROPERTIES`, `OTHER_PROPERTIES` and those of the preset."""
    hrefs: Mapping[str, Objects]
    """Asset name of the preset -> address as given; None if the item has no such asset."""
    by_words: Mapping[bool, Objects]
    """For SAR (True) and for optical scenes, the address of the best asset for what its name says; None if
    there is none, or one of the preset can be opened."""
    declared: Objects
    """Pairs of address and declared scales and offsets, of the assets above; None if none declares any."""
    classes: Objects
    """Address of the scene classification as given; None if there is none."""
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
            outline_problem=self.outline_problem[keep],
            bbox=self.bbox[keep],
            properties={name: values[keep] for name, values in self.properties.items()},
            hrefs={name: values[keep] for name, values in self.hrefs.items()},
            by_words={sar: values[keep] for sar, values in self.by_words.items()},
            declared=self.declared[keep],
            classes=self.classes[keep],
            base=self.base[keep],
            asset_names=lambda row: names(int(places[row])),
            no_items=self.no_items,
        )


def rows_together(parts: Sequence[Rows]) -> Rows:
    """Put the rows of several tables together."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *map(len, parts)])

    def assets_of(row: int) -> list[str]:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[part].asset_names(row - int(starts[part]))

    def joined(of: Callable[[Rows], Any]) -> Any:
        return np.concatenate([of(part) for part in parts])

    def stacked(of: Callable[[Rows], Mapping[Any, Any]]) -> dict[Any, Any]:
        return {name: np.concatenate([of(part)[name] for part in parts]) for name in of(parts[0])}

    return Rows(
        id=joined(lambda part: part.id),
        collection=joined(lambda part: part.collection),
        times_us=stacked(lambda part: part.times_us),
        geometry=joined(lambda part: part.geometry),
        outline_problem=joined(lambda part: part.outline_problem),
        bbox=joined(lambda part: part.bbox),
        properties=stacked(lambda part: part.properties),
        hrefs=stacked(lambda part: part.hrefs),
        by_words=stacked(lambda part: part.by_words),
        declared=joined(lambda part: part.declared),
        classes=joined(lambda part: part.classes),
        base=joined(lambda part: part.base),
        asset_names=assets_of,
        no_items=tuple(out for part in parts for out in part.no_items),
    )


def rows_of(
    found: Iterable[tuple[object, str]], preset: Preset, *, budget: CatalogBudget | None = None
) -> Rows:
    """Make columns of STAC items. What has not the form of an item is told, and the others are read.

    Of each item only what the columns need is kept while the next is read.

    Parameters
    ----------
    found : iterable of (object, str)
        What a catalog holds, each with the path or URL of the file that contains it. A `LeftOut` stands for
        what could not be read.
    preset : Preset
        Names of the assets and properties to keep.
    budget : CatalogBudget, optional
        What the catalog may cost.

    Raises
    ------
    CatalogError
        None of them is a STAC item; or the catalog exceeds a limit.
    """
    budget = budget or CatalogBudget()
    kept: list[_Kept] = []
    no_items: list[LeftOut] = []
    lists: dict[tuple[str, ...], tuple[str, ...]] = {}
    first_base = ""
    for place, (one, base) in enumerate(found):
        first_base = first_base or base
        budget.add_item()
        wrong = one if isinstance(one, LeftOut) else _left_out(one, base, place)
        if wrong is not None:
            no_items.append(wrong)
        elif isinstance(one, dict):
            kept.append(_kept(one, base, preset, budget, lists))
    if no_items and not kept:
        raise CatalogError(
            f"{public_href(first_base)} holds {len(no_items)} of what should be items, and none is:"
            f" {no_items[0].scene}: {no_items[0].why}"
        )
    properties = dict.fromkeys((*KIND_PROPERTIES, *OTHER_PROPERTIES, *preset.properties))
    return Rows(
        id=objects([one.id for one in kept]),
        collection=objects([one.collection for one in kept]),
        times_us={
            name: np.array([time_us(one.properties.get(name)) for one in kept], np.int64)
            for name in TIME_PROPERTIES
        },
        geometry=shapely.from_geojson(objects([one.geometry for one in kept]), on_invalid="ignore"),
        outline_problem=objects([one.outline_problem for one in kept]),
        bbox=objects([one.bbox for one in kept]),
        properties={name: objects([one.properties.get(name) for one in kept]) for name in properties},
        hrefs={name: objects([one.hrefs.get(name) for one in kept]) for name in preset.assets},
        by_words={sar: objects([one.by_words[sar] for one in kept]) for sar in (True, False)},
        declared=objects([one.declared for one in kept]),
        classes=objects([one.classes for one in kept]),
        base=objects([one.base for one in kept]),
        asset_names=lambda row: list(kept[row].asset_names),
        no_items=tuple(no_items),
    )


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is needed of one item."""

    id: str
    collection: str | None
    properties: Json
    geometry: str | None
    outline_problem: str | None
    bbox: tuple[float, ...] | None
    hrefs: dict[str, str]
    by_words: tuple[str | None, str | None]
    """Of an optical and of a SAR scene."""
    declared: tuple[tuple[str, DeclaredBands], ...] | None
    classes: str | None
    asset_names: tuple[str, ...]
    base: str


def _kept(
    item: Json,
    base: str,
    preset: Preset,
    budget: CatalogBudget,
    lists: dict[tuple[str, ...], tuple[str, ...]],
) -> _Kept:
    """Take what is needed of an item; `lists` holds the names of assets, which many items share."""
    said = item["properties"]
    wanted = (*KIND_PROPERTIES, *OTHER_PROPERTIES, *TIME_PROPERTIES, *preset.properties)
    geometry, problem = geometry_of_json(item.get("geometry"), budget.limits)
    hrefs = _asset_hrefs(item)
    names = named_assets(hrefs)
    by_words = (
        best_by_words(hrefs, preset.optical_assets, OPTICAL_WORDS),
        best_by_words(hrefs, preset.sar_assets, SAR_WORDS),
    )
    readable = (*preset.assets, *(name for name, href in hrefs.items() if href in by_words))
    return _Kept(
        id=item["id"],
        collection=item.get("collection"),
        properties={name: plain_value(said[name]) for name in wanted if name in said},
        geometry=geometry,
        outline_problem=problem,
        bbox=bbox_numbers(item.get("bbox")),
        hrefs={name: hrefs[name] for name in preset.assets if name in hrefs},
        by_words=by_words,
        declared=by_address(
            ((hrefs.get(name), item["assets"].get(name)) for name in readable),
            offset_applied=said.get(OFFSET_APPLIED),
        ),
        classes=best_by_words(hrefs, (), CLASS_WORDS),
        asset_names=lists.setdefault(names, names),
        base=base,
    )


def named_assets(names: Iterable[str]) -> tuple[str, ...]:
    """Names of the assets of an item, for a message."""
    return tuple(sorted(name for name in names if len(name) <= LONGEST_NAME)[:MAX_NAMED])


def plain_value(value: object) -> object:
    """Give a property if it is a number, a short text or a list of short texts; None for anything else."""
    if isinstance(value, str):
        return value if len(value) <= LIMITS.text else None
    if isinstance(value, list | tuple):
        return [text for text in value[:MAX_NAMED] if isinstance(text, str) and len(text) <= LIMITS.text]
    return value if isinstance(value, bool | int | float) else None


def _left_out(item: object, base: str, place: int) -> LeftOut | None:
    """Say of what is no STAC item why it is none; `place` tells what has no id."""
    wrong = _no_item(item)
    if wrong is None:
        return None
    name = item.get("id") if isinstance(item, dict) else None
    text = name if isinstance(name, str) and len(name) <= MAX_ID else str(name)[:MAX_SHOWN]
    known = text if name else f"item {place + 1} of {public_href(base)}"
    return LeftOut(known, NO_ITEM, f"not a STAC item: {wrong}")


def _no_item(item: object) -> str | None:
    """Say what `item` lacks to be a STAC item; None if nothing."""
    if not isinstance(item, dict):
        return f"it is {_shown(item)}"
    if not isinstance(item.get("id"), str) or not item["id"]:
        return f"its id is {_shown(item.get('id'))}"
    if len(item["id"]) > MAX_ID:
        return f"its id has more than {MAX_ID} characters"
    for part in ("properties", "assets"):
        if part not in item:
            return f"it has no {part}"
        if not isinstance(item[part], dict):
            return f"its {part} are {_shown(item[part])}"
    if not isinstance(item.get("collection"), str | None):
        return f"its collection is {_shown(item['collection'])}"
    if len(item.get("collection") or "") > MAX_ID:
        return f"the name of its collection has more than {MAX_ID} characters"
    return None


def _shown(value: object) -> str:
    """Write a value of JSON as JSON, short."""
    import json

    text = json.dumps(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def time_us(value: object) -> int:
    """Convert RFC 3339 text (UTC if it has no zone) to microseconds since 1970; `UNKNOWN` for others."""
    if not isinstance(value, str) or len(value) > MAX_ID:
        return int(UNKNOWN)
    try:
        when = datetime.fromisoformat(value.strip().upper())
    except ValueError:
        return int(UNKNOWN)
    return known_us(microseconds(when.replace(tzinfo=UTC) if when.tzinfo is None else when))


def known_us(us: int) -> int:
    """Give microseconds since 1970 as they are, and `UNKNOWN` for a time outside the years 1 to 9999."""
    return us if YEARS_US[0] <= us <= YEARS_US[1] else int(UNKNOWN)


def _asset_hrefs(item: Json) -> dict[str, str]:
    found = {name: asset.get("href") for name, asset in item["assets"].items() if isinstance(asset, dict)}
    short = LIMITS.text
    return {name: href for name, href in found.items() if isinstance(href, str) and len(href) <= short}
