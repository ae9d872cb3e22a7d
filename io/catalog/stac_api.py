"""Search STAC APIs page by page, and let the API filter as far as it says that it can."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, cos, radians
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import pystac
import requests
import shapely
from pystac_client import ItemSearch
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO

from crosstie.errors import CatalogError
from crosstie.io.catalog.documents import parse_document
from crosstie.io.catalog.paging import PageRequest, follow_pages, name_of_item
from crosstie.io.catalog.properties import is_of_mission
from crosstie.io.catalog.stac_static import links
from crosstie.io.storage.address import short_href
from crosstie.io.storage.budget import CatalogBudget, CatalogLimitError
from crosstie.io.storage.href import public_href
from crosstie.io.storage.href_policy import is_url
from crosstie.io.storage.http import TIMEOUT_S, guard, patient_retry
from crosstie.io.storage.redaction import first_line
from crosstie.io.storage.trust import hint

if TYPE_CHECKING:
    from datetime import datetime

    from crosstie.io.catalog.items import Json
    from crosstie.io.catalog.presets import Preset
    from crosstie.io.catalog.query import Box, SceneQuery
    from crosstie.io.storage.address import AddressPolicy

LOG = logging.getLogger(__name__)

METHOD_NOT_ALLOWED = 405

SCENE_DEG = 4.0
"""Largest width of a scene at the equator, degrees."""


def search(
    root: str,
    landing: Json,
    query: SceneQuery,
    preset: Preset,
    policy: AddressPolicy,
    *,
    ids: Sequence[str] = (),
    narrow: bool = False,
    budget: CatalogBudget | None = None,
) -> Iterator[tuple[object, str]]:
    """Give the items of the query's time and place, each once and with its address.

    Parameters
    ----------
    ids : sequence of str, optional
        Only these ids, of any time and place; empty means all.
    narrow : bool, optional
        Let the API leave out what the query's rules would refuse (CQL2), if it can.
    budget : CatalogBudget, optional
        What the catalog may cost.

    Raises
    ------
    CatalogError
        The API fails, or exceeds a limit.
    """
    budget = budget or CatalogBudget()
    io = _OnlyHttp(budget)
    try:
        guard(io.session, policy, patient_retry(budget), budget)
        way = _way_of_search(root, landing)
        seen: set[tuple[str, str]] = set()
        filtered = narrow and _understands_cql2(landing)
        for sar in (True, False):
            wanted = preset.asked(query.sar_collections if sar else query.optical_collections)
            for collections in _rounds(io, root, landing, query, preset, wanted, sar=sar):
                before = len(seen)
                for asked in _searches(query, preset, collections, ids, filtered, sar=sar):
                    for item in _items(io, way, asked):
                        known = name_of_item(item)
                        if known is None or known not in seen:
                            seen |= set() if known is None else {known}
                            yield item, _own_address(item, root)
                if len(seen) > before:
                    break
    except _FAILURES as error:
        raise CatalogError(
            f"the STAC API {public_href(root)} failed: {first_line(error)}; check its address and that it"
            f" knows the collections {', '.join(preset.asked(query.collections))}"
        ) from None
    finally:
        io.session.close()


_FAILURES = (
    *(APIError, pystac.STACError, requests.RequestException),
    # what pystac's client raises for answers of another form
    *(AttributeError, KeyError, ValueError, TypeError),
)


def one_page(request: PageRequest, policy: AddressPolicy, budget: CatalogBudget | None = None) -> object:
    """Ask for one page of a saved search.

    Raises
    ------
    CatalogError
        It cannot be had, is no JSON, or exceeds a limit.
    """
    budget = budget or CatalogBudget()
    io = _OnlyHttp(budget)
    try:
        guard(io.session, policy, patient_retry(budget), budget)
        return _answer(io, request)
    except (APIError, requests.RequestException) as error:
        said = f"{first_line(error)}{hint(error)}"
        raise CatalogError(f"cannot read the page {public_href(request.href)}: {said}") from None
    finally:
        io.session.close()


class _OnlyHttp(StacApiIO):
    """Reads no files: a link of an API never means a path on this machine, whatever it looks like."""

    def __init__(self, budget: CatalogBudget | None = None) -> None:
        self.budget = budget or CatalogBudget()
        super().__init__(timeout=TIMEOUT_S)

    def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
        if not isinstance(source, pystac.Link) and not is_url(str(source)):
            raise CatalogError(
                f"href {short_href(str(source))!r} is a file of this machine, named by an API; refused"
            )
        return super().read_text(source, *args, **kwargs)


@dataclass(frozen=True, slots=True)
class _Search:
    """One search, and its filter apart."""

    parameters: Json
    filter: Json | None


def _rounds(
    io: _OnlyHttp,
    root: str,
    landing: Json,
    query: SceneQuery,
    preset: Preset,
    wanted: tuple[str, ...],
    *,
    sar: bool,
) -> Iterator[tuple[str, ...]]:
    """Collections to ask for, one set after another until one gives an item.

    First those that are usual or that the user names. Only if they give nothing, and the user named none, the
    API is asked which of its collections are of the mission.
    """
    if wanted:
        yield wanted
    if query.takes_any_collection(sar=sar) and not preset.collections:
        others = tuple(name for name in _collections_of(io, root, landing, sar=sar) if name not in wanted)
        if others:
            yield others


def _collections_of(io: _OnlyHttp, root: str, landing: Json, *, sar: bool) -> Iterator[str]:
    """Names of the collections of the API that say that they are of Sentinel-1 or Sentinel-2."""
    folder = root if root.endswith("/") else f"{root}/"
    data = next((href for rel, href in links(landing) if rel == "data"), "collections")
    first = PageRequest(urljoin(folder, data))
    try:
        pages = follow_pages(
            _answer(io, first),
            first,
            lambda request: _answer(io, request),
            urljoin_from,
            whole=False,
            part="collections",
        )
        for collection in pages:
            if isinstance(collection, dict) and is_of_mission(collection, sar=sar):
                yield str(collection["id"])
    except CatalogLimitError:
        raise
    except (APIError, CatalogError) as error:
        LOG.info("the STAC API %s does not list its collections: %s", public_href(root), first_line(error))


def _own_address(item: object, root: str) -> str:
    named = links(item) if isinstance(item, dict) else []
    own = next((href for rel, href in named if rel == "self"), root)
    try:
        urlsplit(own)
    except ValueError:
        return root
    return own


def _searches(
    query: SceneQuery,
    preset: Preset,
    collections: Sequence[str],
    ids: Sequence[str],
    filtered: bool,
    *,
    sar: bool,
) -> Iterator[_Search]:
    """Searches for SAR or for optical scenes, whose rules differ: one for each half of a split box."""
    start, end = query.interval_utc
    when = (
        None if start is None and end is None else "/".join(_interval_bound(bound) for bound in (start, end))
    )
    base: Json = {"collections": list(collections), "limit": preset.page_items}
    if ids:
        yield _Search(base | {"ids": list(ids)}, None)
        return
    rules = _filter(query, sar) if filtered else None
    for place in _place_conditions(query):
        yield _Search(base | {"datetime": when} | place, rules)


def _place_conditions(query: SceneQuery) -> list[Json]:
    """Where to search, never less than is wanted. STAC allows a box or an area: an area is preferred."""
    if query.area is None:
        return [{"bbox": _widened(box)} for box in query.boxes] or [{}]
    bounds = query.area.bounds
    if _widened(bounds) == bounds:
        return [{"intersects": shapely.geometry.mapping(query.area)}]
    return [{"bbox": _widened(bounds)}]


def _widened(box: Box) -> Box:
    """Widen a box at the antimeridian, so that it also touches outlines that cross it and are not cut there.

    In a planar search such an outline goes round the Earth the other way and ends before the antimeridian.
    """
    west, south, east, north = box
    margin = min(SCENE_DEG / max(cos(radians(max(abs(south), abs(north)))), 0.01), 90.0)
    if east > 180 - margin:
        west = min(west, 180 - margin)
    if west < margin - 180:
        east = max(east, margin - 180)
    return west, south, east, north


def _way_of_search(root: str, landing: Json) -> PageRequest:
    """Address and method of the search. An API that does not say that it can search is asked all the same."""
    named = [link for link in landing.get("links") or [] if isinstance(link, dict)]
    ways = [link for link in named if link.get("rel") == "search" and isinstance(link.get("href"), str)]
    classes = [text for text in landing.get("conformsTo") or [] if isinstance(text, str)]
    if not any("item-search" in text for text in classes):
        LOG.warning("the STAC API %s does not say that it can search (item-search)", public_href(root))
    folder = root if root.endswith("/") else f"{root}/"
    if not ways:
        return PageRequest(folder + "search", "POST")
    only_get = all(str(link.get("method") or "").upper() == "GET" for link in ways)
    return PageRequest(urljoin(folder, ways[0]["href"]), "GET" if only_get else "POST")


def _items(io: _OnlyHttp, way: PageRequest, asked: _Search) -> Iterator[object]:
    rules: Json = {} if asked.filter is None else {"filter": asked.filter, "filter_lang": "cql2-json"}
    try:
        first, page = _first_page(io, way, asked.parameters | rules)
    except APIError as error:
        if getattr(error, "status_code", None) != 400 or asked.filter is None:
            raise
        # the API can filter, but not these properties; they are filtered after reading anyway
        first, page = _first_page(io, way, asked.parameters)
    yield from follow_pages(page, first, lambda request: _answer(io, request), urljoin_from, whole=True)


def _first_page(io: _OnlyHttp, way: PageRequest, parameters: Json) -> tuple[PageRequest, object]:
    """The first page, and how it was asked for: by GET where the API knows no POST."""
    request = PageRequest(way.href, way.method, _parameters(way, parameters))
    try:
        return request, _answer(io, request)
    except APIError as error:
        if getattr(error, "status_code", None) != METHOD_NOT_ALLOWED or way.method == "GET":
            raise
    way = PageRequest(way.href, "GET")
    request = PageRequest(way.href, "GET", _parameters(way, parameters))
    return request, _answer(io, request)


def _parameters(way: PageRequest, parameters: Json) -> Json:
    found: Json = ItemSearch(way.href, method=way.method, **parameters).get_parameters()
    return found


def _answer(io: _OnlyHttp, request: PageRequest) -> object:
    if not is_url(request.href):
        raise CatalogError(
            f"href {short_href(request.href)!r} is a file of this machine, named by an API; refused"
        )
    headers = None if request.headers is None else dict(request.headers)
    io.budget.add_page()
    try:
        text = io.request(request.href, method=request.method, headers=headers, parameters=request.body)
    except APIError as error:
        if isinstance(error.__context__, CatalogLimitError):  # pystac's client wraps every error
            raise error.__context__ from None
        raise
    try:
        found: object = parse_document(text, io.budget.limits)
    except ValueError:
        start = " ".join(text[:80].split())
        raise CatalogError(
            f"{public_href(request.href)} answered with no JSON: it begins {start!r}"
        ) from None
    return found


def urljoin_from(href: str, page: str) -> str:
    """Make an href of a page absolute."""
    return urljoin(page, href)


def _understands_cql2(landing: Json) -> bool:
    classes = [text for text in landing.get("conformsTo") or [] if isinstance(text, str)]
    return any(text.endswith("item-search#filter") for text in classes) and any(
        text.endswith("/cql2-json") for text in classes
    )


def _filter(query: SceneQuery, is_sar: bool) -> Json | None:
    """The rules that mean the same in every API, as CQL2. Items without the property pass.

    Only numbers and terms of the satellite extension are used: catalogs write names of platforms and products
    differently.
    """
    terms = []
    if not is_sar and query.max_cloud_pct is not None:
        # rounded up: some compare whole per cents
        terms.append(
            _or_missing({"op": "<=", "args": [_property("eo:cloud_cover"), ceil(query.max_cloud_pct)]})
        )
    if is_sar and query.orbit != "any":
        terms.append(_or_missing({"op": "=", "args": [_property("sat:orbit_state"), query.orbit]}))
    if is_sar and query.tracks:
        track = _property("sat:relative_orbit")
        one_of = [{"op": "=", "args": [track, number]} for number in query.tracks]
        terms.append(_or_missing(*one_of))
    if not terms:
        return None
    return terms[0] if len(terms) == 1 else {"op": "and", "args": terms}


def _or_missing(*terms: Json) -> Json:
    return {"op": "or", "args": [*terms, {"op": "isNull", "args": [terms[0]["args"][0]]}]}


def _property(name: str) -> Json:
    return {"property": name}


def _interval_bound(bound: datetime | None) -> str:
    from datetime import UTC

    return ".." if bound is None else bound.astimezone(UTC).isoformat().replace("+00:00", "Z")
