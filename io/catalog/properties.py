"""Read the properties of items, which each catalog names and writes differently, into one form."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crosstie.io.catalog.documents import finite_number
from crosstie.io.catalog.items import KIND_PROPERTIES, known_us, time_us
from crosstie.io.catalog.query import full_platform
from crosstie.io.scenes.table import UNKNOWN, objects

if TYPE_CHECKING:
    from crosstie.io.catalog.items import Json, Rows
    from crosstie.io.catalog.presets import Preset
    from crosstie.io.catalog.query import SceneQuery
    from crosstie.types import BoolArray, FloatArray, IntArray, Objects

MISSION = re.compile(r"^s(?:entinel)?-?([1-6])[a-d]?p?(?:-|$)")
"""A mission of the Copernicus programme, in the words of items: sentinel-1a, Sentinel 2, S2B, SENTINEL-5P."""

OTHER_MISSION = re.compile(r"landsat|modis|viirs|sentinel[-_ ]?[3-6]|^s[3-6](?:[a-d]|[-_]|$)", re.IGNORECASE)
"""Names of collections of other missions, whatever their items say."""

SENSORS = {"c-sar": 1, "csar": 1, "sar": 1, "msi": 0}
"""Instruments -> 1 for SAR, 0 for optical."""

OTHER = -2
"""Kind of an item that says that it is of another mission."""

TILE = re.compile(r"^(?:MGRS-)?T?(\d{1,2}[C-X][A-Z]{2})$")
TILE_IN_ID = re.compile(r"_T?(\d{1,2}[C-X][A-Z]{2})(?:_|$)")
BASELINE_IN_ID = re.compile(r"_N(\d{2})(\d{2})_R\d{3}_")
TRACK_IN_ID = re.compile(r"_R(\d{3})_T\d\d[C-X][A-Z]{2}(?:_|$)")
PLATFORM_IN_ID = re.compile(r"^(S[12][A-Z])_")

MISSION_PROPERTIES = ("constellation", "platform", "mission")
SAR_PROPERTIES = ("sar:instrument_mode", "sar:product_type", "sar:frequency_band", "s1:product_type")
OPTICAL_PROPERTIES = ("s2:product_type", "s2:mgrs_tile")

LARGEST_TRACK = 175
"""Relative orbits of Sentinel-1 are 1..175, those of Sentinel-2 1..143."""

SAR_PRODUCTS = ("RTC", "GRD", "SLC")
OTHER_SAR_PRODUCT = re.compile(r"(?<![A-Z])(SL1|OCN|RAW)(?![A-Z])")
OPTICAL_PRODUCTS = {"1C": "L1C", "2A": "L2A"}


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """Properties of items, as columns (N,) like those of `Scenes`."""

    platform: Objects
    cloud_cover_pct: FloatArray
    product_type: Objects
    orbit_state: Objects
    relative_orbit: IntArray
    mgrs_tile: Objects
    processing_baseline: Objects
    created_us: IntArray


def kinds_of(rows: Rows, query: SceneQuery) -> IntArray:
    """Kind of each item, (N,): 1 for SAR, 0 for optical, -1 if unknown, `OTHER` for other missions.

    The collections that the query names decide, then what the item says, its id, and last its collection's
    name, which is a hint only.
    """
    named = dict.fromkeys(query.optical_collections, 0) | dict.fromkeys(query.sar_collections, 1)
    found = np.array([named.get(collection, -1) for collection in rows.collection], np.int64)
    said = rows.properties
    for n in np.flatnonzero(found < 0).tolist():
        values = {name: texts_of(said[name][n]) for name in KIND_PROPERTIES}
        kind = _by_mission([word for name in MISSION_PROPERTIES for word in values[name]])
        if kind is None:
            kind = _by_sensor(values)
        if kind is None:
            kind = _by_mission([rows.id[n].partition("_")[0]])
        if kind is None:
            kind = _by_mission(re.findall(r"sentinel[-_ ]?\d", str(rows.collection[n]).lower()))
        found[n] = -1 if kind is None else kind
    return found


def is_of_mission(collection: Json, *, sar: bool) -> bool:
    """Say whether a collection of an API says that its items are of Sentinel-1 (`sar`) or Sentinel-2."""
    name = collection.get("id")
    if not isinstance(name, str) or OTHER_MISSION.search(name):
        return False
    summaries = collection.get("summaries")
    said = summaries if isinstance(summaries, dict) else {}
    words = [text for part in MISSION_PROPERTIES for text in texts_of(said.get(part))]
    kind = _by_mission(words)
    if kind is None:
        kind = _by_mission([*re.findall(r"sentinel[-_ ]?\d", name.lower()), name])
    if sar and kind == 1:
        return not any(product in name.upper() for product in ("SLC", "OCN", "RAW"))
    return kind == (1 if sar else 0)


def texts_of(value: object) -> list[str]:
    """Texts of a property that should be a text, or a list of texts, and may be either."""
    if isinstance(value, str):
        return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, list | tuple) else []


def _by_mission(words: Sequence[str]) -> int | None:
    """Kind by the first word that names a mission; `OTHER` where words name satellites, but none of these."""
    names = [re.sub(r"[\s_]+", "-", word.strip().lower()) for word in words]
    missions = [int(match[1]) for name in names if (match := MISSION.match(name))]
    if not missions:
        return None
    return {1: 1, 2: 0}.get(missions[0], OTHER)


def _by_sensor(values: Mapping[str, Sequence[str]]) -> int | None:
    instruments = [SENSORS[word.lower()] for word in values["instruments"] if word.lower() in SENSORS]
    if instruments:
        return instruments[0]
    if any(values[name] for name in SAR_PROPERTIES):
        return 1
    return 0 if any(values[name] for name in OPTICAL_PROPERTIES) else None


def facts_of(rows: Rows, is_sar: BoolArray, preset: Preset) -> Facts:
    """Read the properties under the preset's names. What is missing is taken from the id if possible."""
    said, ids = rows.properties, rows.id
    optical = ~is_sar
    return Facts(
        platform=_or_by_id(_mapped(said["platform"], _platform), ids, PLATFORM_IN_ID, full_platform),
        cloud_cover_pct=np.array([_per_cent(value) for value in said["eo:cloud_cover"]], np.float64),
        product_type=_product_types(rows, is_sar, preset),
        orbit_state=_first(said, preset.orbit_state, _orbit_state),
        relative_orbit=_whole(
            _or_by_id(_first(said, preset.relative_orbit, _track), ids, TRACK_IN_ID, int, where=optical)
        ),
        mgrs_tile=_or_by_id(_first(said, preset.mgrs_tile, _tile), ids, TILE_IN_ID, _padded, where=optical),
        processing_baseline=_or_by_id(
            _first(said, preset.processing_baseline, _stripped),
            ids,
            BASELINE_IN_ID,
            "{}.{}".format,
            where=optical,
        ),
        created_us=_whole(_first(said, preset.created, _time)),
    )


def _first(said: Any, names: Sequence[str], read: Callable[[Any], Any]) -> Objects:
    """Of several properties take the first that has a value."""
    found = objects([None] * len(next(iter(said.values()))))
    for name in reversed(names):
        values = _mapped(said[name], read)
        has = np.array([value is not None for value in values], bool)
        found[has] = values[has]
    return found


def _mapped(values: Objects, read: Callable[[Any], Any]) -> Objects:
    """Apply `read` to each value that is not None, once for equal values."""
    seen: dict[Any, Any] = {None: None}
    result = objects([None] * len(values))
    for n, value in enumerate(values.tolist()):
        key = value if isinstance(value, str | int | float | None) else repr(value)
        if key not in seen:
            seen[key] = read(value)
        result[n] = seen[key]
    return result


def _or_by_id(
    found: Objects,
    ids: Objects,
    pattern: re.Pattern[str],
    read: Callable[..., Any],
    *,
    where: BoolArray | None = None,
) -> Objects:
    for n, value in enumerate(found):
        if value is None and (where is None or where[n]) and (match := pattern.search(ids[n])):
            found[n] = read(*match.groups())
    return found


def _product_types(rows: Rows, is_sar: BoolArray, preset: Preset) -> Objects:
    said = _first(rows.properties, preset.product_type, _stripped)
    found = objects([None] * len(rows))
    for n, (sar, value, collection, name) in enumerate(
        zip(is_sar.tolist(), said, rows.collection, rows.id, strict=True)
    ):
        # the collection first: terrain-corrected (RTC) scenes name GRD, from which they were made
        words = [str(word).upper() for word in (collection, value, name) if word is not None]
        found[n] = (_sar_product(words) if sar else _optical_product(words)) or value
    return found


def _sar_product(words: list[str]) -> str | None:
    found = next((product for word in words for product in SAR_PRODUCTS if product in word), None)
    other = next((match[1] for word in words if (match := OTHER_SAR_PRODUCT.search(word))), None)
    return found or ("SLC" if other == "SL1" else other)


def _optical_product(words: list[str]) -> str | None:
    ends = ((word, end) for word in words for end in OPTICAL_PRODUCTS)
    return next(
        (OPTICAL_PRODUCTS[end] for word, end in ends if f"L{end}" in word or f"MSI{end}" in word), None
    )


def _platform(value: object) -> str | None:
    return next((full_platform(text) for text in texts_of(value) if text.strip()), None)


def _stripped(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _orbit_state(value: object) -> str | None:
    text = value.strip().lower() if isinstance(value, str) else ""
    return text if text in ("ascending", "descending") else None


def _track(value: object) -> int | None:
    number = finite_number(value)
    return int(number) if number is not None and 1 <= number <= LARGEST_TRACK else None


def _tile(value: object) -> str | None:
    match = TILE.match(value.strip().upper()) if isinstance(value, str) else None
    return _padded(match[1]) if match else None


def _padded(tile: str) -> str:
    return tile.zfill(5)


def _per_cent(value: object) -> float:
    number = finite_number(value)
    return number if number is not None and 0 <= number <= 100 else float("nan")


def _time(value: object) -> int | None:
    """Microseconds since 1970; tables hold them as numbers already."""
    us = known_us(value) if isinstance(value, int) else time_us(value)
    return None if us == UNKNOWN else us


def _whole(values: Objects) -> IntArray:
    return np.array([UNKNOWN if value is None else value for value in values], np.int64)
