"""The products of a run, passed on as the store has them: files of known names, of committed runs."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from PIL import Image, UnidentifiedImageError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from crosstie.io.storage.commit import FileFacts, Files, checked_pieces, read_commit, read_committed
from crosstie.io.storage.root_layout import ProductKey, is_reserved
from crosstie.io.storage.store import Reading, Store

PAIR_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
RUN_KEY = re.compile(r"[0-9a-f]{16}")

SANDBOX = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)
"""A report has its style and picture inside. It may load or run nothing else: it holds foreign text."""

KINDS = {
    "report.html": "text/html; charset=utf-8",
    "overview.png": "image/png",
    "correction.json": "application/json",
    "item.json": "application/geo+json",
    "tie_points.parquet": "application/vnd.apache.parquet",
    "corrected.vrt": "application/xml",
    "displacement.tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    "aligned.tif": "image/tiff; application=geotiff; profile=cloud-optimized",
}
"""File -> media type. No other file is served."""

SAVED = ("tie_points.parquet", "corrected.vrt", "displacement.tif", "aligned.tif")
"""No browser shows them. They are saved under a name that holds the pair."""

MOST_CHECKED_BYTES = 32 * 2**20
"""A larger file is not held in memory to be checked before it is sent."""

MOST_PICTURE_BYTES = 32 * 2**20
"""A larger overview was not written by crosstie."""

THUMBNAIL_PX = 360
KEPT_THUMBNAILS = 512
"""Number of small pictures that are kept, some 15 MB."""

Thumbnail = Callable[[ProductKey, FileFacts | None], bytes]
"""(run, what it has committed as its overview) -> WebP."""


def product(store: Store, request: Request) -> Response:
    """Answer with one file of a committed run.

    Raises
    ------
    HTTPException
        404: no such run, or no such file.
    StoreError
        The store cannot be read.
    """
    name = request.path_params["name"]
    if name not in KINDS:
        raise HTTPException(404, "a run has no file of this name")
    run, files = run_of(store, request)
    facts = files.get(name)
    if facts is None:
        raise HTTPException(404, f"this run has no {name}")
    return _file_response(
        request, _checked_reading(store, run, name, facts), name, saved_as=f"{run.pair_key}.{name}"
    )


def run_of(store: Store, request: Request) -> tuple[ProductKey, Files]:
    """Find the committed run that an address names, and what it has committed.

    Raises
    ------
    HTTPException
        404: no such run, or it is not committed.
    StoreError
        The store cannot be read.
    """
    pair_key, run_key = request.path_params["pair_key"], request.path_params["run_key"]
    # Checked before the store is read, so that only keys of crosstie become part of a path.
    known = PAIR_KEY.fullmatch(pair_key) and RUN_KEY.fullmatch(run_key)
    if not known or is_reserved(pair_key):
        raise HTTPException(404, "there is no such run")
    run = ProductKey(pair_key, run_key)
    files = read_commit(store, run)
    if files is None:
        raise HTTPException(404, "there is no such run, or it is not committed")
    return run, files


def _checked_reading(store: Store, run: ProductKey, name: str, facts: FileFacts) -> Reading:
    """Open a file of a committed run; what is not as it was committed is not passed on.

    A small file is checked before the answer begins. A large one is checked while it is sent: its end is
    held back until all of it is known to be well.
    """
    reading = store.open(run.file(name))
    if reading is not None and reading.size_bytes == facts.size > MOST_CHECKED_BYTES:
        return replace(reading, pieces=checked_pieces(reading, facts, store.url_of(run.file(name))))
    body = read_committed(store, run, name, {name: facts})
    return Reading(len(body), None if reading is None else reading.etag, iter((body,)))


def thumbnails(store: Store) -> Thumbnail:
    """Make a function that shrinks overviews and keeps the latest; HTTPException 404 if there is none."""
    at_once = threading.Semaphore(2)  # a page asks for many at once, and each takes some 10 MB

    @lru_cache(KEPT_THUMBNAILS)
    def made(run: ProductKey, facts: FileFacts | None) -> bytes:
        with at_once:
            if facts is None or facts.size > MOST_PICTURE_BYTES:
                raise HTTPException(404, "this run has no overview.png")
            return shrunk(read_committed(store, run, "overview.png", {"overview.png": facts}))

    return made


def shrunk(png: bytes) -> bytes:
    """Shrink a PNG to a small WebP.

    Raises
    ------
    HTTPException
        404: it is not a PNG.
    """
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            small = picture.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise HTTPException(404, "overview.png of this run is broken") from None
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    body = io.BytesIO()
    small.save(body, "WEBP", quality=75)
    return body.getvalue()


def _file_response(request: Request, reading: Reading, name: str, *, saved_as: str) -> Response:
    headers = {"Content-Security-Policy": SANDBOX, "Content-Length": str(reading.size_bytes)}
    if reading.etag is not None:
        headers["ETag"] = reading.etag
        if reading.etag in (tag.strip() for tag in request.headers.get("if-none-match", "").split(",")):
            return Response(status_code=304, headers={"ETag": reading.etag})
    if name in SAVED:
        headers["Content-Disposition"] = f'attachment; filename="{saved_as}"'
    if request.method == "HEAD":
        return Response(headers=headers, media_type=KINDS[name])
    return StreamingResponse(reading.pieces, headers=headers, media_type=KINDS[name])
