"""How the products of a run become public: all files of one writer, or none.

Claims keep writers apart, but not for certain: a writer may sleep while its claim expires, and wake up at any
step. So the files of each writer lie under its own name until one writer is chosen:

    <pair_key>/<run_key>/_WRITING.<writer>/<file>    the files of one writer
    <pair_key>/<run_key>/_WRITER                     the writer that is chosen, and what its files are
    <pair_key>/<run_key>/<file>                      the files of the chosen writer
    <pair_key>/<run_key>/_COMMIT                     what they are; written last

`_WRITER` is created once, so one writer is chosen. From then on everybody, the chosen one or not, moves only
the files of the chosen writer to their final names, and commits only those. It does not matter who does which
step, or whether it is done twice: a writer that dies is finished by the next. `_WRITER` is deleted after the
commit, so whoever is chosen looks for a commit first.
"""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from crosstie.errors import StoreError
from crosstie.io.storage.commit import FileFacts, damage_in, encode_commit, parse_files

if TYPE_CHECKING:
    from types import TracebackType

    from crosstie.io.storage.commit import Files
    from crosstie.io.storage.root_layout import ProductKey
    from crosstie.io.storage.store import Store

AT_ONCE = 8
"""Files that are written or moved at once."""

MOST_TRIES = 20
"""Writers that are given up, because their files are gone, before this one gives up."""


class Publication:
    """The files of one writer of a run. As a context it removes at its end what nobody needs any more."""

    def __init__(self, store: Store, product: ProductKey) -> None:
        self._store = store
        self._product = product
        self._writer = uuid.uuid4().hex[:16]
        self._files: dict[str, FileFacts] = {}
        self._is_chosen = False

    def key(self, name: str) -> str:
        """Key of a file of this writer until it is committed."""
        return self._product.written_by(self._writer, name)

    def put(self, files: dict[str, bytes]) -> None:
        """Write files.

        Raises
        ------
        StoreError
            The root cannot be written.
        """
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda name: self._store.put(self.key(name), files[name]), files))
        self._files |= {name: FileFacts.of(body) for name, body in files.items()}

    def add(self, name: str, facts: FileFacts) -> None:
        """Add a file that was written to its `key` already."""
        self._files[name] = facts

    def commit(self) -> None:
        """Choose a writer, unless one is chosen, and make its files public: those of this writer or not.

        Raises
        ------
        StoreError
            The root cannot be read or written.
        """
        for _ in range(MOST_TRIES):
            chosen = self._chosen()
            if self._store.exists(self._product.commit):
                break
            if chosen is None:
                continue  # deleted this moment, and yet there is no commit: its files were gone
            writer, files = chosen
            if self._publish(writer, files) and self._is_still(writer):
                self._store.create(self._product.commit, encode_commit(files))
                break
            self._give_up(writer)
        else:
            raise StoreError(
                f"{self._store.url_of(self._product.prefix)}: what is written there is removed before it is "
                "committed; see whether another program cleans the root"
            )
        self._tidy()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_chosen:
            return  # committed and tidied up, or left for another writer to finish
        with suppress(StoreError):
            self._store.delete_folder(self._product.writing(self._writer))

    def _chosen(self) -> tuple[str, Files] | None:
        """Choose this writer, or learn who was chosen before; None where it was given up this moment."""
        said = {"writer": self._writer, **json.loads(encode_commit(self._files))}
        if self._store.create(self._product.writer, json.dumps(said).encode()):
            self._is_chosen = True
            return self._writer, self._files
        chosen = read_writer(self._store, self._product)
        self._is_chosen = chosen is not None and chosen[0] == self._writer
        return chosen

    def _publish(self, writer: str, files: Files) -> bool:
        """Move the files of a writer to their final names; False where some are gone."""

        def move(name: str) -> bool:
            moved = self._store.move(
                self._product.written_by(writer, name), self._product.file(name), files[name].size
            )
            # Not there: somebody else has moved it. Or it is lost.
            return moved or damage_in(self._store, self._product, name, files[name]) is None

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return all(list(pool.map(move, files)))

    def _is_still(self, writer: str) -> bool:
        chosen = read_writer(self._store, self._product)
        return chosen is not None and chosen[0] == writer

    def _give_up(self, writer: str) -> None:
        """Let another writer be chosen. Without its files the one that was chosen can write no more."""
        self._store.delete_folder(self._product.writing(writer))
        if self._is_still(writer):
            self._store.delete(self._product.writer)
        self._is_chosen = self._is_chosen and writer != self._writer

    def _tidy(self) -> None:
        """Remove what the commit makes useless. What stays, `crosstie gc` removes."""
        with suppress(StoreError):
            chosen = read_writer(self._store, self._product)
            writers = {self._writer} | (set() if chosen is None else {chosen[0]})
            for writer in writers:
                self._store.delete_folder(self._product.writing(writer))
            if chosen is not None:
                self._store.delete(self._product.writer)


def read_writer(store: Store, product: ProductKey) -> tuple[str, Files] | None:
    """Read which writer is chosen, and what its files are; None where none is, or the record is broken.

    Raises
    ------
    StoreError
        The store cannot be read.
    """
    body = store.get(product.writer)
    if body is None:
        return None
    try:
        writer = json.loads(body)["writer"]
        files = parse_files(body)
    except (ValueError, TypeError, KeyError, RecursionError):
        store.delete(product.writer)  # written whole or not at all: nobody's, and it would block all
        return None
    return str(writer), files
