"""Make scenes of the rows of a catalog: what each item is, and whether it is wanted and can be used."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely

from crosstie.errors import CatalogError
from crosstie.io.catalog.asset_choice import is_zarr, may_be_opened
from crosstie.io.catalog.filters import apply_rules, touches
from crosstie.io.catalog.items import MAX_SHOWN, UNUSABLE
from crosstie.io.catalog.outlines import outlines_of
from crosstie.io.catalog.properties import OTHER_MISSION, facts_of, kinds_of, texts_of
from crosstie.io.scenes.table import UNKNOWN, LeftOut, Scenes, microseconds, objects
from crosstie.io.storage.budget import LIMITS, CatalogLimits
from crosstie.io.storage.href_policy import resolve_href

if TYPE_CHECKING:
    from crosstie.io.catalog.items import Rows
    from crosstie.io.catalog.presets import Preset
    from crosstie.io.catalog.query import SceneQuery
    from crosstie.io.storage.address import AddressPolicy
    from crosstie.types import BoolArray, IntArray, Objects

LOG = logging.getLogger(__name__)

NO_TIME = "it has neither datetime nor start_datetime and end_datetime that are times"

MOST_SEEN = 8
"""Maximum number of names of one sort that a message lists."""

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
    limits: CatalogLimits = LIMITS,
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
    limits : CatalogLimits, optional
        What outlines may cost.
    explain : bool, optional
        List refused scenes too.

    Returns
    -------
    Scenes
        Sorted by time, then by id.
    """
    left_out, held = list(rows.no_items), rows
    rows = rows.take(_of_wanted_collections(rows, query))
    rows = rows.take(_known(kinds_of(rows, query) >= 0, rows, left_out, _no_kind))
    times = _acquired(rows)
    rows = rows.take(_known(times != UNKNOWN, rows, left_out, lambda *_: NO_TIME))
    rows = rows.take(_in_time(_acquired(rows), query))
    outlines, why = outlines_of(rows.geometry, rows.outline_problem, rows.bbox, limits)
    known = _known(~shapely.is_missing(outlines), rows, left_out, lambda _, n: str(why[n]))
    rows, outlines = rows.take(known), outlines[known]
    here = touches(outlines, query)
    rows, outlines = rows.take(here), outlines[here]

    found = _scenes_of_rows(rows, outlines, query, preset)
    wanted, why_not = apply_rules(found, query)
    left_out += why_not if explain else []
    found, rows = found.take(wanted), rows.take(wanted)
    hrefs, declared, broken = _hrefs(rows, found.is_sar, query, preset, catalog_href, allow, policy)
    left_out += broken
    classes = _classes(rows, found.is_sar, query, catalog_href, allow, policy)
    found = replace(found, href=hrefs, declared=declared, classes=classes)
    found = found.take(np.array([href is not None for href in hrefs], bool))
    return replace(
        found.take(_order(found)),
        left_out=tuple(sorted(left_out, key=lambda out: (out.scene, out.rule, out.why))),
        seen="" if found.is_sar.any() and not found.is_sar.all() else _seen(held),
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
        declared=objects([()] * len(rows)),
        classes=objects([None] * len(rows)),
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
    """Those of the collections that are named and, where none is, those whose items say what they are."""
    wanted = {None, *query.collections}
    keep = np.array([collection in wanted for collection in rows.collection], bool)
    if keep.all():
        return keep
    kinds = kinds_of(rows, query)
    for kind, sar in ((1, True), (0, False)):
        if query.takes_any_collection(sar=sar):
            keep |= kinds == kind
    for n in np.flatnonzero(keep).tolist():
        collection = rows.collection[n]
        keep[n] = collection in wanted or OTHER_MISSION.search(collection) is None
    return keep


def _seen(rows: Rows) -> str:
    """Say what a catalog holds: collections, platforms and names of assets, the most frequent first."""
    if not len(rows):
        return "it gave no item"
    said = rows.properties
    platforms = [text for n in range(len(rows)) for text in texts_of(said["platform"][n])]
    # all names of a table cost one more reading of it
    assets = [name for name, hrefs in rows.hrefs.items() if hrefs[0] is not None] or rows.asset_names(0)
    return (
        f"its {len(rows)} items are of collection {_most(rows.collection)}, platform {_most(platforms)}, with"
        f" assets {', '.join(assets[:MOST_SEEN]) or 'none'}"
    )


def _most(values: Iterable[object]) -> str:
    common = Counter(str(value)[:MAX_SHOWN] for value in values if value is not None).most_common(MOST_SEEN)
    return ", ".join(name for name, _ in common) or "not said"


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


def _known(
    known: BoolArray, rows: Rows, left_out: list[LeftOut], why: Callable[[Rows, int], str]
) -> BoolArray:
    left_out += [LeftOut(rows.id[n], UNUSABLE, why(rows, n)) for n in np.flatnonzero(~known).tolist()]
    return known


def _no_kind(rows: Rows, n: int) -> str:
    said = rows.properties
    instruments = said["instruments"][n]
    words = [said["constellation"][n], said["platform"][n], instruments]
    return (
        f"neither SAR nor optical by its collection ({rows.collection[n]}), constellation, platform"
        f" or instruments ({', '.join(map(str, words))})"
    )


def _hrefs(
    rows: Rows,
    is_sar: BoolArray,
    query: SceneQuery,
    preset: Preset,
    catalog_href: str,
    allow: Sequence[Path],
    policy: AddressPolicy | None,
) -> tuple[Objects, Objects, list[LeftOut]]:
    """Address of the one asset of each item that is read, and what the item declares of it.

    The address is None if it has none that is allowed.
    """
    chosen = objects([None] * len(rows))
    for kind in (True, False):
        for offered in reversed(_offered(rows, query, preset, sar=kind)):
            has = (is_sar == kind) & np.array([may_be_opened(href) for href in offered], bool)
            chosen[has] = offered[has]
    found, declared, broken = objects([None] * len(rows)), objects([()] * len(rows)), []
    for n, href in enumerate(chosen):
        try:
            if href is None:
                raise CatalogError(_no_asset(rows, n, bool(is_sar[n]), query, preset))
            declared[n] = dict(rows.declared[n] or ()).get(href, ())
            found[n] = (
                resolve_href(
                    href, catalog_href=catalog_href, base_href=rows.base[n], allow=allow, policy=policy
                ),
            )
        except CatalogError as problem:
            broken.append(LeftOut(rows.id[n], UNUSABLE, str(problem)))
    return found, declared, broken


def _classes(
    rows: Rows,
    is_sar: BoolArray,
    query: SceneQuery,
    catalog_href: str,
    allow: Sequence[Path],
    policy: AddressPolicy | None,
) -> Objects:
    """Address of the scene classification of each optical item; None if it has none that may be read."""
    found = objects([None] * len(rows))
    for n in np.flatnonzero(~is_sar).tolist() if query.cloud_masks else []:
        href = rows.classes[n]
        if may_be_opened(href):
            try:
                found[n] = resolve_href(
                    href, catalog_href=catalog_href, base_href=rows.base[n], allow=allow, policy=policy
                )
            except CatalogError as problem:
                LOG.warning("%s: its scene classification is not used: %s", rows.id[n], problem)
    return found


def _offered(rows: Rows, query: SceneQuery, preset: Preset, *, sar: bool) -> list[Objects]:
    """Addresses of assets to read, the best first: those of the settings, or the provider's and others."""
    given = query.sar_assets if sar else query.optical_assets
    preferred = preset.sar_assets if sar else preset.optical_assets
    return [*(rows.hrefs[name] for name in preferred), *([] if given else [rows.by_words[sar]])]


def _no_asset(rows: Rows, n: int, is_sar: bool, query: SceneQuery, preset: Preset) -> str:
    known = ", ".join(preset.sar_assets if is_sar else preset.optical_assets)
    has = ", ".join(rows.asset_names(n)) or "none"
    setting = "sar_assets" if is_sar else "optical_assets"
    stores = any(is_zarr(offered[n]) for offered in _offered(rows, query, preset, sar=is_sar))
    why = " but Zarr stores, which are not read: give GeoTIFF or JPEG 2000" if stores else ""
    return (
        f"no {'SAR' if is_sar else 'optical'} asset called {known}{why}; it has: {has};"
        f" catalog.{setting} names which to read"
    )


def _order(scenes: Scenes) -> IntArray:
    """Oldest first, then by id, then by collection and address, so that the order is always the same."""
    keys = [scenes.id, scenes.collection, scenes.href]
    order = sorted(
        range(len(scenes)),
        key=lambda n: (scenes.acquired_us[n], *(str(key[n]) for key in keys)),
    )
    return np.array(order, np.int64)
