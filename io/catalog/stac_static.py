"""Read static STAC catalogs: files in a folder, on a website or in a bucket that link to each other."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crosstie.errors import CatalogError, StoreError
from crosstie.io.catalog.documents import parse_document
from crosstie.io.catalog.items import MAX_SHOWN, UNUSABLE
from crosstie.io.catalog.paging import PageRequest, follow_pages
from crosstie.io.catalog.properties import OTHER_MISSION
from crosstie.io.catalog.query import SceneQuery
from crosstie.io.scenes.table import LeftOut
from crosstie.io.storage.address import AddressPolicy
from crosstie.io.storage.budget import CatalogBudget, DocumentLimitError
from crosstie.io.storage.href import public_href
from crosstie.io.storage.href_policy import is_url, resolve_href
from crosstie.io.storage.redaction import first_line
from crosstie.io.storage.s3 import FROM_ENVIRONMENT, S3Options
from crosstie.io.storage.trust import hint

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
    *,
    budget: CatalogBudget | None = None,
) -> Iterator[tuple[object, str]]:
    """Give all items and the path or URL of the file that contains each, following links and pages.

    A `LeftOut` is given in the place of an item whose own file exceeds a limit.

    Parameters
    ----------
    budget : CatalogBudget, optional
        What the catalog may cost.

    Raises
    ------
    CatalogError
        A file is missing, not JSON or not STAC, or a link is not allowed; or the catalog exceeds a limit.
    """
    budget = budget or CatalogBudget()
    # a catalog that the user named by http may use http within its own host
    own_host = None if policy.catalog is None else policy.catalog.host

    def resolve(link: str, named_by: str) -> str:
        return resolve_href(link, catalog_href=root, base_href=named_by, allow=allow, http_host=own_host)

    def ask(request: PageRequest) -> object:
        return _read_page(request, storage, policy, budget)

    seen = {root}
    ahead: list[tuple[str, str, str]] = []
    """Relation and address of each file that is not read yet, and the address of the file that names it."""
    node, href = landing, root
    while True:
        form = form_of(node, href)
        if form == "FeatureCollection":
            pages = follow_pages(node, PageRequest(href), ask, resolve, whole=False)
            yield from ((feature, href) for feature in pages)
        elif form == "Feature":
            yield node, href
        else:
            for rel, link in _links_to_follow(node, form, query):
                target = resolve(link, href)
                if target not in seen:
                    seen.add(target)
                    ahead.append((rel, target, href))
            if len(seen) > budget.limits.files:
                raise budget.refusal("links to", budget.limits.files, "files")
        found = None
        while found is None:
            if not ahead:
                return
            rel, target, named_by = ahead.pop()
            try:
                found = read_stac_file(target, storage, policy, named_by=named_by, budget=budget)
            except DocumentLimitError as problem:
                if rel != "item":
                    raise
                yield LeftOut(public_href(target), UNUSABLE, str(problem)), target
        node, href = found


def _links_to_follow(node: Json, form: str, query: SceneQuery) -> Iterator[tuple[str, str]]:
    """Links to children and items, the last first."""
    # a collection that is not wanted may contain collections that are
    wanted = form != "Collection" or _may_be_wanted(node, query)
    follow = ("child", "item", "items") if wanted else ("child",)
    return ((rel, link) for rel, link in reversed(links(node)) if rel in follow)


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
    raise CatalogError(f"{public_href(href)} is JSON but not STAC: its type is {repr(said)[:MAX_SHOWN]}")


def links(node: Json) -> list[tuple[str, str]]:
    """(rel, href) of each link that has both."""
    given = node.get("links")
    found = [link for link in given if isinstance(link, dict)] if isinstance(given, list) else []
    pairs = [(link.get("rel"), link.get("href")) for link in found]
    return [(rel, href) for rel, href in pairs if isinstance(rel, str) and isinstance(href, str)]


def read_stac_file(
    href: str,
    storage: S3Options,
    policy: AddressPolicy,
    *,
    named_by: str | None = None,
    budget: CatalogBudget | None = None,
) -> tuple[Json, str]:
    """Read one file of a catalog, and say where it was: at another address where the server sent us on.

    Raises
    ------
    DocumentLimitError
        It alone exceeds a limit.
    CatalogError
        Missing, not JSON, or not an object; or the catalog exceeds a limit.
    """
    budget = budget or CatalogBudget()
    shown = public_href(href) + (f" (named by {public_href(named_by)})" if named_by else "")
    budget.add_file()
    budget.seconds_left()
    try:
        data, place = _read_bytes(href, storage, policy, budget)
        node = parse_document(data, budget.limits)
    except DocumentLimitError as error:
        raise DocumentLimitError(f"cannot read {shown}: {first_line(error)}; split it") from None
    except (OSError, StoreError) as error:  # requests' own errors are OSErrors
        said = str(error) if isinstance(error, StoreError) else first_line(error)
        raise CatalogError(f"cannot read the catalog {shown}: {said}{hint(error)}") from None
    except ValueError as error:
        raise CatalogError(f"{shown} is not JSON: {first_line(error)}") from None
    if not isinstance(node, dict):
        raise CatalogError(f"{shown} is JSON but not STAC: it is a {type(node).__name__}")
    return node, place


def _read_page(
    request: PageRequest, storage: S3Options, policy: AddressPolicy, budget: CatalogBudget
) -> object:
    if request.method == "GET" and request.headers is None:
        return read_stac_file(request.href, storage, policy, budget=budget)[0]
    from crosstie.io.catalog.stac_api import one_page  # slow to import; few pages are asked for by POST

    return one_page(request, policy, budget)


def _read_bytes(
    href: str, storage: S3Options, policy: AddressPolicy, budget: CatalogBudget
) -> tuple[bytes, str]:
    if is_url(href) and not href.lower().startswith("s3:"):
        from crosstie.io.storage.http import fetch  # slow to import, and not needed for files on a disk

        return fetch(href, policy, budget)
    pieces = _pieces_of_object(href, storage) if is_url(href) else _pieces_of_file(Path(href))
    data = bytearray()
    for piece in pieces:
        budget.add_bytes(len(piece))
        budget.seconds_left()
        data += piece
        if len(data) > budget.limits.document_bytes:
            raise DocumentLimitError(f"it is longer than {budget.limits.document_bytes:,} bytes")
    return bytes(data), href


def _pieces_of_file(path: Path) -> Iterator[bytes]:
    if path.exists() and not path.is_file():
        raise FileNotFoundError("it is no file")  # a pipe or a device would never end
    with path.open("rb") as file:
        while piece := file.read(2**20):
            yield piece


def _pieces_of_object(href: str, storage: S3Options) -> Iterator[bytes]:
    from crosstie.io.storage.store import open_store  # obstore is slow to import

    folder, _, name = href.rpartition("/")
    found = open_store(folder, storage).open(name)
    if found is None:
        raise FileNotFoundError(f"there is no object {name} in {folder}")
    yield from found.pieces
