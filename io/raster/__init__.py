"""Rasters in: what a file is (`open_source`, `open_pair`), and its pixels on a grid (`read_plane`, ...).

Every read opens the file anew, so that no handle is shared between threads.
"""

from __future__ import annotations

from crosstie.io.raster.gdal import check_href
from crosstie.io.raster.header import open_pair, open_source
from crosstie.io.raster.masks import open_mask
from crosstie.io.raster.read import read_dataarray, read_plane
from crosstie.io.raster.source import RasterSource

__all__ = [
    "RasterSource",
    "check_href",
    "open_mask",
    "open_pair",
    "open_source",
    "read_dataarray",
    "read_plane",
]
