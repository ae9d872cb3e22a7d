"""Follow the pages of a search: each page once, until one has no next, and never round in a circle."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from crosstie.errors import CatalogError
from crosstie.io.catalog.items import MAX_ID
from crosstie.io.storage.href import public_href

if TYPE_CHECKING:
    from crosstie.io.catalog.items import Json

LOG = logging.getLogger(__name__)

STALE_PAGES = 3
"""After so many pages in a row that bring nothing new, paging ends: some APIs send empty ones between."""

EXACT_COUNT = 10_000
"""From here on, what an API calls its number of hits may be an estimate of its database."""

LONGEST_REQUEST = 1_000_000
"""Longest address and body of a request for a page, characters: each may add to the one before it."""

LONGEST_QUOTE = 120
"""Longest part of an answer that a message repeats, characters."""


@dataclass(frozen=True, slots=True, eq=False)
class PageRequest:
    """How one page is asked for."""

    href: str
    """Absolute address, or the path of a local file."""
    method: str = "GET"
    body: Json | None = None
    """Parameters of a POST."""
    headers: Mapping[str, str] | None = None

    @property
    def key(self) -> bytes:
        """Equal for requests that ask for the same, and short."""
        return sha256(self._text.encode("utf-8", "surrogatepass")).digest()

    @property
    def is_too_long(self) -> bool:
        """Say whether it is longer than any search needs."""
        return len(self._text) > LONGEST_REQUEST

    @property
    def _text(self) -> str:
        return json.dumps([self.method, self.href, self.body], sort_keys=True, default=str)


Ask = Callable[[PageRequest], object]
"""Sends a request, and gives the JSON of the answer."""

Resolve = Callable[[str, str], str]
"""Makes an href absolute: (href, address of the page that names it)."""


def follow_pages(
    page: object, asked: PageRequest, ask: Ask, resolve: Resolve, *, whole: bool, part: str = "features"
) -> Iterator[object]:
    """Give what the pages of one search list, beginning with a page that is there already.

    Parameters
    ----------
    page : object
        JSON of the first page.
    asked : PageRequest
        How it was asked for.
    ask : Ask
    resolve : Resolve
    whole : bool
        Fewer than the number of hits that the first page names is an error, not a warning.
    part : str, optional
        Name of the list: `features` or `collections`.

    Raises
    ------
    CatalogError
        An answer is no page, or fewer items came than the first page names.
    """
    known: set[object] = set()
    requested, got, stale = {asked.key}, 0, 0
    matched = _number_matched(page)
    while True:
        features = listed_on(page, asked.href, part)
        names = {name_of_item(feature) or got + place for place, feature in enumerate(features)}
        got += len(features)
        stale = 0 if names - known else stale + 1
        known |= names
        yield from features
        following = _next_request(page, asked, resolve)
        if following is None:
            break
        if following.key in requested or stale >= STALE_PAGES:
            LOG.warning(
                "%s names a next page that brings nothing new: %d items are read, there may be more",
                public_href(asked.href),
                len(known),
            )
            break
        requested.add(following.key)
        asked = following
        page = ask(asked)
    if matched is not None and len(known) < matched:
        _tell_missing(asked.href, len(known), matched, whole=whole)


def listed_on(page: object, href: str, part: str = "features") -> list[object]:
    """Items of a page, unchecked.

    Raises
    ------
    CatalogError
        It is no page of items: an error that an API calls a success, or something else.
    """
    features = page.get(part) if isinstance(page, dict) else None
    if isinstance(features, list):
        return features
    text = json.dumps(page, default=str)
    shown = text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}..."
    raise CatalogError(f"{public_href(href)} answered without a list of {part}: {shown}")


def _tell_missing(href: str, got: int, matched: int, *, whole: bool) -> None:
    text = f"{public_href(href)} gave {got} of the {matched} items that it says match, and no further page"
    if whole and matched < EXACT_COUNT:
        raise CatalogError(f"{text}; ask for a shorter time, or a smaller area")
    LOG.warning("%s", text)


def name_of_item(item: object) -> tuple[str, str] | None:
    """Name that is equal for an item that is sent again; None for what has no id of usual length."""
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        return None
    collection = item.get("collection")
    said = collection if isinstance(collection, str) else ""
    return (said, item["id"]) if max(len(said), len(item["id"])) <= MAX_ID else None


def _number_matched(page: object) -> int | None:
    if not isinstance(page, dict):
        return None
    context = page.get("context")
    said = page.get("numberMatched", context.get("matched") if isinstance(context, dict) else None)
    return said if isinstance(said, int) and not isinstance(said, bool) else None


def _next_request(page: object, asked: PageRequest, resolve: Resolve) -> PageRequest | None:
    links = page.get("links") if isinstance(page, dict) else None
    named = [link for link in links or [] if isinstance(link, dict) and link.get("rel") == "next"]
    if not named or not isinstance(named[0].get("href"), str):
        return None
    link = named[0]
    method = str(link.get("method") or "GET").upper()
    if method not in ("GET", "POST"):
        raise CatalogError(f"{public_href(asked.href)} asks for its next page by {method[:LONGEST_QUOTE]!r}")
    body = _object(link.get("body"))
    if link.get("merge") is True:
        body = {**(asked.body or {}), **body}
    headers = _object(link.get("headers"))
    request = PageRequest(
        href=resolve(link["href"], asked.href),
        method=method,
        body=body if method == "POST" else None,
        headers={str(name): str(value) for name, value in headers.items()} or None,
    )
    if request.is_too_long:
        raise CatalogError(
            f"{public_href(asked.href)} asks for its next page by more than {LONGEST_REQUEST:,} characters"
        )
    return request


def _object(value: object) -> Json:
    return value if isinstance(value, dict) else {}
