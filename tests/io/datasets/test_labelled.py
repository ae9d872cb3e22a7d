"""Labelled scenes: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from training_land import write_scene

from crosstie.errors import UnreadableRasterError
from crosstie.io.datasets.labelled import read_labelled


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


@pytest.mark.parametrize("name", ["s1_vh.tif", "s2_tci.tif", "truth_offsets.tif"])
def test_a_file_that_leads_on_to_another_is_refused(tmp_path: Path, name: str) -> None:
    folder = write_scene(tmp_path / "a", west_m=0)
    with rasterio.open(folder / name, "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE="elsewhere.tif")
    with pytest.raises(UnreadableRasterError, match=f"{name}.*never followed"):
        read_labelled(folder)
