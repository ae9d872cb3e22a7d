"""The displacement field of a pair as a raster: `displacement.tif`, one value a node."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from crosstie.errors import BadInputError, NoGeoreferenceError
from crosstie.io.raster.cog import cog_writer
from crosstie.io.raster.gdal import IMAGE_DRIVERS, check_href, opened, reading, shown_name
from crosstie.io.raster.georeference import georeference_of
from crosstie.io.storage.s3 import FROM_ENVIRONMENT, S3Options

if TYPE_CHECKING:
    from pathlib import Path

    from rasterio.io import DatasetReader

    from crosstie.io.storage.store import Store, StoredFile

BANDS = ("dx_m", "dy_m", "sigma_m")

SCHEMA = "crosstie/displacement/1"

SIGN = "the secondary at (x + dx_m, y + dy_m) shows what the reference shows at (x, y)"

MAX_NODES = 4_000_000
"""More than any scene has at a stride of 16 px; a file that claims more is refused before it is read."""


@dataclass(frozen=True, slots=True, eq=False)
class Displacement:
    """Offsets on nodes: the secondary at (x + dx, y + dy) shows what the reference shows at (x, y)."""

    dx_m: NDArray[np.float32]
    """(rows, cols), metres east, the affine trend included; NaN where unknown."""
    dy_m: NDArray[np.float32]
    """(rows, cols), metres north; NaN where unknown."""
    sigma_m: NDArray[np.float32]
    """(rows, cols), standard error of either, metres; NaN where unknown."""
    transform: Affine
    """Node (col, row) -> map (x, y): the first node lies at (0.5, 0.5), as the centre of a pixel."""
    crs: str
    """EPSG code or WKT, of the pair; in metres."""

    def __post_init__(self) -> None:
        if not self.dx_m.shape == self.dy_m.shape == self.sigma_m.shape or self.dx_m.ndim != 2:
            raise ValueError(
                f"dx_m {self.dx_m.shape}, dy_m {self.dy_m.shape} and sigma_m {self.sigma_m.shape}"
                " must be of one shape (rows, cols)"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols) of the nodes."""
        rows, cols = self.dx_m.shape
        return rows, cols


def write_displacement(store: Store, key: str, field: Displacement) -> StoredFile:
    """Write a field as a COG of three float32 bands, whole or not at all.

    Raises
    ------
    StoreError : the root cannot be written
    """
    rows, cols = field.shape
    profile: dict[str, Any] = {
        "height": rows,
        "width": cols,
        "count": 3,
        "dtype": "float32",
        "nodata": np.nan,
    }
    with store.scratch(key) as folder:
        path = folder / "displacement.tif"
        with cog_writer(path, crs=field.crs, transform=field.transform, **profile) as raster:
            raster.write(np.stack([field.dx_m, field.dy_m, field.sigma_m]).astype(np.float32))
            raster.descriptions = BANDS
            raster.units = ("metre",) * 3
            raster.update_tags(CROSSTIE_SCHEMA=SCHEMA, CROSSTIE_SIGN=SIGN)
        return store.put_file(key, path)


def read_displacement(href: str | Path, *, storage: S3Options = FROM_ENVIRONMENT) -> Displacement:
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
    return Displacement(dx_m, dy_m, sigma_m, transform=place.transform, crs=place.crs)


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
