"""Outlines of items, checked before anything computes with them.

A few hundred vertices that cross each other keep GEOS busy for minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from crosstie.io.catalog.documents import finite_number
from crosstie.io.scenes.footprint import box_outline, crosses_antimeridian, lonlat_outlines, not_degrees
from crosstie.io.scenes.table import objects
from crosstie.io.storage.budget import LIMITS, CatalogLimits

if TYPE_CHECKING:
    from crosstie.types import BoolArray, IntArray, Objects

NO_OUTLINE = "it has neither geometry nor bbox that can be read"

MAX_TURNS_DEG = 720.0
"""Longest way of an outline along the parallels, degrees: twice round the Earth is none of a scene."""


def geometry_of_json(value: object, limits: CatalogLimits = LIMITS) -> tuple[str | None, str | None]:
    """GeoJSON text of an item's geometry, and why there is none although the item has one.

    The vertices are counted before any library sees them: each costs a hundred times its size there.
    """
    import json

    if not isinstance(value, dict):
        return None, None
    numbers, ahead = 0, [value.get("coordinates"), value.get("geometries")]
    while ahead:
        node = ahead.pop()
        if isinstance(node, dict):
            ahead += [node.get("coordinates"), node.get("geometries")]
        elif isinstance(node, list):
            ahead += node
        else:
            numbers += node is not None
        if len(ahead) + numbers > 8 * limits.outline_vertices:
            return None, _too_long(limits)
    return json.dumps(value), None


def geometries_of_wkb(values: Objects, limits: CatalogLimits = LIMITS) -> tuple[Objects, Objects]:
    """Geometries (N,) of WKB, and why each is missing although there is one."""
    long = np.array([value is not None and len(value) > limits.outline_bytes for value in values], bool)
    short = values.copy()
    short[long] = None
    found: Objects = shapely.from_wkb(short, on_invalid="ignore")
    return found, objects([_too_long(limits) if one else None for one in long.tolist()])


def bbox_numbers(value: object) -> tuple[float, ...] | None:
    """Four or six finite numbers of a bbox, the south first; None for anything else."""
    if not isinstance(value, list | tuple) or len(value) not in (4, 6):
        return None
    numbers = tuple(number for one in value if (number := finite_number(one)) is not None)
    if len(numbers) != len(value) or numbers[1] > numbers[len(value) // 2 + 1]:
        return None
    return numbers


def outlines_of(
    geometry: Objects, problem: Objects, bbox: Objects, limits: CatalogLimits = LIMITS
) -> tuple[Objects, Objects]:
    """Outlines of scenes (N,), correct in degrees, or why an item has none that can be used.

    Parameters
    ----------
    geometry : Objects
        (N,) as given; None if there is none that can be read.
    problem : Objects
        (N,) why a geometry was refused before it was read; None if it was not.
    bbox : Objects
        (N,) tuples from `bbox_numbers`, or None: taken where an item has no geometry.
    """
    given = geometry.copy()
    no_geometry = shapely.is_missing(given) | shapely.is_empty(given)
    for n in np.flatnonzero(no_geometry):
        given[n] = None if bbox[n] is None or problem[n] is not None else box_outline(bbox[n])
    why = objects([None] * len(given))
    why[:] = problem
    why[_unspoken(why) & shapely.is_missing(given)] = NO_OUTLINE
    for row, number in enumerate(not_degrees(given)):
        if number is not None and why[row] is None:
            why[row] = f"its footprint is not in degrees ({number})"
    why[(shapely.get_num_coordinates(given) > limits.outline_vertices) & _unspoken(why)] = _too_long(limits)
    count = np.where(_unspoken(why), shapely.get_num_coordinates(given), 0)
    why[(np.cumsum(count) > limits.all_vertices) & (count > 0)] = (
        f"the outlines before it have {limits.all_vertices:,} vertices together; search less at once"
    )
    given[~_unspoken(why)] = None
    _refuse_costly(given, why, limits)
    given[~_unspoken(why)] = None
    return lonlat_outlines(given), why


def _unspoken(why: Objects) -> BoolArray:
    return np.array([text is None for text in why], bool)


def _refuse_costly(given: Objects, why: Objects, limits: CatalogLimits) -> None:
    """Refuse outlines whose repair costs too much, in the order of the catalog."""
    needs: IntArray = np.flatnonzero(
        crosses_antimeridian(given) | (~shapely.is_valid(given) & ~shapely.is_missing(given))
    )
    spent = 0
    for n in needs.tolist():
        vertices = int(shapely.get_num_coordinates(given[n]))
        small = vertices <= limits.free_repair
        # cutting a ring that does not cross itself costs little: archives of the Pacific have many
        cost = 0 if small or not _crosses_itself(given[n]) else vertices**2
        if vertices > limits.repaired_vertices:
            why[n] = (
                f"its outline crosses itself or the antimeridian and has {vertices} vertices (at most"
                f" {limits.repaired_vertices})"
            )
        elif _way_round_deg(given[n]) > MAX_TURNS_DEG:
            why[n] = "its outline goes round the Earth more than once"
        elif spent + cost > limits.repair_work:
            why[n] = "its outline crosses itself, like too many before it; search less at once"
        else:
            spent += cost


def _crosses_itself(outline: Any) -> bool:
    """Whether sides of an outline cross each other, where longitudes go on at 180 degrees."""
    parts = shapely.get_parts(outline)
    if len(parts) > 1 or shapely.get_num_interior_rings(parts[0]) > 0:
        return not shapely.is_valid(outline) or any(map(_ring_crosses_itself, parts))
    return _ring_crosses_itself(parts[0])


def _ring_crosses_itself(part: Any) -> bool:
    ring = shapely.get_coordinates(shapely.get_exterior_ring(part))
    if len(ring) < 4:
        return False
    step = np.diff(ring[:, 0])
    lon = ring[0, 0] + np.concatenate([[0], np.cumsum(step - 360 * np.round(step / 360))])
    unrolled = np.column_stack([lon, ring[:, 1]])
    if abs(lon[-1] - lon[0]) > 180:  # round a pole
        pole = 90.0 if ring[:, 1].mean() > 0 else -90.0
        unrolled = np.vstack([unrolled, [[lon[-1], pole], [lon[0], pole]], unrolled[:1]])
    return not shapely.is_valid(shapely.Polygon(unrolled))


def _way_round_deg(outline: Any) -> float:
    """Longest way of a ring along the parallels, degrees, each step the short way round."""
    longest = 0.0
    for part in shapely.get_parts(outline):
        lon = shapely.get_coordinates(part)[:, 0]
        step = np.abs(np.diff(lon))
        longest = max(longest, float(np.abs(step - 360 * np.round(step / 360)).sum()))
    return longest


def _too_long(limits: CatalogLimits) -> str:
    return f"its outline has more than {limits.outline_vertices} vertices"
