from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude
from scipy.stats import spearmanr
from skimage.registration import phase_cross_correlation

from crosstie.io.catalog.search import find_scenes
from crosstie.io.pairing.pair_scenes import pair_scenes
from crosstie.io.simulation.pairs import SimulatedPair, TrueError, simulate_pair, write_simulated_catalog
from crosstie.types import Kind

SIZE_PX = 512


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_simulated_catalog(tmp_path_factory.mktemp("simulated"), seed=3, scenes=2, size_px=SIZE_PX)


def truth_of(catalog: Path) -> list[dict[str, Any]]:
    pairs: list[dict[str, Any]] = json.loads((catalog.parent / "truth.json").read_text())["pairs"]
    return pairs


def ground_db(pair: SimulatedPair) -> np.ndarray:
    """Backscatter of the land itself where each pixel claims to be: no error, no speckle, no blur."""
    row, col = np.mgrid[0:SIZE_PX, 0:SIZE_PX] + 0.5
    east, north = 10 * col, 10 * (SIZE_PX - row)
    return pair.land.sar_db(east.ravel(), north.ravel()).reshape(SIZE_PX, SIZE_PX)


def decibel(sar: np.ndarray) -> np.ndarray:
    return 20 * np.log10(sar.astype(float))


def offset_px(ground: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(x, y) of where `image` shows what `ground` holds, px."""
    flat = [plane - gaussian_filter(plane, 12) for plane in (ground, gaussian_filter(image, 1.0))]
    move, _, _ = phase_cross_correlation(*flat, upsample_factor=20, normalization=None)
    return -move[::-1]


def test_the_catalog_gives_the_pairs_that_its_truth_lists(catalog: Path):
    plan = pair_scenes(find_scenes(catalog))
    assert [(p.reference.id, p.secondary.id) for p in plan.pairs] == [
        (t["reference"], t["secondary"]) for t in truth_of(catalog)
    ]
    assert plan.left_out == ()
    for pair, truth in zip(plan.pairs, truth_of(catalog), strict=True):
        assert (pair.reference.kind, pair.secondary.kind) == (Kind.OPTICAL, Kind.SAR)
        for scene, bands in ((pair.reference, 3), (pair.secondary, 1)):
            with rasterio.open(scene.hrefs[0]) as raster:
                assert str(raster.crs) == truth["crs"]
                assert raster.res == (10.0, 10.0)
                assert (raster.count, *raster.shape) == (bands, SIZE_PX, SIZE_PX)
                assert raster.dtypes[0] == "uint8"
                assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_it_is_a_self_contained_stac_catalog_that_may_be_moved(catalog: Path, tmp_path: Path):
    moved = tmp_path / "moved"
    catalog.parent.rename(moved)
    try:
        items = list(pystac.Catalog.from_file(str(moved / "catalog.json")).get_items(recursive=True))
        assert len(items) == 4
        for item in items:
            for asset in item.assets.values():
                assert Path(asset.get_absolute_href() or "").is_file()
            raw = json.loads(Path(item.get_self_href() or "").read_text())
            hrefs = [part["href"] for part in (*raw["links"], *raw["assets"].values())]
            assert all(href.startswith(".") for href in hrefs)
        affines = {i.id: i.properties["crosstie:true_affine"] for i in items if i.id.startswith("SIM_S1")}
        assert affines == {t["secondary"]: t["true_affine"] for t in truth_of(moved / "catalog.json")}
        assert len(find_scenes(moved / "catalog.json")) == 4
    finally:
        moved.rename(catalog.parent)


def test_every_pair_has_its_own_error_within_the_promised_limits(catalog: Path):
    truth = truth_of(catalog)
    for pair in truth:
        assert 20 < np.hypot(*pair["shift_m"]) <= 60
        assert abs(pair["rotation_deg"]) <= 0.05
        assert abs(pair["scale"]) <= 0.0005
    assert truth[0]["shift_m"] != truth[1]["shift_m"]


def test_the_written_affine_carries_what_the_sar_shows_to_where_it_is(catalog: Path):
    (truth, _) = truth_of(catalog)
    secondary = next(s for s in find_scenes(catalog) if s.id == truth["secondary"])
    with rasterio.open(secondary.hrefs[0]) as raster:
        sar, transform = decibel(raster.read(1)), raster.transform
    ground = ground_db(simulate_pair(3, 0, size_px=SIZE_PX))

    true = Affine(*truth["true_affine"])
    for row, col in ((0, 0), (0, 256), (256, 0), (256, 256)):
        part = (slice(row, row + 256), slice(col, col + 256))
        centre = transform @ (col + 128, row + 128)
        where_it_shows = ~true @ centre
        expected = np.subtract(~transform @ where_it_shows, (col + 128, row + 128))
        # a tenth of a pixel is what speckle leaves to a window of this size
        np.testing.assert_allclose(offset_px(ground[part], sar[part]), expected, rtol=0, atol=0.25)


def test_rotation_and_scale_show_at_the_corners():
    degrees, scale, shift_px = 0.6, 1.01, np.array([3.0, 2.0])  # east, north
    error = TrueError(shift_m=(30.0, 20.0), rotation_deg=degrees, scale=scale - 1)
    pair = simulate_pair(5, 0, size_px=SIZE_PX, error=error)
    ground, sar = ground_db(pair), decibel(pair.sar)
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    for corner in ((-1, 1), (1, 1), (-1, -1), (1, -1)):  # east, north
        arm_px = 192 * np.array(corner)
        row, col = 256 - arm_px[1] - 64, 256 + arm_px[0] - 64
        part = (slice(row, row + 128), slice(col, col + 128))
        turned = scale * np.array([[cos, -sin], [sin, cos]]) @ arm_px  # counter-clockwise
        east, north = turned + shift_px - arm_px
        # the error itself changes by 3 px across a window of this size, so its mean is less sharp
        np.testing.assert_allclose(offset_px(ground[part], sar[part]), (east, -north), rtol=0, atol=0.5)


def test_optical_and_sar_share_edges_but_are_no_function_of_each_other():
    pair = simulate_pair(1, 1, size_px=SIZE_PX)
    light = pair.optical.mean(axis=0, dtype=float)
    echo = decibel(pair.sar)
    smooth = [gaussian_filter(plane, 3)[::8, ::8].ravel() for plane in (light, echo)]
    assert abs(spearmanr(*smooth).statistic) < 0.5

    edges = [gaussian_gradient_magnitude(plane, 2.0) for plane in (light, echo)]
    a, b = (np.fft.rfft2(edge - gaussian_filter(edge, 15)) for edge in edges)
    match = np.fft.irfft2(np.conj(a) * b, s=light.shape)
    row, col = np.unravel_index(match.argmax(), match.shape)
    found = [(n + SIZE_PX // 2) % SIZE_PX - SIZE_PX // 2 for n in (col, row)]
    x, y = pair.error.shift_m
    np.testing.assert_allclose(found, [x / 10, -y / 10], rtol=0, atol=1.5)


def test_the_last_of_several_is_under_cloud_and_only_its_optical_image(catalog: Path):
    clear, clouded = truth_of(catalog)
    assert clear["cloud_pct"] == 0
    assert 85 < clouded["cloud_pct"] < 100
    scenes = {s.id: s for s in find_scenes(catalog)}
    assert scenes[clouded["reference"]].cloud_cover_pct == pytest.approx(clouded["cloud_pct"], abs=0.01)
    with rasterio.open(scenes[clouded["reference"]].hrefs[0]) as raster:
        assert np.median(raster.read()) > 200
    open_sky, under = (simulate_pair(3, 1, size_px=128, clouded=c) for c in (False, True))
    assert open_sky.optical.mean() < 150 < under.optical.mean()
    assert open_sky.error == under.error


def test_the_swath_ends_inside_the_first_scene(catalog: Path):
    first = next(s for s in find_scenes(catalog) if s.id == truth_of(catalog)[0]["reference"])
    with rasterio.open(first.hrefs[0]) as raster:
        mask, bands = raster.dataset_mask(), raster.read()
    assert mask[0, -1] == 0
    assert mask[-1, 0] == 255
    assert (bands[:, mask == 0] == 0).all()
    assert 0.01 < (mask == 0).mean() < 0.05


def test_the_same_seed_draws_the_same_pixels():
    first, again, other, elsewhere = (
        simulate_pair(seed, index, size_px=128) for seed, index in ((1, 0), (1, 0), (2, 0), (1, 1))
    )
    assert np.array_equal(first.sar, again.sar)
    assert np.array_equal(first.optical, again.optical)
    assert first.error == again.error
    for different in (other, elsewhere):
        assert (first.sar != different.sar).mean() > 0.5
        assert first.error != different.error


def test_speckle_is_that_of_a_ground_range_product():
    pair = simulate_pair(0, 0, size_px=SIZE_PX, error=TrueError((0.0, 0.0), 0.0, 0.0))
    ground = ground_db(pair)
    # the river: wide, even, and too dark to saturate
    water = (ground < -22) & (gaussian_filter(ground, 2) < -22)
    power = pair.sar[water].astype(float) ** 2
    assert water.sum() > 1000
    assert power.mean() ** 2 / power.var() == pytest.approx(4.4, rel=0.15)


@pytest.mark.parametrize("wrong", [{"scenes": 0}, {"size_px": 32}])
def test_too_little_is_refused(wrong: dict[str, int], tmp_path: Path):
    with pytest.raises(ValueError, match="at least 1 scene of 64 px"):
        write_simulated_catalog(tmp_path, **wrong)
