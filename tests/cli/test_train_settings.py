"""Settings of training: read back as printed, options win, and a slip is one line that names the key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from crosstie.config import Settings, commented_yaml, each_setting, load_settings
from crosstie.errors import SettingsError
from crosstie.matcher.training.plan import TrainingPlan
from crosstie.train_settings import TrainSettings, load_train_settings


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "train.yaml"
    path.write_text(text)
    return path


def test_what_is_printed_reads_back_as_the_same_settings(tmp_path: Path) -> None:
    changed = load_train_settings(
        options={
            "labelled.scenes": ["a b", "c"],
            "plan.steps": 3,
            "start_from": "shipped",
            "mine.catalog": "x",
        }
    )
    for settings in (TrainSettings(), changed):
        path = write(tmp_path, commented_yaml(settings))
        assert load_train_settings(path) == settings
        assert yaml.safe_load(path.read_text()).keys() == TrainSettings.model_fields.keys()


def test_numbers_of_the_plan_have_one_home() -> None:
    assert TrainSettings().plan == TrainingPlan()


def test_every_setting_is_described_except_where_the_name_says_it_all() -> None:
    bare = {setting.name for setting in each_setting(TrainSettings()) if not setting.description}
    assert bare <= {"plan.weight_decay"}


def test_options_win_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "plan: {steps: 5, seed: 4}\nlabelled: {scenes: [a, b]}\n")
    settings = load_train_settings(path, options={"plan.steps": 7, "plan.seed": None})
    assert (settings.plan.steps, settings.plan.seed) == (7, 4)
    assert settings.labelled.scenes == (Path("a"), Path("b"))


def test_scenes_of_a_catalog_are_chosen_as_for_pairs(tmp_path: Path) -> None:
    chosen = "catalog: {max_cloud_pct: 20, bbox: [1, 2, 3, 4]}\npairing: {max_days: 3}\n"
    chosen += "storage: {endpoint: 'http://127.0.0.1:9000', region: eu-central-1}\n"
    ours, theirs = load_train_settings(write(tmp_path, chosen)), load_settings(write(tmp_path, chosen))
    assert (ours.catalog, ours.pairing, ours.storage) == (theirs.catalog, theirs.pairing, theirs.storage)
    assert theirs.catalog != Settings().catalog
    assert theirs.storage != Settings().storage


def test_what_starts_from_weights_needs_no_burn_in_unless_it_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, "plan: {burn_in: 9}\n")
    assert load_train_settings(options={"start_from": "shipped"}).plan.burn_in == 0
    assert load_train_settings(path, options={"start_from": "shipped"}).plan.burn_in == 9
    assert load_train_settings().plan == TrainingPlan()
    gentle = load_train_settings(options={"start_from": "shipped"}).plan.learning_rate
    assert gentle == pytest.approx(TrainingPlan().learning_rate / 10)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("plan:\n  step: 12\n", ("plan.step", "plan.steps", "train.yaml")),
        ("plan:\n  steps: 0\n", ("steps must be at least 1", "train.yaml")),
        ("labelled:\n  scene: [a]\n", ("labelled.scene", "labelled.scenes")),
        ("labelled:\n  share: 0\n", ("labelled.share", "above 0")),
        ("pictures: [a]\n", ("pictures", "a")),
        ("device: tpu\n", ("device", "tpu", "cuda")),
        ("learner:\n  search_px: 9\n", ("learner.search_px", "plan.search_px")),
        ("configuration: s3m3\n", ("configuration", "s3m3", "published")),
        ("- 1\n", ("[1]", "crosstie train --show-config")),
    ],
)
def test_a_slip_is_one_line_that_names_it(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError) as caught:
        load_train_settings(write(tmp_path, text))
    message = str(caught.value)
    assert "\n" not in message
    for name in names:
        assert name in message
