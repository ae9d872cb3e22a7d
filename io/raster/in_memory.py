"""Open rasters, from rasterio or xarray, as files: everything below reads files, window by window."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader, DatasetReaderBase
from rasterio.windows import Window

from crosstie.errors import BadInputError, NoGeoreferenceError
from crosstie.io.raster.gdal import OWN_DRIVERS
from crosstie.io.storage.href_policy import is_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray

Hrefs = str | Path | Sequence[str | Path]

BLOCK_PX = 2048
"""Rows and columns that are copied at a time: bounds the memory where the array is a lazy one."""


def named_files(raster: Any, name: str) -> tuple[Hrefs, bool]:
    """Address of a raster, and whether it is a temporary copy of what lies in memory.

    Parameters
    ----------
    raster : paths or URLs, which are returned as they are; an open rasterio dataset; an xarray object with a
        geobox (`.odc.geobox`): dims (y, x) or (band, y, x), or a dataset of such, one band a variable
    name : str
        Of the copy, where the raster itself has none.

    Raises
    ------
    BadInputError
        Another kind of object, or an array without a place on the ground.
    """
    if isinstance(raster, DatasetReaderBase):
        file = _file_of(raster)
        return (_copied(raster, name), True) if file is None else (file, False)
    if isinstance(raster, str | Path) or (
        isinstance(raster, Sequence) and all(isinstance(href, str | Path) for href in raster)
    ):
        return raster, False
    import xarray  # slow to import; paths, the usual case, need none

    if isinstance(raster, xarray.DataArray | xarray.Dataset):
        return _written(raster, name), True
    raise BadInputError(
        f"{name}: a {type(raster).__name__} is no raster; give a path, a URL, an open rasterio dataset or an"
        " xarray object with a geobox"
    )


def _file_of(raster: DatasetReaderBase) -> str | None:
    """Path or URL that opens the same raster again; None where there is none, as for a WarpedVRT."""
    if type(raster) is not DatasetReader or raster.driver not in OWN_DRIVERS:
        return None
    href = str(raster.name)
    return href if is_url(href) or Path(href).is_file() else None


def _copied(raster: DatasetReaderBase, name: str) -> Path:
    path = _temporary(Path(str(raster.name)).stem or name)
    gcps, gcps_crs = raster.gcps
    place = {"crs": raster.crs, "transform": raster.transform}
    if raster.crs is None and gcps:
        place = {"gcps": gcps, "crs": gcps_crs}
    rows, cols = raster.shape
    profile = _profile(rows, cols, raster.count, raster.dtypes[0], raster.nodata)
    is_masked = any(flags == [MaskFlags.per_dataset] for flags in raster.mask_flag_enums)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **profile, **place) as copy,
    ):
        copy.descriptions, copy.colorinterp = raster.descriptions, raster.colorinterp
        for window in _windows(rows, cols):
            copy.write(raster.read(window=window), window=window)
            if is_masked:
                copy.write_mask(raster.dataset_mask(window=window), window=window)
    return path


def _written(raster: xarray.DataArray | xarray.Dataset, name: str) -> Path:
    """Write an array with a geobox block by block; a dataset's variables become its bands."""
    import odc.geo.xr  # noqa: F401  (gives xarray objects their `.odc`)
    import xarray

    planes = raster.to_dataarray("band") if isinstance(raster, xarray.Dataset) else raster
    labels = [str(label) for label in raster.data_vars] if isinstance(raster, xarray.Dataset) else []
    geobox = raster.odc.geobox
    if not isinstance(geobox, GeoBox) or geobox.crs is None:
        raise NoGeoreferenceError(
            f"{name}: the xarray object has no geobox with a CRS; assign one: `.odc.assign_crs(...)`"
        )
    if planes.ndim == 2:
        planes = planes.expand_dims("band")
    y, x = geobox.dimensions
    extra = [dim for dim in planes.dims if dim not in (y, x)]
    if len(extra) != 1:
        raise BadInputError(f"{name}: its dims are {planes.dims}; give (y, x) or (band, y, x)")
    planes = planes.transpose(extra[0], y, x)
    nodata = raster.attrs.get("nodata", raster.attrs.get("_FillValue", raster.encoding.get("_FillValue")))
    path = _temporary(str(getattr(raster, "name", None) or name))
    rows, cols = geobox.shape
    with rasterio.open(
        path,
        "w",
        **_profile(rows, cols, len(planes), str(planes.dtype), nodata),
        crs=str(geobox.crs),
        transform=geobox.affine,
    ) as copy:
        if labels:
            copy.descriptions = labels
        for window in _windows(rows, cols):
            rows_at, cols_at = window.toslices()
            copy.write(np.asarray(planes[:, rows_at, cols_at].values), window=window)
    return path


def _profile(rows: int, cols: int, count: int, dtype: str, nodata: float | None) -> dict[str, Any]:
    return {
        "driver": "GTiff", "height": rows, "width": cols, "count": count, "dtype": dtype, "nodata": nodata,
        "tiled": True, "blockxsize": 512, "blockysize": 512, "BIGTIFF": "IF_SAFER",
    }  # fmt: skip


def _windows(rows: int, cols: int) -> Iterator[Window]:
    for row in range(0, rows, BLOCK_PX):
        for col in range(0, cols, BLOCK_PX):
            yield Window(col, row, min(BLOCK_PX, cols - col), min(BLOCK_PX, rows - row))


def _temporary(stem: str) -> Path:
    """Path in a folder of its own, so that two arrays of one name do not meet."""
    folder = tempfile.mkdtemp(dir=_folder())
    return Path(folder) / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', stem)[:80].strip('.-') or 'raster'}.tif"


@cache
def _folder() -> str:
    """Folder of all copies of this process. It lives as long: what is read lazily is read from them."""
    folder = tempfile.mkdtemp(prefix="crosstie-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
