"""A cloud-optimised GeoTIFF of pixels that come block by block: a plain file first, then made into a COG."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.errors import RasterioError

from crosstie.errors import StoreError
from crosstie.io.raster.gdal import gdal_settings
from crosstie.io.storage.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rasterio.io import DatasetWriter

TILE_PX = 512
"""Side of the tiles of a COG."""


@contextmanager
def cog_writer(
    path: Path, *, overviews: str = "AVERAGE", threads: int = 1, **profile: Any
) -> Iterator[DatasetWriter]:
    """Open a raster to be written; when the block ends it becomes a COG at `path`, overviews included.

    The plain file lies beside `path` until then: put both in a folder of their own. If the block raises,
    there is no COG.

    Parameters
    ----------
    overviews : how GDAL makes them: AVERAGE, NEAREST, ...
    threads : that compress
    profile : `height`, `width`, `count`, `dtype`, `crs`, `transform`, `nodata` as rasterio takes them
    """
    plain = path.with_name(f"{path.name}.plain")
    tiling = {"tiled": True, "blockxsize": TILE_PX, "blockysize": TILE_PX, "BIGTIFF": "IF_SAFER"}
    with _as_store_error(path), rasterio.Env(**gdal_settings(str(path), beside=False)):
        with rasterio.open(plain, "w", driver="GTiff", **tiling, **profile) as raster:
            yield raster
        is_complex = np.dtype(profile["dtype"]).kind == "c"
        rasterio.shutil.copy(
            plain,
            path,
            driver="COG",
            BLOCKSIZE=TILE_PX,
            COMPRESS="DEFLATE",
            PREDICTOR="NO" if is_complex else "YES",
            OVERVIEW_RESAMPLING=overviews,
            OVERVIEW_COMPRESS="DEFLATE",
            STATISTICS="NO" if is_complex else "YES",
            BIGTIFF="IF_SAFER",
            NUM_THREADS=threads,
        )
    plain.unlink()


@contextmanager
def _as_store_error(path: Path) -> Iterator[None]:
    try:
        yield
    except RasterioError as error:
        raise StoreError(
            f"cannot write {path}: {redacted(str(error))[:300]};"
            " check that its disk has room and may be written"
        ) from None
