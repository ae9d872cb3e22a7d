"""`_COMMIT`: which files a run has, with size and sha256 of each; and whether they are still so.

A commit is the last word on a run. What it does not list is no part of the products, and a file that differs
from what it lists is damaged: nobody may go by it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from crosstie.errors import DamagedProductError, StoreError
from crosstie.io.storage.href import local_path
from crosstie.io.storage.root_layout import COMMIT, FAILURE, RESERVED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crosstie.io.storage.root_layout import ProductKey
    from crosstie.io.storage.store import Reading, Store

MAX_COMMIT_BYTES = 2**20
"""A larger `_COMMIT` was not written by crosstie: one has some 1 KB."""

ALWAYS = ("correction.json", "item.json")
"""Files without which no run is committed."""

REPAIR = "`crosstie verify --repair` takes its commit away; then run the pair again"
"""What to do about damage."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(rf"[^{RESERVED}./\x00-\x1f][^/\x00-\x1f]*")

Files = Mapping[str, "FileFacts"]
"""File name -> what the commit says of it."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a commit says of a file."""

    size: int
    """Bytes."""
    sha256: str
    """Hex digits."""

    @classmethod
    def of(cls, body: bytes) -> Self:
        """Facts of these bytes."""
        return cls(len(body), hashlib.sha256(body).hexdigest())


class DamageKind(StrEnum):
    """What is wrong with a file of a committed run."""

    MISSING = "missing"
    EXTRA = "extra"
    """The commit does not list it; the products are whole without it."""
    TRUNCATED = "truncated"
    EDITED = "edited"
    UNREADABLE = "unreadable"
    """The disk does not give it. On S3 that is an error of the whole store, not of one file."""
    COMMIT = "wrong commit"
    """`_COMMIT` cannot be read, or lists what no run has."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One file of a committed run that is not as its commit says."""

    name: str
    kind: DamageKind
    detail: str
    """What was found, in a few words."""

    @property
    def harms(self) -> bool:
        """Whether the products are less than the commit promises; a file too many harms nobody."""
        return self.kind is not DamageKind.EXTRA

    def __str__(self) -> str:
        return f"{self.name}: {self.kind}, {self.detail}"


def encode_commit(files: Files) -> bytes:
    """Write a commit as `read_commit` reads it."""
    said = {name: {"size": facts.size, "sha256": facts.sha256} for name, facts in files.items()}
    return (json.dumps({"files": said}, indent=1, ensure_ascii=False) + "\n").encode()


def read_commit(store: Store, product: ProductKey) -> Files | None:
    """Read what a run has committed; None where it is not committed.

    Raises
    ------
    DamagedProductError
        There is a commit that makes no sense.
    StoreError
        The store cannot be read.
    """
    try:
        return _listed(store, product)
    except ValueError as problem:
        raise _damaged(store, product, COMMIT, str(problem)) from None


def read_committed(store: Store, product: ProductKey, name: str, files: Files | None = None) -> bytes:
    """Read a file of a committed run, and make sure that it is what was committed.

    Parameters
    ----------
    files : Files, optional
        What the run has committed, where that has been read already.

    Raises
    ------
    DamagedProductError
        The file is missing or differs, or the run is no longer committed.
    StoreError
        The store cannot be read.
    """
    files = read_commit(store, product) if files is None else files
    facts = (files or {}).get(name)
    if facts is None:
        raise _damaged(store, product, name, f"its {COMMIT} does not list it")
    with _of_one_file(store, product, name):
        # Opened, not fetched: a file that has grown to any size is not read.
        reading = store.open(product.file(name))
        damage = _size_damage(name, facts, reading)
        if reading is None or damage is not None:
            what = "missing" if damage is None else f"{damage.kind}, {damage.detail}"
            raise _damaged(store, product, name, what)
        body = b"".join(reading.pieces)
    if FileFacts.of(body) != facts:
        raise _damaged(store, product, name, _OTHER_CONTENT)
    return body


def checked_pieces(reading: Reading, facts: FileFacts, url: str) -> Iterator[bytes]:
    """Pass on a file piece by piece, the last piece only when all of it is what was committed.

    Raises
    ------
    DamagedProductError
        It is not; whoever counts the bytes sees that some are missing.
    """
    digest, held = hashlib.sha256(), b""
    for piece in reading.pieces:
        digest.update(piece)
        if held:
            yield held
        held = piece
    if digest.hexdigest() != facts.sha256:
        raise DamagedProductError(f"{url} is committed but damaged ({_OTHER_CONTENT}); {REPAIR}")
    yield held


def damage_of(store: Store, product: ProductKey, names: Iterable[str] | None = None) -> list[Damage]:
    """Compare all files of a run with its commit; empty where all is well or nothing is committed.

    Parameters
    ----------
    names : Iterable[str], optional
        Names of the files in the folder of the run, where they are known already.

    Raises
    ------
    StoreError
        The store cannot be read.
    """
    try:
        files = _listed(store, product)
    except ValueError as problem:
        return [Damage(COMMIT, DamageKind.COMMIT, str(problem))]
    except DamagedProductError as problem:
        return [Damage(COMMIT, DamageKind.UNREADABLE, str(problem))]
    if files is None:
        return []
    if names is None:
        names = (key.removeprefix(f"{product.prefix}/") for key in store.each_key(product.prefix))
    own = {name for name in names if "/" not in name and not name.startswith(RESERVED)}
    found = [
        Damage(COMMIT, DamageKind.COMMIT, f"does not list {name}") for name in ALWAYS if name not in files
    ]
    for name, facts in sorted(files.items()):
        damage = damage_in(store, product, name, facts)
        found += [] if damage is None else [damage]
    found += [
        Damage(name, DamageKind.EXTRA, f"{COMMIT} does not list it") for name in sorted(own - files.keys())
    ]
    return found


_OTHER_CONTENT = "of the committed size, but of other content"


def damage_in(store: Store, product: ProductKey, name: str, facts: FileFacts) -> Damage | None:
    """Compare one file of a run with what is said of it; None where it is so.

    Raises
    ------
    StoreError
        The store cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with _of_one_file(store, product, name):
            reading = store.open(product.file(name))
            damage = _size_damage(name, facts, reading)
            if reading is None or damage is not None:
                return damage
            for piece in reading.pieces:
                digest.update(piece)
    except DamagedProductError as problem:
        return Damage(name, DamageKind.UNREADABLE, str(problem))
    return None if digest.hexdigest() == facts.sha256 else Damage(name, DamageKind.EDITED, _OTHER_CONTENT)


@contextmanager
def _of_one_file(store: Store, product: ProductKey, name: str) -> Iterator[None]:
    """On a disk, take a file that cannot be read for damage of its run: of permissions, or a bad block."""
    try:
        yield
    except DamagedProductError:
        raise
    except StoreError as problem:
        if local_path(store.url) is None:
            raise
        raise _damaged(store, product, name, f"{DamageKind.UNREADABLE}, {problem}") from None


def _size_damage(name: str, facts: FileFacts, reading: Reading | None) -> Damage | None:
    """What the size alone says of a file."""
    if reading is None:
        return Damage(name, DamageKind.MISSING, f"{facts.size} bytes were committed")
    if reading.size_bytes == facts.size:
        return None
    kind = DamageKind.TRUNCATED if reading.size_bytes < facts.size else DamageKind.EDITED
    return Damage(name, kind, f"{reading.size_bytes} bytes of {facts.size}")


def _damaged(store: Store, product: ProductKey, name: str, what: str) -> DamagedProductError:
    return DamagedProductError(
        f"{store.url_of(product.file(name))} is committed but damaged ({what}); {REPAIR}"
    )


def _listed(store: Store, product: ProductKey) -> dict[str, FileFacts] | None:
    """Read a commit and take it apart; None where there is none.

    Raises
    ------
    ValueError
        It makes no sense; says why.
    DamagedProductError
        The disk does not give it.
    """
    with _of_one_file(store, product, COMMIT):
        reading = store.open(product.commit)
        if reading is None:
            return None
        if reading.size_bytes > MAX_COMMIT_BYTES:
            raise ValueError(f"{reading.size_bytes} bytes are no commit")
        body = b"".join(reading.pieces)
    return parse_files(body)


def parse_files(body: bytes) -> dict[str, FileFacts]:
    """Read the files of what `encode_commit` has written.

    Raises
    ------
    ValueError
        It makes no sense; says why.
    """
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("no JSON") from None
    listed = said.get("files", {}) if isinstance(said, dict) else None
    if not isinstance(listed, dict):
        raise ValueError("lists no files")
    return {_file_name(name): _facts(name, facts) for name, facts in listed.items()}


def _file_name(name: str) -> str:
    """Refuse what would lead to another folder, or is no product."""
    if not _FILE_NAME.fullmatch(name) or name in {COMMIT, FAILURE}:
        raise ValueError(f"lists {name[:100]!r}, which is no name of a product")
    return name


def _facts(name: str, said: object) -> FileFacts:
    size, sha256 = (said.get("size"), said.get("sha256")) if isinstance(said, dict) else (None, None)
    if type(size) is not int or size < 0 or not isinstance(sha256, str) or not _DIGEST.fullmatch(sha256):
        raise ValueError(f"says of {name[:100]!r} no size and sha256")
    return FileFacts(size, sha256)
