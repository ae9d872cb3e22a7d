"""`crosstie train` as a user meets it: data in, weights out, cut runs taken up, slips on one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from training_land import shifted_scene, write_pictures, write_scene
from typer.testing import CliRunner, Result

from crosstie.cli import app
from crosstie.errors import SettingsError, WeightsError
from crosstie.flows.training.data import keep_labels, read_data
from crosstie.flows.training.handover import hand_over
from crosstie.flows.training.train import data_record, run_training
from crosstie.io.simulation.pairs import write_simulated_catalog
from crosstie.matcher.calibration import CONFIDENCE_TERMS, SIGMA_TERMS, Calibration
from crosstie.matcher.network import MatchingNetwork
from crosstie.matcher.training.run_folder import read_log
from crosstie.matcher.training.samples import truth_at
from crosstie.matcher.weights import load, save
from crosstie.matcher.weights_file import SHIPPED, SHIPPED_SHA256
from crosstie.train_settings import TrainSettings, load_train_settings

TINY = {
    "plan.steps": 2,
    "plan.batch": 2,
    "plan.unlabelled_batch": 2,
    "plan.burn_in": 0,
    "plan.crop_px": 96,
    "plan.unlabelled_crop_px": 96,
    "plan.search_px": 16,
    "plan.jitter_px": 8,
    "plan.unlabelled_jitter_px": 8,
    "plan.checkpoint_every": 1,
    "plan.evaluate_every": 2,
    "learner.sizes_px": [64, 48],
    "calibration_batches": 4,
    "device": "cpu",
}

Make = Callable[..., TrainSettings]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A place in the west and one in the east of 50 km."""
    folder = tmp_path_factory.mktemp("scenes")
    return [write_scene(folder / "west", west_m=0), write_scene(folder / "east", west_m=100_000)]


@pytest.fixture
def make(scenes: list[Path], tmp_path: Path) -> Make:
    """Maker of settings of a run over both places, the east held out."""

    def settings(**options: object) -> TrainSettings:
        given = {
            **TINY,
            "labelled.scenes": scenes,
            "labelled.hold_out_east_m": 50_000.0,
            "out": tmp_path / "run",
            **{name.replace("__", "."): value for name, value in options.items()},
        }
        return load_train_settings(options=given)

    return settings


def crosstie(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_the_command_goes_on_where_it_was_and_leaves_all_it_promises(
    scenes: list[Path], tmp_path: Path
) -> None:
    config, out = tmp_path / "train.yaml", tmp_path / "run"
    pictures = write_pictures(tmp_path / "pictures")
    tree: dict[str, dict[str, object]] = {}
    for dotted, value in TINY.items():
        group, _, name = dotted.rpartition(".")
        (tree.setdefault(group, {}) if group else tree)[name] = value  # type: ignore[index]
    config.write_text(yaml.safe_dump(tree))
    command = [
        "train",
        *scenes,
        "--hold-out-east",
        "50000",
        "--pictures",
        pictures,
        "--config",
        config,
        "--out",
        out,
    ]
    first = crosstie(*command, "--steps", "1")
    assert first.exit_code == 0, first.output
    assert "labelled places: 1, held_out places: 1, unlabelled places: 3" in first.stderr
    second = crosstie(*command, "--steps", "3")
    assert second.exit_code == 0, second.output
    assert "step 1, held-out" not in second.stderr
    assert f"weights: {out / 'crosstie.safetensors'}" in second.stdout
    assert "cmr1_48" in second.stdout

    assert [row["step"] for row in read_log(out / "log.csv")] == ["1", "2", "3"]
    assert read_log(out / "log.csv")[-1]["cmr1_48"]
    for name in ("curves.png", "heatmaps.png"):
        picture = np.asarray(Image.open(out / name).convert("L"))
        assert picture.std() > 10
    events = b"".join(path.read_bytes() for path in (out / "tensorboard").iterdir())
    for tag in (b"training/loss", b"training/unlabelled_loss", b"held_out/cmr1_64", b"held_out/heatmaps"):
        assert tag in events

    weights = load(out / "crosstie.safetensors")
    assert np.isfinite(weights.calibration.confidence_weights).all()
    length = int.from_bytes((out / "crosstie.safetensors").read_bytes()[:8], "little")
    header = json.loads((out / "crosstie.safetensors").read_bytes()[8 : 8 + length])
    facts = json.loads(header["__metadata__"]["facts"])
    assert json.loads(facts["plan"])["steps"] == 3
    assert json.loads(facts["learner"])["sizes_px"] == [64, 48]
    assert json.loads(facts["data"])["places"] == {"labelled": 1, "held_out": 1, "unlabelled": 3}
    assert facts["calibration"] == "calibrated on the held-out places"


@pytest.mark.slow
def test_without_a_label_calibration_is_kept_and_said_so(tmp_path: Path) -> None:
    out, pictures = tmp_path / "run", write_pictures(tmp_path / "pictures")
    options = {**TINY, "plan.steps": 1, "start_from": "shipped", "pictures.folders": [pictures], "out": out}
    settings = load_train_settings(options=options)
    assert run_training(settings) == {}
    before, after = load(), load(out / "crosstie.safetensors")
    np.testing.assert_array_equal(before.calibration.confidence_weights, after.calibration.confidence_weights)
    assert any(
        not torch.equal(tensor, after.network.state_dict()[name])
        for name, tensor in before.network.state_dict().items()
    )
    body = (out / "crosstie.safetensors").read_bytes()
    assert b"kept from the weights it started from" in body
    assert SHIPPED_SHA256.encode() in body


@pytest.mark.slow
def test_an_archive_teaches_without_any_label(tmp_path: Path) -> None:
    catalog = write_simulated_catalog(tmp_path / "catalog", scenes=1, size_px=384)
    config, out = tmp_path / "train.yaml", tmp_path / "run"
    plan = {name.partition(".")[2]: value for name, value in TINY.items() if name.startswith("plan.")}
    config.write_text(
        yaml.safe_dump(
            {
                "plan": {**plan, "steps": 1},
                "learner": {"sizes_px": [64, 48]},
                "mine": {"tile_px": 128, "tiles_per_pair": 4},
            }
        )
    )
    result = crosstie(
        "train",
        "--catalog",
        catalog,
        "--start-from",
        "shipped",
        "--config",
        config,
        "--out",
        out,
        "--device",
        "cpu",
    )
    assert result.exit_code == 0, result.output
    assert "unlabelled places: 4" in result.stderr
    assert len(list((out / "mined").glob("*.npz"))) == 1


def test_labels_are_kept_by_the_seed_and_forgotten_elsewhere() -> None:
    centres = np.array([[x, y] for x in (128.0, 384.0) for y in (128.0, 384.0)])
    scene = replace(shifted_scene(5, -3), centres_px=centres)
    (kept,) = keep_labels([scene], 0.25, seed=1)
    assert len(kept.centres_px) == 1
    x, y = kept.centres_px[0]
    for dx, dy in ((0, 0), (127, 0), (0, -127)):
        np.testing.assert_array_equal(truth_at(kept, x + dx, y + dy), [5, -3])
    (away,) = [c for c in centres if (c != kept.centres_px[0]).all()]
    assert np.isnan(truth_at(kept, *away)).all()
    assert keep_labels([scene], 1.0, seed=1)[0] is scene
    again = keep_labels([scene], 0.25, seed=1)[0]
    np.testing.assert_array_equal(again.centres_px, kept.centres_px)
    others = {tuple(keep_labels([scene], 0.25, seed=seed)[0].centres_px[0]) for seed in range(12)}
    assert len(others) > 1


def test_places_without_a_label_are_still_learnt_from(scenes: list[Path], tmp_path: Path) -> None:
    tiles = "192,192,0.1,-0.2,0.3,1.6\n128,192,0.1,-0.2,0.3,1.6\n"
    west = write_scene(tmp_path / "west", west_m=0, tiles=tiles)
    options = {
        **TINY,
        "labelled.scenes": [west],
        "labelled.hold_out_folders": [scenes[1]],
        "labelled.share": 0.5,
    }
    data = read_data(load_train_settings(options=options))
    assert data.counts == {"labelled": 1, "held_out": 1, "unlabelled": 2}
    without = read_data(load_train_settings(options={**options, "use_unlabelled": False}))
    assert without.counts == {"labelled": 1, "held_out": 1, "unlabelled": 0}


def test_pictures_of_places_held_out_are_not_learnt_from(make: Make, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", places=3)
    data = read_data(make(pictures__folders=[folder], pictures__hold_out_places=["p1"]))
    assert data.counts["unlabelled"] == 1 + 2
    with pytest.raises(SettingsError, match=r"no picture shows p9; there are p0, p1, p2"):
        read_data(make(pictures__folders=[folder], pictures__hold_out_places=["p9"]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labelled__hold_out_east_m": 1e9}, "leaves no place to hold out"),
        ({"labelled__hold_out_east_m": -1e9}, "leaves no place to train on"),
        ({"labelled__hold_out_east_m": None}, "labelled.hold_out_east_m"),
        ({"labelled__scenes": []}, "nothing to learn from"),
        ({"labelled__scenes": [Path("absent")]}, r"labelled\.scenes: absent is not a folder"),
        ({"pictures__folders": [Path("absent")]}, r"pictures\.folders: absent is not a folder"),
        ({"plan__unlabelled_crop_px": 64}, r"plan\.unlabelled_crop_px"),
        ({"plan__search_px": 12}, "multiples of 8"),
        ({"promote_to": Path("best.safetensors"), "configuration": "s2m2"}, "promote_to"),
        ({"start_from": "shipped", "configuration": "s2m2"}, "start_from"),
    ],
)
def test_what_cannot_end_well_is_refused_before_anything_is_learnt(
    make: Make, options: dict[str, object], said: str
) -> None:
    settings = make(**options)
    with pytest.raises(SettingsError, match=said):
        run_training(settings)
    assert not (settings.out / "checkpoint.pt").exists()


def test_a_labelled_scene_that_lacks_a_file_is_named_at_once(make: Make, tmp_path: Path) -> None:
    folder = write_scene(tmp_path / "short", west_m=0)
    (folder / "tiles.csv").unlink()
    with pytest.raises(SettingsError, match=r"labelled\.scenes: .*short has no tiles\.csv"):
        run_training(make(labelled__scenes=[folder], mine__catalog="absent.json"))


def test_a_scene_is_not_learnt_from_and_measured_on(make: Make, scenes: list[Path]) -> None:
    with pytest.raises(SettingsError, match="keep it in one"):
        run_training(make(labelled__hold_out_folders=[scenes[0]]))


def test_weights_to_start_from_need_their_sha256(make: Make, tmp_path: Path) -> None:
    copy = Path(shutil.copy(SHIPPED, tmp_path / "mine.safetensors"))
    with pytest.raises(WeightsError, match=r"write mine\.safetensors\.sha256"):
        run_training(make(start_from=str(copy)))


def test_a_run_goes_on_with_the_same_data_only(make: Make) -> None:
    settings = make()
    settings.out.mkdir()
    (settings.out / "checkpoint.pt").write_bytes(b"")
    (settings.out / "data.json").write_text(
        json.dumps({"configuration": "crosstie", "use_unlabelled": False})
    )
    with pytest.raises(SettingsError, match="holds a run with another labelled"):
        run_training(settings)


def test_a_run_that_an_earlier_version_began_goes_on(make: Make) -> None:
    """Whether clouds are masked is recorded where they are not: there was no such setting before."""
    assert "cloud_masks" not in data_record(make(), None)["catalog"]
    off = make(catalog__cloud_masks=False)
    assert data_record(off, None)["catalog"]["cloud_masks"] is False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train"], "nothing to learn from"),
        (["train", "absent", "--hold-out-east", "1"], "absent is not a folder"),
        (["train", "--config", "absent.yaml"], "absent.yaml"),
        (["train", "--catalog", "absent.json", "--start-from", "shipped", "--out", "{out}"], "absent.json"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = crosstie(*(argument.format(out=tmp_path) for argument in arguments))
    assert result.exit_code == 2
    (line,) = [text for text in result.stderr.splitlines() if text.startswith("error:")]
    assert said in line


def test_show_config_prints_settings_that_read_back(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(crosstie("train", "a", "--hold-out-east", "-5", "--steps", "7", "--show-config").stdout)
    assert load_train_settings(path).plan.steps == 7
    assert load_train_settings(path).labelled.scenes == (Path("a"),)
    assert load_train_settings(path).labelled.hold_out_east_m == -5


def random_weights(path: Path) -> Path:
    torch.manual_seed(0)
    save(
        path,
        MatchingNetwork().eval(),
        Calibration(np.zeros(len(CONFIDENCE_TERMS)), np.zeros(len(SIGMA_TERMS)), np.zeros(2)),
        facts={"a": "b"},
    )
    return path


def test_the_same_weights_are_the_same_file(tmp_path: Path) -> None:
    assert len({random_weights(tmp_path / f"{n}.safetensors").read_bytes() for n in range(12)}) == 1


@pytest.mark.slow
def test_better_weights_replace_those_in_use_and_worse_ones_do_not(make: Make, tmp_path: Path) -> None:
    settings = make(promote_to=tmp_path / "best.safetensors")
    settings.out.mkdir()
    target = tmp_path / "best.safetensors"
    random_weights(target)
    shutil.copy(SHIPPED, settings.weights_path)
    settings.weights_path.with_name("crosstie.safetensors.sha256").write_text(SHIPPED_SHA256)
    decision = hand_over(settings)
    assert decision is not None
    assert decision.better
    assert target.read_bytes() == SHIPPED.read_bytes()

    random_weights(settings.weights_path)
    decision = hand_over(settings)
    assert decision is not None
    assert not decision.better
    assert target.read_bytes() == SHIPPED.read_bytes()
    assert json.loads((tmp_path / "best.safetensors.comparison.json").read_text())["better"] is False


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.usefixtures("prefect_home")
def test_the_flow_trains_the_same_weights_and_leaves_a_table(make: Make, tmp_path: Path) -> None:
    from prefect.artifacts import Artifact

    from crosstie.flows.training.flow import TRAIN_TABLE_KEY, training

    of_flow = make(plan__steps=1, out=tmp_path / "flow")
    figures = training(of_flow)
    table = Artifact.get(TRAIN_TABLE_KEY)
    assert table is not None
    assert f"{figures['cmr1_48']:.4f}" in str(table.data)
    plain = make(plan__steps=1, out=tmp_path / "plain")
    assert run_training(plain) == figures
    assert plain.weights_path.exists()
    with pytest.raises(SettingsError, match="nothing to learn from"):
        training(make(labelled__scenes=[]))
