from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from crosstie.errors import BadInputError, UnreadableRasterError
from crosstie.io.products.displacement import displacement_cog, read_displacement
from crosstie.io.products.mapping import FADE_NODES, Mapping
from crosstie.types import DisplacementField

UTM = "EPSG:32614"
NODES = Affine(640, 0, 600_000, 0, -640, 3_300_000)
"""One node every 64 px of 10 m."""


def a_field(shape=(20, 24), *, bend_m: float = 30.0) -> DisplacementField:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]] + 0.5
    dx_m = (40 + bend_m * np.sin(x / 4) * np.cos(y / 5)).astype(np.float32)
    dy_m = (-25 + bend_m * np.cos(x / 6)).astype(np.float32)
    return DisplacementField(GeoBox(shape, NODES, UTM), dx_m, dy_m, np.full(shape, 2.5, np.float32))


def node_xy(field: DisplacementField) -> tuple[np.ndarray, np.ndarray]:
    rows, cols = field.grid.shape
    col, row = np.meshgrid(np.arange(cols) + 0.5, np.arange(rows) + 0.5)
    return NODES.a * col + NODES.c, NODES.e * row + NODES.f


def test_a_field_comes_back_as_it_was_written(tmp_path: Path):
    field = a_field()
    field.dx_m[3, 4] = field.dy_m[3, 4] = field.sigma_m[3, 4] = np.nan
    (tmp_path / "displacement.tif").write_bytes(displacement_cog(field))
    assert displacement_cog(field) == displacement_cog(field)
    back = read_displacement(tmp_path / "displacement.tif")
    for name in ("dx_m", "dy_m", "sigma_m"):
        np.testing.assert_array_equal(getattr(back, name), getattr(field, name))
    assert back.grid == field.grid


def test_other_programs_are_told_bands_units_and_nodata(tmp_path: Path):
    (tmp_path / "displacement.tif").write_bytes(displacement_cog(a_field()))
    with rasterio.open(tmp_path / "displacement.tif") as raster:
        assert raster.descriptions == ("dx_m", "dy_m", "sigma_m")
        assert raster.units == ("metre", "metre", "metre")
        assert np.isnan(raster.nodata)
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert "secondary at (x + dx_m, y + dy_m)" in raster.tags()["CROSSTIE_SIGN"]


@pytest.mark.parametrize(("bands", "dtype"), [(3, "float32"), (1, "float32"), (3, "uint8")])
def test_another_raster_is_refused_in_one_line(tmp_path: Path, bands: int, dtype: str):
    path = tmp_path / "other.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=8, width=8, count=bands, dtype=dtype, crs=UTM, transform=NODES
    ) as raster:
        raster.write(np.zeros((bands, 8, 8), dtype))
    with pytest.raises(BadInputError, match=r"other\.tif: its bands are"):
        read_displacement(path)
    with pytest.raises(UnreadableRasterError, match="no such file"):
        read_displacement(tmp_path / "gone.tif")


def test_arrays_of_unlike_shapes_are_refused():
    with pytest.raises(ValueError, match="sigma_m must have the shape of the grid"):
        DisplacementField(GeoBox((4, 4), NODES, UTM), *(np.zeros((4, n), np.float32) for n in (4, 4, 5)))


def test_at_its_nodes_the_mapping_is_the_field():
    field = a_field()
    x, y = node_xy(field)
    to_x, to_y = Mapping(UTM, affine=(1.001, 0, -600, 0, 0.999, 3300), field=field).secondary_xy(x, y)
    np.testing.assert_allclose(to_x - x, field.dx_m, rtol=0, atol=1e-4)  # metres; float32 of 70 m
    np.testing.assert_allclose(to_y - y, field.dy_m, rtol=0, atol=1e-4)


def test_between_nodes_a_smooth_field_is_followed():
    field = a_field()
    rng = np.random.default_rng(1)
    col, row = rng.uniform(3, 21, 400), rng.uniform(3, 17, 400)
    x, y = NODES.a * col + NODES.c, NODES.e * row + NODES.f
    to_x, to_y = Mapping(UTM, field=field).secondary_xy(x, y)
    truth_x, truth_y = 40 + 30 * np.sin(col / 4) * np.cos(row / 5), -25 + 30 * np.cos(col / 6)
    np.testing.assert_allclose(to_x - x, truth_x, rtol=0, atol=0.1)  # metres: 0.01 px
    np.testing.assert_allclose(to_y - y, truth_y, rtol=0, atol=0.1)


def test_without_a_field_the_affine_is_turned_round():
    move = Affine(1.0005, 2e-4, -1500.0, -3e-4, 0.9996, 1320.0)
    x, y = np.array([610_000.0, 640_000.0]), np.array([3_290_000.0, 3_250_000.0])
    to_x, to_y = Mapping(UTM, affine=tuple(move[:6])).secondary_xy(x, y)
    for n in range(2):
        np.testing.assert_allclose(move @ (to_x[n], to_y[n]), (x[n], y[n]), rtol=0, atol=1e-6)


def test_far_from_the_known_nodes_the_affine_holds_and_nothing_jumps():
    field = a_field()
    field.dx_m[:, 12:] = np.nan  # half of it unknown
    affine = (1.0, 0.0, -40.0, 0.0, 1.0, 25.0)  # the field's trend
    mapping = Mapping(UTM, affine=affine, field=field)
    y = np.full(4000, NODES.f + NODES.e * 10.0)
    x = np.linspace(NODES.c - 20 * 640, NODES.c + 44 * 640, 4000)
    to_x, to_y = mapping.secondary_xy(x, y)
    plain_x, plain_y = Mapping(UTM, affine=affine).secondary_xy(x, y)
    node = (x - NODES.c) / 640
    far = (node < -FADE_NODES - 1) | (node > 12 + FADE_NODES + 1)
    np.testing.assert_allclose(to_x[far], plain_x[far], rtol=0, atol=0.1)  # metres: 0.01 px
    np.testing.assert_allclose(to_y[far], plain_y[far], rtol=0, atol=0.1)
    step = np.abs(np.diff(to_x - x)).max()
    assert step < 0.6  # metres over 10 m of ground: the sine's own slope is 0.12, the fade's 0.12


def test_a_place_has_one_position_whichever_others_are_asked_for_with_it():
    rng = np.random.default_rng(3)
    grid = GeoBox((60, 90), NODES, UTM)
    field = DisplacementField(
        grid, *rng.normal(0, 30, (2, 60, 90)), np.ones((60, 90))
    )  # rough from node to node
    field.dx_m[rng.random((60, 90)) < 0.4] = np.nan
    field.dx_m[20:45, 30:] = np.nan
    mapping = Mapping(UTM, affine=(1.0005, 0.0, -300.0, 0.0, 0.9995, 2600.0), field=field)
    x, y = grid.affine @ (rng.uniform(-30, 120, 2000), rng.uniform(-30, 90, 2000))
    together = np.stack(mapping.secondary_xy(x, y))
    alone = np.stack([mapping.secondary_xy(x[n : n + 1], y[n : n + 1]) for n in range(2000)], axis=1)[..., 0]
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-4)  # metres


def test_a_place_that_is_not_finite_spoils_no_other():
    field = a_field()
    x, y = node_xy(field)
    wanted = Mapping(UTM, field=field).secondary_xy(x[1:], y[1:])
    x[0] = np.inf
    np.testing.assert_array_equal(np.stack(Mapping(UTM, field=field).secondary_xy(x, y))[:, 1:], wanted)


def test_a_correction_that_cannot_be_turned_round_is_refused():
    with pytest.raises(ValueError, match="cannot be turned round"):
        Mapping(UTM, affine=(1.0, 1.0, 0.0, 1.0, 1.0, 0.0))
    with pytest.raises(ValueError, match="one CRS"):
        Mapping("EPSG:32615", field=a_field())
