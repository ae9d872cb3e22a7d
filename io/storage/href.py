"""Addresses of rasters and product roots: which are local, and which parts may be shown or stored."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit
from urllib.request import url2pathname

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

SECRET_PARAMETER = re.compile(
    r"^(x-(amz|goog|oss|ms|cos|obs)-.*|.*(signature|token|secret|credential|passw|auth|api[-_]?key|access[-_]?key).*"
    r"|sig|key|key-pair-id|policy|expires|googleaccessid|user|jwt|sas"
    # an Azure shared access signature: its parts say what it allows, and are useless without `sig`
    r"|s[epvrt]|ss|srt|sip|spr|sdd|saoid|suoid|scid|sk(oid|tid|[tesv]))$",
    re.IGNORECASE,
)
"""Names of query parameters that sign or identify: S3, GCS, Azure, CloudFront and the usual API keys."""


def public_href(href: str) -> str:
    """Make an address public: no user, password, signature, token or fragment.

    A plain path is returned as it is. GDAL's prefixes (`/vsicurl/https://...`) are kept.
    """
    found = _URL.search(href)
    if found is None:
        return href
    prefix, url = href[: found.start()], href[found.start() :]
    parts = urlsplit(url)
    query = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if not SECRET_PARAMETER.match(name)
    ]
    host = parts.netloc.rpartition("@")[2]
    return prefix + urlunsplit((parts.scheme, host, parts.path, urlencode(query, quote_via=quote), ""))


def product_href(href: str) -> str:
    """Make an address that another program can follow from anywhere: public, and absolute where local."""
    path = local_path(href)
    return public_href(href) if path is None else str(path)


def local_path(href: str) -> Path | None:
    """Absolute path of an href that names a file of this machine (plain or `file://`); None for any other."""
    if href.startswith("/vsi"):
        return None
    found = _URL.match(href)
    if found is None:
        return None if _URL.search(href) else Path(href).absolute()
    if found.group().lower() != "file://":
        return None
    return Path(url2pathname(urlsplit(href).path)).absolute()
