"""Make the hrefs of a catalog absolute, or refuse them: a catalog is written by others and not trusted."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from crosstie.errors import CatalogError
from crosstie.io.storage.address import (
    REMOTE_SCHEMES,
    AddressPolicy,
    parse_address,
    refuse_ambiguous,
    short_href,
)

SCHEME = re.compile(r"^([A-Za-z0-9_+.-]+):")
"""Text before the first colon: a URL scheme, or the prefix of a GDAL driver (`NETCDF:`, `GTIFF_RAW:`)."""


def resolve_href(
    href: str,
    *,
    catalog_href: str,
    base_href: str | None = None,
    allow: Sequence[Path] = (),
    http_host: str | None = None,
    policy: AddressPolicy | None = None,
) -> str:
    """Make an href of a catalog absolute, or refuse it.

    Allowed are:

    - `https` and `s3`: to the public internet, to the catalog's own host, and to what `policy` allows;
    - `http`: to this machine, from a catalog on this machine;
    - local files: from a local catalog, in the catalog's own folder or a folder of `allow`, after following
      links.

    Anything else could make the reader open something that its user did not intend: other files, other
    services of this machine, or a GDAL driver that opens them.

    Parameters
    ----------
    href : str
        As written in the catalog, relative or absolute.
    catalog_href : str
        Path or URL of the catalog's root file, which the user named and so trusts.
    base_href : str, optional
        Path or URL of the file that contains `href`, if that is not the root file.
    allow : sequence of Path, optional
        Further folders whose files a local catalog may name.
    http_host : str, optional
        A host that may be asked by plain http, although it is not this machine.
    policy : AddressPolicy, optional
        Where the catalog may lead; with it, names of hosts are looked up. If None, the
        address is checked as written only.

    Returns
    -------
    str
        An absolute path without links or `..`, or a URL.

    Raises
    ------
    CatalogError
        The message says which rule forbids the href.
    """
    text = href.strip(" ")
    _refuse_driver_syntax(href, text)
    base = base_href or catalog_href
    try:
        urlsplit(text), urlsplit(base)
    except ValueError as error:
        raise CatalogError(f"href {short_href(href)!r} is no address: {error}") from None
    is_file = text[:5].lower() == "file:"
    if is_url(text) or (is_url(base) and not is_file):
        # the scheme is checked after joining: an href that looks relative may contain one of its own
        address = parse_address(_join_href(base, text) if is_url(base) else text)
        rules = policy or AddressPolicy(parse_address(catalog_href) if is_url(catalog_href) else None)
        rules.check_address(address, shown=href, http_host=http_host)
        if policy is not None:
            policy.check_host(address, shown=href)
        return address.url
    return _local_file(
        href, _path_of_file_url(href, text) if is_file else Path(text), base, catalog_href, allow
    )


def is_url(href: str) -> bool:
    """Say whether `href` is an https, http or s3 URL. Anything else is a path."""
    return urlsplit(href).scheme.lower() in REMOTE_SCHEMES and "://" in href


def _join_href(base: str, text: str) -> str:
    """Join as browsers do. `urljoin` does not know relative addresses of s3."""
    if not base.lower().startswith("s3:") or is_url(text):
        return urljoin(base, text)
    if text.startswith("//"):
        return f"s3:{text}"
    bucket, path = urlsplit(base).netloc, urlsplit(base).path
    return f"s3://{bucket}{posixpath.normpath(posixpath.join(posixpath.dirname(path) or '/', text))}"


def _refuse_driver_syntax(href: str, text: str) -> None:
    refuse_ambiguous(text)
    if text.startswith(("<", "{", "[")):
        raise CatalogError(
            f"href {short_href(href)!r} is GDAL syntax, not an address; a catalog may name https, s3 and"
            " its own files only"
        )
    scheme = SCHEME.match(text)
    if scheme and scheme[1].lower() not in REMOTE_SCHEMES | {"file"}:
        raise CatalogError(
            f"href {short_href(href)!r} begins with {scheme[1]!r}; a catalog may name https, s3 and its own"
            " files only"
        )


def _path_of_file_url(href: str, text: str) -> Path:
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost"):
        raise CatalogError(f"href {short_href(href)!r} is a file of another machine; write file:///path")
    return Path(unquote(parts.path))


def _local_file(href: str, path: Path, base: str, catalog_href: str, allow: Sequence[Path]) -> str:
    if is_url(catalog_href):
        raise CatalogError(
            f"href {short_href(href)!r} is a file of this machine, named by a catalog at"
            f" {urlsplit(catalog_href).hostname}; refused: a remote catalog may name https and s3 only"
        )
    full = (Path(base).parent / path).resolve()
    refuse_ambiguous(str(full))
    home = Path(catalog_href).resolve().parent
    if not any(full.is_relative_to(folder) for folder in (home, *(Path(f).resolve() for f in allow))):
        raise CatalogError(
            f"href {short_href(href)!r} leads to {full}, outside the catalog's folder {home};"
            " move it there or allow its folder explicitly"
        )
    return str(full)
