"""Retraining on a schedule: from the weights in use, in a folder of its own, promoted only where better."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from training_land import write_scene

from crosstie.errors import SettingsError
from crosstie.io.simulation.pairs import write_simulated_catalog

TINY = {
    "plan": {
        "steps": 1, "batch": 2, "unlabelled_batch": 2, "burn_in": 0, "crop_px": 96, "unlabelled_crop_px": 96,
        "search_px": 16, "jitter_px": 8, "unlabelled_jitter_px": 8, "checkpoint_every": 1,
    },
    "learner": {"sizes_px": [64, 48]},
    "mine": {"tile_px": 128, "tiles_per_pair": 4},
    "calibration_batches": 4,
    "device": "cpu",
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("prefect_home")

NOW = datetime(2025, 6, 1, 3, 0, tzinfo=UTC)


def test_it_starts_from_the_weights_in_use_and_may_replace_them(tmp_path: Path) -> None:
    from crosstie.flows.retrain import retrain_settings

    weights = tmp_path / "best.safetensors"
    first = retrain_settings("catalog.json", tmp_path / "run", weights, {"plan": {"steps": 7}})
    assert (first.start_from, first.promote_to) == ("shipped", weights)  # there are none yet
    assert (first.plan.steps, first.plan.burn_in, first.mine.catalog) == (7, 0, "catalog.json")
    weights.write_bytes(b"in use")
    assert retrain_settings("catalog.json", tmp_path / "run", weights, None).start_from == str(weights)
    nothing = retrain_settings("catalog.json", tmp_path / "run", None, None)
    assert (nothing.start_from, nothing.promote_to) == ("shipped", None)
    with pytest.raises(SettingsError, match=r"parameter settings.*'plan\.stesp'"):
        retrain_settings("catalog.json", tmp_path / "run", None, {"plan": {"stesp": 1}})


def test_a_run_that_was_cut_is_gone_on_with_and_a_finished_one_is_not(tmp_path: Path) -> None:
    from crosstie.flows.retrain import folder_of

    new = tmp_path / "20250601T030000Z"
    assert folder_of(tmp_path, NOW, None) == new
    cut = tmp_path / "20250501T030000Z"
    cut.mkdir()
    assert folder_of(tmp_path, NOW, None) == cut
    (cut / "crosstie.safetensors").write_bytes(b"trained")
    assert folder_of(tmp_path, NOW, None) == new


def test_training_is_not_sent_to_object_storage_nor_told_a_secret(tmp_path: Path) -> None:
    from crosstie.flows.retrain import retrain, run_retrain
    from crosstie.train_settings import TrainSettings

    with pytest.raises(SettingsError, match="a folder of the worker"):
        retrain.fn("catalog.json", "s3://bucket/runs")
    with pytest.raises(SettingsError, match="withdraw that secret"):
        run_retrain("https://me:pw@example.org/c.json", tmp_path, None, TrainSettings())


@pytest.mark.slow
@pytest.mark.server
def test_weights_that_are_no_better_replace_nothing(tmp_path: Path) -> None:
    catalog = write_simulated_catalog(tmp_path / "catalog", scenes=1, size_px=384)
    east, config, out = tmp_path / "east", tmp_path / "train.yaml", tmp_path / "runs"
    write_scene(east, west_m=100_000)
    config.write_text(yaml.safe_dump({**TINY, "labelled": {"hold_out_folders": [str(east)]}}))
    weights = tmp_path / "best.safetensors"
    command = ["retrain", "--catalog", catalog, "--weights", weights, "--config", config, "--out", out]
    # A process of its own: Prefect keeps to the server that a command has started.
    result = subprocess.run(
        [sys.executable, "-m", "crosstie", *map(str, command)], capture_output=True, text=True, timeout=500
    )
    assert result.returncode == 0, result.stderr
    assert "cmr" in result.stdout
    (run,) = out.iterdir()
    assert (run / "crosstie.safetensors").is_file()
    assert len(list((run / "mined").glob("*.npz"))) == 1
    decision = json.loads((tmp_path / "best.safetensors.comparison.json").read_text())
    assert weights.exists() is decision["better"]
