"""The one way to open a raster through GDAL: allowed addresses, drivers and settings."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.session import DummySession, Session

from crosstie.errors import CatalogError, UnreadableRasterError
from crosstie.io.raster import jpeg2000
from crosstie.io.raster.delivered.safe import MOST_FILES_SHOWN, images_in_safe
from crosstie.io.raster.untrusted import refuse_untrusted
from crosstie.io.storage.href import public_href
from crosstie.io.storage.href_policy import is_url, resolve_href
from crosstie.io.storage.redaction import redacted, without_queries
from crosstie.io.storage.s3 import FROM_ENVIRONMENT, S3Options, gdal_options
from crosstie.io.storage.signing import signed
from crosstie.io.storage.trust import GDAL_VARIABLE, UNTRUSTED, is_untrusted, trust

IMAGE_DRIVERS = ("GTiff", "COG", "JP2OpenJPEG", "PNG", "JPEG")
"""Drivers that read pixels. What a file of theirs names in turn is refused once it is open."""

OWN_DRIVERS = (*IMAGE_DRIVERS, "VRT")
"""A VRT names further files: only for a path that the user gave, never for one that a catalog gave.
The same goes for what lies beside a file: overviews, masks, coordinates (`.ovr`, `.msk`, `.tfw`, ...)."""

HEADER_BYTES = 16_384
"""Size of the first request: holds the header of a COG of 10,980 px and 512-px blocks with its overviews."""

CACHE_PIECE_BYTES = 4_096
"""Smallest piece that GDAL fetches and keeps. While it reads on without a gap it doubles its requests, up to
128 pieces. Smaller pieces cost more requests, larger ones fetch bytes that nobody needs."""

CACHE_BYTES = 128 * 2**20
"""Size of the cache of remote files in a process, bytes as stored. What two windows share, and what planning
has read already, is not fetched again. Holds a row of windows of the largest scenes many times."""

BLOCKS_BYTES = 32 * 2**20
"""Size of the cache of decoded blocks in a process, bytes: only GDAL's own programs take such numbers as MB.
Without a cache a block is decoded anew for each band and window; GDAL's default, 5 % of memory, grows with
the machine."""

CACHED = "/vsisubfile/0_0,"
"""GDAL's name for `the whole file, from byte 0`. Behind it, GDAL reads block by block through that cache;
of a plain /vsis3/ file it reads many ranges at once, past the cache, and fetches shared blocks each time."""

# Control points, masks and chips have no geotransform: `header` says where that is a fault. Set once and not
# around each opening: `catch_warnings` swaps the filters of the whole process, and pairs are read in threads.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=r"crosstie\.io\.")

_SCHEME = re.compile(r"^([A-Za-z0-9_+.-]+):")


def check_href(href: str | Path) -> str:
    """Check an address, and return what to open for it.

    Allowed are local paths and `file://`, `https`, `s3`, and `http` to this machine. GDAL's own syntax
    (`/vsi...`, `NETCDF:...`, XML) is refused: it reaches whatever GDAL reaches. Addresses from a catalog
    have passed the narrower `href_policy.resolve_href` before.

    Returns
    -------
    str
        A local path or a URL, to be opened by `opened`.

    Raises
    ------
    UnreadableRasterError
        Not allowed; the message says which rule.
    """
    if isinstance(href, Path):
        return _local_path(str(href))
    if is_url(href):
        try:
            return resolve_href(href, catalog_href=href)
        except CatalogError as error:
            raise UnreadableRasterError(str(error)) from None
    scheme = _SCHEME.match(href)
    if scheme and scheme[1].lower() == "file":
        return _local_path(unquote(urlsplit(href).path))
    if scheme:
        raise UnreadableRasterError(
            f"{href[:200]!r} begins with {scheme[1]!r}, which is no address of a file; give a path,"
            " https:// or s3:// (for a file whose name holds a colon: ./name)"
        )
    return _local_path(href)


def _local_path(path: str) -> str:
    if not path.strip() or any(ord(char) < 32 for char in path) or path.lstrip().startswith(("<", "{", "[")):
        raise UnreadableRasterError(f"{path[:200]!r} is not a file name; give the path of a raster")
    if re.match(r"/*vsi", os.path.normpath(path), re.IGNORECASE):
        raise UnreadableRasterError(
            f"{path[:200]!r} is GDAL's virtual file system; give a path, https:// or s3://"
        )
    return path


def gdal_settings(href: str, *, beside: bool) -> dict[str, Any]:
    """GDAL's settings for reading `href`; `beside`: with what lies beside a file of this machine."""
    settings: dict[str, Any] = {
        "GDAL_CACHEMAX": BLOCKS_BYTES,
        "GDAL_NUM_THREADS": 1,  # tiles are read side by side already
        # The file has no siblings: GDAL opens what lies beside it with any driver, and a VRT of the
        # name `a.tif.ovr` leads anywhere. Over http each sibling costs a request besides.
        "GDAL_DISABLE_READDIR_ON_OPEN": "FALSE" if beside and not is_url(href) else "EMPTY_DIR",
        # For files of this machine, too: a VRT may name remote ones. GDAL makes one cache for all remote
        # files of a process when the first of them is opened, and its size stays as it was set then.
        "CPL_VSIL_CURL_CHUNK_SIZE": CACHE_PIECE_BYTES,
        "CPL_VSIL_CURL_CACHE_SIZE": CACHE_BYTES,
    }
    if not is_url(href):
        return settings
    settings |= {
        # The header and the index of the blocks come with the first request, which also tells the size.
        "GDAL_INGESTED_BYTES_AT_OPEN": HEADER_BYTES,
        "CPL_VSIL_CURL_USE_HEAD": "NO",
        "GDAL_HTTP_CONNECTTIMEOUT": 10,
        "GDAL_HTTP_TIMEOUT": 60,
        "GDAL_HTTP_MAX_RETRY": 3,
        "GDAL_HTTP_RETRY_DELAY": 1,
    }
    return settings


@contextmanager
def opened(
    href: str, *, drivers: tuple[str, ...], storage: S3Options = FROM_ENVIRONMENT
) -> Iterator[DatasetReader]:
    """Open a checked address under our settings, and check what GDAL has opened.

    Parameters
    ----------
    drivers : tuple[str, ...]
        `IMAGE_DRIVERS`, or `OWN_DRIVERS` for what the user named: then side files count as well.
    storage : S3Options, optional
        How S3 is reached.

    Raises
    ------
    StoreError
        The profile that `storage` names gives no credentials.
    UnreadableRasterError
        Missing, not a raster of an allowed driver, leading on to other files, or beyond a limit of
        `untrusted`.
    """
    if not is_url(href) and not Path(href).is_file():
        raise UnreadableRasterError(_not_a_raster(Path(href)))
    _GDAL_LOG.addFilter(_REDACT)  # once: a filter that is there already is not added again
    settings = gdal_settings(href, beside="VRT" in drivers)
    if (bundle := trust(storage.ca_file)) is not None:
        settings[GDAL_VARIABLE] = bundle
    with rasterio.Env(session=_Access(href, storage), **settings):
        try:
            raster = _open_allowed(_followed(signed(href)), drivers)
        except RasterioError as error:
            cause = _cause(error)
            step = UNTRUSTED if _is_refused_on_s3(href, storage) else _next_step(href, cause, drivers)
            raise UnreadableRasterError(
                f"{public_href(href)}: cannot be opened as a raster ({cause}); {step}"
            ) from None
        with raster, _texts_of(href):
            refuse_untrusted(raster, name=public_href(href), drivers=drivers)
            yield raster


@contextmanager
def _texts_of(href: str) -> Iterator[None]:
    """Refuse a file whose names, units or tags are no text; rasterio decodes each when it is asked for."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UnreadableRasterError(
            f"{public_href(href)}: its metadata are not UTF-8 ({error.object[:40]!r}); write the file again"
        ) from None


def _not_a_raster(path: Path) -> str:
    """What to say of a path that is no file: the name of a folder's sort, and what to give of it."""
    if not path.is_dir():
        return f"{path}: no such file; check the path"
    if path.suffix.lower() == ".zarr" or any((path / name).is_file() for name in (".zgroup", "zarr.json")):
        return f"{path}: is a Zarr store, which is not read; export the 10 m band, or the echo, as GeoTIFF"
    if (found := images_in_safe(path)) is not None:
        mission, files = found
        shown = " or ".join(map(str, files[:MOST_FILES_SHOWN]))
        return f"{path}: is a folder, the SAFE of a {mission} scene; give its image instead: {shown}"
    if path.suffix.upper() == ".SAFE":
        return f"{path}: is a SAFE folder without images; fetch the product again"
    return f"{path}: is a folder; give the raster in it"


def _followed(href: str) -> str:
    """Where GDAL shall read: the end of all redirects, each agreed to. GDAL would follow without asking.

    Raises
    ------
    UnreadableRasterError
        One leads where it may not, or the server does not answer.
    """
    if not href.startswith(("http:", "https:")):
        return href
    from crosstie.io.storage.http import final_address  # slow to import, and not needed for files on a disk

    try:
        return final_address(href)
    except CatalogError as problem:
        raise UnreadableRasterError(
            f"{public_href(href)}: its server redirects or leads astray: {problem}"
        ) from None
    except OSError as problem:
        cause = without_queries(_cause(problem))
        step = _next_step("", f"{cause}: connect", ())
        raise UnreadableRasterError(
            f"{public_href(href)}: cannot be opened as a raster ({cause}); {step}"
        ) from None


class _Redact(logging.Filter):
    """GDAL's warnings name the address that failed, signature and all."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage()), ()
        return True


_GDAL_LOG, _REDACT = logging.getLogger("rasterio._env"), _Redact()


class _Access(Session):  # type: ignore[misc]  # rasterio has no types
    """How GDAL reaches S3, where a file lies there. rasterio takes keys from a session only."""

    def __init__(self, href: str, storage: S3Options) -> None:
        self._options = gdal_options(storage) if href.startswith("s3:") else {}

    def get_credential_options(self) -> dict[str, Any]:
        return self._options


def _open_allowed(href: str, drivers: tuple[str, ...]) -> DatasetReader:
    # `rasterio.open` takes one driver only; the class takes an allow-list.
    if not is_url(href):
        return _reader(href, drivers)
    path = re.sub(r"^(?=https?:)", "/vsicurl/", re.sub(r"^s3://", "/vsis3/", href))
    try:
        return _reader(f"{CACHED}{path}", drivers)
    except RasterioError:
        _forget(path, drivers)
        return _reader(f"{CACHED}{path}", drivers)


def _reader(path: str, drivers: tuple[str, ...]) -> DatasetReader:
    """Let GDAL open a file; JPEG 2000 only once its claims are checked, for opening alone fills memory."""
    try:
        return DatasetReader(path, driver=[driver for driver in drivers if driver != jpeg2000.DRIVER])
    except RasterioError:
        if jpeg2000.DRIVER not in drivers or not jpeg2000.is_jpeg2000(path):
            raise
    jpeg2000.refuse_greedy(path, shown_name(path))
    return DatasetReader(path, driver=[jpeg2000.DRIVER])


def _forget(path: str, drivers: tuple[str, ...]) -> None:
    """Open a remote file without the cache: GDAL gives the reason, and forgets the failure.

    Raises
    ------
    RasterioError
        The server's reason, where there is one.
    """
    with rasterio.Env(session=DummySession(), CPL_VSIL_CURL_NON_CACHED=path):
        _reader(path, drivers).close()


def _is_refused_on_s3(href: str, storage: S3Options) -> bool:
    """Whether S3's certificate is not trusted: GDAL only says then that there is no such file."""
    if not href.lower().startswith("s3://"):
        return False
    from crosstie.io.storage.store import check_certificate, is_fault  # slow to import, and seldom needed

    try:
        check_certificate(storage, urlsplit(href).netloc)
    except BaseException as error:
        if not is_fault(error):
            raise
        return is_untrusted(error)
    return False


def _next_step(href: str, cause: str, drivers: tuple[str, ...]) -> str:
    if is_untrusted(cause):
        return UNTRUSTED
    if re.search(r"code: 40[13]|access|signature|forbidden|credential", cause, re.IGNORECASE):
        return (
            "check that it may be read with these credentials: the settings `storage`, AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY, or the signature of the address"
        )
    if re.search(r"code: 5\d\d|timed? ?out|resolve|connect", cause, re.IGNORECASE):
        return "its server does not answer as it should: check the address and storage.endpoint, or try later"
    if "code: 404" in cause:
        return "there is no such file: check the address"
    if href.lower().endswith(".zip"):
        return "unpack it, and give the folder (.SAFE) or the raster in it"
    return f"give a {', '.join(drivers)} file, and check that it has arrived whole"


def shown_name(name: str) -> str:
    """Return the name of an open raster, without secrets and as other programs can open it."""
    return public_href(name.removeprefix(CACHED))


@contextmanager
def reading(raster: DatasetReader) -> Iterator[None]:
    """Turn GDAL's errors while pixels are read into one that names the file.

    Raises
    ------
    UnreadableRasterError
        A block is missing or damaged.
    """
    try:
        # What no number of another type can say becomes NaN or infinite there, and is invalid.
        with np.errstate(invalid="ignore", over="ignore"):
            yield
    except RasterioError as error:
        step = "the file is probably cut short: fetch it again"
        if raster.name.startswith(CACHED):
            step = "its server failed, or it has changed or is cut short there: try again"
            with suppress(RasterioError):
                _forget(raster.name.removeprefix(CACHED), (raster.driver,))
        raise UnreadableRasterError(
            f"{shown_name(raster.name)}: pixels cannot be read ({_cause(error)}); {step}"
        ) from None


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip().replace(CACHED, "")
    return redacted(text.splitlines()[0])[:300]
