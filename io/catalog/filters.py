"""Which scenes a query wants: the same test whatever the catalog has filtered before."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import shapely

from crosstie.io.scenes.table import UNKNOWN, LeftOut, Scenes

if TYPE_CHECKING:
    from crosstie.io.catalog.query import SceneQuery
    from crosstie.types import BoolArray, Objects


def touches(outlines: Objects, query: SceneQuery) -> BoolArray:
    """Whether each outline (N,) touches the query's box and its area, in the plane of degrees as in STAC."""
    keep = np.ones(len(outlines), bool)
    if query.boxes:
        keep &= np.any([shapely.intersects(outlines, shapely.box(*box)) for box in query.boxes], axis=0)
    if query.area is not None:
        shapely.prepare(query.area)
        keep &= shapely.intersects(query.area, outlines)
    return keep


def refused(scenes: Scenes, query: SceneQuery) -> tuple[BoolArray, list[LeftOut]]:
    """Whether the query's rules let each scene pass, and why not."""
    keep = np.ones(len(scenes), bool)
    left_out: list[LeftOut] = []

    def refuse(which: BoolArray, rule: str, why: Callable[[int], str]) -> None:
        left_out.extend(LeftOut(scenes.id[n], rule, why(n)) for n in np.flatnonzero(which & keep).tolist())
        keep[which] = False

    limit = query.max_cloud_pct
    if limit is not None:
        cloudy = ~scenes.is_sar & (scenes.cloud_cover_pct > limit)  # NaN, unknown, is not
        cover = scenes.cloud_cover_pct
        refuse(
            cloudy,
            "cloud",
            lambda n: f"{cover[n]:.1f} % of it are cloud (catalog.max_cloud_pct is {limit:g})",
        )
    platforms = query.full_platforms
    if platforms:
        missions = tuple({name[: len("sentinel-1")] for name in platforms})
        of_mission = np.where(scenes.is_sar, "sentinel-1" in missions, "sentinel-2" in missions)
        other = of_mission & ~np.isin(scenes.platform.astype(str), list(platforms))
        names = ", ".join(query.platforms)
        refuse(
            other,
            "platform",
            lambda n: (
                f"it is of {scenes.platform[n] or 'no platform that is named'} (catalog.platforms: {names})"
            ),
        )
    if query.product_types:
        _refuse_products(scenes, query, refuse)
    if query.orbit != "any":
        other = scenes.is_sar & (scenes.orbit_state != query.orbit)
        refuse(
            other,
            "orbit direction",
            lambda n: f"its orbit is {scenes.orbit_state[n] or 'not said'} (catalog.orbit is {query.orbit})",
        )
    if query.tracks:
        track = scenes.relative_orbit
        other = scenes.is_sar & ~np.isin(track, query.tracks)
        names = ", ".join(map(str, query.tracks))
        refuse(
            other,
            "track",
            lambda n: (
                f"its track is {'not said' if track[n] == UNKNOWN else track[n]} (catalog.tracks: {names})"
            ),
        )
    return keep, left_out


def _refuse_products(
    scenes: Scenes, query: SceneQuery, refuse: Callable[[BoolArray, str, Callable[[int], str]], None]
) -> None:
    given = {name.upper() for name in query.product_types}
    optical = {name for name in given if name.startswith("L")}
    of_mission = np.where(scenes.is_sar, bool(given - optical), bool(optical))
    other = of_mission & ~np.isin(np.char.upper(scenes.product_type.astype(str)), list(given))
    names = ", ".join(query.product_types)
    refuse(
        other,
        "product type",
        lambda n: (
            f"it is {scenes.product_type[n] or 'of no type that is named'} (catalog.product_types: {names})"
        ),
    )
