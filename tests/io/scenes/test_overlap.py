"""Areas, overlaps and outlines against the truth: other projections, libraries and ways of writing."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer

from crosstie.io.scenes.convex import common_area, signed_area
from crosstie.io.scenes.footprint import lonlat_outlines
from crosstie.io.scenes.overlap import Ground, overlaps, search_boxes

GEOD = Geod(ellps="WGS84")

# Polar stereographic north and south to degrees, and to the equal-area planes of the same poles.
POLES = {
    3413: (
        Transformer.from_crs(3413, 4326, always_xy=True),
        Transformer.from_crs(3413, 6931, always_xy=True),
    ),
    3031: (
        Transformer.from_crs(3031, 4326, always_xy=True),
        Transformer.from_crs(3031, 6932, always_xy=True),
    ),
}


def share(a: shapely.Geometry, b: shapely.Geometry) -> float:
    ground = Ground.of(lonlat_outlines([a, b]))
    return float(overlaps(ground, ground, np.array([0]), np.array([1]))[0])


@given(
    pole=st.sampled_from([3413, 3031]),
    x=st.floats(-6e5, 6e5), y=st.floats(-6e5, 6e5), half=st.floats(3e4, 1.5e5),
    dx=st.floats(-1, 1), dy=st.floats(-1, 1),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_squares_round_a_pole_overlap_as_they_do_in_its_own_equal_area_plane(
    pole: int, x: float, y: float, half: float, dx: float, dy: float
):
    to_degrees, to_plane = POLES[pole]

    def degrees(x: float, y: float) -> shapely.Polygon:
        corners = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
        return shapely.Polygon([to_degrees.transform(x + i * half, y + j * half) for i, j in corners])

    def plane(x: float, y: float) -> shapely.Polygon:
        dense = shapely.segmentize(shapely.box(x - half, y - half, x + half, y + half), 2000)
        return shapely.transform(dense, lambda c: np.column_stack(to_plane.transform(c[:, 0], c[:, 1])))

    second = (x + dx * half, y + dy * half)
    # a side that runs through the pole itself has no longitude there
    squares = [shapely.box(i - half, j - half, i + half, j + half) for i, j in ((x, y), second)]
    assume(all(square.boundary.distance(shapely.Point(0, 0)) > 100 for square in squares))
    true = [plane(x, y), plane(*second)]
    expected = true[0].intersection(true[1]).area / min(true[0].area, true[1].area)
    # a side is the shortest way on the ground, which is not quite straight in the stereographic plane
    assert share(degrees(x, y), degrees(*second)) == pytest.approx(expected, abs=0.002)


@pytest.mark.parametrize(
    "box", [(0, 85, 60, 88), (0, 20, 1, 80), (-180, 85, 180, 90), (179, -18, 181, -17), (5, 0, 7, 1)]
)
def test_areas_of_boxes_in_degrees_are_those_of_geodesy(box: tuple[float, float, float, float]):
    ground = Ground.of(lonlat_outlines([shapely.box(*box)]))
    truth = abs(GEOD.geometry_area_perimeter(shapely.segmentize(shapely.box(*box), 0.02))[0])
    assert ground.area_m2[0] == pytest.approx(truth, rel=1e-3)


@pytest.mark.parametrize(
    "written",
    [
        "POLYGON ((179 -18, -179 -18, -179 -17, 179 -17, 179 -18))",
        "POLYGON ((179 -18, 181 -18, 181 -17, 179 -17, 179 -18))",
        "POLYGON ((-181 -18, -179 -18, -179 -17, -181 -17, -181 -18))",
        "MULTIPOLYGON (((179 -18, 180 -18, 180 -17, 179 -17, 179 -18)),"
        " ((-180 -18, -179 -18, -179 -17, -180 -17, -180 -18)))",
    ],
)
def test_an_outline_over_the_antimeridian_is_the_same_however_it_is_written(written: str):
    cut = lonlat_outlines([shapely.from_wkt(written)])[0]
    assert cut.area == pytest.approx(2)
    assert cut.bounds[0] >= -180
    assert cut.bounds[2] <= 180
    assert share(cut, shapely.box(-180, -18, -179, -17)) == pytest.approx(1, abs=1e-3)
    assert share(cut, shapely.box(178.5, -18, 180, -17)) == pytest.approx(2 / 3, abs=1e-3)
    assert share(cut, shapely.box(-1, -18, 1, -17)) == 0
    boxes, owner = search_boxes(np.array([cut], object))
    assert owner.tolist() == [0, 0]
    assert shapely.union_all(boxes).area < 2.1


def test_bow_ties_holes_and_round_outlines_are_no_trouble():
    tie = shapely.Polygon([(11, 48), (12, 49), (12, 48), (11, 49)])
    assert share(tie, shapely.box(11, 48, 12, 49)) == pytest.approx(1, abs=1e-3)
    ring = shapely.Point(20, 50).buffer(1).difference(shapely.Point(20, 50).buffer(0.5))
    assert share(ring, shapely.Point(20, 50).buffer(1)) == pytest.approx(1, abs=1e-3)
    assert share(ring, shapely.Point(20, 50).buffer(0.4)) == pytest.approx(0, abs=1e-6)


points = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=3, max_size=8)


@given(a=points, b=points)
@settings(deadline=None)
def test_common_areas_of_convex_polygons_are_those_of_an_overlay(
    a: list[tuple[int, int]], b: list[tuple[int, int]]
):
    """On a coarse grid sides and corners often coincide."""
    hulls = [shapely.orient_polygons(shapely.convex_hull(shapely.MultiPoint(group))) for group in (a, b)]
    if not all(isinstance(hull, shapely.Polygon) for hull in hulls):
        return
    corners = []
    for hull in hulls:
        ring = 1e4 * np.array(hull.exterior.coords)[:-1]
        corners.append(np.vstack([ring, np.repeat(ring[-1:], 8 - len(ring), axis=0)])[None])
    assert signed_area(corners[0])[0] == pytest.approx(hulls[0].area * 1e8)
    expected = hulls[0].intersection(hulls[1]).area * 1e8
    assert common_area(*corners)[0] == pytest.approx(expected, abs=1)
    assert common_area(*corners[::-1])[0] == pytest.approx(expected, abs=1)
