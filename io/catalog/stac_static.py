"""Read static STAC catalogs: files in a folder, on a website or in a bucket that link to each other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crosstie.errors import CatalogError, StoreError
from crosstie.io.catalog.query import SceneQuery
from crosstie.io.storage.address import AddressPolicy
from crosstie.io.storage.href import public_href
from crosstie.io.storage.href_policy import is_url, resolve_href
from crosstie.io.storage.redaction import first_line
from crosstie.io.storage.s3 import FROM_ENVIRONMENT, S3Options

if TYPE_CHECKING:
    from crosstie.io.catalog.items import Json


def walk(
    landing: Json,
    root: str,
    query: SceneQuery,
    policy: AddressPolicy,
    allow: Sequence[Path] = (),
    storage: S3Options = FROM_ENVIRONMENT,
) -> Iterator[tuple[Json, str]]:
    """Give all items and the path or URL of the file that contains each, following the links.

    Raises
    ------
    CatalogError
        A file is missing, not JSON or not STAC, or a link is not allowed.
    """
    seen = {root}
    ahead = [(landing, root)]
    # a catalog that the user named by http may use http within its own host
    own_host = None if policy.catalog is None else policy.catalog.host
    while ahead:
        node, href = ahead.pop()
        if node.get("type") == "FeatureCollection":
            yield from ((feature, href) for feature in node.get("features", []))
        elif node.get("type") == "Feature":
            yield node, href
        elif node.get("type") in ("Catalog", "Collection") or "stac_version" in node:
            # a collection that is not wanted may contain collections that are
            wanted = node.get("type") != "Collection" or node.get("id") in query.collections
            follow = ("child", "item") if wanted else ("child",)
            for rel, link in reversed(links(node)):
                if rel in follow:
                    target = resolve_href(
                        link, catalog_href=root, base_href=href, allow=allow, http_host=own_host
                    )
                    if target not in seen:
                        seen.add(target)
                        ahead.append((read_stac_file(target, storage, policy, named_by=href), target))
        else:
            raise CatalogError(f"{public_href(href)} is JSON but not STAC: its type is {node.get('type')!r}")


def links(node: Json) -> list[tuple[str, str]]:
    """(rel, href) of each link that has both."""
    found = [link for link in node.get("links") or [] if isinstance(link, dict)]
    pairs = [(link.get("rel"), link.get("href")) for link in found]
    return [(rel, href) for rel, href in pairs if isinstance(rel, str) and isinstance(href, str)]


def read_stac_file(
    href: str, storage: S3Options, policy: AddressPolicy, *, named_by: str | None = None
) -> Json:
    """Read one file of a catalog.

    Raises
    ------
    CatalogError
        Missing, not JSON, or not an object.
    """
    shown = public_href(href) + (f" (named by {public_href(named_by)})" if named_by else "")
    try:
        node = json.loads(_read_bytes(href, storage, policy))
    except (OSError, StoreError) as error:  # requests' own errors are OSErrors
        raise CatalogError(f"cannot read the catalog {shown}: {first_line(error)}") from None
    except ValueError as error:
        raise CatalogError(f"{shown} is not JSON: {first_line(error)}") from None
    if not isinstance(node, dict):
        raise CatalogError(f"{shown} is JSON but not STAC: it is a {type(node).__name__}")
    return node


def _read_bytes(href: str, storage: S3Options, policy: AddressPolicy) -> bytes:
    if href.lower().startswith("s3:"):
        from crosstie.io.storage.store import open_store  # obstore is slow to import

        folder, _, name = href.rpartition("/")
        data = open_store(folder, storage).get(name)
        if data is None:
            raise FileNotFoundError(f"there is no object {name} in {folder}")
        return data
    if is_url(href):
        from crosstie.io.storage.http import get  # slow to import, and not needed for files on a disk

        return get(href, policy)
    return Path(href).read_bytes()
