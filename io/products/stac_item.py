"""The corrected secondary as a STAC item, so that any catalog can take it in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pystac
from pyproj import CRS, Transformer
from shapely.affinity import translate
from shapely.geometry import MultiPoint, Polygon, box, mapping
from shapely.ops import unary_union

from crosstie.io.products.aligned import ALIGNED
from crosstie.io.products.correction import correction_dict
from crosstie.io.products.displacement import DISPLACEMENT
from crosstie.io.raster.georeference import Georeference, outline
from crosstie.io.raster.longitude import middle_of, near
from crosstie.io.storage.href import product_href

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
    from shapely.geometry.base import BaseGeometry

    from crosstie.types import FloatArray, Registration

PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"

VRT = "image/vnd.gdal.vrt"
"""Nobody has registered a type for VRT. Of `application/x-gdal-vrt` odc-stac says that it is no raster; what
begins with `image/` it opens."""

FIRST_SENTINEL = datetime(2014, 4, 3, tzinfo=UTC)
"""Launch of Sentinel-1A: no scene is older, which bounds an acquisition nobody has dated."""

ASSETS = {
    "corrected": (
        "corrected.vrt",
        VRT,
        "Secondary, coordinates corrected",
        ["data"],
    ),
    "correction": ("correction.json", pystac.MediaType.JSON, "Correction, verdict and errors", ["metadata"]),
    "tie_points": ("tie_points.parquet", "application/vnd.apache.parquet", "Tie points", ["metadata"]),
    "overview": ("overview.png", pystac.MediaType.PNG, "Overview", ["overview"]),
    "report": ("report.html", pystac.MediaType.HTML, "Report", ["metadata"]),
}
"""Asset key -> (file beside the item, media type, title, roles)."""

RASTER_ASSETS = ("displacement", "aligned")
"""Keys of the assets that only some runs have; each has a grid of its own."""


def stac_item(
    registration: Registration,
    *,
    place: Georeference,
    acquired_utc: datetime | None,
    aligned_grid: GeoBox | None = None,
) -> dict[str, Any]:
    """Describe the corrected secondary.

    Parameters
    ----------
    place : of the secondary, corrected (`georeference.corrected`)
    acquired_utc : of the secondary; None where unknown: the item then spans from the launch of Sentinel-1A
        to the processing, since STAC asks for a time

    aligned_grid : of `aligned.tif`; None where it is not written

    Returns
    -------
    A STAC 1.1 item; the hrefs of its assets are relative to it.
    """
    created = registration.provenance.created_utc
    geometry = lon_lat_outline(place)
    verdict = registration.estimate.verdict
    item = pystac.Item(
        id=f"{registration.pair_key}-{registration.run_key}",
        geometry=None if geometry is None else mapping(geometry),
        bbox=None if geometry is None else bbox_of(geometry),
        datetime=acquired_utc,
        start_datetime=None if acquired_utc else min(FIRST_SENTINEL, created),
        end_datetime=None if acquired_utc else created,
        properties={
            "created": rfc3339(created),
            "crosstie:verdict": str(verdict.code),
            "crosstie:reasons": [str(reason) for reason in verdict.reasons],
            "crosstie:reference": registration.reference_id,
            "crosstie:secondary": registration.secondary_id,
            **_figures(registration),
            **_projection(place),
        },
        stac_extensions=[PROJECTION],
    )
    for scene_id, hrefs in (
        (registration.reference_id, registration.reference_hrefs),
        (registration.secondary_id, registration.secondary_hrefs),
    ):
        for href in hrefs:
            item.add_link(pystac.Link("derived_from", product_href(href), title=scene_id))
    for key, (href, media_type, title, roles) in ASSETS.items():
        item.add_asset(key, pystac.Asset(href, media_type=media_type, title=title, roles=roles))
    for key, (asset, grid) in _rasters(registration, aligned_grid).items():
        asset.extra_fields |= grid_fields(grid)
        item.add_asset(key, asset)
    return item.to_dict(include_self_link=False, transform_hrefs=False)


def _figures(registration: Registration) -> dict[str, Any]:
    """What an API can filter by: model, offset, errors, counts; left out where there is no number."""
    correction = correction_dict(registration)
    said = {
        "crosstie:model": correction["model"],
        "crosstie:offset_x_m": correction["offset_m"]["median_x"],
        "crosstie:offset_y_m": correction["offset_m"]["median_y"],
        "crosstie:rmse_before_m": correction["error_before_m"]["rmse"],
        "crosstie:rmse_after_m": correction["error_after_m"]["rmse"],
        "crosstie:tie_points_matched": correction["tie_points"]["matched"],
        "crosstie:tie_points_used": correction["tie_points"]["used"],
        "crosstie:field_offered": bool(correction["field"] and correction["field"]["offered"]),
        "crosstie:field_rmse_after_m": correction["field"] and correction["field"]["error_after_m"]["rmse"],
    }
    return {name: value for name, value in said.items() if value is not None}


def _rasters(
    registration: Registration, aligned_grid: GeoBox | None
) -> dict[str, tuple[pystac.Asset, GeoBox]]:
    """Assets that have a grid of their own."""
    found = {}
    field = None if registration.field is None else registration.field.field
    if field is not None:
        title = "Displacement field: dx_m, dy_m, sigma_m"
        asset = pystac.Asset(DISPLACEMENT, title, media_type=pystac.MediaType.COG, roles=["metadata"])
        found["displacement"] = (asset, field.grid)
    if aligned_grid is not None:
        title = "Secondary, resampled once onto the grid of the reference"
        asset = pystac.Asset(ALIGNED, title, media_type=pystac.MediaType.COG, roles=["data"])
        found["aligned"] = (asset, aligned_grid)
    return found


def grid_fields(grid: GeoBox) -> dict[str, Any]:
    """Describe a grid by the fields of the projection extension."""
    return _projection(Georeference(grid.shape.yx, str(grid.crs), grid.affine))


def _projection(place: Georeference) -> dict[str, Any]:
    crs = CRS.from_user_input(place.crs)
    epsg = crs.to_epsg()
    properties: dict[str, Any] = {
        "proj:code": f"EPSG:{epsg}" if epsg else None,
        "proj:shape": list(place.shape),
    }
    if not epsg:
        properties["proj:wkt2"] = crs.to_wkt("WKT2_2019")
    if place.transform is not None:
        properties["proj:transform"] = [float(v) for v in place.transform[:6]]
    return properties


def lon_lat_outline(place: Georeference) -> BaseGeometry | None:
    """Outline in EPSG:4326, counter-clockwise, cut at the antimeridian; None where it has no coordinates."""
    xy = outline(place)
    to_lon_lat = Transformer.from_crs(place.crs, "EPSG:4326", always_xy=True)
    lon_lat: FloatArray = np.round(np.column_stack(to_lon_lat.transform(xy[:, 0], xy[:, 1])), 7)
    lon_lat = lon_lat[np.isfinite(lon_lat).all(axis=1)]
    if len(lon_lat) < 3:
        return None
    lon_lat[:, 0] = near(lon_lat[:, 0], middle_of(lon_lat[:, 0]))
    if lon_lat[:, 0].min() >= -180 and lon_lat[:, 0].max() <= 180:
        return _ring(lon_lat, place)
    if lon_lat[:, 0].min() < -180:
        lon_lat[:, 0] += 360
    whole = _ring(lon_lat, place)
    west = translate(whole.intersection(box(180, -90, 360, 90)), xoff=-360)
    return unary_union([whole.intersection(box(0, -90, 180, 90)), west])


def _ring(lon_lat: FloatArray, place: Georeference) -> BaseGeometry:
    if place.transform is None:
        return MultiPoint(lon_lat).convex_hull
    ring = Polygon(lon_lat).simplify(1e-6)  # a tenth of a metre
    return ring if ring.exterior.is_ccw else ring.reverse()


def bbox_of(geometry: BaseGeometry) -> list[float]:
    """West, south, east, north; west is greater than east across the antimeridian (GeoJSON, section 5.2)."""
    west, south, east, north = geometry.bounds
    if geometry.geom_type == "MultiPolygon":
        parts = [part.bounds for part in geometry.geoms]
        west = min(part[0] for part in parts if part[0] >= 0)
        east = max(part[2] for part in parts if part[2] <= 0)
    return [west, south, east, north]


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
