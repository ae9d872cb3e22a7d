from __future__ import annotations

import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from crosstie.grid import chunks, ground_lattice, tiles, window


@given(
    east_px=st.floats(-3e6, 3e6),
    north_px=st.floats(-1e7, 1e7),
    row=st.integers(0, 5000),
    col=st.integers(0, 5000),
    pixel_m=st.sampled_from([10.0, 20.0, 8.3]),
    turn_deg=st.sampled_from([0.0, 12.0]),
)
def test_a_grid_cut_from_another_keeps_its_lattice_on_the_ground(
    east_px: float, north_px: float, row: int, col: int, pixel_m: float, turn_deg: float
) -> None:
    affine = (
        Affine.translation(round(east_px) * pixel_m, round(north_px) * pixel_m)
        @ Affine.rotation(turn_deg)
        @ Affine.scale(pixel_m, -pixel_m)
    )
    grid = GeoBox((6000, 6000), affine, "EPSG:32614")
    part = window(grid, row=row, col=col, shape=(500, 500))
    first, first_of_part = ground_lattice(grid, step_px=16), ground_lattice(part, step_px=16)
    if turn_deg == 0:  # turned grids have fractions everywhere, some at the very edge of rounding
        assert (first_of_part[0] + row - first[0]) % 16 == 0
        assert (first_of_part[1] + col - first[1]) % 16 == 0
    assert all(0 <= n < 16 for n in (*first, *first_of_part))


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.25])
def test_common_fractions_of_a_pixel_do_not_tip_the_lattice(fraction: float) -> None:
    """A computed origin is off by rounding: 1e-9 px must not move the lattice by a pixel."""
    found = {
        ground_lattice(
            GeoBox((9, 9), Affine(10, 0, (1234 + fraction + tiny) * 10, 0, -10, 77770), "EPSG:32614"),
            step_px=16,
        )
        for tiny in (-1e-9, 0.0, 1e-9)
    }
    assert len(found) == 1


@given(
    shape=st.tuples(st.integers(64, 1500), st.integers(64, 1500)),
    stride=st.integers(16, 90),
    span=st.integers(90, 800),
)
def test_chunks_hold_each_tile_once_and_are_as_few_and_as_equal_as_can_be(
    shape: tuple[int, int], stride: int, span: int
) -> None:
    every = list(tiles(shape, size_px=64, stride_px=stride))
    found = chunks(every, span_px=span)
    assert sorted(tile for chunk in found for tile in chunk.tiles) == sorted(every)
    for axis in (0, 1):
        starts = sorted({(tile.row, tile.col)[axis] for tile in every})
        spans = [chunk.shape[axis] - 64 for chunk in found]  # from the first start to the last
        assert max(spans) < span
        fewest = -(-(starts[-1] - starts[0] + 1) // span)
        assert len({(chunk.row, chunk.col)[axis] for chunk in found}) <= fewest
        assert max(spans) <= -(-(starts[-1] - starts[0] + 1) // fewest)


def test_no_tiles_are_no_chunks() -> None:
    assert chunks([], span_px=768) == []
