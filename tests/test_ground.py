"""Metres and directions on the ground, against the reader's own measure: the geodesic between two places."""

from __future__ import annotations

import math

import pytest
from odc.geo.geobox import GeoBox
from pyproj import Geod, Transformer

from crosstie.ground import GroundFrame, ground_frame, ground_frame_below

PLACES = [
    ("EPSG:3857", 12.0, 64.0),
    ("EPSG:3395", -98.5, 29.4),
    ("EPSG:3413", -120.0, 80.0),
    ("EPSG:3031", 100.0, -75.0),
    ("EPSG:32614", -99.0, 29.4),
    ("EPSG:6933", 30.0, -45.0),
]


@pytest.mark.parametrize(("crs", "lon", "lat"), PLACES)
def test_a_step_on_the_map_is_told_as_a_walker_measures_it(crs: str, lon: float, lat: float):
    frame = ground_frame_below(crs, lon, lat)
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
    to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    for dx, dy in ((30.0, 0.0), (0.0, 30.0), (-12.0, 25.0)):
        azimuth, _, length = Geod(ellps="WGS84").inv(lon, lat, *to_degrees.transform(x + dx, y + dy))
        east, north = frame.east_north(dx, dy)
        assert math.hypot(east, north) == pytest.approx(length, rel=1e-4)
        assert math.degrees(math.atan2(east, north)) == pytest.approx(azimuth, abs=0.02)


def test_web_mercator_says_less_than_half_the_metres_at_64_north():
    grid = GeoBox.from_bbox((1.30e6, 9.30e6, 1.32e6, 9.32e6), crs="EPSG:3857", resolution=10)
    assert ground_frame(grid).scale == pytest.approx(math.cos(math.radians(63.9)), abs=0.004)
    assert ground_frame(grid).differs


def test_no_zone_of_utm_is_worth_a_word():
    for lon in (-3.0, -1.5, 0.0, 1.5, 3.0):
        assert not ground_frame_below("EPSG:32631", 3.0 + lon, 45.0).differs


def test_where_there_is_no_ground_the_map_speaks_for_itself():
    assert ground_frame(None) == GroundFrame()
    nowhere = GeoBox.from_bbox((1e9, 1e9, 1e9 + 100, 1e9 + 100), crs="EPSG:3857", resolution=10)
    assert ground_frame(nowhere) == GroundFrame()
    assert ground_frame_below("EPSG:3857", 0.0, 90.0) == GroundFrame()


@pytest.mark.parametrize(
    "said",
    [
        None,
        3,
        {},
        {"x_step": [1]},
        {"x_step": [0, 0], "y_step": [0, 0]},
        {"x_step": "ab", "y_step": "cd"},
        {"x_step": [math.nan, 0], "y_step": [0, 1]},
    ],
)
def test_what_others_wrote_does_no_harm(said: object):
    assert GroundFrame.of(said) == GroundFrame()


def test_what_is_said_is_read_again():
    frame = ground_frame_below("EPSG:3413", -120.0, 80.0)
    assert GroundFrame.of(frame.said()) == frame
