"""Read the address of a product root as a user writes it, and refuse slips of the pen."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from crosstie.errors import StoreError
from crosstie.io.storage.href import local_path, public_href

HOW = "write a folder, file:///FOLDER or s3://BUCKET/PREFIX"

ONE_SLASH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/?[^/].*|/?)")
"""A scheme without its two slashes: it would be a folder of that name here."""

MARKS = re.compile(r"[?#\x00-\x1f\x7f]")
"""Characters that begin a query or a fragment of a URL, and control characters."""


def root_folder(url: str) -> Path | None:
    """Absolute folder of a root on this machine; None for `s3://...`.

    Raises
    ------
    StoreError
        It is empty, or a slip of the pen that would make a folder of another name.
    """
    if not url.strip():
        raise StoreError(f"the product root is empty: {HOW}")
    slip = ONE_SLASH.fullmatch(url)
    if slip is not None:
        rest = slip[2].lstrip("/")
        wanted = f"file:///{rest}" if slip[1].lower() == "file" else f"{slip[1].lower()}://{rest}"
        raise StoreError(
            f"cannot store products in {public_href(url)}: two slashes lack, {wanted}; or {HOW}"
            f" (a folder of that name is ./{slip[1]}:{slip[2]})"
        )
    if url.lower().startswith("file:") and urlsplit(url).netloc not in ("", "localhost"):
        raise StoreError(f"{public_href(url)} is a folder of another machine: write file:///FOLDER")
    if url.startswith("~"):
        try:
            return Path(url).expanduser().absolute()
        except RuntimeError:
            raise StoreError(f"{url}: there is no such home folder; {HOW}") from None
    return local_path(url)


def bucket_and_prefix(url: str) -> tuple[str, str]:
    """Bucket and prefix of `s3://BUCKET/PREFIX`; empty parts of the prefix count for nothing.

    Raises
    ------
    StoreError
        Another scheme, no bucket, or characters that no prefix should have.
    """
    shown = public_href(url)
    parts = urlsplit(shown)
    if parts.scheme != "s3":
        raise StoreError(f"cannot store products in {shown}: {HOW}")
    if not parts.netloc:
        raise StoreError(f"{shown} names no bucket: write s3://BUCKET/PREFIX")
    if mark := MARKS.search(url):
        raise StoreError(f"{shown} holds {mark[0]!r}, which no prefix should: write s3://BUCKET/PREFIX")
    folders = [folder for folder in parts.path.split("/") if folder not in ("", ".")]
    if ".." in folders:
        raise StoreError(f"{shown} leads up by '..': write s3://BUCKET/PREFIX")
    return parts.netloc, "/".join(folders)
