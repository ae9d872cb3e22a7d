"""Object storage: one folder or bucket prefix, five operations, the same on a disk and on S3."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore, S3Store

from crosstie.errors import StoreError
from crosstie.io.storage.listing import StoredObject, is_plain, objects_in_folder
from crosstie.io.storage.redaction import first_line
from crosstie.io.storage.root_address import bucket_and_prefix, root_folder
from crosstie.io.storage.s3 import (
    ENDPOINTS,
    FROM_ENVIRONMENT,
    S3Options,
    objects_of_bucket,
    obstore_options,
    speaks_http,
)
from crosstie.io.storage.trust import UNTRUSTED, is_untrusted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore.store import RetryConfig

_RETRY: RetryConfig = {
    # Not obstore's three minutes: the user should see an error about a wrong endpoint while still watching.
    "retry_timeout": timedelta(seconds=30),
    # The time decides. Waits are drawn at random, and five of them were over after a second or two, while a
    # store that has just started, or makes room, may answer 500 for longer.
    "max_retries": 1000,
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=3), "base": 2},
}

MULTIPART_BYTES = 8 * 2**20
"""Larger objects are uploaded in parts, each with its own retries; no reader sees half an object."""

MOST_COPIED_BYTES = 5 * 10**9
"""S3 copies no more in one request."""

SCRATCH_PREFIX = ".crosstie-"
"""Begins the name of a folder for files that are being made."""

READ_PIECE_BYTES = 2**18
"""Size of the pieces in which `Store.open` reads an object, bytes."""

CONFLICT_WAITS_S = (0.1, 0.3, 1.0, 3.0)
"""Waits before an object is created again that another request is creating, seconds."""

_CONFLICT = "status code: 409"
"""How the client's error tells a conflict from an object that exists (412)."""

_MISSING = (NotFoundError, FileNotFoundError)


def is_fault(error: BaseException) -> bool:
    """Say whether an error is one of the store: those that it names, and a panic inside its client."""
    return isinstance(error, BaseError | OSError | ValueError) or type(error).__name__ == "PanicException"


@dataclass(frozen=True, slots=True)
class Reading:
    """An object while it is read."""

    size_bytes: int
    etag: str | None
    """Entity tag of the store, which changes with the object; None if the store gives none."""
    pieces: Iterator[bytes] = field(repr=False, compare=False)
    """The whole object; iterate once. Raises StoreError if the store fails meanwhile."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that was put into a store."""

    url: str
    size_bytes: int
    sha256: str
    """Hex digits."""


@dataclass(frozen=True, slots=True)
class Store:
    """A root under which products live; keys are relative, with `/` between their parts."""

    url: str
    """The root in a form that may be shown: absolute, without secrets and without a final slash."""
    storage: S3Options
    """How to reach S3; not used on a disk."""
    _folder: Path | None = field(repr=False, compare=False)
    _bucket: S3Store | None = field(repr=False, compare=False)

    def __reduce__(self) -> tuple[object, tuple[str, S3Options]]:
        # Opened again after unpickling: a client holds keys, and a pickle may be stored.
        return open_store, (self.url, self.storage)

    def url_of(self, key: str) -> str:
        """Address of one object or of a prefix."""
        return f"{self.url}/{key}"

    def put(self, key: str, data: bytes) -> None:
        """Write an object whole or not at all (no reader sees half of it). An older one is replaced.

        Raises
        ------
        StoreError
            The root cannot be written.
        """
        with self._as_store_error(f"write {key}"):
            large = len(data) > MULTIPART_BYTES
            obstore.put(self._objects(make=True), key, data, use_multipart=large, chunk_size=MULTIPART_BYTES)

    @contextmanager
    def scratch(self, key: str) -> Iterator[Path]:
        """Make a folder for a large file that `put_file` will store; it is removed when the block ends.

        On a disk the folder is next to the final place of the file, so that no bytes are copied; else it is a
        temporary folder.

        Raises
        ------
        StoreError
            The folder cannot be made.
        """
        parent = None if self._folder is None else (self._folder / key).parent
        with self._as_store_error(f"make a folder for {key}"):
            if parent is not None:
                parent.mkdir(parents=True, exist_ok=True)
            folder = TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=parent)
        with folder as name:
            yield Path(name)

    def put_file(self, key: str, path: Path) -> StoredFile:
        """Write a file whole or not at all. An older one is replaced. On a disk `path` itself is moved.

        Raises
        ------
        StoreError
            The root cannot be written.
        """
        with self._as_store_error(f"write {key}"):
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size_bytes = path.stat().st_size
            if self._folder is not None:
                path.replace(self._folder / key)
            else:
                obstore.put(
                    self._objects(),
                    key,
                    path,
                    use_multipart=True,
                    chunk_size=MULTIPART_BYTES,
                    max_concurrency=4,
                )
        return StoredFile(self.url_of(key), size_bytes, sha256)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object that must not exist yet. If several try at once, exactly one gets True.

        Raises
        ------
        StoreError
            The root cannot be written.
        """
        with self._as_store_error(f"create {key}"):
            for wait_s in (*CONFLICT_WAITS_S, None):
                try:
                    obstore.put(self._objects(make=True), key, data, mode="create")
                    return True
                except AlreadyExistsError as error:
                    # S3 answers 409 while another request for the key is on its way: neither has won yet.
                    # The client calls that an object that exists, too.
                    if _CONFLICT not in str(error) or self.exists(key):
                        return False
                    if wait_s is None:
                        raise
                    time.sleep(wait_s)
        raise AssertionError  # the last attempt returns or raises

    def get(self, key: str) -> bytes | None:
        """Read an object; None if there is none.

        Raises
        ------
        StoreError
            The root cannot be read.
        """
        if self._is_missing_folder():
            return None
        with self._as_store_error(f"read {key}"):
            try:
                return bytes(obstore.get(self._objects(), key).bytes())
            except _MISSING as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None

    def open(self, key: str) -> Reading | None:
        """Start to read an object piece by piece; None if there is none.

        Raises
        ------
        StoreError
            The store cannot be read.
        """
        if self._is_missing_folder():
            return None
        with self._as_store_error(f"read {key}"):
            try:
                found = obstore.get(self._objects(), key)
            except _MISSING as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None
            return Reading(found.meta["size"], found.meta.get("e_tag"), self._pieces(key, found))

    def _pieces(self, key: str, found: obstore.GetResult) -> Iterator[bytes]:
        with self._as_store_error(f"read {key}"):
            for piece in found.stream(min_chunk_size=READ_PIECE_BYTES):
                yield bytes(piece)

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none.

        Raises
        ------
        StoreError
            The root cannot be written.
        """
        if self._is_missing_folder():
            return
        with self._as_store_error(f"delete {key}"):
            try:
                obstore.delete(self._objects(), key)
            except _MISSING as error:
                if "NoSuchBucket" in str(error):
                    raise

    def delete_folder(self, prefix: str) -> None:
        """Remove all objects below `prefix` (whole path parts), and on a disk the folder.

        Raises
        ------
        StoreError
            The root cannot be written.
        """
        with self._as_store_error(f"delete {prefix}"):
            if self._folder is not None:
                with suppress(FileNotFoundError):
                    shutil.rmtree(self._folder / prefix)
            elif keys := list(self.each_key(prefix)):
                obstore.delete(self._objects(), keys)

    def move(self, source: str, target: str, size_bytes: int) -> bool:
        """Give an object another key, whole or not at all, in place of what has that key.

        S3 cannot rename: there the object is copied, and stays under its old key as well.

        Parameters
        ----------
        size_bytes : int
            Size of the object: one request copies at most 5 GB.

        Returns
        -------
        bool
            False where there is no such object.

        Raises
        ------
        StoreError
            The root cannot be read or written.
        """
        with self._as_store_error(f"move {source} to {target}"):
            try:
                if self._bucket is None:
                    obstore.rename(self._objects(), source, target)
                elif size_bytes <= MOST_COPIED_BYTES:
                    obstore.copy(self._bucket, source, target)
                else:
                    pieces = obstore.get(self._bucket, source).stream(min_chunk_size=MULTIPART_BYTES)
                    obstore.put(self._bucket, target, pieces, use_multipart=True, chunk_size=MULTIPART_BYTES)
            except _MISSING as error:
                if "NoSuchBucket" in str(error):
                    raise
                return False
        return True

    def exists(self, key: str) -> bool:
        """Say whether there is an object with this key."""
        if self._is_missing_folder():
            return False
        with self._as_store_error(f"look for {key}"):
            try:
                obstore.head(self._objects(), key)
            except _MISSING:
                return False
        return True

    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys of all objects below `prefix` (whole path parts), sorted."""
        yield from sorted(self.each_key(prefix))

    def each_key(self, prefix: str = "") -> Iterator[str]:
        """Keys as in `list`, but unsorted and page by page: only one page is in memory."""
        yield from (stored.key for stored in self.each_object(prefix))

    def each_object(self, prefix: str = "") -> Iterator[StoredObject]:
        """Objects below `prefix` (whole path parts), unsorted and page by page."""
        if self._is_missing_folder():
            return
        with self._as_store_error(f"list {prefix or 'everything'}"):
            if self._folder is not None:
                yield from objects_in_folder(self._folder, prefix)
                return
            last = ""
            try:
                for page in obstore.list(self._objects(), prefix or None):
                    for entry in page:
                        last = entry["path"]
                        yield StoredObject(last, entry["size"], entry["last_modified"])
            except BaseError as error:
                if "invalid path" not in str(error):
                    raise
                yield from self._objects_one_by_one(prefix, after=last)

    def _objects_one_by_one(self, prefix: str, *, after: str) -> Iterator[StoredObject]:
        """Objects after a key, in the order of S3: here a key that obstore cannot name is passed over."""
        name, root = bucket_and_prefix(self.url)
        base = f"{root}/" if root else ""
        below = f"{base}{prefix.strip('/')}/" if prefix else base
        for stored in objects_of_bucket(self.storage, name, below, after=f"{base}{after}" if after else ""):
            key = stored.key.removeprefix(base)
            if is_plain(key):
                yield stored._replace(key=key)

    def must_be_there(self) -> None:
        """Refuse a folder that is not there: who only reads has misspelt it. A prefix of S3 is no thing.

        Raises
        ------
        StoreError
            There is no such folder.
        """
        if self._is_missing_folder():
            raise StoreError(
                f"there is no folder {self._folder}: check --out, or register a pair into it first"
            )

    def _is_missing_folder(self) -> bool:
        return self._folder is not None and not self._folder.exists()

    def _objects(self, *, make: bool = False) -> LocalStore | S3Store:
        if self._bucket is not None:
            check_certificate(self.storage, bucket_and_prefix(self.url)[0])
            return self._bucket
        # Opened when used: the first product makes the folder, a dry run does not.
        return LocalStore(self._folder, mkdir=make)

    @contextmanager
    def _as_store_error(self, action: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            if not is_fault(error):
                raise
            step = UNTRUSTED if is_untrusted(error) else self._next_step()
            raise StoreError(f"cannot {action} in {self.url}: {first_line(error)}; {step}") from None

    def _next_step(self) -> str:
        if self._folder is not None:
            return "check that this folder may be written, or choose another root"
        return (
            "check that the bucket exists and may be written, the settings `storage`, and AWS_ENDPOINT_URL, "
            "AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


def open_store(url: str, storage: S3Options = FROM_ENVIRONMENT) -> Store:
    """Open a product root. Nothing is read, written or created yet.

    Parameters
    ----------
    url : str
        A path, `file://...` or `s3://bucket[/prefix]`.
    storage : S3Options, optional
        How to reach S3; by default as the environment says (`AWS_ENDPOINT_URL`, `AWS_REGION`,
        `AWS_ACCESS_KEY_ID`, ...). Plain http is used only if the endpoint begins with `http://`.

    Returns
    -------
    Store
        The product root.

    Raises
    ------
    StoreError
        Another scheme, a slip of the pen, a URL without a bucket, or a profile that does not exist.
    """
    folder = root_folder(url)
    if folder is not None:
        return Store(url=folder.as_uri(), storage=storage, _folder=folder, _bucket=None)
    name, prefix = bucket_and_prefix(url)
    shown = f"s3://{name}/{prefix}" if prefix else f"s3://{name}"
    with _s3_environment(shown):
        bucket = S3Store(
            name,
            prefix=prefix or None,
            client_options={
                "allow_http": speaks_http(storage),
                "connect_timeout": "10s",
                "timeout": "120s",
            },
            retry_config=_RETRY,
            **obstore_options(storage, name),
        )
    return Store(url=shown, storage=storage, _folder=None, _bucket=bucket)


@contextmanager
def _s3_environment(shown: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if not is_fault(error):
            raise
        raise StoreError(
            f"cannot open {shown}: {first_line(error)}; check the settings `storage` and the AWS_..."
            " variables of the environment"
        ) from None


def check_certificate(storage: S3Options, bucket: str) -> None:
    """Ask an S3 server once in this process, and without repetition, whether its certificate is trusted.

    The client would repeat its requests, and a certificate that is not trusted stays so.

    Raises
    ------
    obstore.exceptions.BaseError
        It is not trusted. Whatever else is wrong, the next request tells.
    """
    _shake_hands(storage, bucket, tuple(map(os.environ.get, (*ENDPOINTS, "SSL_CERT_FILE"))))


@lru_cache(maxsize=64)
def _shake_hands(storage: S3Options, bucket: str, told: tuple[str | None, ...]) -> None:
    """Send one request. `told`: what the environment says of the server and of who is trusted."""
    del told  # part of the cache key only
    if speaks_http(storage):
        return
    options = {**obstore_options(storage, bucket), "skip_signature": True}
    options.pop("credential_provider", None)  # keys may be slow to come
    client = S3Store(
        bucket,
        client_options={"connect_timeout": "5s", "timeout": "5s"},
        retry_config={"max_retries": 0},
        **options,
    )
    try:
        obstore.head(client, ".crosstie-certificate")
    except BaseException as error:
        if is_untrusted(error) or not is_fault(error):
            raise
