"""Cloud-optimised GeoTIFFs of simulated scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rasterio
from rasterio.io import MemoryFile
from rasterio.shutil import copy as copy_raster

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

LOSSLESS = {"compress": "DEFLATE", "predictor": "YES"}
JPEG = {"compress": "JPEG", "quality": "75"}
"""As the true-colour images of the archives are; only for pixels that have been through it."""


def write_cog(
    path: Path,
    bands: NDArray[np.uint8],
    grid: GeoBox,
    *,
    nodata: int | None = None,
    valid: NDArray[np.bool_] | None = None,
    compression: dict[str, str] = LOSSLESS,
    block_px: int = 512,
) -> None:
    """Write bands (B, rows, cols) on their grid.

    Parameters
    ----------
    nodata : int or None, optional
        Value of invalid pixels; None for none.
    valid : NDArray[np.bool_] or None, optional
        (rows, cols), kept as an internal mask; None for no mask.
    """
    count, rows, cols = bands.shape
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": count,
        "height": rows,
        "width": cols,
        "crs": str(grid.crs),
        "transform": grid.affine,
        "nodata": nodata,
        "photometric": "RGB" if count == 3 else "MINISBLACK",
    }
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as memory:
        with memory.open(**profile) as raster:
            raster.write(bands)
            if valid is not None:
                raster.write_mask(valid)
        copy_raster(memory.name, path, driver="COG", blocksize=block_px, **compression)
