"""Wild values that no header declares, and scale and offset that one declares: what comes out of a read."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from crosstie.grid import window
from crosstie.io.datasets.picture import read_picture
from crosstie.io.raster import open_pair, open_source, read_plane
from crosstie.io.raster.values.plausible import find_fills, find_limits
from crosstie.matcher.normalise import normalise
from crosstie.types import Kind

UTM = "EPSG:32630"
NORTH_UP = Affine(10, 0, 500_000, 0, -10, 4_200_000)
SIDE = 300


def write(path, bands, *, nodata=None, scales=None, offsets=None):
    bands = np.asarray(bands)
    bands = bands[None] if bands.ndim == 2 else bands
    count, height, width = bands.shape
    with rasterio.open(
        path, "w", driver="GTiff", transform=NORTH_UP, crs=UTM, nodata=nodata,
        count=count, height=height, width=width, dtype=bands.dtype,
    ) as raster:  # fmt: skip
        raster.write(bands)
        if scales:
            raster.scales = scales
        if offsets:
            raster.offsets = offsets
    return path


def read(path, grid=None, **about):
    """Read as a user does: any warning of numpy's is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = open_source(path, **about)
        return read_plane(source, grid or source.geobox)


def said(caplog):
    """What we log; GDAL logs of its own."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("crosstie.")]


def image(name):
    """A scene of (SIDE, SIDE) in one of the units that are delivered."""
    rng = np.random.default_rng(3)
    smooth = np.cumsum(rng.normal(0, 0.3, (SIDE, SIDE)), axis=1)
    db = -14 + smooth - smooth.mean() + 10 * np.log10(rng.gamma(4, 0.25, (SIDE, SIDE)))
    db = np.clip(db, -35, 10)
    reflectance = np.clip(0.15 + 0.01 * smooth, 0.01, 0.9)
    return {
        "s2 reflectance": lambda: reflectance.astype(np.float32),
        "s2 uint16": lambda: np.rint(1e4 * reflectance).astype(np.uint16),
        "s2 int16": lambda: np.rint(1e4 * reflectance).astype(np.int16),
        "s2 float64": lambda: reflectance,
        "s1 db": lambda: db.astype(np.float32),
        "s1 db int16": lambda: np.rint(100 * db).astype(np.int16),
        "s1 power": lambda: (10 ** (db / 10)).astype(np.float32),
        "s1 uint16": lambda: np.rint(500 * 10 ** (db / 20)).astype(np.uint16) + np.uint16(1),
        "s1 int16": lambda: np.rint(500 * 10 ** (db / 20)).astype(np.int16),
    }[name]()


ONE, BLOCK, WEDGE = (
    (slice(100, 101), slice(120, 121)),
    (slice(40, 70), slice(200, 230)),
    (slice(0, 300), slice(0, 90)),
)
HALF = (slice(0, 300), slice(120, 300))


@pytest.mark.parametrize(
    ("name", "wild", "places"),
    [
        *((name, wild, (ONE, BLOCK, WEDGE))
          for name in ("s2 reflectance", "s1 db", "s1 power")
          for wild in (9.96921e36, 1e20, 1e38, np.inf, -1e30, -np.inf, -9999, -32768)),
        ("s2 reflectance", 1e10, (ONE, BLOCK, WEDGE)), ("s2 reflectance", 600, (ONE, BLOCK)),
        ("s1 db", -1e6, (ONE, BLOCK, WEDGE)), ("s2 float64", 1e300, (ONE, BLOCK, WEDGE)),
        ("s2 uint16", 65535, (ONE, BLOCK, WEDGE)), ("s2 int16", -32768, (ONE, BLOCK, WEDGE)),
        ("s2 int16", -9999, (BLOCK, WEDGE)), ("s1 db int16", -32768, (ONE, BLOCK, WEDGE)),
        ("s1 db int16", -9999, (BLOCK, WEDGE)), ("s1 uint16", 65535, (BLOCK, WEDGE)),
        # alone below zero, in the middle of no other value
        ("s2 reflectance", -1, (BLOCK, WEDGE)), ("s2 int16", -1, (BLOCK, WEDGE)),
        ("s1 int16", -1, (BLOCK, WEDGE)), ("s1 power", -1, (BLOCK, WEDGE)), ("s1 power", -0.001, (WEDGE,)),
        # the logarithm of nothing
        ("s1 db", -100, (BLOCK, WEDGE)), ("s1 db int16", -10_000, (BLOCK, WEDGE)),
        ("s1 power", 1e-10, (ONE, BLOCK, WEDGE, HALF)), ("s1 power", 1e-30, (WEDGE, HALF)),
        ("s1 power", 1.2e-38, (HALF,)),
    ],
)  # fmt: skip
def test_a_wild_value_is_invalid_and_all_else_is_as_without_it(tmp_path, name, wild, places):
    values = image(name)
    clean = read(write(tmp_path / f"{name[:2]}_clean.tif", values))
    for place in places:
        spoiled = values.copy()
        spoiled[place] = wild
        plane = read(write(tmp_path / f"{name[:2]}_wild.tif", spoiled))
        assert np.isnan(plane[place]).all()
        clean_rest, rest = clean.copy(), plane.copy()
        clean_rest[place] = rest[place] = 0
        np.testing.assert_array_equal(rest, clean_rest)


@pytest.mark.parametrize("name", ["s2 reflectance", "s1 db", "s1 power", "s1 uint16", "s2 uint16"])
def test_without_wild_values_every_pixel_stays_even_ships_and_clouds(tmp_path, name, caplog):
    values = image(name).astype(np.float64)
    bright = {"s1 db": lambda x: x + 30, "s1 power": lambda x: 1000 * x, "s1 uint16": lambda x: 31.6 * x}
    top = np.percentile(values, 99.9)
    few = np.random.default_rng(5).integers(0, SIDE, (2, 12))
    values[tuple(few)] = np.minimum(bright.get(name, lambda x: 3 * x)(top), 65535)
    path = write(tmp_path / f"{name[:2]}.tif", values.astype(image(name).dtype))
    with caplog.at_level(logging.INFO):
        assert np.isfinite(read(path)).all()
    assert not said(caplog)


@pytest.mark.parametrize("other", [1.0, 38.0, 3000.0])
def test_a_constant_band_beside_power_is_no_fill(tmp_path, other):
    power = 0.01 * image("s1 power")
    path = write(tmp_path / "s1.tif", np.stack([power, np.full_like(power, other)]))
    source = open_source(path)
    assert source.bands == (1, 2)
    assert source.fills == ()
    assert np.isfinite(read(path)).all()


def test_a_window_decides_as_the_whole(tmp_path):
    values = image("s1 db")
    values[BLOCK], values[ONE], values[5:8, 5:8] = -9999, 1e20, 25
    source = open_source(write(tmp_path / "s1.tif", values))
    whole = read_plane(source, source.geobox)
    for row, col in ((40, 200), (95, 115), (0, 0), (150, 150)):
        part = read_plane(source, window(source.geobox, row=row, col=col, shape=(30, 30)))
        np.testing.assert_array_equal(part, whole[row : row + 30, col : col + 30])


@pytest.mark.parametrize("name", ["s2 reflectance", "s2 int16", "s1 db", "s1 power"])
@pytest.mark.parametrize("zoom", [1 / 2, 1 / 4])
def test_no_average_holds_a_part_of_a_wild_block(tmp_path, name, zoom):
    values = image(name)
    grid = GeoBox((SIDE, SIDE), NORTH_UP, UTM).zoom_out(1 / zoom)
    clean = read(write(tmp_path / f"{name[:2]}_clean.tif", values), grid)
    values[33:97, 101:207] = -9999  # ends inside the coarse cells
    plane = read(write(tmp_path / f"{name[:2]}_wild.tif", values), grid)
    kept = np.isfinite(plane)
    assert kept.mean() > 0.85
    np.testing.assert_allclose(plane[kept], clean[kept], rtol=0, atol=1e-4)


def test_declared_nodata_stays_exact_and_is_not_called_wild(tmp_path, caplog):
    values = image("s1 db")
    values[WEDGE] = -9999
    with caplog.at_level(logging.INFO):
        source = open_source(write(tmp_path / "s1.tif", values, nodata=-9999))
        plane = read_plane(source, source.geobox)
        coarse = read_plane(source, source.geobox.zoom_out(4))
    assert np.isnan(plane[WEDGE]).all()
    assert np.isfinite(plane[:, 90:]).all()
    assert np.isfinite(coarse[:, 23:]).all()  # no margin around what is declared
    assert not source.fills
    assert not said(caplog)


def test_how_many_there_are_is_said(tmp_path, caplog):
    values = image("s1 db")
    values[BLOCK], values[ONE] = -9999, 1e20
    with caplog.at_level(logging.INFO):
        read(write(tmp_path / "s1.tif", values))
    opening, reading = said(caplog)
    assert "-9999" in opening
    assert "901 of the 90000 pixels" in reading


def test_one_that_the_sample_misses_is_warned_of_where_it_is_read(tmp_path, caplog):
    values = image("s1 db")
    values[3, 3] = 1e20  # of rows and columns 0 to 4 the sample takes 0, 1, 2 and 4
    source = open_source(write(tmp_path / "s1.tif", values))
    assert source.wild_share == 0
    with caplog.at_level(logging.WARNING):
        for _ in range(3):  # as many windows hold it
            read_plane(source, source.geobox)
    (sentence,) = said(caplog)
    assert "1 of the 90000 pixels" in sentence


def test_a_fill_repeats_and_stands_apart():
    rng = np.random.default_rng(0)
    body = rng.normal(-14, 4, 5000)
    assert find_fills(body) == ()
    assert find_fills(np.append(body, np.full(500, -9999.0))) == (-9999.0,)
    assert find_fills(np.append(body, np.full(500, -12345.0))) == (-12345.0,)
    assert find_fills(np.append(body, [-9999.0, 32767.0])) == ()  # too few to say; the limits take these
    assert find_fills(np.repeat([0.0, 1.0], 100)) == ()  # a mask
    assert find_fills(np.append(1000 * rng.gamma(1, 10, 5000), np.full(500, 65535.0))) == ()  # saturated
    assert find_fills(np.full(100, -9999.0)) == ()


@pytest.mark.parametrize("least", [-1, -2, -3])
def test_the_least_of_values_that_run_through_zero_is_no_fill(least):
    """Dark water after an offset, or whole numbers of dB: the next value is about as frequent."""
    body = np.random.default_rng(0).normal(3, 3, 20_000).round()
    assert find_fills(np.maximum(body, least)) == ()
    assert find_fills(body[body >= least]) == ()


def test_limits_follow_the_unit():
    db = np.random.default_rng(0).normal(-14, 4, 5000)
    assert find_limits(Kind.SAR, is_db=True, scale=1, sample=db) == (-100, 60)
    assert find_limits(Kind.SAR, is_db=True, scale=1, sample=64 + db)[1] > 96  # of DN around 300
    low, high = find_limits(Kind.SAR, is_db=False, scale=1, sample=10 ** (db / 10))
    assert low < 10**-6
    assert 10 ** (30 / 10) < high < 1e7
    assert find_limits(Kind.OPTICAL, is_db=False, scale=1e-4, sample=np.linspace(0, 5e3, 99)) == (
        -22500,
        50000,
    )


# -- scale and offset --------------------------------------------------------------------------------------


def other_grids(source):
    """Grids of the three ways to read: as it lies, between pixels, and averaged."""
    own = source.geobox
    return own, own.translate_pix(0.4, 0.3).pad(-8), own.zoom_out(3)


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("per_db", [10, 100])
def test_whole_numbers_of_db_are_read_as_db_on_every_grid(tmp_path, tagged, per_db):
    db = np.rint(image("s1 db") * per_db) / per_db
    exact = open_source(write(tmp_path / "s1_float.tif", db.astype(np.float32)))
    path = write(
        tmp_path / "s1.tif", np.rint(db * per_db).astype(np.int16), scales=[1 / per_db] if tagged else None
    )
    whole = open_source(path)
    for grid in other_grids(exact):
        # GDAL averages whole numbers to whole numbers.
        np.testing.assert_allclose(
            read_plane(whole, grid), read_plane(exact, grid), rtol=0, atol=0.51 / per_db
        )


def test_each_band_has_a_scale_and_an_offset_of_its_own(tmp_path):
    reflectance = np.stack([image("s2 reflectance") * factor for factor in (1.0, 0.8, 0.6)])
    exact = open_source(write(tmp_path / "s2_float.tif", reflectance))
    scales, offsets = (1e-4, 2.75e-5, 1e-5), (-0.1, -0.2, 0.0)
    stored = np.stack([(band - o) / s for band, s, o in zip(reflectance, scales, offsets, strict=True)])
    stored = np.rint(stored).astype(np.uint32)
    packed = open_source(write(tmp_path / "s2_packed.tif", stored, scales=scales, offsets=offsets))
    for grid in other_grids(exact):
        np.testing.assert_allclose(read_plane(packed, grid), read_plane(exact, grid), rtol=0, atol=1e-4)


def test_scale_of_bytes_and_of_power_counts_and_one_that_cannot_be_meant_does_not(tmp_path):
    db = np.clip(image("s1 db"), -25, 0)
    stored = np.rint((db + 25) * 10).astype(np.uint8)
    byte_db = open_source(write(tmp_path / "s1.tif", stored, scales=[0.1], offsets=[-25]))
    assert byte_db.is_db
    np.testing.assert_allclose(read_plane(byte_db, byte_db.geobox), db, rtol=0, atol=0.051)
    for scale in (0.0, float("nan"), float("inf")):
        odd = open_source(write(tmp_path / "s2.tif", stored, scales=[scale]), kind=Kind.OPTICAL)
        assert odd.scalings == ()


def test_scale_is_applied_once_and_declared_nodata_is_of_stored_values(tmp_path):
    stored = np.rint(image("s1 db") * 100).astype(np.int16)
    stored[:20] = 0
    source = open_source(write(tmp_path / "s1.tif", stored, nodata=0, scales=[0.01]))
    plane = read_plane(source, source.geobox)
    assert np.isnan(plane[:20]).all()
    np.testing.assert_allclose(plane[20:], stored[20:] / 100, rtol=0, atol=1e-5)
    plain = replace(source, scalings=())
    np.testing.assert_allclose(
        read_plane(replace(plain, limits=None), plain.geobox)[20:], stored[20:], rtol=0, atol=0
    )


def test_a_pair_of_files_keeps_the_scale_of_each(tmp_path):
    db = image("s1 db")
    vv = write(tmp_path / "s1_vv.tif", np.rint(db * 100).astype(np.int16), scales=[0.01])
    vh = write(tmp_path / "s1_vh.tif", np.rint((db - 6) * 10).astype(np.int16), scales=[0.1])
    optical = write(tmp_path / "s2.tif", image("s2 uint16"))
    _, sar = open_pair(optical, [vv, vh])
    np.testing.assert_allclose(read_plane(sar, sar.geobox), db - 3, rtol=0, atol=0.03)


# -- from the file to what the matcher sees ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wild"),
    [("s2 reflectance", 9.96921e36), ("s2 reflectance", 1e10), ("s1 db", -1e30), ("s1 db", -1e6),
     ("s1 power", 1e38)],
)  # fmt: skip
def test_one_wild_pixel_changes_its_neighbourhood_only(tmp_path, name, wild):
    values = image(name)
    clean, _ = normalise(read(write(tmp_path / f"{name[:2]}_clean.tif", values)))
    values[100, 120] = wild
    spoiled, valid = normalise(read(write(tmp_path / f"{name[:2]}_wild.tif", values)))
    assert np.count_nonzero(~valid) == 1
    # One of 65 x 65 pixels is missing from the statistics: hardly more than a rounding error.
    np.testing.assert_allclose(spoiled[valid], clean[valid], rtol=0, atol=0.02)


@pytest.mark.parametrize("per_db", [10, 100])
def test_scaled_db_between_pixels_looks_to_the_matcher_as_plain_db(tmp_path, per_db):
    db = np.rint(image("s1 db") * per_db) / per_db
    plain = open_source(write(tmp_path / "s1_float.tif", db.astype(np.float32)))
    whole = write(tmp_path / "s1.tif", np.rint(db * per_db).astype(np.int16), scales=[1 / per_db])
    grid = plain.geobox.translate_pix(0.5, 0.5).pad(-2)
    (seen, valid), (expected, _) = (normalise(read(path, grid)) for path in (whole, plain.hrefs[0]))
    assert valid.all()
    np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-3)


def test_a_picture_for_training_is_read_by_the_same_rules(tmp_path):
    values = np.rint(image("s1 db") * 100).astype(np.int16)
    values[BLOCK], values[ONE] = -32768, 32767
    path = write(tmp_path / "s1.tif", values, scales=[0.01])
    plane = read_picture(path, Kind.SAR, row=0, col=0, shape=(SIDE, SIDE))
    wild = np.zeros((SIDE, SIDE), bool)
    wild[BLOCK] = wild[ONE] = True
    np.testing.assert_array_equal(np.isnan(plane), wild)
    np.testing.assert_allclose(plane[~wild], values[~wild] / 100, rtol=0, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_an_undeclared_blank_border_is_invalid(tmp_path, dtype, count):
    rng = np.random.default_rng(2)
    level = {"uint8": 80, "uint16": 1200, "float32": 0.12}[dtype]
    bands = (level * rng.gamma(9, 1 / 9, (count, SIDE, SIDE))).clip(level / 10).astype(dtype)
    blank = np.add.outer(np.arange(SIDE), 0.3 * np.arange(SIDE)) > 250
    bands[:, blank] = 0
    path = write(tmp_path / "s2_tci.tif", bands)
    plane = read(path, kind=Kind.OPTICAL)
    np.testing.assert_array_equal(np.isnan(plane), blank)
    coarse = GeoBox((SIDE // 5, SIDE // 5), NORTH_UP @ Affine.scale(5), UTM)
    small = read(path, coarse, kind=Kind.OPTICAL)
    # No average of image and border is left, and half of the cells are.
    assert np.nanmin(small) > 0.5 * np.nanmedian(small)
    assert np.isfinite(small).mean() > 0.5


def test_water_cut_off_at_zero_stays_water(tmp_path):
    rng = np.random.default_rng(2)
    water = np.indices((SIDE, SIDE)).sum(axis=0) > 400
    band = np.where(water, rng.normal(0, 3, (SIDE, SIDE)), rng.normal(60, 15, (SIDE, SIDE)))
    path = write(tmp_path / "s2_b08.tif", band.clip(0, 255).astype("uint8"))
    assert np.isfinite(read(path, kind=Kind.OPTICAL)).all()


def test_a_band_that_is_dark_in_one_place_is_no_border(tmp_path):
    rng = np.random.default_rng(2)
    bands = rng.integers(30, 90, (3, SIDE, SIDE)).astype("uint8")
    bands[0, :100] = 0  # no red in deep water, but blue
    assert np.isfinite(read(write(tmp_path / "s2_tci.tif", bands))).all()


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_zeros_among_db_are_invalid(tmp_path, dtype):
    db = image("s1 db" if dtype == "float32" else "s1 db int16")
    blank = np.indices((SIDE, SIDE)).sum(axis=0) > 400
    plane = read(write(tmp_path / "s1_vh.tif", np.where(blank, 0, db).astype(dtype)))
    np.testing.assert_array_equal(np.isnan(plane), blank)


def test_a_few_decibels_around_zero_are_echoes(tmp_path):
    rng = np.random.default_rng(2)
    db = np.rint(rng.normal(-1, 3, (SIDE, SIDE))).astype("int16")  # a city, in whole dB
    assert np.isfinite(read(write(tmp_path / "s1_vv.tif", db))).all()


@pytest.mark.parametrize("least", [1e-300, 1e-45, 1e-38, 1e-10])
@pytest.mark.parametrize("most", [1e9, 9.9e9, 1.0])
@pytest.mark.parametrize("kind", list(Kind))
def test_values_of_every_size_have_limits(least, most, kind):
    sample = np.geomspace(least, most, 1000)
    for is_db in (False, True):
        low, high = find_limits(kind, is_db=is_db and kind is Kind.SAR, scale=1, sample=sample)
        assert np.isfinite([low, high]).all()
        assert low <= np.median(sample) <= high


def test_an_image_of_damaged_floats_is_read(tmp_path):
    rng = np.random.default_rng(4)
    bits = rng.integers(0, 2**31, (SIDE, SIDE), np.int32)  # every exponent, positive
    values = np.nan_to_num(bits.view(np.float32), nan=0, posinf=0)
    read(write(tmp_path / "s1_vh.tif", values), kind=Kind.SAR)
