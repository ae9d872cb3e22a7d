"""STAC catalogues in, scenes out: one result, whether the catalogue is a file, a static site or an API."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import pystac
import pystac_client
import requests
import shapely
from pydantic import BeforeValidator
from pystac_client.exceptions import APIError

from crosstie.errors import CatalogueError
from crosstie.io.catalogue_href import is_url, resolve_href
from crosstie.types import Kind, SceneRef

LOG = logging.getLogger(__name__)

TIMEOUT_S = 60
"""Longest wait for a catalogue to answer one request, seconds."""

PAGE_ITEMS = 100
"""Items asked of an API at once."""

ASSETS: Mapping[Kind, tuple[str, ...]] = {
    Kind.SAR: ("vh", "VH", "vv", "VV"),
    Kind.OPTICAL: ("visual", "TCI_10m", "TCI", "red", "B04", "B04_10m"),
}
"""Asset names in order of preference; the first that an item has is read, and it alone.

They are the names of Earth Search, the Planetary Computer and the Copernicus Data Space. VH goes before VV:
over land it varies less with the look direction and with wind and waves.
"""

SENSORS = {
    "sentinel-1": Kind.SAR,
    "c-sar": Kind.SAR,
    "sar": Kind.SAR,
    "sentinel-2": Kind.OPTICAL,
    "msi": Kind.OPTICAL,
}
"""Beginnings of a constellation, platform, instrument or collection name -> kind."""

Modifier = Callable[[Any], None]
"""Changes an item in place before its hrefs are read: the place for signing, as in pystac-client."""

Json = dict[str, Any]


def _bare_date(value: object) -> object:
    """Keep a date written as text a date: pydantic would make it midnight, and lose the rest of the day."""
    return date.fromisoformat(value) if isinstance(value, str) and len(value) == len("2025-06-12") else value


Moment = Annotated[datetime | date, BeforeValidator(_bare_date)]
"""The annotation speaks to settings files and to what travels as JSON; Python callers give the value."""


@dataclass(frozen=True, slots=True)
class SceneQuery:
    """Which scenes of a catalogue are wanted."""

    start_utc: Moment | None = None
    """Earliest acquisition, inclusive; a bare date means from its first moment. None: open."""
    end_utc: Moment | None = None
    """Latest acquisition, inclusive; a bare date means to its last moment. None: open."""
    bbox: tuple[float, float, float, float] | None = None
    """(west, south, east, north), degrees; west > east crosses the antimeridian. None: everywhere."""
    sar_collections: tuple[str, ...] = ("sentinel-1-grd", "sentinel-1-rtc")
    """Collections taken for SAR."""
    optical_collections: tuple[str, ...] = ("sentinel-2-l1c", "sentinel-2-l2a", "sentinel-2-c1-l2a")
    """Collections taken for optical."""
    max_cloud_pct: float | None = None
    """Optical scenes said to be cloudier are left out, 0..100; those that do not say pass. None: all pass."""

    def __post_init__(self) -> None:
        for name in ("start_utc", "end_utc"):
            when = getattr(self, name)
            if isinstance(when, datetime) and when.tzinfo is None:
                raise ValueError(f"{name} must carry a time zone or be a bare date, got {when}")
        start, end = self.interval_utc
        if start and end and start > end:
            raise ValueError(f"the query ends ({end}) before it begins ({start})")
        if not self.collections:
            raise ValueError("a query needs at least one collection")
        if self.max_cloud_pct is not None and not 0 <= self.max_cloud_pct <= 100:
            raise ValueError(f"max_cloud_pct must lie in 0..100, got {self.max_cloud_pct}")
        if self.bbox is not None:
            west, south, east, north = self.bbox
            if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90):
                raise ValueError(f"bbox must be west, south, east, north in degrees, got {self.bbox}")

    @property
    def collections(self) -> tuple[str, ...]:
        return self.sar_collections + self.optical_collections

    @property
    def interval_utc(self) -> tuple[datetime | None, datetime | None]:
        """First and last moment wanted, both inclusive; None where open."""
        return _moment(self.start_utc, time.min), _moment(self.end_utc, time.max)

    def accepts(self, scene: SceneRef) -> bool:
        """Apply time, place and cloud: the same test whatever the catalogue filtered before."""
        start, end = self.interval_utc
        if (start and scene.acquired_utc < start) or (end and scene.acquired_utc > end):
            return False
        cloud = scene.cloud_cover_pct
        if self.max_cloud_pct is not None and cloud is not None and cloud > self.max_cloud_pct:
            return False
        if self.bbox is None:
            return True
        west, south, east, north = self.bbox
        spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
        footprint = shapely.make_valid(shapely.from_wkt(scene.footprint_wkt))
        return any(footprint.intersects(shapely.box(w, south, e, north)) for w, e in spans)


def find_scenes(
    catalogue: str | Path,
    query: SceneQuery | None = None,
    *,
    modifier: Modifier | None = None,
    allow: Sequence[Path] = (),
) -> list[SceneRef]:
    """List the scenes of a STAC catalogue that a query wants, oldest first.

    A STAC API is known by its landing page (`conformsTo`, or a `search` link); anything else is walked link
    by link. An item that cannot be used (no known asset, no outline, no time, an href that is not allowed)
    is left out with a warning that names it.

    Parameters
    ----------
    catalogue : path or URL of a catalogue, a collection, a file of search results, or an API's landing page
    query : None wants everything in the default collections
    modifier : called with each item before its hrefs are read (in an API also with collections and pages)
    allow : folders outside a local catalogue's own whose files it may name

    Raises
    ------
    CatalogueError : the catalogue, or a file that it links to, is missing, not JSON or not STAC; an API fails
    """
    query = query or SceneQuery()
    text = str(catalogue)
    root = text if is_url(text) else str(Path(text).resolve())
    landing = _read_json(root)
    if is_url(root) and _is_api(landing):
        items = _search(root, query, modifier)
    else:
        items = _walk(landing, root, query, modifier, allow)
    scenes: dict[str, SceneRef] = {}
    for item, base in items:
        try:
            scene = scene_of(item, query, catalogue_href=root, base_href=base, allow=allow)
        except CatalogueError as error:
            LOG.warning("left out %s: %s", item.id, error)
            continue
        if query.accepts(scene):
            scenes.setdefault(scene.id, scene)
    return sorted(scenes.values(), key=lambda scene: (scene.acquired_utc, scene.id))


def scene_of(
    item: pystac.Item,
    query: SceneQuery,
    *,
    catalogue_href: str,
    base_href: str | None = None,
    allow: Sequence[Path] = (),
) -> SceneRef:
    """Reduce a STAC item to what pairing and reading need.

    Raises
    ------
    CatalogueError : the item lacks a known sensor, asset, time or outline, or its href is not allowed
    """
    kind = _kind(item, query)
    href = resolve_href(_asset(item, kind), catalogue_href=catalogue_href, base_href=base_href, allow=allow)
    platform, cloud = item.properties.get("platform"), item.properties.get("eo:cloud_cover")
    return SceneRef(
        id=item.id,
        kind=kind,
        acquired_utc=_acquired(item),
        footprint_wkt=_outline(item),
        hrefs=(href,),
        platform=platform if isinstance(platform, str) else None,
        cloud_cover_pct=float(cloud) if isinstance(cloud, int | float) else None,
    )


def _moment(when: datetime | date | None, bare: time) -> datetime | None:
    if when is None or isinstance(when, datetime):
        return when
    return datetime.combine(when, bare, tzinfo=UTC)


def _kind(item: pystac.Item, query: SceneQuery) -> Kind:
    # the query's own words first: they also name collections that this file has never heard of
    if item.collection_id in query.sar_collections:
        return Kind.SAR
    if item.collection_id in query.optical_collections:
        return Kind.OPTICAL
    said = item.properties
    words = [said.get("constellation"), said.get("platform"), *(said.get("instruments") or [])]
    for word in words:
        for beginning, kind in SENSORS.items():
            if isinstance(word, str) and word.lower().startswith(beginning):
                return kind
    raise CatalogueError(
        f"neither SAR nor optical by its collection ({item.collection_id}), constellation, platform"
        f" or instruments ({', '.join(map(str, words))})"
    )


def _asset(item: pystac.Item, kind: Kind) -> str:
    for name in ASSETS[kind]:
        if name in item.assets:
            return item.assets[name].href
    has = ", ".join(sorted(item.assets)) or "none"
    raise CatalogueError(f"no {kind} asset called {', '.join(ASSETS[kind])}; it has: {has}")


def _acquired(item: pystac.Item) -> datetime:
    if item.datetime is not None:
        return _utc(item.datetime)
    start, end = item.common_metadata.start_datetime, item.common_metadata.end_datetime
    if start is None or end is None:
        raise CatalogueError("it has neither datetime nor start_datetime and end_datetime")
    start, end = _utc(start), _utc(end)
    middle: timedelta = (end - start) / 2
    return start + middle


def _utc(when: datetime) -> datetime:
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def _outline(item: pystac.Item) -> str:
    if item.geometry:
        try:
            outline = shapely.from_geojson(json.dumps(item.geometry))
        except shapely.errors.GEOSException as error:
            raise CatalogueError(f"its geometry is not GeoJSON ({error})") from error
    elif item.bbox and len(item.bbox) in (4, 6):
        half = len(item.bbox) // 2  # six numbers where the box has heights
        outline = shapely.box(*item.bbox[:2], *item.bbox[half : half + 2])
    else:
        raise CatalogueError("it has neither geometry nor bbox")
    return str(shapely.to_wkt(outline, rounding_precision=9))


def _is_api(landing: Json) -> bool:
    return "conformsTo" in landing or any(rel == "search" for rel, _ in _links(landing))


def _search(
    root: str, query: SceneQuery, modifier: Modifier | None
) -> Iterator[tuple[pystac.Item, str | None]]:
    start, end = query.interval_utc
    when = None if start is None and end is None else "/".join(_rfc3339(bound) for bound in (start, end))
    # not every API knows the `query` or `filter` extension, so cloud is left to `SceneQuery.accepts`
    boxes: list[tuple[float, float, float, float] | None] = [query.bbox]
    if query.bbox is not None and query.bbox[0] > query.bbox[2]:
        west, south, east, north = query.bbox
        boxes = [(west, south, 180.0, north), (-180.0, south, east, north)]
    try:
        client = pystac_client.Client.open(root, modifier=modifier, timeout=TIMEOUT_S)
        for bbox in boxes:
            search = client.search(
                collections=list(query.collections), datetime=when, bbox=bbox, limit=PAGE_ITEMS
            )
            for item in search.items():
                yield item, item.get_self_href() or root
    except (APIError, pystac.STACError, requests.RequestException, KeyError, ValueError) as error:
        raise CatalogueError(
            f"the STAC API {root} failed: {_first_line(error)}; check its address and that it knows the"
            f" collections {', '.join(query.collections)}"
        ) from error


def _rfc3339(bound: datetime | None) -> str:
    return ".." if bound is None else bound.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _walk(
    landing: Json, root: str, query: SceneQuery, modifier: Modifier | None, allow: Sequence[Path]
) -> Iterator[tuple[pystac.Item, str]]:
    """Follow the links of a static catalogue, holding one file at a time.

    pystac's own walk keeps every item that it has read, and follows any link to anywhere.
    """
    seen = {root}
    ahead = [(landing, root)]
    # what the user named by http may lead on by http, within its own host
    own_host = urlsplit(root).hostname if is_url(root) else None
    while ahead:
        node, href = ahead.pop()
        if node.get("type") == "FeatureCollection":
            features = [(feature, href) for feature in node.get("features", [])]
        elif node.get("type") == "Feature":
            features = [(node, href)]
        elif node.get("type") in ("Catalog", "Collection") or "stac_version" in node:
            features = []
            # a collection that is not wanted may still hold some that are
            wanted = node.get("type") != "Collection" or node.get("id") in query.collections
            follow = ("child", "item") if wanted else ("child",)
            for rel, link in reversed(_links(node)):
                if rel in follow:
                    target = resolve_href(
                        link, catalogue_href=root, base_href=href, allow=allow, http_host=own_host
                    )
                    if target not in seen:
                        seen.add(target)
                        ahead.append((_read_json(target, named_by=href), target))
        else:
            raise CatalogueError(f"{href} is JSON but not STAC: its type is {node.get('type')!r}")
        for feature, where in features:
            item = _item(feature, where)
            if item.collection_id is not None and item.collection_id not in query.collections:
                continue
            if modifier is not None:
                modifier(item)
            yield item, where


def _links(node: Json) -> list[tuple[str, str]]:
    """(rel, href) of each link that has both."""
    links = [link for link in node.get("links") or [] if isinstance(link, dict)]
    pairs = [(link.get("rel"), link.get("href")) for link in links]
    return [(rel, href) for rel, href in pairs if isinstance(rel, str) and isinstance(href, str)]


def _item(feature: Json, href: str) -> pystac.Item:
    try:
        return pystac.Item.from_dict(feature, migrate=True, preserve_dict=False)
    except (pystac.STACError, pystac.STACTypeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CatalogueError(f"{href} is not a STAC item: {_first_line(error)}") from error


def _read_json(href: str, *, named_by: str | None = None) -> Json:
    origin = f" (named by {named_by})" if named_by else ""
    if href.startswith("s3:"):
        raise CatalogueError(
            f"cannot read the catalogue {href}{origin}: give its https address or a local copy"
        )
    try:
        if is_url(href):
            answer = requests.get(href, timeout=TIMEOUT_S)
            answer.raise_for_status()
            text = answer.text
        else:
            text = Path(href).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:  # requests' own errors are OSErrors
        raise CatalogueError(f"cannot read the catalogue {href}{origin}: {_first_line(error)}") from error
    try:
        node = json.loads(text)
    except json.JSONDecodeError as error:
        raise CatalogueError(f"{href}{origin} is not JSON: {error}") from error
    if not isinstance(node, dict):
        raise CatalogueError(f"{href}{origin} is JSON but not STAC: it is a {type(node).__name__}")
    return node


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
