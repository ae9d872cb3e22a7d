"""Ground that the user knows to be useless in an image: a raster or polygons of pixels not to use."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from odc.geo import Geometry
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.warp import reproject

from crosstie.errors import BadInputError, NoGeoreferenceError
from crosstie.io.raster.gdal import OWN_DRIVERS, check_href, opened, reading
from crosstie.io.raster.georeference import georeference_of
from crosstie.io.raster.values.scene_classes import read_clouds
from crosstie.io.raster.values.sensor import tokens
from crosstie.io.storage.href import public_href
from crosstie.io.storage.href_policy import is_url
from crosstie.io.storage.s3 import FROM_ENVIRONMENT, S3Options

MAX_POLYGON_BYTES = 16 * 2**20
"""Of a GeoJSON file; a day's cloud mask of a whole scene has some megabytes."""

MAX_VERTICES = 200_000

POLYGON_SUFFIXES = (".geojson", ".json")

LONGITUDES_LATITUDES = "EPSG:4326"
"""CRS of every GeoJSON (RFC 7946)."""


@dataclass(frozen=True, slots=True)
class GroundMask:
    """Pixels not to use, wherever they lie."""

    href: str
    """Checked path or URL."""
    sha256: str
    """Of the file where it is local, else of its address: it is part of the run's key."""
    polygons: bytes | None
    """WKB in EPSG:4326; None where the mask is a raster."""
    storage: S3Options = FROM_ENVIRONMENT
    holds_classes: bool = False
    """The raster is a scene classification of Sentinel-2, whose clouds and shadows are masked."""

    def covers(self, geobox: GeoBox) -> NDArray[np.bool_]:
        """(rows, cols) True where a pixel of the grid is not to be used: where any of it is masked.

        Raises
        ------
        UnreadableRasterError : the mask cannot be read
        """
        if self.polygons is not None:
            return self._under_polygons(self.polygons, geobox)
        if self.holds_classes:
            return read_clouds(self.href, geobox, must_reach=False, storage=self.storage)
        masked = np.zeros(geobox.shape, np.float32)
        with opened(self.href, drivers=OWN_DRIVERS, storage=self.storage) as raster, reading(raster):
            reproject(
                rasterio.band(raster, 1),
                masked,
                src_nodata=raster.nodata,
                dst_transform=geobox.affine,
                dst_crs=str(geobox.crs),
                dst_nodata=np.nan,
                init_dest_nodata=True,
                resampling=Resampling.max,
            )
        covered: NDArray[np.bool_] = np.nan_to_num(masked) != 0
        return covered

    @staticmethod
    def _under_polygons(polygons: bytes, geobox: GeoBox) -> NDArray[np.bool_]:
        corners = geobox.extent.to_crs(LONGITUDES_LATITUDES)
        middle = (corners.boundingbox.left + corners.boundingbox.right) / 2
        masked = np.zeros(geobox.shape, np.uint8)
        # Longitudes may be counted from -180 or from 0: the copy that lies nearest is the one that is meant.
        for turn in {0.0, 360.0 * np.sign(middle)}:
            moved = np.array([turn, 0.0])
            shape = shapely.transform(shapely.from_wkb(polygons), moved.__add__)
            near = shapely.intersection(shape, shapely.box(*shapely.buffer(corners.geom, 1.0).bounds))
            if not near.is_empty:
                placed = Geometry(near, LONGITUDES_LATITUDES).to_crs(str(geobox.crs), resolution=0.05)
                masked |= rasterize(
                    [placed.geom], geobox.shape, transform=geobox.affine, all_touched=True, dtype=np.uint8
                )
        return masked > 0


def open_mask(href: str | Path, *, storage: S3Options = FROM_ENVIRONMENT) -> GroundMask:
    """Open a mask: a raster whose pixels are masked where they are neither 0 nor nodata, or GeoJSON polygons.

    Parameters
    ----------
    href : str or Path
        Path or URL of a raster with a transform and a CRS (its first band counts), or path of a GeoJSON file.
        A raster of bytes with the word SCL in its name is a scene classification: of it clouds, their shadows
        and what is no data or defective are masked.
    storage : S3Options, optional
        How S3 is reached.

    Raises
    ------
    UnreadableRasterError : missing, or no raster
    NoGeoreferenceError : a raster that does not say where it lies
    BadInputError : a GeoJSON file that is none, or too large
    """
    checked = check_href(href)
    if Path(checked).suffix.lower() in POLYGON_SUFFIXES and not is_url(checked):
        polygons = _read_polygons(Path(checked))
        return GroundMask(checked, hashlib.sha256(polygons).hexdigest(), polygons, storage)
    named_so = "scl" in tokens(Path(public_href(checked).split("?")[0]).stem)
    with opened(checked, drivers=OWN_DRIVERS, storage=storage) as raster:
        if georeference_of(raster).transform is None:
            raise NoGeoreferenceError(
                f"{public_href(checked)}: a mask needs a CRS and a transform, not control points; give a"
                " geocoded raster or a GeoJSON file"
            )
        classes = named_so and raster.count == 1 and raster.dtypes[0] == "uint8"
    return GroundMask(checked, _digest(checked), None, storage, classes)


def _digest(href: str) -> str:
    if is_url(href):
        return hashlib.sha256(public_href(href).encode()).hexdigest()
    with Path(href).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_polygons(path: Path) -> bytes:
    """Read all polygons of a GeoJSON file, as WKB."""
    if not path.is_file():
        raise BadInputError(f"{path}: there is no such mask; give a raster or a GeoJSON file")
    with path.open("rb") as file:
        text = file.read(MAX_POLYGON_BYTES + 1)
    if len(text) > MAX_POLYGON_BYTES:
        raise BadInputError(
            f"{path}: a mask has at most {MAX_POLYGON_BYTES // 2**20} MiB of GeoJSON; simplify it, or give"
            " a raster"
        )
    try:
        shapes = [shapely.from_geojson(json.dumps(part)) for part in _geometries(json.loads(text))]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError, shapely.GEOSException):
        raise BadInputError(f"{path}: is no GeoJSON; give polygons in longitude and latitude") from None
    vertices = int(shapely.get_num_coordinates(shapes).sum()) if shapes else 0
    if not 0 < vertices <= MAX_VERTICES:
        raise BadInputError(
            f"{path}: a mask has 1 to {MAX_VERTICES:,} vertices, not {vertices:,}; simplify it, or give"
            " a raster"
        )
    bounds = shapely.total_bounds(shapes)
    if not (np.abs(bounds) <= [360.0, 90.0, 360.0, 90.0]).all():
        raise BadInputError(f"{path}: GeoJSON is in longitude and latitude, and this reaches to {bounds}")
    areas = [shape for shape in shapes if shape.geom_type in {"Polygon", "MultiPolygon"}]
    if len(areas) < len(shapes):
        raise BadInputError(f"{path}: a mask is made of polygons; it holds {shapes[0].geom_type}")
    whole = shapely.union_all(shapely.make_valid(areas, method="structure", keep_collapsed=False))
    return bytes(shapely.to_wkb(whole))


def _geometries(found: Any) -> list[Any]:
    match found["type"]:
        case "FeatureCollection":
            return [part for feature in found["features"] for part in _geometries(feature)]
        case "Feature":
            return [] if found["geometry"] is None else [found["geometry"]]
        case _:
            return [found]
