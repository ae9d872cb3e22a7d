"""Metres and directions on the ground at one place of a map: what people read. Pure; reads nothing.

Programs compute in metres of the grid. In EPSG:3857 at 64 degrees north one of them is 0.44 m on the ground,
in EPSG:3395 in Texas 0.87 m; in EPSG:3413 the y axis of the grid points in any direction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

STEP_M = 100.0
"""Length of the steps on the map whose places on the ground are compared: longer than rounding, shorter than
what changes the scale."""

SAME = 0.005
"""Scales closer to 1 than this, as those of every UTM zone, are not worth a word to a reader."""


@dataclass(frozen=True, slots=True)
class GroundFrame:
    """How short steps on a map lie on the ground at one place.

    Attributes
    ----------
    x_step, y_step : tuple of float
        (east, north) on the ground, metres, of one metre along x and along y of the map.
    """

    x_step: tuple[float, float] = (1.0, 0.0)
    y_step: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def of(cls, said: Any) -> Self:
        """Take what `correction.json` says; the map's own metres where it says nothing, as of old."""
        try:
            frame = cls(*(_numbers(said[name]) for name in ("x_step", "y_step")))
        except (KeyError, TypeError, ValueError):
            return cls()
        return frame if frame.scale > 0 else cls()

    def said(self) -> dict[str, list[float]]:
        """What `correction.json` says."""
        return {"x_step": list(self.x_step), "y_step": list(self.y_step)}

    @property
    def scale(self) -> float:
        """Metres on the ground for a metre on the map, geometric mean of all directions."""
        (xe, xn), (ye, yn) = self.x_step, self.y_step
        return math.sqrt(abs(xe * yn - xn * ye))

    def length(self, value_m: float | None) -> float | None:
        """Metres on the ground of a length on the map; None stays None."""
        return None if value_m is None else value_m * self.scale

    @property
    def differs(self) -> bool:
        """Whether a reader has to know that the map's metres are others."""
        return abs(self.scale - 1) > SAME

    def east_north(self, dx_m: float, dy_m: float) -> tuple[float, float]:
        """Metres to true east and true north of a step on the map."""
        return (
            dx_m * self.x_step[0] + dy_m * self.y_step[0],
            dx_m * self.x_step[1] + dy_m * self.y_step[1],
        )


def _numbers(values: Any) -> tuple[float, float]:
    east, north = (float(value) for value in values)
    if not (math.isfinite(east) and math.isfinite(north)):
        raise ValueError("not finite")
    return east, north


def ground_frame(grid: GeoBox | None) -> GroundFrame:
    """Compare map and ground at the centre of a grid.

    Parameters
    ----------
    grid : GeoBox or None
        In a CRS in metres.

    Returns
    -------
    GroundFrame
        The map's own axes and metres where there is no grid, or its centre is no place on Earth.
    """
    if grid is None or grid.crs is None:
        return GroundFrame()
    box = grid.boundingbox
    return ground_frame_at(str(grid.crs.to_wkt()), (box.left + box.right) / 2, (box.bottom + box.top) / 2)


@lru_cache(maxsize=256)
def ground_frame_at(crs: str, x_m: float, y_m: float) -> GroundFrame:
    """Compare map and ground at one place.

    Parameters
    ----------
    crs : str
        EPSG code or WKT of a CRS in metres.
    x_m, y_m : float
        The place, metres.
    """
    try:
        projected = CRS.from_user_input(crs)
        geodetic, geod = projected.geodetic_crs, projected.get_geod()
        if geodetic is None or geod is None:
            return GroundFrame()
        to_degrees = Transformer.from_crs(projected, geodetic, always_xy=True)
        lon, lat = to_degrees.transform([x_m, x_m + STEP_M, x_m], [y_m, y_m, y_m + STEP_M], errcheck=True)
    except ProjError:
        return GroundFrame()
    if not all(map(math.isfinite, (*lon, *lat))):
        return GroundFrame()
    azimuth, _, length_m = geod.inv([lon[0]] * 2, [lat[0]] * 2, lon[1:], lat[1:])
    if min(length_m) <= 0:  # no place on Earth: all that lies there has one longitude and latitude
        return GroundFrame()
    steps = [
        (length / STEP_M * math.sin(math.radians(angle)), length / STEP_M * math.cos(math.radians(angle)))
        for angle, length in zip(azimuth, length_m, strict=True)
    ]
    return GroundFrame(*steps)


@lru_cache(maxsize=256)
def ground_frame_below(crs: str, lon: float, lat: float) -> GroundFrame:
    """Compare map and ground at a place in degrees; the map's own metres where the CRS does not reach it."""
    try:
        projected = CRS.from_user_input(crs)
        to_map = Transformer.from_crs(CRS.from_epsg(4326), projected, always_xy=True)
        x_m, y_m = to_map.transform(lon, lat, errcheck=True)
    except ProjError:
        return GroundFrame()
    return ground_frame_at(crs, x_m, y_m) if math.isfinite(x_m) and math.isfinite(y_m) else GroundFrame()
