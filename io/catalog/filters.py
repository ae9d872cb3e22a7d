"""Decide which scenes a query wants. The test is the same whether or not the catalog has filtered before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from crosstie.io.scenes.table import UNKNOWN, LeftOut, Scenes

if TYPE_CHECKING:
    from crosstie.io.catalog.query import SceneQuery
    from crosstie.types import BoolArray, Objects


NOT_ON_THE_GROUND = {
    "SLC": "complex values in slant range",
    "RAW": "signals before focusing",
    "OCN": "wind and waves",
}
"""Products of Sentinel-1 that are no image on the ground, and what they are."""


def touches(outlines: Objects, query: SceneQuery) -> BoolArray:
    """Say which outlines touch the query's box and its area, in the plane of degrees as in STAC.

    Parameters
    ----------
    outlines : Objects
        (N,) polygons in degrees.
    query : SceneQuery
        Its `boxes` and `area` are used.

    Returns
    -------
    BoolArray
        (N,) True for outlines that touch both.
    """
    keep = np.ones(len(outlines), bool)
    if query.boxes:
        keep &= np.any([shapely.intersects(outlines, shapely.box(*box)) for box in query.boxes], axis=0)
    if query.area is not None:
        shapely.prepare(query.area)
        keep &= shapely.intersects(query.area, outlines)
    return keep


def apply_rules(scenes: Scenes, query: SceneQuery) -> tuple[BoolArray, list[LeftOut]]:
    """Apply the rules of a query to scenes: cloud, platform, product, orbit direction and track.

    Returns
    -------
    BoolArray
        (N,) True for scenes that pass.
    list of LeftOut
        The others, each with the first rule that refused it.
    """
    keep = np.ones(len(scenes), bool)
    left_out: list[LeftOut] = []
    for rule in (_by_form, _by_cloud, _by_platform, _by_product_type, _by_orbit, _by_track):
        found = rule(scenes, query)
        if found is None:
            continue
        rows = np.flatnonzero(found.refused & keep).tolist()
        left_out += [LeftOut(scenes.id[n], found.rule, found.why(n)) for n in rows]
        keep[found.refused] = False
    return keep, left_out


@dataclass(frozen=True, slots=True, eq=False)
class _Refusal:
    """What one rule refuses."""

    rule: str
    """Heading of the rule."""
    refused: BoolArray
    """(N,) True for scenes that the rule refuses."""
    why: Callable[[int], str]
    """Says why the scene of a row is refused."""


def _by_form(scenes: Scenes, query: SceneQuery) -> _Refusal:
    """Refuse products that are no image of the ground, unless they are asked for."""
    asked = {name.upper() for name in query.product_types}
    refused = [name for name in NOT_ON_THE_GROUND if name not in asked]
    return _Refusal(
        "product type",
        scenes.is_sar & np.isin(scenes.product_type.astype(str), refused),
        lambda n: (
            f"it is {scenes.product_type[n]}, {NOT_ON_THE_GROUND[scenes.product_type[n]]}"
            "; GRD and RTC are used"
        ),
    )


def _by_cloud(scenes: Scenes, query: SceneQuery) -> _Refusal | None:
    limit = query.max_cloud_pct
    if limit is None:
        return None
    cover = scenes.cloud_cover_pct
    return _Refusal(
        "cloud",
        ~scenes.is_sar & (cover > limit),  # NaN (unknown) passes
        lambda n: f"{cover[n]:.1f} % of it are cloud (catalog.max_cloud_pct is {limit:g})",
    )


def _by_platform(scenes: Scenes, query: SceneQuery) -> _Refusal | None:
    platforms = query.full_platforms
    if not platforms:
        return None
    missions = {name[: len("sentinel-1")] for name in platforms}
    of_mission = np.where(scenes.is_sar, "sentinel-1" in missions, "sentinel-2" in missions)
    names = ", ".join(query.platforms)
    return _Refusal(
        "platform",
        of_mission & ~np.isin(scenes.platform.astype(str), list(platforms)),
        lambda n: (
            f"it is of {scenes.platform[n] or 'no platform that is named'} (catalog.platforms: {names})"
        ),
    )


def _by_product_type(scenes: Scenes, query: SceneQuery) -> _Refusal | None:
    if not query.product_types:
        return None
    given = {name.upper() for name in query.product_types}
    optical = {name for name in given if name.startswith("L")}
    of_mission = np.where(scenes.is_sar, bool(given - optical), bool(optical))
    names = ", ".join(query.product_types)
    return _Refusal(
        "product type",
        of_mission & ~np.isin(np.char.upper(scenes.product_type.astype(str)), list(given)),
        lambda n: (
            f"it is {scenes.product_type[n] or 'of no type that is named'} (catalog.product_types: {names})"
        ),
    )


def _by_orbit(scenes: Scenes, query: SceneQuery) -> _Refusal | None:
    if query.orbit == "any":
        return None
    return _Refusal(
        "orbit direction",
        scenes.is_sar & (scenes.orbit_state != query.orbit),
        lambda n: f"its orbit is {scenes.orbit_state[n] or 'not said'} (catalog.orbit is {query.orbit})",
    )


def _by_track(scenes: Scenes, query: SceneQuery) -> _Refusal | None:
    if not query.tracks:
        return None
    track = scenes.relative_orbit
    names = ", ".join(map(str, query.tracks))
    return _Refusal(
        "track",
        scenes.is_sar & ~np.isin(track, query.tracks),
        lambda n: f"its track is {'not said' if track[n] == UNKNOWN else track[n]} (catalog.tracks: {names})",
    )
