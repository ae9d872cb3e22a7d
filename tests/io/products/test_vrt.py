from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning
from s3_server import s3_server

from crosstie.errors import NoGeoreferenceError, UnreadableRasterError
from crosstie.io.products.vrt import corrected_vrt, place_of
from crosstie.io.raster.gdal import OWN_DRIVERS
from crosstie.io.raster.georeference import corrected, outline

UTM = "EPSG:32614"
GROUND = Affine(10, 0, 600_000, 0, -10, 3_300_000)
MOVE = Affine(1.0005, 2e-4, -1500.0, -3e-4, 0.9996, 1320.0)
"""A rotation, a scale and a shift of about 100 m at the raster: more than any sensor is off."""


def write(path: Path, *, shape=(40, 60), bands=2, crs=UTM, transform=GROUND, gcps=None, seed=0) -> Path:
    pixels = np.random.default_rng(seed).normal(size=(bands, *shape)).astype(np.float32)
    place = {"transform": transform} if gcps is None else {"gcps": gcps}
    with rasterio.open(
        path, "w", driver="GTiff", height=shape[0], width=shape[1], count=bands, dtype="float32", crs=crs,
        nodata=-99.0, **place,
    ) as raster:  # fmt: skip
        raster.write(pixels)
    return path


def written(tmp_path: Path, body: bytes) -> Path:
    folder = tmp_path / "elsewhere"  # the VRT must find its source from any folder
    folder.mkdir(exist_ok=True)
    path = folder / "corrected.vrt"
    path.write_bytes(body)
    return path


def pixel_corners(shape: tuple[int, int]) -> np.ndarray:
    rows, cols = shape
    return np.array([(0, 0), (cols, 0), (0, rows), (cols, rows), (cols / 3, rows / 2)], float)


def at(transform: Affine, px: np.ndarray) -> np.ndarray:
    return np.array([transform @ tuple(p) for p in px])


def test_same_crs_is_exact_and_no_pixel_changes(tmp_path: Path):
    source = write(tmp_path / "s1 & vv.tif")
    path = written(tmp_path, corrected_vrt([str(source)], affine=MOVE[:6], grid_crs=UTM))
    with rasterio.open(source) as before, rasterio.open(path) as after:
        np.testing.assert_array_equal(after.read(), before.read())
        assert after.crs == before.crs
        assert after.nodatavals == before.nodatavals
        assert after.dtypes == before.dtypes
        px = pixel_corners(before.shape)
        wanted = at(MOVE, at(before.transform, px))
        np.testing.assert_allclose(at(after.transform, px), wanted, rtol=0, atol=1e-6)  # metres


def test_a_correction_and_its_inverse_leave_the_raster_where_it_was(tmp_path: Path):
    source = write(tmp_path / "s1.tif")
    there = written(tmp_path, corrected_vrt([str(source)], affine=MOVE[:6], grid_crs=UTM))
    body = corrected_vrt([str(there)], affine=(~MOVE)[:6], grid_crs=UTM, drivers=OWN_DRIVERS)
    (tmp_path / "back.vrt").write_bytes(body)
    with rasterio.open(tmp_path / "back.vrt") as back:
        px = pixel_corners(back.shape)
        np.testing.assert_allclose(at(back.transform, px), at(GROUND, px), rtol=0, atol=1e-6)
        assert np.isfinite(back.read()).all()


@pytest.mark.parametrize("grid_crs", [UTM, None])
def test_without_a_correction_nothing_moves(tmp_path: Path, grid_crs: str | None):
    source = write(tmp_path / "s1.tif")
    path = written(tmp_path, corrected_vrt([str(source)], affine=Affine.identity()[:6], grid_crs=grid_crs))
    with rasterio.open(path) as after:
        assert after.transform == GROUND


def test_degrees_are_moved_by_metres(tmp_path: Path):
    degrees = Affine(9e-5, 0, -98.6, 0, -9e-5, 29.6)
    source = write(tmp_path / "s1.tif", crs="EPSG:4326", transform=degrees, shape=(500, 700), bands=1)
    shift = Affine.translation(123.0, -45.0)
    path = written(tmp_path, corrected_vrt([str(source)], affine=shift[:6], grid_crs=UTM))
    to_utm = Transformer.from_crs("EPSG:4326", UTM, always_xy=True)
    with rasterio.open(path) as after:
        assert after.crs.to_epsg() == 4326
        px = pixel_corners(after.shape)
        moved = np.column_stack(to_utm.transform(*at(after.transform, px).T))
        original = np.column_stack(to_utm.transform(*at(degrees, px).T))
        # 1 cm = 0.001 px: what an affine in degrees cannot say of a shift in metres over 7 km
        np.testing.assert_allclose(moved - original, [[123.0, -45.0]] * len(px), rtol=0, atol=0.01)
    place = corrected(place_of(str(source)), affine=shift[:6], grid_crs=UTM)
    assert 0 < place.worst_error_px < 0.001


def test_where_no_affine_of_its_own_crs_will_do_the_pixels_become_control_points(tmp_path: Path):
    # twelve degrees of longitude in the far north: the direction of grid north turns by ten degrees
    degrees = Affine(0.012, 0, -105.0, 0, -0.004, 78.0)
    source = write(tmp_path / "s1.tif", crs="EPSG:4326", transform=degrees, shape=(1000, 1000), bands=1)
    shift = Affine.translation(900.0, -700.0)
    path = written(tmp_path, corrected_vrt([str(source)], affine=shift[:6], grid_crs=UTM))
    to_utm = Transformer.from_crs("EPSG:4326", UTM, always_xy=True)
    with rasterio.open(source) as before, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as after:
            gcps, crs = after.gcps
            assert crs.to_epsg() == 32614
            assert len(gcps) == 21 * 21
            px = np.array([(g.col, g.row) for g in gcps])
            exact = np.column_stack(to_utm.transform(*at(degrees, px).T)) + np.array([900.0, -700.0])
            np.testing.assert_allclose([(g.x, g.y) for g in gcps], exact, rtol=0, atol=1e-6)
            np.testing.assert_array_equal(after.read(), before.read())


def grd_like() -> list[GroundControlPoint]:
    return [
        GroundControlPoint(
            row=row, col=col, x=-98.6 + 1e-4 * col + 1e-5 * row, y=29.6 - 9e-5 * row, z=200.0 + col
        )
        for row in (0, 20, 40)
        for col in (0, 30, 60)
    ]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("grid_crs", [UTM, "EPSG:4326"])
def test_each_control_point_moves_and_keeps_its_pixel_and_height(tmp_path: Path, grid_crs: str):
    move = Affine.translation(80.0, -30.0) if grid_crs == UTM else Affine.translation(1e-3, -2e-3)
    source = write(tmp_path / "grd.tif", gcps=grd_like(), crs="EPSG:4326")
    path = written(tmp_path, corrected_vrt([str(source)], affine=move[:6], grid_crs=grid_crs))
    to_grid = Transformer.from_crs("EPSG:4326", grid_crs, always_xy=True)
    with rasterio.open(path) as after, rasterio.open(source) as before:
        moved, crs = after.gcps
        assert crs.to_epsg() == 4326
        assert after.transform.is_identity
        original = before.gcps[0]
        assert [(g.row, g.col, g.z) for g in moved] == [(g.row, g.col, g.z) for g in original]
        new = np.column_stack(to_grid.transform([g.x for g in moved], [g.y for g in moved]))
        old = np.column_stack(to_grid.transform([g.x for g in original], [g.y for g in original]))
        np.testing.assert_allclose(new - old, [[move.c, move.f]] * len(new), rtol=0, atol=1e-6)
        np.testing.assert_array_equal(after.read(), before.read())


def test_one_file_per_band_becomes_one_raster_and_another_grid_stays_out(tmp_path: Path):
    vv = write(tmp_path / "vv.tif", bands=1, seed=1)
    vh = write(tmp_path / "vh.tif", bands=1, seed=2)
    coarse = write(tmp_path / "coarse.tif", bands=1, shape=(20, 30), transform=GROUND @ Affine.scale(2))
    body = corrected_vrt([str(vv), str(vh), str(coarse)], affine=MOVE[:6], grid_crs=UTM)
    with rasterio.open(written(tmp_path, body)) as after, rasterio.open(vv) as one, rasterio.open(vh) as two:
        assert after.count == 2
        np.testing.assert_array_equal(after.read(1), one.read(1))
        np.testing.assert_array_equal(after.read(2), two.read(1))
        assert after.tags(ns="CROSSTIE") == {"CROSSTIE_LEFT_OUT": str(coarse)}


def test_a_relative_path_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = write(tmp_path / "s1.tif")
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, corrected_vrt(["s1.tif"], affine=MOVE[:6], grid_crs=UTM))
    monkeypatch.chdir("/")
    with rasterio.open(path) as after, rasterio.open(source) as before:
        np.testing.assert_array_equal(after.read(), before.read())


@pytest.mark.server
def test_a_remote_source_is_named_without_its_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with s3_server("scenes") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.client.put_object(Bucket="scenes", Key="s1.tif", Body=write(tmp_path / "s1.tif").read_bytes())
        signed = server.client.generate_presigned_url("get_object", {"Bucket": "scenes", "Key": "s1.tif"})
        assert "Signature" in signed
        text = corrected_vrt([signed], affine=MOVE[:6], grid_crs=UTM).decode()
    assert f">/vsicurl/{server.url}/scenes/s1.tif</SourceFilename>" in text
    assert "Signature" not in text


def test_the_same_vrt_twice_is_the_same_bytes(tmp_path: Path):
    source = str(write(tmp_path / "s1.tif"))
    assert corrected_vrt([source], affine=MOVE[:6], grid_crs=UTM) == corrected_vrt(
        [source], affine=MOVE[:6], grid_crs=UTM
    )


def test_the_outline_goes_once_around(tmp_path: Path):
    ring = outline(place_of(str(write(tmp_path / "s1.tif"))))
    closed = np.vstack([ring, ring[:1]])
    twice_area = np.sum(closed[:-1, 0] * closed[1:, 1] - closed[1:, 0] * closed[:-1, 1])
    assert math.isclose(abs(twice_area) / 2, 400 * 600, rel_tol=1e-9)
    assert len(np.unique(ring, axis=0)) == len(ring)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_has_no_place_and_what_is_missing_are_told_apart(tmp_path: Path):
    nowhere = write(tmp_path / "nowhere.tif", crs=None, transform=Affine.identity())
    with pytest.raises(NoGeoreferenceError, match=r"nowhere\.tif.*georeference it first"):
        place_of(str(nowhere))
    with pytest.raises(UnreadableRasterError, match=r"missing\.tif") as caught:
        place_of(f"{tmp_path}/missing.tif")
    assert "\n" not in str(caught.value)


@pytest.mark.real
def test_the_real_radar_scene_keeps_every_pixel(real_data: Path, tmp_path: Path):
    source = real_data / "scenes" / "T14RNT-2048" / "s1_vh.tif"
    body = corrected_vrt([str(source)], affine=(1, 0, -24.5, 0, 1, 3.25), grid_crs="EPSG:3395")
    with rasterio.open(source) as before, rasterio.open(written(tmp_path, body)) as after:
        np.testing.assert_array_equal(after.read(), before.read())
        assert after.transform.c == before.transform.c - 24.5
        assert after.transform.f == before.transform.f + 3.25
