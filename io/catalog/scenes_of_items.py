"""Make scenes of the rows of a catalog: what each item is, and whether it is wanted and can be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely

from crosstie.errors import CatalogError
from crosstie.io.catalog.filters import apply_rules, touches
from crosstie.io.catalog.properties import facts_of, kinds_of
from crosstie.io.scenes.footprint import box_outline, lonlat_outlines, not_degrees
from crosstie.io.scenes.table import UNKNOWN, LeftOut, Scenes, microseconds, objects
from crosstie.io.storage.href_policy import resolve_href

if TYPE_CHECKING:
    from crosstie.io.catalog.items import Rows
    from crosstie.io.catalog.presets import Preset
    from crosstie.io.catalog.query import SceneQuery
    from crosstie.io.storage.address import AddressPolicy
    from crosstie.types import BoolArray, IntArray, Objects

UNUSABLE = "cannot be used"
"""Heading for items that have an error themselves."""

NO_TIME = "it has neither datetime nor start_datetime and end_datetime that are times"
NO_OUTLINE = "it has neither geometry nor bbox that can be read"

NO_HREF = ("",)
"""Stands for addresses that have not been checked yet."""


def scenes_of(
    rows: Rows,
    query: SceneQuery,
    preset: Preset,
    *,
    catalog_href: str,
    allow: Sequence[Path] = (),
    policy: AddressPolicy | None = None,
    explain: bool = True,
) -> Scenes:
    """Keep the items that the query wants and that can be used, as scenes, oldest first.

    Items of other collections, times and places are dropped without a reason. `left_out` lists the items that
    cannot be used. With `explain` it also lists those that a rule refuses (cloud, orbit, platform, product).

    Parameters
    ----------
    rows : Rows
        Items of the catalog.
    query : SceneQuery
        Which scenes are wanted.
    preset : Preset
        Names that the catalog uses.
    catalog_href : str
        Path or URL of the catalog, which the user named.
    allow : sequence of Path, optional
        Folders outside a local catalog's own whose files it may name.
    policy : AddressPolicy, optional
        Where the catalog may lead.
    explain : bool, optional
        List refused scenes too.

    Returns
    -------
    Scenes
        Sorted by time, then by id.
    """
    left_out = list(rows.no_items)
    rows = rows.take(_of_wanted_collections(rows, query))
    rows = rows.take(_known(kinds_of(rows, query) >= 0, rows, left_out, _no_kind))
    times = _acquired(rows)
    rows = rows.take(_known(times != UNKNOWN, rows, left_out, lambda *_: NO_TIME))
    rows = rows.take(_in_time(_acquired(rows), query))
    given = _given_outlines(rows)
    rows, given = _in_degrees(rows, given, left_out)
    outlines = lonlat_outlines(given)
    known = _known(~shapely.is_missing(outlines), rows, left_out, lambda *_: NO_OUTLINE)
    rows, outlines = rows.take(known), outlines[known]
    here = touches(outlines, query)
    rows, outlines = rows.take(here), outlines[here]

    found = _scenes_of_rows(rows, outlines, query, preset)
    wanted, why_not = apply_rules(found, query)
    left_out += why_not if explain else []
    found, rows = found.take(wanted), rows.take(wanted)
    hrefs, broken = _hrefs(rows, found.is_sar, preset, catalog_href, allow, policy)
    left_out += broken
    found = replace(found, href=hrefs)
    found = found.take(np.array([href is not None for href in hrefs], bool))
    return replace(
        found.take(_order(found)),
        left_out=tuple(sorted(left_out, key=lambda out: (out.scene, out.rule, out.why))),
    )


def _scenes_of_rows(rows: Rows, outlines: Objects, query: SceneQuery, preset: Preset) -> Scenes:
    is_sar = kinds_of(rows, query) == 1
    facts = facts_of(rows, is_sar, preset)
    return Scenes(
        id=rows.id,
        is_sar=is_sar,
        acquired_us=_acquired(rows),
        outline=outlines,
        href=objects([NO_HREF] * len(rows)),
        platform=facts.platform,
        cloud_cover_pct=facts.cloud_cover_pct,
        collection=rows.collection,
        product_type=facts.product_type,
        orbit_state=facts.orbit_state,
        relative_orbit=facts.relative_orbit,
        mgrs_tile=facts.mgrs_tile,
        processing_baseline=facts.processing_baseline,
        created_us=facts.created_us,
    )


def _of_wanted_collections(rows: Rows, query: SceneQuery) -> BoolArray:
    wanted = {None, *query.collections}
    return np.array([collection in wanted for collection in rows.collection], bool)


def _in_time(acquired_us: IntArray, query: SceneQuery) -> BoolArray:
    start, end = query.interval_utc
    keep = np.ones(len(acquired_us), bool)
    if start is not None:
        keep &= acquired_us >= microseconds(start)
    if end is not None:
        keep &= acquired_us <= microseconds(end)
    return keep


def _acquired(rows: Rows) -> IntArray:
    """Time of each item, else the middle of its interval, else `UNKNOWN`."""
    start, end = rows.times_us["start_datetime"], rows.times_us["end_datetime"]
    interval = (start != UNKNOWN) & (end != UNKNOWN)
    middle = np.where(interval, start, 0) + (np.where(interval, end, 0) - np.where(interval, start, 0)) // 2
    said = rows.times_us["datetime"]
    found: IntArray = np.where(said != UNKNOWN, said, np.where(interval, middle, UNKNOWN))
    return found


def _given_outlines(rows: Rows) -> Objects:
    geometry = rows.geometry.copy()
    for n in np.flatnonzero(shapely.is_missing(geometry) | shapely.is_empty(geometry)):
        geometry[n] = None if rows.bbox[n] is None else box_outline(rows.bbox[n])
    return geometry


def _in_degrees(rows: Rows, given: Objects, left_out: list[LeftOut]) -> tuple[Rows, Objects]:
    wrong = not_degrees(given)
    known = _known(
        np.array([why is None for why in wrong], bool),
        rows,
        left_out,
        lambda _, n: f"its footprint is not in degrees ({wrong[n]})",
    )
    return rows.take(known), given[known]


def _known(
    known: BoolArray, rows: Rows, left_out: list[LeftOut], why: Callable[[Rows, int], str]
) -> BoolArray:
    left_out += [LeftOut(rows.id[n], UNUSABLE, why(rows, n)) for n in np.flatnonzero(~known).tolist()]
    return known


def _no_kind(rows: Rows, n: int) -> str:
    said = rows.properties
    instruments = said["instruments"][n]
    words = [said["constellation"][n], said["platform"][n], *(instruments if instruments is not None else [])]
    return (
        f"neither SAR nor optical by its collection ({rows.collection[n]}), constellation, platform"
        f" or instruments ({', '.join(map(str, words))})"
    )


def _hrefs(
    rows: Rows,
    is_sar: BoolArray,
    preset: Preset,
    catalog_href: str,
    allow: Sequence[Path],
    policy: AddressPolicy | None,
) -> tuple[Objects, list[LeftOut]]:
    """Address of the one asset of each item that is read; None if it has none that is allowed."""
    chosen = objects([None] * len(rows))
    for names, of_kind in ((preset.sar_assets, is_sar), (preset.optical_assets, ~is_sar)):
        for name in reversed(names):
            offered = rows.hrefs[name]
            has = of_kind & np.array([href is not None for href in offered], bool)
            chosen[has] = offered[has]
    found, broken = objects([None] * len(rows)), []
    for n, href in enumerate(chosen):
        try:
            if href is None:
                raise CatalogError(_no_asset(rows, n, bool(is_sar[n]), preset))
            found[n] = (
                resolve_href(
                    href, catalog_href=catalog_href, base_href=rows.base[n], allow=allow, policy=policy
                ),
            )
        except CatalogError as problem:
            broken.append(LeftOut(rows.id[n], UNUSABLE, str(problem)))
    return found, broken


def _no_asset(rows: Rows, n: int, is_sar: bool, preset: Preset) -> str:
    known = ", ".join(preset.sar_assets if is_sar else preset.optical_assets)
    has = ", ".join(rows.asset_names(n)) or "none"
    return f"no {'SAR' if is_sar else 'optical'} asset called {known}; it has: {has}"


def _order(scenes: Scenes) -> IntArray:
    """Oldest first, then by id, then by collection and address, so that the order is always the same."""
    keys = [scenes.id, scenes.collection, scenes.href]
    order = sorted(
        range(len(scenes)),
        key=lambda n: (scenes.acquired_us[n], *(str(key[n]) for key in keys)),
    )
    return np.array(order, np.int64)
