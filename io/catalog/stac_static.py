"""Read static STAC catalogs: files in a folder, on a website or in a bucket that link to each other."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crosstie.errors import CatalogError, StoreError
from crosstie.io.catalog.paging import PageRequest, follow_pages
from crosstie.io.catalog.properties import OTHER_MISSION
from crosstie.io.catalog.query import SceneQuery
from crosstie.io.storage.address import AddressPolicy
from crosstie.io.storage.href import public_href
from crosstie.io.storage.href_policy import is_url, resolve_href
from crosstie.io.storage.redaction import first_line
from crosstie.io.storage.s3 import FROM_ENVIRONMENT, S3Options

if TYPE_CHECKING:
    from crosstie.io.catalog.items import Json


LOG = logging.getLogger(__name__)

PARTS_OF_STAC: dict[str, set[str]] = {
    "FeatureCollection": {"features"},
    "Feature": {"geometry", "properties"},
    "Collection": {"links", "extent"},
    "Catalog": {"links", "id"},
}
"""What each form of STAC has, to tell a file that does not say its type."""


def walk(
    landing: Json,
    root: str,
    query: SceneQuery,
    policy: AddressPolicy,
    allow: Sequence[Path] = (),
    storage: S3Options = FROM_ENVIRONMENT,
) -> Iterator[tuple[object, str]]:
    """Give all items and the path or URL of the file that contains each, following links and pages.

    Raises
    ------
    CatalogError
        A file is missing, not JSON or not STAC, or a link is not allowed.
    """
    seen = {root}
    ahead = [(landing, root)]
    # a catalog that the user named by http may use http within its own host
    own_host = None if policy.catalog is None else policy.catalog.host

    def resolve(link: str, named_by: str) -> str:
        return resolve_href(link, catalog_href=root, base_href=named_by, allow=allow, http_host=own_host)

    def ask(request: PageRequest) -> object:
        return _read_page(request, storage, policy)

    while ahead:
        node, href = ahead.pop()
        form = form_of(node, href)
        if form == "FeatureCollection":
            pages = follow_pages(node, PageRequest(href), ask, resolve, whole=False)
            yield from ((feature, href) for feature in pages)
        elif form == "Feature":
            yield node, href
        else:
            # a collection that is not wanted may contain collections that are
            wanted = form != "Collection" or _may_be_wanted(node, query)
            follow = ("child", "item", "items") if wanted else ("child",)
            for rel, link in reversed(links(node)):
                if rel in follow:
                    target = resolve(link, href)
                    if target not in seen:
                        seen.add(target)
                        ahead.append(read_stac_file(target, storage, policy, named_by=href))


def _may_be_wanted(collection: Json, query: SceneQuery) -> bool:
    name = collection.get("id")
    if name in query.collections:
        return True
    told = query.takes_any_collection(sar=True) or query.takes_any_collection(sar=False)
    return told and OTHER_MISSION.search(str(name)) is None


def form_of(node: Json, href: str) -> str:
    """Tell whether a file is a Catalog, a Collection, a Feature or a FeatureCollection.

    Raises
    ------
    CatalogError
        It is none of these.
    """
    said = node.get("type")
    if said in ("Catalog", "Collection", "Feature", "FeatureCollection"):
        return str(said)
    if said is None:
        found = next((form for form, parts in PARTS_OF_STAC.items() if parts <= node.keys()), None)
        if found is not None:
            # catalogs before STAC 1.0 had no type either
            if "stac_version" not in node:
                LOG.warning("%s says no type and no stac_version: read as a %s", public_href(href), found)
            return found
    raise CatalogError(f"{public_href(href)} is JSON but not STAC: its type is {said!r}")


def links(node: Json) -> list[tuple[str, str]]:
    """(rel, href) of each link that has both."""
    given = node.get("links")
    found = [link for link in given if isinstance(link, dict)] if isinstance(given, list) else []
    pairs = [(link.get("rel"), link.get("href")) for link in found]
    return [(rel, href) for rel, href in pairs if isinstance(rel, str) and isinstance(href, str)]


def read_stac_file(
    href: str, storage: S3Options, policy: AddressPolicy, *, named_by: str | None = None
) -> tuple[Json, str]:
    """Read one file of a catalog, and say where it was: at another address where the server sent us on.

    Raises
    ------
    CatalogError
        Missing, not JSON, or not an object.
    """
    shown = public_href(href) + (f" (named by {public_href(named_by)})" if named_by else "")
    try:
        data, place = _read_bytes(href, storage, policy)
        node = json.loads(data)
    except (OSError, StoreError) as error:  # requests' own errors are OSErrors
        raise CatalogError(f"cannot read the catalog {shown}: {first_line(error)}") from None
    except ValueError as error:
        raise CatalogError(f"{shown} is not JSON: {first_line(error)}") from None
    if not isinstance(node, dict):
        raise CatalogError(f"{shown} is JSON but not STAC: it is a {type(node).__name__}")
    return node, place


def _read_page(request: PageRequest, storage: S3Options, policy: AddressPolicy) -> object:
    if request.method == "GET" and request.headers is None:
        return read_stac_file(request.href, storage, policy)[0]
    from crosstie.io.catalog.stac_api import one_page  # slow to import; few pages are asked for by POST

    return one_page(request, policy)


def _read_bytes(href: str, storage: S3Options, policy: AddressPolicy) -> tuple[bytes, str]:
    if href.lower().startswith("s3:"):
        from crosstie.io.storage.store import open_store  # obstore is slow to import

        folder, _, name = href.rpartition("/")
        data = open_store(folder, storage).get(name)
        if data is None:
            raise FileNotFoundError(f"there is no object {name} in {folder}")
        return data, href
    if is_url(href):
        from crosstie.io.storage.http import fetch  # slow to import, and not needed for files on a disk

        return fetch(href, policy)
    return Path(href).read_bytes(), href
