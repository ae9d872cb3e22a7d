from __future__ import annotations

import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio._env import get_gdal_config
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from s3_server import s3_server

from crosstie.errors import BadInputError, NoGeoreferenceError, UnreadableRasterError
from crosstie.grid import common_grid, window
from crosstie.io.raster import check_href, open_pair, open_source, read_dataarray, read_plane
from crosstie.io.raster.gdal import IMAGE_DRIVERS, opened
from crosstie.io.raster.values import sensor as kinds
from crosstie.types import Kind

UTM = "EPSG:32630"
NORTH_UP = Affine(10, 0, 500_000, 0, -10, 4_200_000)


def write(
    path: Path, bands, *, transform=NORTH_UP, crs=UTM, colours=None, descriptions=(), mask=None, **profile
):
    bands = np.atleast_3d(bands) if np.ndim(bands) == 3 else np.asarray(bands)[None]
    profile = {"driver": "GTiff", "transform": transform, "crs": crs} | profile
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            count=len(bands),
            height=bands.shape[1],
            width=bands.shape[2],
            dtype=bands.dtype,
            **profile,
        ) as raster,
    ):
        if colours:
            raster.colorinterp = colours
        for n, text in enumerate(descriptions, start=1):
            raster.set_band_description(n, text)
        raster.write(bands)
        if mask is not None:
            raster.write_mask(mask)
    return path


def pixel_ramps(shape):
    """Two images: every pixel's value is its own centre's column, and its own centre's row."""
    rows, cols = np.indices(shape, np.float32)
    return cols + 0.5, rows + 0.5


# -- what a file is --------------------------------------------------------------------------------------


@pytest.mark.real
def test_each_real_format_is_told_for_what_it_is(real_data):
    chips = real_data / "chips"
    floods = chips / "sen1floods11"
    optical, sar = open_pair(
        floods / "S2" / "Spain_7370579_S2Hand.tif", floods / "S1" / "Spain_7370579_S1Hand.tif"
    )
    assert (optical.kind, optical.bands, optical.scale, optical.crs) == (
        Kind.OPTICAL,
        (4, 3, 2),
        1e-4,
        "EPSG:4326",
    )
    assert (sar.kind, sar.bands, sar.is_db) == (Kind.SAR, (1, 2), True)

    name = "38D_378R_2_3.tif"  # the same name in both folders, no band named
    optical, sar = open_pair(chips / "terramind5" / "S2L2A" / name, chips / "terramind5" / "S1RTC" / name)
    assert (optical.kind, optical.bands, optical.scale) == (Kind.OPTICAL, (4, 3, 2), 1e-4)
    assert (sar.kind, sar.bands, sar.is_db) == (Kind.SAR, (1, 2), True)

    scene = real_data / "scenes" / "T14RNT-2048"
    optical, sar = open_pair(scene / "s2_tci.tif", scene / "s1_vh.tif")
    assert (optical.kind, optical.bands, optical.scale) == (Kind.OPTICAL, (1, 2, 3), 1 / 255)
    assert (sar.kind, sar.bands, sar.is_db, sar.nodata) == (Kind.SAR, (1,), False, 0)


@pytest.mark.real
def test_one_file_per_band_keeps_both_polarisations_and_red_green_blue(real_data):
    place = real_data / "chips" / "ssl4eo1"
    date = place / "s2c" / "0000200" / "20200604T054639_20200604T054831_T43RCP"
    sar_folder = next((place / "s1" / "0000200").iterdir())
    optical, sar = open_pair(sorted(date.glob("*.tif")), sorted(sar_folder.glob("*.tif")))
    assert [Path(href).name for href in optical.hrefs] == ["B4.tif", "B3.tif", "B2.tif"]
    assert [Path(href).name for href in sar.hrefs] == ["VH.tif", "VV.tif"]
    assert (optical.kind, sar.kind, sar.is_db) == (Kind.OPTICAL, Kind.SAR, True)
    # The mean of both polarisations lies between them.
    vh, vv = (read_plane(open_source(href), sar.geobox) for href in sar.hrefs)
    np.testing.assert_allclose(read_plane(sar, sar.geobox), (vh + vv) / 2, rtol=0, atol=1e-5)


@pytest.mark.real
def test_real_pairs_are_valid_on_one_grid_and_in_range(real_data):
    chips = real_data / "chips"
    pairs = [
        (p, chips / "terramind5" / "S1RTC" / p.name) for p in (chips / "terramind5" / "S2L2A").glob("*.tif")
    ]
    pairs += [
        (p, chips / "glfcr2" / "s1" / p.name) for p in (chips / "glfcr2" / "s2_cloudfree").glob("*.tif")
    ]
    floods = chips / "sen1floods11"
    pairs.append((next((floods / "S2").glob("*.tif")), next((floods / "S1").glob("*.tif"))))
    assert len(pairs) == 8
    for optical_file, sar_file in pairs:
        optical, sar = open_pair(optical_file, sar_file)
        grid = common_grid(optical.geobox, optical.footprint & sar.footprint, resolution_m=10)
        inner = window(grid, row=20, col=20, shape=(grid.shape[0] - 40, grid.shape[1] - 40))
        assert inner.crs.epsg // 100 in {326, 327}
        light, echo = read_plane(optical, inner), read_plane(sar, inner)
        assert light.dtype == echo.dtype == np.float32
        assert np.isfinite(light).all(), optical_file.name
        assert np.isfinite(echo).all(), sar_file.name
        assert 0.02 < np.median(light) < 0.8  # reflectance, forest to snow
        assert -25 < np.median(echo) < -8  # dB over land at C band


@pytest.mark.parametrize(
    ("name", "count", "dtype", "kind"),
    [
        ("plain.tif", 3, "uint8", Kind.OPTICAL),
        ("S1A_IW_GRDH_vh.tif", 1, "uint8", Kind.SAR),
        ("scene_s2.tif", 1, "uint16", Kind.OPTICAL),
        ("T30_B08.tif", 1, "uint16", Kind.OPTICAL),
        ("plain.tif", 2, "uint16", Kind.SAR),
        ("absurdity.tif", 1, "uint8", None),
        ("s1_on_s2.tif", 1, "uint8", None),
    ],
)
def test_kind_from_name_and_count(tmp_path, name, count, dtype, kind):
    path = write(tmp_path / name, np.ones((count, 16, 16), dtype))
    if kind is None:
        with pytest.raises(BadInputError, match="optical from SAR"):
            open_source(path)
        assert open_source(path, other_kind=Kind.SAR).kind is Kind.OPTICAL
        assert open_source(path, kind=Kind.SAR).kind is Kind.SAR
    else:
        assert open_source(path).kind is kind


def test_negative_floats_are_sar_in_db_and_positive_ones_are_not(tmp_path):
    rng = np.random.default_rng(0)
    power = rng.gamma(1, 0.05, (64, 64)).astype(np.float32)
    assert open_source(write(tmp_path / "a.tif", 10 * np.log10(power))).is_db
    assert not open_source(write(tmp_path / "vv.tif", power)).is_db
    counts = np.rint(1000 * np.log10(power)).astype(np.int16)  # hundredths of dB
    assert open_source(write(tmp_path / "vv_int.tif", counts)).is_db
    holes = np.where(power > 0.1, np.float32(-9999), power)
    assert not open_source(write(tmp_path / "vv_nodata.tif", holes, nodata=-9999)).is_db


def test_an_unknown_kind_is_the_complement_of_the_other(tmp_path):
    plain = write(tmp_path / "plain.tif", np.ones((16, 16), np.uint8))
    sar = write(tmp_path / "vv.tif", np.ones((16, 16), np.uint8))
    optical = write(tmp_path / "tci.tif", np.ones((3, 16, 16), np.uint8))

    def found(*args, **kwargs):
        return tuple(source.kind for source in open_pair(*args, **kwargs))

    assert found(plain, sar) == (Kind.OPTICAL, Kind.SAR)
    assert found(sar, plain) == (Kind.SAR, Kind.OPTICAL)
    assert found(plain, optical) == (Kind.SAR, Kind.OPTICAL)
    assert found(plain, plain) == (Kind.OPTICAL, Kind.SAR)
    assert found(sar, sar) == (Kind.SAR, Kind.SAR)
    assert found(plain, plain, secondary_kind=Kind.OPTICAL) == (Kind.SAR, Kind.OPTICAL)


def test_bands_are_chosen_by_colour_description_order_and_never_alpha(tmp_path):
    blue_first = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.alpha)
    four = np.full((4, 16, 16), 200, np.uint8)
    assert open_source(write(tmp_path / "bgra.tif", four, colours=blue_first)).bands == (3, 2, 1)
    names = [f"B{n}" for n in (12, 11, 8, 4, 3, 2, 1, 5, 6, 7, 9, 10)]
    twelve = np.ones((12, 16, 16), np.uint16)
    assert open_source(write(tmp_path / "named.tif", twelve, descriptions=names)).bands == (4, 5, 6)
    assert open_source(write(tmp_path / "plain12.tif", twelve)).bands == (4, 3, 2)
    angle = write(tmp_path / "x.tif", twelve[:3], descriptions=["angle", "VV", "VH"])
    assert (open_source(angle).kind, open_source(angle).bands) == (Kind.SAR, (2, 3))
    grey_alpha = write(
        tmp_path / "nir.tif", twelve[:2].astype(np.uint8), colours=(ColorInterp.gray, ColorInterp.alpha)
    )
    assert open_source(grey_alpha).bands == (1,)


def test_scale_follows_the_data_type(tmp_path):
    for dtype, value, scale in (
        ("uint8", 100, 1 / 255), ("uint16", 1500, 1e-4), ("int16", 1500, 1e-4), ("float32", 0.4, 1),
        ("float64", 900, 1e-4),
    ):  # fmt: skip
        source = open_source(write(tmp_path / f"{dtype}.tif", np.full((3, 16, 16), value, dtype)))
        assert source.scale == scale
        assert source.white == (1 if dtype == "uint8" else 0.35)


def test_a_source_is_a_value(tmp_path):
    path = write(tmp_path / "s2.tif", np.ones((3, 16, 16), np.uint8))
    one, other = open_source(path), open_source(str(path))
    assert one == other
    assert hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == one
    assert open_source(path.as_uri()) == one


# -- where the pixels are --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
def test_its_own_grid_copies_pixels(tmp_path, dtype):
    values = np.random.default_rng(1).integers(1, 250, (60, 80)).astype(dtype)
    path = write(tmp_path / "s2_nir.tif", values)
    source = open_source(path)
    expected = values.astype(np.float32) * np.float32(source.scale)
    np.testing.assert_array_equal(read_plane(source, source.geobox), expected)
    # A window that sticks out at the upper left, the pixel size off by the noise of a computed transform.
    noisy = Affine(10 + 1e-9, 0, 500_000 - 70, 0, -10 + 1e-9, 4_200_000 + 30)
    plane = read_plane(source, GeoBox((20, 20), noisy, UTM))
    np.testing.assert_array_equal(plane[3:, 7:], expected[:17, :13])
    assert np.isnan(plane[:3]).all()
    assert np.isnan(plane[:, :7]).all()
    assert np.isnan(read_plane(source, window(source.geobox, row=0, col=500, shape=(8, 8)))).all()


def test_sar_on_its_own_grid_is_the_logarithm_of_the_pixels(tmp_path):
    power = np.random.default_rng(1).gamma(1, 100, (2, 40, 40)).astype(np.float32)
    power[:, :5] = 0  # a border without a nodata value: no logarithm
    source = open_source(write(tmp_path / "grd.tif", power))
    plane = read_plane(source, source.geobox)
    assert np.isnan(plane[:5]).all()
    expected = (10 * np.log10(power[:, 5:])).mean(axis=0)
    np.testing.assert_allclose(plane[5:], expected, rtol=0, atol=1e-4)
    stored = write(tmp_path / "db.tif", (10 * np.log10(np.maximum(power, 1e-9))).astype(np.float64))
    db = open_source(stored, kind=Kind.SAR)
    np.testing.assert_allclose(read_plane(db, db.geobox)[5:], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("crs", ["EPSG:3395", UTM, "EPSG:3035"])
def test_pixels_of_another_crs_are_placed_within_a_hundredth(tmp_path, crs):
    """A ramp tells where each value came from; pyproj tells where it should have."""
    degrees = Affine(9e-5, 0, -0.8, 0, -9e-5, 38.2)
    to_map = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    x, y = to_map.transform(-0.8 + 9e-5 * 300, 38.2 - 9e-5 * 200)
    grid = GeoBox((300, 260), Affine(10, 0, x, 0, -10, y), crs)
    for axis, ramp in enumerate(pixel_ramps((900, 900))):
        path = write(tmp_path / f"nir_{axis}.tif", ramp, transform=degrees, crs="EPSG:4326")
        plane = read_plane(replace(open_source(path), scale=1.0), grid)
        cols, rows = np.meshgrid(np.arange(260) + 0.5, np.arange(300) + 0.5)
        lon, lat = to_map.transform(*(x + 10 * cols, y - 10 * rows), direction="INVERSE")
        exact = ((lon + 0.8) / 9e-5, (38.2 - lat) / 9e-5)[axis]
        np.testing.assert_allclose(plane, exact, rtol=0, atol=0.01)  # px of the source


def rotated_gcps(transform, shape, crs="EPSG:4326"):
    to_degrees = Transformer.from_crs(UTM, crs, always_xy=True)
    points = []
    for row in np.linspace(0, shape[0], 8):
        for col in np.linspace(0, shape[1], 9):
            x, y = to_degrees.transform(*(transform @ (col, row)))
            points.append(GroundControlPoint(row=row, col=col, x=x, y=y))
    return points


def test_a_raster_with_gcps_only_is_placed_within_a_hundredth(tmp_path):
    """As a S1 GRD: no CRS, no transform, GCPs in degrees; here of a grid turned by 12 degrees."""
    shape = (700, 800)
    turned = Affine.translation(500_000, 4_200_000) @ Affine.rotation(-12) @ Affine.scale(10, -10)
    x, y = turned @ (400, 350)
    grid = GeoBox((200, 240), Affine(10, 0, x - 1200, 0, -10, y + 1000), UTM)
    cols, rows = np.meshgrid(np.arange(240) + 0.5, np.arange(200) + 0.5)
    exact = ~turned @ (x - 1200 + 10 * cols, y + 1000 - 10 * rows)
    for axis, ramp in enumerate(pixel_ramps(shape)):
        path = write(
            tmp_path / f"nir_{axis}.tif",
            ramp,
            transform=None,
            crs="EPSG:4326",
            gcps=rotated_gcps(turned, shape),
        )
        source = open_source(path)
        assert source.transform is None
        plane = read_plane(replace(source, scale=1.0), grid)
        np.testing.assert_allclose(plane, exact[axis], rtol=0, atol=0.01)
    corners = GeoBox(shape, turned, UTM).extent
    outline = source.footprint.to_crs(UTM)
    assert (outline ^ corners).area < 1e-4 * corners.area
    assert (source.geobox.extent.to_crs(UTM) ^ corners).area < 1e-3 * corners.area
    assert hash(source) == hash(pickle.loads(pickle.dumps(source)))


def test_a_turned_grid_finds_its_pixels_too(tmp_path):
    """The grid may be turned, and larger than what is read at once."""
    source = open_source(write(tmp_path / "nir.tif", pixel_ramps((300, 300))[0]))
    grid = GeoBox(
        (1100, 40), NORTH_UP @ Affine.translation(150, 5) @ Affine.rotation(3) @ Affine.scale(0.25), UTM
    )
    plane = read_plane(replace(source, scale=1.0), grid)
    cols, rows = np.meshgrid(np.arange(40) + 0.5, np.arange(1100) + 0.5)
    x, y = grid.affine @ (cols, rows)
    exact, row = ~NORTH_UP @ (x, y)
    np.testing.assert_allclose(plane[row < 299], exact[row < 299], rtol=0, atol=1e-3)


def test_half_a_pixel_between_two_is_their_mean_in_power_not_in_db(tmp_path):
    power = np.tile(np.float32([1, 100]), (8, 4))
    shifted = GeoBox((8, 7), NORTH_UP @ Affine.translation(0.5, 0), UTM)
    linear = open_source(write(tmp_path / "vv.tif", power))
    np.testing.assert_allclose(read_plane(linear, shifted), 10 * np.log10(50.5), rtol=0, atol=1e-4)
    stored = open_source(write(tmp_path / "vv_db.tif", 10 * np.log10(power) - 30))
    assert stored.is_db
    np.testing.assert_allclose(read_plane(stored, shifted), 10 * np.log10(50.5) - 30, rtol=0, atol=1e-4)


def test_a_coarser_grid_averages(tmp_path):
    values = np.random.default_rng(4).uniform(0, 1, (128, 192)).astype(np.float32)
    source = open_source(write(tmp_path / "nir.tif", values))
    for factor in (2, 3, 4, 11, 16):  # the raster's edge cuts cells of 3 and 11
        rows, cols = 128 // factor, 192 // factor
        coarse = GeoBox((rows + 1, cols + 1), NORTH_UP @ Affine.scale(factor), UTM)
        expected = (
            values[: rows * factor, : cols * factor].reshape(rows, factor, cols, factor).mean(axis=(1, 3))
        )
        plane = read_plane(source, coarse)
        np.testing.assert_allclose(plane[:rows, :cols], expected, rtol=0, atol=1e-5)
        assert np.isnan(plane[rows:]).all()


def test_a_coarser_grid_reads_overviews(tmp_path):
    """The full resolution is missing from the file, so what comes back came from an overview."""
    values = np.random.default_rng(4).integers(1, 255, (1024, 1024)).astype(np.uint8)
    flat = write(tmp_path / "flat.tif", values)
    whole = tmp_path / "s2_nir.tif"
    rasterio.shutil.copy(flat, whole, driver="COG", overview_resampling="average", blocksize=128)
    source = open_source(whole)
    short = tmp_path / "short_nir.tif"
    data = whole.read_bytes()
    short.write_bytes(data[: len(data) // 2])
    short_source = replace(source, hrefs=(str(short),))
    coarse = GeoBox((128, 128), NORTH_UP @ Affine.scale(8), UTM)
    expected = values.reshape(128, 8, 128, 8).mean(axis=(1, 3)) / 255
    plane = read_plane(short_source, coarse)
    np.testing.assert_allclose(plane, expected, rtol=0, atol=2 / 255)  # each level rounds to whole numbers
    with pytest.raises(UnreadableRasterError, match=r"short_nir.tif.*cut short"):
        read_plane(short_source, source.geobox)


# -- what is invalid -------------------------------------------------------------------------------------


def test_nodata_nan_infinity_mask_and_alpha_are_nan(tmp_path):
    values = np.full((3, 16, 16), 0.5, np.float32)
    good = np.ones((16, 16), bool)
    good[2, 3] = good[9, 9] = False

    def valid(path):
        source = open_source(path, kind=Kind.OPTICAL)
        return np.isfinite(read_plane(source, source.geobox))

    for hole in (np.nan, np.inf, -np.inf):
        np.testing.assert_array_equal(valid(write(tmp_path / "a.tif", np.where(good, values, hole))), good)
    tagged = write(tmp_path / "b.tif", np.where(good, values, -1).astype(np.float32), nodata=-1)
    np.testing.assert_array_equal(valid(tagged), good)
    np.testing.assert_array_equal(valid(write(tmp_path / "c.tif", values, mask=good)), good)
    rgba = np.concatenate([np.full((3, 16, 16), 9, np.uint8), 255 * good[None].astype(np.uint8)])
    np.testing.assert_array_equal(
        valid(write(tmp_path / "d.tif", rgba, photometric="rgb", alpha="yes")), good
    )


def test_a_black_pixel_is_valid_unless_nodata_says_otherwise(tmp_path):
    rgb = np.full((3, 16, 16), 50, np.uint8)
    rgb[:, 4, 4] = 0
    rgb[0, 8, 8] = 0  # dark red channel over water, not a hole
    free = open_source(write(tmp_path / "s2_free.tif", rgb))
    assert np.isfinite(read_plane(free, free.geobox)).all()
    tagged = open_source(write(tmp_path / "s2_tagged.tif", rgb, nodata=0))
    holes = np.argwhere(np.isnan(read_plane(tagged, tagged.geobox)))
    assert holes.tolist() == [[4, 4]]


def test_interpolation_does_not_spread_a_hole_nor_mix_it_in(tmp_path):
    values = np.full((32, 32), 0.5, np.float32)
    values[10, 10] = -9999
    source = open_source(write(tmp_path / "nir.tif", values, nodata=-9999))
    plane = read_plane(source, GeoBox((31, 31), NORTH_UP @ Affine.translation(0.2, 0.2), UTM))
    np.testing.assert_allclose(plane[np.isfinite(plane)], 0.5, rtol=0, atol=1e-6)
    assert np.argwhere(np.isnan(plane)).tolist() == [[10, 10]]  # 0.64 of its weight lies on the hole


def test_a_row_of_decoded_blocks_is_kept_and_no_share_of_the_machine(tmp_path):
    """Of what GDAL counts in: bytes, not megabytes."""
    path = write(tmp_path / "s1.tif", np.ones((64, 64), np.float32))
    row_of_a_sentinel_2_tile = 10_980 * 1_024 * np.dtype(np.uint16).itemsize
    with opened(str(path), drivers=IMAGE_DRIVERS) as raster:
        raster.read(1)
        assert row_of_a_sentinel_2_tile <= get_gdal_config("GDAL_CACHEMAX") <= 64 * 2**20


def test_sparse_blocks_are_nodata_and_no_error(tmp_path):
    path = tmp_path / "s1_vh.tif"
    profile = {"driver": "GTiff", "height": 256, "width": 256, "count": 1, "dtype": "uint8", "nodata": 0}
    with rasterio.open(
        path,
        "w",
        **profile,
        crs=UTM,
        transform=NORTH_UP,
        tiled=True,
        blockxsize=64,
        blockysize=64,
        sparse_ok=True,
    ) as raster:
        raster.write(np.full((1, 64, 64), 7, np.uint8), window=rasterio.windows.Window(64, 64, 64, 64))
    source = open_source(path)
    plane = read_plane(source, source.geobox)
    assert np.isfinite(plane).sum() == 64 * 64
    assert np.isfinite(plane[64:128, 64:128]).all()


@pytest.mark.real
def test_the_sparse_scene_has_its_33_blocks(real_data):
    source = open_source(real_data / "scenes" / "T11SLT" / "s2_tci.tif")
    coarse = GeoBox((11264 // 64, 12288 // 64), source.affine @ Affine.scale(64), source.crs)
    assert np.isfinite(read_plane(source, coarse)).sum() == 33 * 16 * 16


# -- what is refused -------------------------------------------------------------------------------------


def test_bad_files_are_named_with_a_next_step_and_without_noise(tmp_path, capfd):
    text = tmp_path / "text.tif"
    text.write_text("this is no raster")
    for path, say in ((tmp_path / "missing.tif", "no such file"), (text, "not recognized")):
        with pytest.raises(UnreadableRasterError, match=rf"{path.name}.*{say}.*check"):
            open_source(path)
    lost = tmp_path / "s2_lost.tif"
    with pytest.warns(NotGeoreferencedWarning):
        write(lost, np.ones((3, 16, 16), np.uint8), transform=None, crs=None)
    with pytest.raises(NoGeoreferenceError, match=r"s2_lost.tif.*ground control points"):
        open_source(lost)
    two = [GroundControlPoint(row=r, col=r, x=r, y=r) for r in (0, 9)]
    few = write(
        tmp_path / "s1_few.tif", np.ones((16, 16), np.uint8), transform=None, gcps=two, crs="EPSG:4326"
    )
    with pytest.raises(NoGeoreferenceError, match="2 ground control points"):
        open_source(few)
    slc = write(tmp_path / "vv_slc.tif", np.ones((16, 16), np.complex64))
    with pytest.raises(UnreadableRasterError, match="complex"):
        open_source(slc)
    assert capfd.readouterr() == ("", "")


def test_a_file_cut_short_is_refused_on_opening(tmp_path, capfd):
    values = np.random.default_rng(0).integers(1, 255, (3, 512, 512)).astype(np.uint8)
    flat = write(tmp_path / "flat.tif", values)
    whole = tmp_path / "s2_whole.tif"
    rasterio.shutil.copy(flat, whole, driver="COG", blocksize=128)
    data = whole.read_bytes()
    source = open_source(whole)
    for kept in (0.3, 0.6, 0.95):
        short = tmp_path / "s2_short.tif"
        short.write_bytes(data[: int(kept * len(data))])
        with pytest.raises(UnreadableRasterError, match=r"s2_short.tif.*cut short.*fetch"):
            open_source(short)
        with pytest.raises(UnreadableRasterError, match=r"s2_short.tif"):
            read_plane(replace(source, hrefs=(str(short),)), source.geobox)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "href",
    [
        "/vsicurl/https://example.com/a.tif", "///vsis3/bucket/a.tif", "/./vsimem/a.tif", "file:///vsigzip/a.tif",
        "NETCDF:/etc/passwd:x", "VRT:x", "GTIFF_DIR:1:/tmp/a.tif", "ftp://host/a.tif", "http://example.com/a.tif",
        "<VRTDataset></VRTDataset>", '{"type": "gdal_virtual"}', "", "a\n.tif", "https:///a.tif",
    ],
)  # fmt: skip
def test_gdal_syntax_and_strange_schemes_are_refused(href):
    with pytest.raises(UnreadableRasterError):
        check_href(href)


def test_plain_addresses_pass():
    for href in (
        "a/b.tif",
        "/a/b.tif",
        "https://example.com/b.tif?sig=x",
        "s3://bucket/b.tif",
        "http://127.0.0.1:9/b",
    ):
        assert check_href(href) == href
    assert check_href("file:///data/a%20b.tif") == "/data/a b.tif"


def test_a_vrt_is_for_the_users_own_files_only(tmp_path):
    path = write(tmp_path / "s2.tif", np.full((3, 16, 16), 51, np.uint8))
    vrt = tmp_path / "s2_own.vrt"
    rasterio.shutil.copy(path, vrt, driver="VRT")
    source = open_source(vrt)
    np.testing.assert_allclose(read_plane(source, source.geobox), 0.2, rtol=0, atol=1e-6)
    with pytest.raises(UnreadableRasterError, match="not recognized"):
        open_source(vrt, from_catalog=True)
    assert "VRT" not in open_source(path, from_catalog=True).drivers
    disguised = tmp_path / "s2_disguised.tif"
    shutil.copy(vrt, disguised)
    with pytest.raises(UnreadableRasterError, match="not recognized"):
        open_source(disguised, from_catalog=True)


def test_files_that_do_not_fit_together_are_refused(tmp_path):
    one = write(tmp_path / "vv.tif", np.ones((16, 16), np.uint8))
    other = write(tmp_path / "vh.tif", np.ones((16, 17), np.uint8))
    with pytest.raises(BadInputError, match=r"vh.tif.*grid of .*vv.tif"):
        open_source([one, other])
    many = write(tmp_path / "tci.tif", np.ones((3, 16, 16), np.uint8))
    with pytest.raises(BadInputError, match=r"vv.tif, tci.tif: some look optical, some SAR"):
        open_source([one, many])
    with pytest.raises(BadInputError, match=r"tci.tif: has 3 bands"):
        open_source([many, one], kind=Kind.OPTICAL)


# -- many readers ----------------------------------------------------------------------------------------


def test_dask_chunks_are_the_same_pixels_and_lazy(tmp_path):
    values = np.random.default_rng(6).uniform(0, 1, (300, 420)).astype(np.float32)
    whole = tmp_path / "nir.tif"
    source = open_source(write(whole, values, tiled=True, blockxsize=64, blockysize=64, compress="deflate"))
    grid = GeoBox((280, 390), NORTH_UP @ Affine.translation(7.3, 4.6), UTM)
    array = read_dataarray(source, grid, chunk_px=100)
    assert array.dims == ("y", "x")
    assert array.odc.geobox == grid
    assert array.chunks == ((100, 100, 80), (100, 100, 100, 90))
    np.testing.assert_allclose(array.values, read_plane(source, grid), rtol=0, atol=1e-4)
    # With the file cut behind its first rows, the first chunk still reads and the last does not.
    os.truncate(whole, whole.stat().st_size // 2)
    np.testing.assert_allclose(
        array[:100, :100].values, read_plane(source, grid[:100, :100]), rtol=0, atol=1e-4
    )
    with pytest.raises(UnreadableRasterError, match=r"nir.tif"):
        array[200:, 300:].compute()


def test_threads_read_side_by_side(tmp_path):
    values = np.random.default_rng(6).uniform(0, 1, (256, 256)).astype(np.float32)
    source = open_source(write(tmp_path / "nir.tif", values, tiled=True, blockxsize=64, blockysize=64))
    grids = [window(source.geobox, row=r, col=r // 2, shape=(64, 64)) for r in range(0, 192, 3)]
    with ThreadPoolExecutor(4) as pool:
        planes = list(pool.map(lambda grid: read_plane(source, grid), grids))
    for r, plane in zip(range(0, 192, 3), planes, strict=True):
        np.testing.assert_array_equal(plane, values[r : r + 64, r // 2 : r // 2 + 64])


@pytest.mark.server
def test_a_bucket_reads_as_a_folder_does(tmp_path, monkeypatch):
    """GDAL does not know AWS_ENDPOINT_URL, which every other client of S3 reads."""
    values = np.random.default_rng(6).integers(1, 255, (3, 64, 64)).astype(np.uint8)
    path = write(tmp_path / "s2_tci.tif", values)
    with s3_server("scenes") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name.replace("AWS_REGION", "AWS_DEFAULT_REGION"), value)
        server.client.upload_file(str(path), "scenes", "a/s2_tci.tif")
        remote, local = open_source("s3://scenes/a/s2_tci.tif"), open_source(path)
        assert replace(remote, hrefs=local.hrefs) == local
        np.testing.assert_array_equal(read_plane(remote, remote.geobox), read_plane(local, local.geobox))
        with pytest.raises(UnreadableRasterError, match=r"s3://scenes/a/none.tif"):
            open_source("s3://scenes/a/none.tif")


def test_tokens_split_on_everything_but_letters_and_digits():
    assert kinds.tokens("S1A_IW-vh.refined (2).TIF") == ["s1a", "iw", "vh", "refined", "2", "tif"]
