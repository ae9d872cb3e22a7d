"""List what is under a root, passing over names that other programs left there.

The client of the store ends at the first key that it cannot name (`a//b`, `..`), and at the first folder on a
disk that it may not read or that leads round in a circle. Neither is a product.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

LOG = logging.getLogger(__name__)

STAGED = re.compile(r"#\d+$")
"""End of the name of a file that the store is writing: it is put in its place when it is whole."""


class StoredObject(NamedTuple):
    """An object as a listing has it."""

    key: str
    size_bytes: int
    modified_utc: datetime
    """When it was last written, by the clock of the store."""


def is_plain(key: str) -> bool:
    """Say whether a key has parts that files of a product can have: not empty, not `..`, printable."""
    return all(part not in ("", ".", "..") and part.isprintable() for part in key.split("/"))


def objects_in_folder(folder: Path, prefix: str = "") -> Iterator[StoredObject]:
    """Files below a folder, links followed; a link that leads back is not.

    Raises
    ------
    OSError
        The folder itself cannot be read.
    """
    top = folder / prefix
    if prefix and not top.is_dir():
        return
    yield from _walk(top, f"{prefix.strip('/')}/" if prefix else "", frozenset(), top=True)


def _walk(folder: Path, base: str, above: frozenset[tuple[int, int]], *, top: bool) -> Iterator[StoredObject]:
    try:
        about = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as problem:
        if top:
            raise
        LOG.warning("passed over the folder %s: %s", folder, problem.strerror)
        return
    here = (about.st_dev, about.st_ino)
    if here in above:
        return
    for entry in entries:
        if not is_plain(entry.name):
            continue
        try:
            is_folder, is_file, facts = entry.is_dir(), entry.is_file(), entry.stat()
        except OSError:  # a link to itself, or gone since
            continue
        if is_folder:
            yield from _walk(folder / entry.name, f"{base}{entry.name}/", above | {here}, top=False)
        elif is_file and not STAGED.search(entry.name):
            when = datetime.fromtimestamp(facts.st_mtime, UTC)
            yield StoredObject(base + entry.name, facts.st_size, when)
