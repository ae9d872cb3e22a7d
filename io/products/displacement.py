"""The displacement field of a pair as a raster: `displacement.tif`, one value a node."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo.geobox import GeoBox

from crosstie.errors import BadInputError, NoGeoreferenceError
from crosstie.io.raster.cog import cog_writer
from crosstie.io.raster.gdal import IMAGE_DRIVERS, check_href, opened, reading, shown_name
from crosstie.io.raster.georeference import georeference_of
from crosstie.io.storage.s3 import FROM_ENVIRONMENT, S3Options
from crosstie.types import DisplacementField

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

DISPLACEMENT = "displacement.tif"
"""Name of the file."""

BANDS = ("dx_m", "dy_m", "sigma_m")

SCHEMA = "crosstie/displacement/1"

SIGN = "the secondary at (x + dx_m, y + dy_m) shows what the reference shows at (x, y)"

MAX_NODES = 4_000_000
"""More than any scene has at a stride of 16 px; a file that claims more is refused before it is read."""


def displacement_cog(field: DisplacementField) -> bytes:
    """Render a field as a COG of three float32 bands; the same field gives the same bytes.

    Parameters
    ----------
    field : DisplacementField

    Returns
    -------
    bytes
        `displacement.tif`: some hundred kilobytes, for there are four nodes from tile to tile.
    """
    rows, cols = field.grid.shape
    profile: dict[str, Any] = {
        "height": rows,
        "width": cols,
        "count": 3,
        "dtype": "float32",
        "nodata": np.nan,
    }
    with TemporaryDirectory(prefix="crosstie-") as folder:
        path = Path(folder) / DISPLACEMENT
        with cog_writer(path, crs=str(field.grid.crs), transform=field.grid.affine, **profile) as raster:
            raster.write(np.stack([field.dx_m, field.dy_m, field.sigma_m]).astype(np.float32))
            raster.descriptions = BANDS
            raster.units = ("metre",) * 3
            raster.update_tags(CROSSTIE_SCHEMA=SCHEMA, CROSSTIE_SIGN=SIGN)
        return path.read_bytes()


def read_displacement(href: str | Path, *, storage: S3Options = FROM_ENVIRONMENT) -> DisplacementField:
    """Read a field back.

    Raises
    ------
    UnreadableRasterError : missing or no raster
    BadInputError : a raster, but no displacement field
    """
    with opened(check_href(href), drivers=IMAGE_DRIVERS, storage=storage) as raster:
        _refuse_other(raster)
        place = georeference_of(raster)
        with reading(raster):
            dx_m, dy_m, sigma_m = raster.read()
    if place.transform is None:
        raise NoGeoreferenceError(f"{os.fspath(href)}: a displacement field needs a transform, not points")
    grid = GeoBox(dx_m.shape, place.transform, place.crs)
    return DisplacementField(grid, dx_m, dy_m, sigma_m)


def _refuse_other(raster: DatasetReader) -> None:
    said = tuple(raster.descriptions)
    if said != BANDS or set(raster.dtypes) != {"float32"}:
        raise BadInputError(
            f"{shown_name(raster.name)}: its bands are {said}, {raster.dtypes[0]}, not those of a"
            f" displacement field, {BANDS}, float32; give a displacement.tif"
        )
    if raster.width * raster.height > MAX_NODES:
        raise BadInputError(
            f"{shown_name(raster.name)}: {raster.height} x {raster.width} nodes are no displacement field;"
            " give a displacement.tif"
        )
