"""A Sentinel-1 GRD in swath geometry on the ellipsoid: (row, col) -> lon, lat, and its control points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pyproj import Geod

INCLINATION, PERIOD_S, DAY_S = np.radians(98.18), 98.6 * 60, 86_164.1
SPEED = 2 * np.pi * 6_371_008.8 / PERIOD_S  # of the point below the satellite, m/s

Height = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Swath:
    """An image of 167 x 256 km beside the track; it looks to the right."""

    lat: float
    """Of the point below the satellite, in the middle of the pass, degrees."""
    lon: float = 10.0
    descending: bool = False
    flipped: bool = False
    """Columns are counted from the far side."""
    height: Height | None = None
    """Metres at (row, col): moves a point towards the satellite in the image, by h / tan(incidence)."""
    rows: int = 16_700
    cols: int = 25_600
    pixel_m: float = 10.0

    def ground(self, row: np.ndarray, col: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Longitude and latitude; geodesics across the track, exact on the ellipsoid."""
        row, col = np.broadcast_arrays(np.asarray(row, float), np.asarray(col, float))
        seconds = (row - self.rows / 2) * self.pixel_m / SPEED
        lat, lon = self._below(seconds)
        lat_then, lon_then = self._below(seconds + 0.5)
        earth = Geod(ellps="WGS84")
        azimuth = earth.inv(lon, lat, lon_then, lat_then)[0]
        across = self.cols - col if self.flipped else col
        distance = 350e3 + across * self.pixel_m
        if self.height is not None:
            distance = distance + self.height(row, col) / np.tan(np.radians(30 + 16 * across / self.cols))
        found_lon, found_lat, _ = earth.fwd(lon, lat, azimuth + 90, distance)
        return np.asarray(found_lon), np.asarray(found_lat)

    def points(self, rows: int = 10, cols: int = 21) -> np.ndarray:
        """Control points (N, 5): row, col, lon, lat, height."""
        row, col = np.meshgrid(
            np.linspace(0, self.rows, rows), np.linspace(0, self.cols, cols), indexing="ij"
        )
        return self.points_at(row.ravel(), col.ravel())

    def points_at(self, row: np.ndarray, col: np.ndarray) -> np.ndarray:
        height = np.zeros(len(row)) if self.height is None else self.height(row, col)
        return np.column_stack([row, col, *self.ground(row, col), height])

    def _below(self, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        def at(time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            start = np.arcsin(np.sin(np.radians(self.lat)) / np.sin(INCLINATION))
            angle = (np.pi - start if self.descending else start) + 2 * np.pi * time_s / PERIOD_S
            lon = np.arctan2(np.cos(INCLINATION) * np.sin(angle), np.cos(angle)) - 2 * np.pi * time_s / DAY_S
            return np.degrees(np.arcsin(np.sin(INCLINATION) * np.sin(angle))), np.degrees(lon)

        lat, lon = at(seconds)
        return lat, lon - at(np.array(0.0))[1] + self.lon
