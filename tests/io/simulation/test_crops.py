from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from typer.testing import CliRunner

from crosstie.cli import app
from crosstie.errors import BadInputError
from crosstie.io.catalog.search import find_scenes
from crosstie.io.pairing.pair_scenes import pair_scenes
from crosstie.io.simulation.crops import MAX_SHIFT_PX, MIN_SHIFT_PX, RealScene, read_scene, write_crops
from crosstie.types import TiePoints

REST_PX = (3, -2)
"""(columns, rows) that the SAR image of the scene below shows everything too far."""

GRID = GeoBox((640, 704), Affine(10, 0, -10_979_690, 0, -10, 3_423_980), "EPSG:3395")


def make_scene(*, rest_px: Any = REST_PX) -> RealScene:
    """Same noise in both images, the SAR moved by `REST_PX`; `rest_px` is what is said of it."""
    rng = np.random.default_rng(3)
    land = rng.integers(1, 255, GRID.shape, dtype=np.uint8)
    # smooth colours: JPEG keeps them, so that a crop can be found again
    row, col = np.mgrid[0 : GRID.shape[0], 0 : GRID.shape[1]]
    light = (127 + 60 * np.sin(col / 40) + 60 * np.cos(row / 50)).astype(np.uint8)
    at = np.stack(np.meshgrid(np.arange(16, 704, 32), np.arange(16, 640, 32)), axis=-1).reshape(-1, 2)
    return RealScene(
        optical=np.stack([light] * 3),
        sar=np.roll(land, REST_PX, axis=(1, 0)),
        grid=GRID,
        at_px=at.astype(float),
        rest_px=np.broadcast_to(np.asarray(rest_px, float), at.shape).copy(),
    )


def truth_of(catalog: Path) -> list[dict[str, Any]]:
    pairs: list[dict[str, Any]] = json.loads((catalog.parent / "truth.json").read_text())["pairs"]
    return pairs


def test_a_feature_of_the_sar_crop_lies_off_by_the_error_and_by_nothing_else(tmp_path: Path):
    scene = make_scene()
    catalog = write_crops(tmp_path, scene, scenes=12, size_px=200, seed=1)
    for truth, pair in zip(truth_of(catalog), pair_scenes(find_scenes(catalog)).pairs, strict=True):
        with rasterio.open(pair.reference.hrefs[0]) as raster:
            home, light = raster.transform, raster.read(1)
        with rasterio.open(pair.secondary.hrefs[0]) as raster:
            claimed, echo = raster.transform, raster.read(1)
        row, col = truth["row"], truth["col"]
        window = np.s_[row : row + 200, col : col + 200]
        assert np.array_equal(echo, scene.sar[window])  # nothing was resampled
        assert np.abs(light.astype(int) - scene.optical[0][window]).max() <= 4  # JPEG

        # what lies at (100, 90) of the land is at (103, 88) of the SAR crop, and says it is somewhere else
        where, claims = home @ (100, 90), claimed @ (100 + REST_PX[0], 90 + REST_PX[1])
        error_m = np.subtract(claims, where)
        np.testing.assert_allclose(error_m, truth["shift_m"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(Affine(*truth["true_affine"]) @ claims, where, rtol=0, atol=1e-6)
        assert MIN_SHIFT_PX <= np.hypot(*error_m) / 10 <= MAX_SHIFT_PX


def test_every_scene_has_one_partner_and_a_place_of_its_own(tmp_path: Path):
    catalog = write_crops(tmp_path, make_scene(), scenes=60, size_px=160, seed=2)
    truth = truth_of(catalog)
    plan = pair_scenes(find_scenes(catalog))
    assert [(pair.reference.id, pair.secondary.id) for pair in plan.pairs] == [
        (t["reference"], t["secondary"]) for t in truth
    ]
    assert plan.left_out == ()
    assert len({(t["row"], t["col"]) for t in truth}) > 30
    assert len({tuple(t["shift_m"]) for t in truth}) == 60


def test_the_same_seed_writes_the_same_pairs_and_another_one_others(tmp_path: Path):
    scene = make_scene()
    first, again, other = (
        write_crops(tmp_path / name, scene, scenes=3, size_px=160, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    for file in ("truth.json", "pair-00002/s1_vh.tif", "pair-00002/s2_tci.tif"):
        assert (first.parent / file).read_bytes() == (again.parent / file).read_bytes()
    assert truth_of(first) != truth_of(other)


def test_only_places_are_used_where_the_rest_is_known_and_even(tmp_path: Path):
    scene = make_scene()
    uneven = scene.at_px[:, 0] > 352
    scene.rest_px[uneven] += np.random.default_rng(0).normal(0, 3, (int(uneven.sum()), 2))
    scene.rest_px[scene.at_px[:, 1] > 400] = np.nan
    truth = truth_of(write_crops(tmp_path, scene, scenes=20, size_px=200, seed=0))
    for pair in truth:
        # tie points within 60 px of a crop's edge do not speak for it
        assert pair["col"] + 200 - 60 <= 352 + 32
        assert pair["row"] + 200 - 60 <= 400 + 32
        assert pair["rest_px"] == [3.0, -2.0]


@pytest.mark.parametrize(
    ("size_px", "rest", "message"), [(656, REST_PX, "do not fit"), (200, (np.nan, np.nan), "better aligned")]
)
def test_a_scene_that_gives_no_crops_is_refused(
    size_px: int, rest: tuple[float, float], message: str, tmp_path: Path
):
    with pytest.raises(BadInputError, match=message):
        write_crops(tmp_path, make_scene(rest_px=rest), scenes=1, size_px=size_px)


def test_images_on_two_grids_are_no_scene(tmp_path: Path):
    points = TiePoints(np.zeros((0, 2)), np.zeros((0, 2)), *(np.zeros(0) for _ in range(4)))
    for name, bands, left in (("a", 3, 0), ("b", 1, 5)):
        with rasterio.open(
            tmp_path / f"{name}.tif", "w", driver="GTiff", width=64, height=64, count=bands, dtype="uint8",
            crs="EPSG:32614", transform=Affine(10, 0, left, 0, -10, 0),
        ) as raster:  # fmt: skip
            raster.write(np.ones((bands, 64, 64), np.uint8))
    with pytest.raises(BadInputError, match="pixel on pixel"):
        read_scene(tmp_path / "a.tif", tmp_path / "b.tif", points, np.zeros(0, bool))


def test_a_folder_without_a_scene_is_named(tmp_path: Path):
    shown = CliRunner().invoke(app, ["simulate", str(tmp_path / "out"), "--from", str(tmp_path)])
    assert shown.exit_code == 2
    assert "s1_vh_refined.tif" in shown.output
    assert not (tmp_path / "out").exists()
