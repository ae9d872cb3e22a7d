"""Checks of an open raster: it must not lead on to other files, nor exhaust memory or time."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from crosstie.errors import UnreadableRasterError

MAX_BLOCK_BYTES = 256 * 2**20
"""Largest decoded block: GDAL holds a block whole, however few of its pixels are read. Blocks of Sentinel-1
and Sentinel-2 products have 2 MB; an image of 10,980 px in a single strip of 16 bits has 241 MB."""

MAX_BANDS = 64
"""Sentinel-2 has 13. A file of some hundred bytes can claim 65,535, and each costs memory once it is open."""

MAX_SIDE_PX = 100_000
"""Rows or columns: four times the longest side of a Sentinel-1 scene (25,800 px)."""

MAX_SAMPLES = 2**31
"""Rows x columns x bands: twice a Sentinel-1 scene of two polarisations. Without overviews all of them are
decoded for a plan: at 2**31, empty ones take 3 s."""

MAX_DIRECTORIES = 64
"""Images in a TIFF: an overview and its mask for each halving of the longest side need 36."""

CUT = "cut it into smaller files or blocks"

POINTERS = ("OVERVIEWS", "GEOLOCATION")
"""Metadata domains that name further files, which GDAL opens with any driver: overviews, and coordinates."""

GRID_FILES = re.compile(r"(?:nadgrids|geoidgrids)=(?!@null\b)|PROJ4_GRIDS|PARAMETERFILE", re.IGNORECASE)
"""A CRS that names files of grid shifts, for PROJ to open. `@null` is none: Web Mercator has it."""


def refuse_untrusted(raster: DatasetReader, *, name: str, drivers: tuple[str, ...]) -> None:
    """Check a raster that GDAL has just opened, before a pixel, an overview or a mask is read.

    Parameters
    ----------
    name : str
        Of the file, as it may be shown.
    drivers : tuple[str, ...]
        Those that may have opened it.

    Raises
    ------
    UnreadableRasterError
        Another driver, a pointer to another file, or beyond a limit; says which.
    """
    if raster.driver not in drivers:
        raise UnreadableRasterError(f"{name}: opened as {raster.driver}; give a {', '.join(drivers)} file")
    for domain in POINTERS:
        if raster.tags(ns=domain):
            raise UnreadableRasterError(
                f"{name}: its metadata {domain} lead on to other files, which are never followed; write it"
                " anew without them"
            )
    for crs in (raster.crs, raster.gcps[1]):
        if crs is not None and GRID_FILES.search(crs.to_wkt()):
            raise UnreadableRasterError(
                f"{name}: its CRS names files of grid shifts, which are never followed; give it one by code"
            )
    _refuse_size(raster, name)
    if raster.driver == "GTiff":
        for further in _directories(raster, name):
            _refuse_size(further, name)
    # GDAL takes overviews from within a directory, too (SubIFD): 30 at most, and none by number.
    for level in range(len(raster.overviews(1))):
        with DatasetReader(raster.name, driver=[raster.driver], overview_level=level) as overview:
            _refuse_size(overview, name)


def _refuse_size(raster: DatasetReader, name: str) -> None:
    """Refuse an image beyond a limit, by its header alone."""
    rows, cols = raster.shape
    refuse_beyond(name, "bands", raster.count, MAX_BANDS, next_step=CUT)
    refuse_beyond(name, "px on its longer side", max(rows, cols), MAX_SIDE_PX, next_step=CUT)
    refuse_beyond(name, "samples", rows * cols * raster.count, MAX_SAMPLES, next_step=CUT)
    sizes = [
        math.prod(block) * np.dtype(dtype.removeprefix("complex_")).itemsize
        for block, dtype in zip(raster.block_shapes, raster.dtypes, strict=True)
    ]
    # A JPEG 2000 block holds all bands. Asked for it, GDAL walks all boxes of the file, for ever where the
    # length of one is 0.
    is_jp2 = raster.driver == "JP2OpenJPEG"
    together = is_jp2 or raster.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL"
    refuse_beyond(
        name,
        "decoded bytes in one block",
        sum(sizes) if together else max(sizes),
        MAX_BLOCK_BYTES,
        next_step=CUT,
    )


def _directories(raster: DatasetReader, name: str) -> Iterator[DatasetReader]:
    """Open each further image of a TIFF: nothing else tells the size and blocks of a mask."""
    for number in range(2, MAX_DIRECTORIES + 2):
        try:
            further = DatasetReader(f"GTIFF_DIR:{number}:{raster.name}", driver=["GTiff"])
        except RasterioError as error:
            if "not found" in str(error.__cause__ or error):
                return
            continue  # GDAL passes over what it cannot open, and may find more behind it
        with further:
            refuse_beyond(name, "images in one file", number, MAX_DIRECTORIES, next_step=CUT)
            yield further


def refuse_beyond(name: str, what: str, value: int, limit: int, *, next_step: str) -> None:
    """Refuse a file that claims more than a limit.

    Parameters
    ----------
    name : str
        Of the file, as it may be shown.
    what : str
        What is counted, plural: `bands`.
    value : int
        How many the file claims.
    limit : int
        The largest number that is allowed.
    next_step : str
        What to do about it, an imperative.

    Raises
    ------
    UnreadableRasterError
        The value is beyond the limit.
    """
    if value > limit:
        raise UnreadableRasterError(f"{name}: {value} {what}, and the limit is {limit}; {next_step}")
