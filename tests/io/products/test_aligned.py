from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.transform import GCPTransformer

from crosstie.codes import Kernel
from crosstie.errors import BadInputError, NoGeoreferenceError, UnreadableRasterError
from crosstie.io.products import aligned as engine
from crosstie.io.products.aligned import aligned_dataarray, write_aligned
from crosstie.io.products.mapping import Mapping
from crosstie.io.products.vrt import corrected_vrt
from crosstie.io.raster.georeference import georeference_of
from crosstie.io.raster.locate import locator
from crosstie.io.storage.store import open_store
from crosstie.types import DisplacementField

UTM = "EPSG:32614"
GROUND = Affine(10, 0, 600_000, 0, -10, 3_300_000)
COPY = Mapping(UTM)


def write(
    path: Path, pixels: np.ndarray, *, crs=UTM, transform=GROUND, nodata=None, gcps=None, mask=None, **profile
) -> Path:
    bands = pixels if pixels.ndim == 3 else pixels[None]
    place = {"transform": transform, "crs": crs} if gcps is None else {"gcps": gcps, "crs": crs}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(
        path, "w", driver="GTiff", height=bands.shape[1], width=bands.shape[2], count=len(bands),
        dtype=bands.dtype, nodata=nodata, **place, **profile,
    ) as raster:  # fmt: skip
        raster.write(bands)
        if mask is not None:
            raster.write_mask(mask)
    return path


def align(source: Path, grid: GeoBox, mapping: Mapping = COPY, resampling: str = "cubic") -> Path:
    out = source.parent / "out"
    write_aligned(
        source, open_store(str(out)), "aligned.tif", grid=grid, mapping=mapping, resampling=Kernel(resampling)
    )
    assert [path.name for path in out.iterdir()] == ["aligned.tif"]  # nothing of the work is left
    return out / "aligned.tif"


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as raster:
        return raster.read()


def waves(col: np.ndarray, row: np.ndarray) -> np.ndarray:
    """A band-limited image at positions in px from the outer corner: no wave is shorter than 12 px."""
    total = np.zeros(np.broadcast(col, row).shape)
    for n, (fx, fy) in enumerate([(0.08, 0.01), (-0.03, 0.07), (0.05, 0.05), (0.013, -0.021)]):
        total += np.sin(2 * np.pi * (fx * col + fy * row) + n)
    return total


def wave_image(shape=(300, 320)) -> np.ndarray:
    row, col = np.mgrid[0 : shape[0], 0 : shape[1]] + 0.5
    return waves(col, row).astype(np.float32)


def grid(shape=(300, 320), transform: Affine = GROUND, crs: str = UTM) -> GeoBox:
    return GeoBox(shape, transform, crs)


def shift_error_px(got: np.ndarray, want_at: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Least-squares shift (x, y) of `got` from the waves at the wanted positions, px."""
    col, row = want_at
    h = 1e-3
    gx = (waves(col + h, row) - waves(col - h, row)) / (2 * h)
    gy = (waves(col, row + h) - waves(col, row - h)) / (2 * h)
    known = np.isfinite(got)
    design = np.column_stack([gx[known], gy[known]])
    return np.linalg.lstsq(design, (got - waves(col, row))[known], rcond=None)[0]


@pytest.mark.parametrize("kernel", ["cubic", "lanczos", "bilinear"])
def test_a_known_shift_of_part_of_a_pixel_comes_back(tmp_path: Path, kernel: str):
    source = write(tmp_path / "s1.tif", wave_image())
    mapping = Mapping(UTM, affine=(1, 0, -33.7, 0, 1, 12.9))  # corrected = delivered + (-33.7, 12.9) m
    got = read(align(source, grid(), mapping, kernel))[0]
    row, col = np.mgrid[0:300, 0:320] + 0.5
    at = col + 3.37, row + 1.29  # delivered = corrected + 33.7 m east, - 12.9 m north: that is down
    # Lanczos of three lobes has a bias of its own, on the finest waves here.
    assert np.abs(shift_error_px(got, at)).max() < (0.02 if kernel == "lanczos" else 0.005)
    if kernel == "cubic":
        error = (got - waves(*at))[5:-5, 5:-5]
        assert np.nanmax(np.abs(error)) < 0.06  # of +- 4


def test_a_field_is_followed_pixel_by_pixel(tmp_path: Path):
    source = write(tmp_path / "s1.tif", wave_image((400, 420)))
    rows, cols = 7, 7
    y, x = np.mgrid[0:rows, 0:cols] + 0.5
    dx_m, dy_m = 20 + 8 * np.sin(x / 2), -9 + 6 * np.cos(y / 2)
    nodes = GeoBox((rows, cols), GROUND @ Affine.scale(64), UTM)
    field = DisplacementField(nodes, dx_m, dy_m, np.ones_like(dx_m))
    mapping = Mapping(UTM, affine=(1, 0, -20, 0, 1, 9), field=field)
    got = read(align(source, grid((400, 420)), mapping))[0][100:300, 100:300]
    row, col = np.mgrid[100:300, 100:300] + 0.5
    to_x, to_y = mapping.secondary_xy(*(GROUND @ (col, row)))
    at = ~GROUND @ (to_x, to_y)
    wanted = col + 2 + 0.8 * np.sin(col / 128), row + 0.9 - 0.6 * np.cos(row / 128)
    assert max(np.abs(a - w).max() for a, w in zip(at, wanted, strict=True)) < 0.01  # px: the spline itself
    np.testing.assert_allclose(got, waves(*wanted), rtol=0, atol=0.06)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32", "float64", "complex64"]
)
@pytest.mark.parametrize("kernel", list(Kernel))
def test_on_its_own_grid_every_kernel_copies_bit_by_bit(tmp_path: Path, dtype: str, kernel: str):
    rng = np.random.default_rng(3)
    pixels = (rng.normal(size=(150, 170)) * 1e4).astype(np.float64)
    if dtype == "complex64":
        pixels = pixels + 1j * rng.normal(size=pixels.shape)
    pixels = pixels.astype(np.int64).astype(dtype) if np.dtype(dtype).kind in "iu" else pixels.astype(dtype)
    source = write(tmp_path / "s1.tif", pixels)
    np.testing.assert_array_equal(read(align(source, grid((150, 170)), resampling=kernel))[0], pixels)


def test_rounding_of_large_coordinates_does_not_blur_a_copy(tmp_path: Path):
    texas = Affine(9.9996687376497, 0, -10979693.990250587, 0, -9.999991587393652, 3423985.519839663)
    pixels = (np.random.default_rng(3).normal(size=(150, 170)) * 1e4).astype(np.float64)
    source = write(tmp_path / "s1.tif", pixels, crs="EPSG:3395", transform=texas)
    got = read(align(source, grid((150, 170), texas, "EPSG:3395"), Mapping("EPSG:3395")))[0]
    np.testing.assert_array_equal(got, pixels)


@pytest.mark.parametrize("kernel", list(Kernel))
def test_a_correction_by_whole_pixels_copies_too(tmp_path: Path, kernel: str):
    pixels = np.random.default_rng(4).normal(size=(120, 130)).astype(np.float32)
    source = write(tmp_path / "s1.tif", pixels)
    got = read(align(source, grid((120, 130)), Mapping(UTM, affine=(1, 0, -30, 0, 1, 20)), kernel))[0]
    np.testing.assert_array_equal(got[:-2, :-3], pixels[2:, 3:])
    assert np.isnan(got[-2:]).all()
    assert np.isnan(got[:, -3:]).all()


@pytest.mark.parametrize("kernel", list(Kernel))
@pytest.mark.parametrize("declared", ["nan", "nodata", "mask"])
def test_holes_stay_where_they_are_and_leave_no_seam(tmp_path: Path, kernel: str, declared: str):
    hole = np.zeros((200, 220), bool)
    hole[60:110, 70:140] = True
    hole |= np.random.default_rng(5).random(hole.shape) < 0.03
    flat = np.full(hole.shape, 800, np.float32 if declared == "nan" else np.uint16)
    flat[hole] = np.nan if declared == "nan" else 0
    source = write(
        tmp_path / "s1.tif", flat,
        nodata={"nan": None, "nodata": 0, "mask": None}[declared], mask=~hole if declared == "mask" else None,
    )  # fmt: skip
    mapping = Mapping(UTM, affine=(1, 0, -4.0, 0, 1, -3.0))  # to (col + 0.4, row - 0.3)
    out = align(source, grid(hole.shape), mapping, kernel)
    with rasterio.open(out) as raster:
        got, valid = raster.read(1), raster.read_masks(1) > 0
    # The pixel whose centre is 0.4 to the right and 0.3 up lies in the same pixel of the source.
    np.testing.assert_array_equal(valid, ~hole)
    np.testing.assert_allclose(got[valid], 800, rtol=0, atol=1e-3)


def test_noise_beside_holes_is_not_blown_up(tmp_path: Path):
    # What is left of a Lanczos kernel may have weights that sum to nearly nothing.
    rng = np.random.default_rng(6)
    noise = rng.uniform(100, 200, (200, 200)).astype(np.float32)
    noise[rng.random(noise.shape) < 0.3] = np.nan
    source = write(tmp_path / "s1.tif", noise)
    for kernel in ("cubic", "lanczos"):
        got = read(align(source, grid(noise.shape), Mapping(UTM, affine=(1, 0, -4.4, 0, 1, -3.6)), kernel))
        assert np.nanmin(got) > 40
        assert np.nanmax(got) < 260


def test_integers_are_rounded_and_clipped_not_wrapped(tmp_path: Path):
    edge = np.zeros((60, 60), np.uint8)
    edge[:, 30:] = 255
    got = read(
        align(write(tmp_path / "s1.tif", edge), grid((60, 60)), Mapping(UTM, affine=(1, 0, -5, 0, 1, 0)))
    )
    # Half-way over the edge: 128 by rounding up; cubic overshoots to -16 and 271 on either side.
    assert got[0, 30, 26:33].tolist() == [0, 0, 0, 128, 255, 255, 255]


def test_a_valid_pixel_never_takes_the_value_of_nodata(tmp_path: Path):
    pixels = np.full((60, 60), 1, np.uint8)
    pixels[:, 30:] = 255
    source = write(tmp_path / "s1.tif", pixels, nodata=0)
    with rasterio.open(align(source, grid((60, 60)), Mapping(UTM, affine=(1, 0, -3, 0, 1, 0)))) as raster:
        assert raster.nodata == 0
        assert (raster.read_masks(1)[:, :59] == 255).all()  # cubic undershoots beside the edge: 1, not 0
        assert raster.read(1)[:, 28].min() == 1


@pytest.mark.parametrize(("dtype", "told"), [("uint16", 0), ("int16", 0), ("float32", np.nan)])
def test_outside_becomes_nodata_where_none_is_declared(tmp_path: Path, dtype: str, told: float):
    source = write(tmp_path / "s1.tif", np.full((80, 80), 7, dtype))
    with rasterio.open(align(source, grid((80, 100)))) as raster:
        np.testing.assert_equal(raster.nodata, told)
        assert (raster.read(1)[:, :80] == 7).all()
        np.testing.assert_equal(raster.read(1)[:, 80:], np.full((80, 20), told))
        assert ("CROSSTIE_NODATA" in raster.tags()) == (dtype != "float32")


def test_integers_without_nodata_get_none_where_nothing_lies_outside(tmp_path: Path):
    pixels = np.random.default_rng(8).integers(0, 3, (64, 64)).astype(np.uint8)
    with rasterio.open(align(write(tmp_path / "s1.tif", pixels), grid((64, 64)))) as raster:
        assert raster.nodata is None


def test_both_parts_of_complex_pixels_are_moved(tmp_path: Path):
    image = wave_image()
    source = write(tmp_path / "slc.tif", (image + 1j * image[::-1]).astype(np.complex64))
    mapping = Mapping(UTM, affine=(1, 0, -4, 0, 1, 0))
    got = read(align(source, grid(), mapping))[0][:, :300]
    real = read(align(write(tmp_path / "real.tif", image), grid(), mapping))[0][:, :300]
    imag = read(align(write(tmp_path / "imag.tif", image[::-1].copy()), grid(), mapping))[0][:, :300]
    np.testing.assert_allclose(got.real, real, rtol=0, atol=1e-5)
    np.testing.assert_allclose(got.imag, imag, rtol=0, atol=1e-5)


def test_what_the_source_says_of_its_bands_is_kept(tmp_path: Path):
    path = write(tmp_path / "s2.tif", np.ones((3, 64, 64), np.uint16), nodata=0, photometric="RGB")
    with rasterio.open(path, "r+") as raster:
        raster.descriptions, raster.units = ("B04", "B03", "B02"), ("dn", "dn", "")
        raster.scales, raster.offsets = (1e-4, 1e-4, 2e-4), (-0.1, -0.1, 0.0)
        raster.update_tags(PLATFORM="S2A")
        raster.update_tags(2, CENTRE="560 nm", STATISTICS_MEAN="99")
    with rasterio.open(align(path, grid((64, 70)))) as out:
        assert out.descriptions == ("B04", "B03", "B02")
        assert out.units[:2] == ("dn", "dn")
        assert out.scales == (1e-4, 1e-4, 2e-4)
        assert out.offsets == (-0.1, -0.1, 0.0)
        assert out.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        assert out.tags()["PLATFORM"] == "S2A"
        assert out.tags(2)["CENTRE"] == "560 nm"
        assert float(out.tags(2)["STATISTICS_MEAN"]) == 1.0  # of what is written, nodata apart


def test_classes_with_a_colour_table_are_never_mixed(tmp_path: Path):
    classes = np.random.default_rng(9).choice([1, 9], (64, 64)).astype(np.uint8)
    path = write(tmp_path / "scl.tif", classes, photometric="palette")
    with rasterio.open(path, "r+") as raster:
        raster.write_colormap(1, {1: (1, 2, 3, 255), 9: (9, 8, 7, 255)})
    with rasterio.open(align(path, grid((60, 60)), Mapping(UTM, affine=(1, 0, -4.9, 0, 1, 0)))) as out:
        assert set(np.unique(out.read(1))) == {1, 9}
        assert out.colormap(1)[9] == (9, 8, 7, 255)


def gcps_of(transform: Affine, shape: tuple[int, int], bend_m: float) -> list[GroundControlPoint]:
    points = []
    for row in np.linspace(0, shape[0], 6):
        for col in np.linspace(0, shape[1], 6):
            x, y = transform @ (col, row)
            bent = bend_m * (col / shape[1]) * (row / shape[0])
            points.append(GroundControlPoint(row=row, col=col, x=x + bent, y=y - bent))
    return points


def test_a_raster_that_has_control_points_only_is_placed_by_them(tmp_path: Path):
    shape = (300, 320)
    gcps = gcps_of(GROUND, shape, bend_m=60)
    source = write(tmp_path / "grd.tif", wave_image(shape), gcps=gcps)
    got = read(align(source, grid(shape), Mapping(UTM, affine=(1, 0, 25.0, 0, 1, -15.0))))[0]
    row, col = np.mgrid[0:300, 0:320] + 0.5
    x, y = GROUND @ (col, row)
    with GCPTransformer(gcps) as places:
        at_row, at_col = places.rowcol(x.ravel() - 25.0, y.ravel() + 15.0, op=lambda v: v)
    at = np.reshape(at_col, shape), np.reshape(at_row, shape)
    inner = np.s_[20:-20, 20:-20]
    assert np.isfinite(got[inner]).all()
    np.testing.assert_allclose(got[inner], waves(*at)[inner], rtol=0, atol=0.06)


def test_another_crs_and_resolution(tmp_path: Path):
    # The raster lies in degrees, the pair in UTM, the grid has 12 m pixels.
    there = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True)
    lon, lat = there.transform(*(GROUND @ (160, 150)))
    own = Affine(1e-4, 0, lon - 0.02, 0, -9e-5, lat + 0.018)
    source = write(tmp_path / "s1.tif", wave_image((400, 400)), crs="EPSG:4326", transform=own)
    coarse = grid((200, 210), GROUND @ Affine.translation(30, 30) @ Affine.scale(1.2))
    got = read(align(source, coarse, Mapping(UTM, affine=(1, 0, 12, 0, 1, -7))))[0]
    row, col = np.mgrid[0:200, 0:210] + 0.5
    x, y = coarse.affine @ (col, row)
    at = ~own @ there.transform(x - 12, y + 7)
    inside = (at[0] > 4) & (at[0] < 396) & (at[1] > 4) & (at[1] < 396)
    assert inside.mean() > 0.9
    np.testing.assert_allclose(got[inside], waves(*at)[inside], rtol=0, atol=0.06)


@pytest.mark.parametrize("across", [True, False])
def test_a_coarser_grid_averages_and_does_not_alias(tmp_path: Path, across: bool):
    row, col = np.mgrid[0:400, 0:400]
    stripes = (100 + 50 * ((row if across else col) % 2 * 2 - 1) + col).astype(np.float32)
    # Its pixels are centred on those of the source: left to itself, a kernel would see one stripe only.
    coarse = grid((99, 99), GROUND @ Affine.translation(0.5, 0.5) @ Affine.scale(4))
    for kernel in ("cubic", "lanczos", "bilinear"):
        got = read(align(write(tmp_path / "s1.tif", stripes), coarse, resampling=kernel))[0]
        wanted = np.broadcast_to(100 + np.arange(99) * 4 + 2.0, (99, 99))
        np.testing.assert_allclose(got[5:-5, 5:-5], wanted[5:-5, 5:-5], rtol=0, atol=1.0)  # of +- 50


@pytest.mark.parametrize("kernel", ["cubic", "lanczos"])
def test_the_result_does_not_depend_on_the_blocks(tmp_path: Path, monkeypatch, kernel: str):
    image = np.random.default_rng(10).normal(size=(500, 540)).astype(np.float32)
    image[np.random.default_rng(11).random(image.shape) < 0.02] = np.nan
    source = write(tmp_path / "s1.tif", image)
    mapping = Mapping(UTM, affine=(1.003, 2e-3, -7806.7, -1e-3, 0.998, 7215.2))
    whole = read(align(source, grid(image.shape), mapping, kernel))
    monkeypatch.setattr(engine, "BLOCK_PX", 96)
    cut = read(align(source, grid(image.shape), mapping, kernel))
    np.testing.assert_array_equal(np.isnan(cut), np.isnan(whole))
    np.testing.assert_allclose(cut, whole, rtol=0, atol=2e-5)
    assert np.isfinite(whole).mean() > 0.8


def test_the_affine_and_the_vrt_put_ground_at_the_same_place(tmp_path: Path):
    source = write(tmp_path / "s1.tif", wave_image())
    affine = (1.0005, 2e-4, -1500.0, -3e-4, 0.9996, 1320.0)
    (tmp_path / "corrected.vrt").write_bytes(corrected_vrt([str(source)], affine=affine, grid_crs=UTM))
    rng = np.random.default_rng(12)
    col, row = rng.uniform(0, 320, 50), rng.uniform(0, 300, 50)
    with rasterio.open(tmp_path / "corrected.vrt") as raster, rasterio.open(source) as delivered:
        x, y = raster.transform @ (col, row)
        into = locator(georeference_of(delivered), UTM)
        at = into(*Mapping(UTM, affine=affine).secondary_xy(x, y))
    assert np.hypot(at[0] - col, at[1] - row).max() < 1e-4  # px


def test_an_array_is_lazy_and_holds_the_pixels_of_the_file(tmp_path: Path):
    image = np.stack([wave_image(), wave_image()[::-1]])
    source = write(tmp_path / "s1.tif", image)
    mapping = Mapping(UTM, affine=(1, 0, -33.7, 0, 1, 12.9))
    array = aligned_dataarray(source, grid=grid(), mapping=mapping, chunk_px=128)
    assert array.chunks is not None
    assert array.odc.geobox == grid()
    assert array.dims == ("band", "y", "x")
    np.testing.assert_allclose(array.values, read(align(source, grid(), mapping)), rtol=0, atol=1e-5)


def test_texas_through_its_truth_field(real_data: Path, tmp_path: Path):
    texas = real_data / "scenes" / "T14RNT-2048"
    with rasterio.open(texas / "truth_offsets.tif") as raster:
        truth, nodes, crs = raster.read(), raster.transform, raster.crs.to_wkt()
    with rasterio.open(texas / "s1_vh_refined.tif") as raster:
        refined, on = raster.read(1), GeoBox(raster.shape, raster.transform, raster.crs.to_wkt())
    size_m = on.affine.a
    at = GeoBox(truth.shape[1:], nodes, crs)
    field = DisplacementField(at, truth[0] * size_m, -truth[1] * size_m, truth[0] * 0)
    out = open_store(str(tmp_path))
    write_aligned(texas / "s1_vh.tif", out, "a.tif", grid=on, mapping=Mapping(crs, field=field))
    got = read(tmp_path / "a.tif")[0]
    seen = (got > 0) & (refined > 0)
    assert seen.mean() > 0.99
    assert np.corrcoef(got[seen], refined[seen])[0, 1] > 0.99


def test_wrong_input_ends_in_one_line_and_leaves_nothing(tmp_path: Path):
    source = write(tmp_path / "s1.tif", wave_image())
    far = grid((100, 100), GROUND @ Affine.translation(5000, 0))
    for bad, href, on in [
        (BadInputError, source, far),
        (UnreadableRasterError, tmp_path / "gone.tif", grid()),
        (UnreadableRasterError, write(tmp_path / "i64.tif", np.ones((9, 9), np.int64)), grid()),
        (NoGeoreferenceError, write(tmp_path / "bare.tif", wave_image(), crs=None), grid()),
    ]:
        with pytest.raises(bad) as told:
            write_aligned(href, open_store(str(tmp_path / "out")), "aligned.tif", grid=on, mapping=COPY)
        assert "\n" not in str(told.value)
        assert not list((tmp_path / "out").glob("*"))


def test_a_cut_off_file_leaves_nothing(tmp_path: Path):
    source = write(tmp_path / "s1.tif", np.random.default_rng(0).normal(size=(600, 600)), tiled=True)
    os.truncate(source, source.stat().st_size // 2)
    with pytest.raises(UnreadableRasterError, match="pixels cannot be read"):
        write_aligned(source, open_store(str(tmp_path / "out")), "a.tif", grid=grid((600, 600)), mapping=COPY)
    assert not list((tmp_path / "out").glob("*"))


def test_what_a_catalog_names_is_not_opened_as_vrt(tmp_path: Path):
    source = write(tmp_path / "s1.tif", wave_image())
    (tmp_path / "s1.vrt").write_bytes(corrected_vrt([str(source)], affine=(1, 0, 0, 0, 1, 0), grid_crs=None))
    with pytest.raises(UnreadableRasterError):
        write_aligned(
            tmp_path / "s1.vrt", open_store(str(tmp_path / "out")), "a.tif",
            grid=grid(), mapping=COPY, from_catalog=True,
        )  # fmt: skip
