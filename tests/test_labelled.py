"""Labelled scenes from files to weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from training_land import shifted_scene

from crosstie.errors import SettingsError, UnreadableRasterError
from crosstie.flows.train import train_on_scenes
from crosstie.io.labelled import read_labelled
from crosstie.matcher.training import TrainingPlan
from crosstie.matcher.weights import load

SMALL = TrainingPlan(
    steps=2, batch=2, crop_px=256, jitter_px=8, search_px=16, sizes_px=(192, 64), evaluate_every=2
)  # fmt: skip

HEADER = "x_px,y_px,residual_dx_px,residual_dy_px,peak,peak_ratio\n"


def write_scene(folder: Path, *, west_m: float, tiles: str = "192,192,0.1,-0.2,0.3,1.6\n") -> Path:
    """One scene of 640 x 640 px whose SAR is off by (5, -3) px."""
    folder.mkdir(parents=True)
    scene = shifted_scene(5, -3)
    grid = Affine(10, 0, west_m, 0, -10, 4_000_000)
    amplitude = 10 ** (scene.sar_db.astype(np.float32) / 10)
    amplitude = np.clip(np.rint(amplitude * 400), 1, 255).astype(np.uint8)
    nodes = grid @ Affine.scale(32) @ Affine.translation(-0.5, -0.5)
    for name, bands, transform in (
        ("s1_vh", amplitude[None], grid),
        ("s2_tci", scene.optical_rgb, grid),
        ("truth_offsets", scene.truth_px, nodes),
    ):
        profile = {"driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
        profile |= {"dtype": bands.dtype, "crs": "EPSG:3395", "transform": transform}
        with rasterio.open(folder / f"{name}.tif", "w", **profile) as file:
            file.write(bands)
    (folder / "tiles.csv").write_text(HEADER + tiles)
    return folder


def test_a_node_lies_where_its_georeference_says(tmp_path: Path) -> None:
    scene = read_labelled(write_scene(tmp_path / "a", west_m=500_000))
    assert scene.truth_step_px == 32
    assert (scene.truth_px[:, 3, 4] == [5, -3]).all()
    np.testing.assert_array_equal(scene.centres_px, [[320, 320]])
    np.testing.assert_allclose(scene.centres_m, [[503_200, 3_996_800]], rtol=0, atol=1e-6)


def test_only_tiles_with_a_distinct_and_confirmed_peak_are_trusted(tmp_path: Path) -> None:
    rows = "0,0,0,0,0.3,1.10\n64,64,1.5,1.5,0.3,1.6\n128,0,0,0,0.3,1.6\n"
    scene = read_labelled(write_scene(tmp_path / "a", west_m=0, tiles=rows))
    np.testing.assert_array_equal(scene.centres_px, [[256, 128]])


def test_truth_on_another_grid_is_refused(tmp_path: Path) -> None:
    folder = write_scene(tmp_path / "a", west_m=0)
    with rasterio.open(folder / "truth_offsets.tif", "r+") as file:
        file.transform = file.transform @ Affine.translation(0.5, 0.5)
    with pytest.raises(UnreadableRasterError, match="first truth node"):
        read_labelled(folder)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = write_scene(tmp_path / "a", west_m=0)
    (folder / "tiles.csv").unlink()
    with pytest.raises(UnreadableRasterError, match=r"tiles\.csv"):
        read_labelled(folder)


@pytest.mark.slow
def test_training_ends_with_weights_that_load(tmp_path: Path) -> None:
    scenes = [write_scene(tmp_path / "west", west_m=0), write_scene(tmp_path / "east", west_m=100_000)]
    figures = train_on_scenes(scenes, tmp_path / "run", SMALL, hold_out_east_m=50_000, calibration_batches=8)
    weights = load(tmp_path / "run" / "crosstie.safetensors")
    assert np.isfinite(weights.calibration.confidence_weights).all()
    assert figures.keys() >= {"median_192", "cmr1_64", "calibration_error"}


def test_a_line_that_leaves_nothing_on_a_side_is_refused(tmp_path: Path) -> None:
    scenes = [write_scene(tmp_path / "west", west_m=0)]
    with pytest.raises(SettingsError, match="no place to hold out"):
        train_on_scenes(scenes, tmp_path / "run", SMALL, hold_out_east_m=1e9)
    assert not (tmp_path / "run").exists()
