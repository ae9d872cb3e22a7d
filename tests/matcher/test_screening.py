from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from odc.geo.geobox import GeoBox

from crosstie.grid import tiles
from crosstie.io.raster import open_pair, read_plane
from crosstie.matcher.screening import Screening, dominant_reason, screen_tiles
from crosstie.types import Kind, Reason, Tile

FACTOR = 8
TILE = Tile(row=0, col=0, size_px=256)


def textured(rng, shape=(32, 32)):
    """Land: structure at all scales, as fields and roads have."""
    coarse = np.kron(rng.normal(size=(8, 8)), np.ones((4, 4)))
    return (coarse + rng.normal(size=shape) * 0.4).astype(np.float32)


@pytest.fixture
def land():
    rng = np.random.default_rng(7)
    return np.float32(0.5) + 0.08 * textured(rng), np.float32(20) + textured(rng)


def screen_one(reference, secondary, **kwargs):
    return screen_tiles(
        [TILE], reference, secondary, px_per_overview_px=FACTOR,
        reference_kind=Kind.OPTICAL, secondary_kind=Kind.SAR, **kwargs,
    ).reasons[0]  # fmt: skip


def screen_files(reference: Path, secondary: Path, *, size_px: int = 256) -> Screening:
    first, second = open_pair(reference, secondary)
    grid = first.geobox
    overview = GeoBox(
        (grid.shape[0] // FACTOR, grid.shape[1] // FACTOR), grid.affine @ grid.affine.scale(FACTOR), grid.crs
    )
    return screen_tiles(
        list(tiles(grid.shape, size_px=size_px, stride_px=size_px)),
        read_plane(first, overview),
        read_plane(second, overview),
        px_per_overview_px=FACTOR,
        reference_kind=first.kind,
        secondary_kind=second.kind,
        reference_white=first.white,
    )


def test_land_stays(land):
    assert screen_one(*land) is None


def test_what_one_image_lacks_is_no_overlap(land):
    optical, sar = land
    for rows, fate in ((9, None), (10, Reason.NO_OVERLAP)):  # 0.72 and 0.69 of the reference are valid
        holes = optical.copy()
        holes[:rows] = np.nan
        assert screen_one(holes, sar) is fate
    for rows, fate in ((16, None), (17, Reason.NO_OVERLAP)):  # the secondary may lack half
        holes = sar.copy()
        holes[:rows] = np.nan
        assert screen_one(optical, holes) is fate
    assert screen_one(np.full_like(optical, np.nan), sar) is Reason.NO_OVERLAP


def test_calm_dark_water_goes_but_a_ship_lane_of_structure_stays(land):
    rng = np.random.default_rng(1)
    sea = (0.26 + 0.001 * rng.normal(size=(32, 32))).astype(np.float32)
    speckle = (14 + 0.3 * rng.normal(size=(32, 32))).astype(np.float32)
    assert screen_one(sea, speckle) is Reason.WATER
    assert screen_one(sea, land[1]) is None  # SAR sees structure
    assert screen_one(land[0], speckle) is None  # optical sees structure
    assert screen_one(sea + np.float32(0.3), speckle) is None  # bright: a plain, not the sea


def test_dark_in_sar_is_relative_to_the_scene():
    rng = np.random.default_rng(2)
    smooth = (0.26 + 0.001 * rng.normal(size=(32, 96))).astype(np.float32)
    speckle = (20 + 0.3 * rng.normal(size=(32, 96))).astype(np.float32)
    speckle[:, :32] -= 5
    screening = screen_tiles(
        [Tile(row=0, col=256 * n, size_px=256) for n in range(3)], smooth, speckle, px_per_overview_px=FACTOR,
        reference_kind=Kind.OPTICAL, secondary_kind=Kind.SAR,
    )  # fmt: skip
    assert screening.reasons == (Reason.WATER, None, None)


def test_a_constant_has_no_texture_and_clipped_white_is_cloud(land):
    optical, sar = land
    assert screen_one(np.full_like(optical, 0.5), sar) is Reason.NO_TEXTURE
    assert screen_one(optical, np.full_like(sar, 20)) is Reason.NO_TEXTURE
    assert screen_one(np.full_like(optical, 1.0), sar) is Reason.CLOUDED


def test_the_same_reflectance_gets_the_same_verdict_in_both_units(land):
    rng = np.random.default_rng(3)
    sea = (0.26 + 0.001 * rng.normal(size=(32, 32))).astype(np.float32)
    speckle = (14 + 0.3 * rng.normal(size=(32, 32))).astype(np.float32)
    assert screen_one(0.35 * sea, speckle, reference_white=0.35) is Reason.WATER
    # The same numbers as reflectance are a bright plain.
    assert screen_one(sea, speckle, reference_white=0.35) is None


def test_two_images_of_one_kind_are_judged_alike(land):
    optical, sar = land
    for plane, kind in ((optical, Kind.OPTICAL), (sar, Kind.SAR)):
        kept = screen_tiles(
            [TILE], plane, plane, px_per_overview_px=8, reference_kind=kind, secondary_kind=kind
        )
        assert kept.keep.tolist() == [True]


def test_counts_and_dominant_reason():
    screening = Screening((Reason.NO_OVERLAP,) * 5 + (Reason.WATER,) * 2 + (Reason.CLOUDED,))
    assert screening.counts == {Reason.NO_OVERLAP: 5, Reason.WATER: 2, Reason.CLOUDED: 1}
    assert dominant_reason(screening) is Reason.WATER  # what overlapped was water
    assert dominant_reason(Screening((Reason.NO_OVERLAP,) * 3)) is Reason.NO_OVERLAP
    assert dominant_reason(Screening(())) is Reason.NO_OVERLAP
    with pytest.raises(ValueError, match="1 tiles are left"):
        dominant_reason(Screening((None, Reason.WATER)))


def test_overviews_of_two_grids_are_refused(land):
    with pytest.raises(ValueError, match="one grid"):
        screen_one(land[0], land[1][:-1])


@pytest.mark.real
def test_texas_keeps_every_tile(real_data):
    scene = real_data / "scenes" / "T14RNT-2048"
    screening = screen_files(scene / "s2_tci.tif", scene / "s1_vh.tif")
    assert screening.keep.sum() == 64


@pytest.mark.real
def test_los_angeles_loses_the_sea_and_the_blank_and_nothing_else(real_data):
    scene = real_data / "scenes" / "T11SMT"
    screening = screen_files(scene / "s2_tci.tif", scene / "s1_vh.tif")
    # 36 blocks of 1024 px hold 16 tiles each; the rest of the scene is blank.
    assert len(screening.reasons) - screening.counts[Reason.NO_OVERLAP] == 36 * 16
    assert set(screening.counts) == {Reason.NO_OVERLAP, Reason.WATER}
    sea = [n for n, reason in enumerate(screening.reasons) if reason is Reason.WATER]
    # By eye on the map: the Pacific fills the south-west corner of two coastal blocks only.
    assert 2 <= len(sea) <= 20
    assert all(n // 48 >= 24 and n % 48 <= 11 for n in sea)


@pytest.mark.real
def test_the_cloudy_chip_is_refused_and_the_same_place_without_clouds_is_not(real_data):
    chips = real_data / "chips" / "glfcr2"
    name = "ROIs1970_fall_139_p839.tif"
    cloudy = screen_files(chips / "s2_cloudy" / name, chips / "s1" / name)
    assert dominant_reason(cloudy) is Reason.CLOUDED
    assert screen_files(chips / "s2_cloudfree" / name, chips / "s1" / name).keep.all()


@pytest.mark.real
def test_forest_snow_coast_and_farmland_stay(real_data):
    folder = real_data / "chips" / "terramind5"
    files = sorted((folder / "S1RTC").glob("*.tif"))
    assert len(files) == 5
    for file in files:
        assert screen_files(folder / "S2L2A" / file.name, file, size_px=224).keep.all(), file.name


def screen_at(reference: Path, secondary: Path, *, factor: int, as_8_bit: bool = False) -> Screening:
    """Screen tiles of 128 px whose overview has pixels of `factor`."""
    first, second = open_pair(reference, secondary)
    side = 256 // factor
    overview = GeoBox((side, side), first.geobox.affine @ first.geobox.affine.scale(factor), first.geobox.crs)
    plane = read_plane(first, overview)
    return screen_tiles(
        list(tiles((side * factor, side * factor), size_px=128, stride_px=32)),
        np.clip(plane / np.float32(0.35), 0, 1) if as_8_bit else plane,
        read_plane(second, overview),
        px_per_overview_px=factor,
        reference_kind=first.kind,
        secondary_kind=second.kind,
        reference_white=1.0 if as_8_bit else first.white,
    )


@pytest.mark.real
@pytest.mark.parametrize("as_8_bit", [False, True])
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_clear_snow_is_not_called_cloud_at_any_size_of_scene(real_data, factor, as_8_bit):
    folder = real_data / "series" / "finland0060"
    for month in (4, 5, 6):  # January to March, clear sky
        for orbit in ("asc", "desc"):
            found = screen_at(
                folder / f"s2_{month:02d}.tif",
                folder / f"s1_{orbit}_{month:02d}.tif",
                factor=factor,
                as_8_bit=as_8_bit,
            )
            assert Reason.CLOUDED not in found.counts, (month, orbit)


@pytest.mark.real
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 8])
def test_broken_cloud_is_seen_at_every_size_of_scene(real_data, factor):
    chips = real_data / "chips" / "glfcr2"
    name = "ROIs1970_fall_139_p839.tif"
    found = screen_at(chips / "s2_cloudy" / name, chips / "s1" / name, factor=factor)
    assert found.counts[Reason.CLOUDED] > found.keep.sum()


def test_brightness_that_sar_has_as_well_is_no_cloud(land):
    rng = np.random.default_rng(4)
    bright = np.full((64, 64), 1.3, np.float32) + np.float32(0.01) * rng.normal(size=(64, 64)).astype("f4")
    tile = [Tile(row=0, col=0, size_px=256)]
    speckle = (20 + rng.normal(size=(64, 64))).astype(np.float32)
    kinds = {"reference_kind": Kind.OPTICAL, "secondary_kind": Kind.SAR}
    assert screen_tiles(tile, bright, speckle, px_per_overview_px=4, **kinds).reasons == (Reason.CLOUDED,)
    snow = bright + np.float32(0.02) * (20 - speckle)  # what is bright to one eye is dark to the other
    assert screen_tiles(tile, snow, speckle, px_per_overview_px=4, **kinds).reasons == (None,)


@pytest.mark.parametrize("factor", [1, 4])
def test_noise_and_haze_show_no_structure_and_land_does(factor):
    rng = np.random.default_rng(5)
    shape = (512 // factor, 512 // factor)
    grid = list(tiles((512, 512), size_px=128, stride_px=64))
    steps = np.kron(rng.normal(size=(32, 32)), np.ones((16 // factor, 16 // factor))).astype(np.float32)
    noise = rng.normal(size=shape).astype(np.float32)
    haze = np.linspace(0.3, 0.5, shape[1], dtype=np.float32) * np.ones(shape, np.float32)
    kinds = {"reference_kind": Kind.OPTICAL, "secondary_kind": Kind.SAR}

    def featured(optical, sar):
        return screen_tiles(grid, optical, sar, px_per_overview_px=factor, **kinds).featured

    land, echoes = 0.4 + 0.05 * steps, 20 + 2 * steps + 0.5 * noise
    assert featured(land + 0.01 * noise, echoes)
    assert not featured(0.4 + 0.05 * noise, echoes)
    assert not featured(haze + 0.0002 * noise, echoes)
    assert not featured(land, 20 + 2 * noise)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_fine_holes_in_half_of_the_pixels_are_no_lack_of_overlap(factor):
    rng = np.random.default_rng(8)
    side = 512 // factor
    land = 0.5 + 0.08 * np.kron(rng.normal(size=(32, 32)), np.ones((side // 32, side // 32)))
    holed = np.where(rng.random((side, side)) < 0.5, np.nan, land).astype(np.float32)
    sar = (20 + 10 * land + rng.normal(size=land.shape)).astype(np.float32)
    found = screen_tiles(
        list(tiles((512, 512), size_px=128, stride_px=64)), holed, sar, px_per_overview_px=factor,
        reference_kind=Kind.OPTICAL, secondary_kind=Kind.SAR,
    )  # fmt: skip
    assert found.keep.all(), found.counts
