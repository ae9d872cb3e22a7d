"""Settings of `crosstie train`: one YAML file, overridden by options, checked before training starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from crosstie.config import Group, Settings, TileSettings, given_options, read_yaml, validated
from crosstie.io.catalog.search import SceneQuery
from crosstie.io.pairing.pair_scenes import PairingRules
from crosstie.io.storage.s3 import S3Options
from crosstie.matcher.training.learner import CrosstieLearner
from crosstie.matcher.training.plan import TrainingPlan

HINT = "`crosstie train --show-config` prints a complete one"

SHIPPED_NAME = "shipped"
"""In place of a path: the weights that crosstie ships with."""

BEGUN: dict[str, object] = {"plan.burn_in": 0, "plan.learning_rate": TrainingPlan().learning_rate / 10}
"""Used where training starts from weights: they are good enough to teach and need small steps only."""


class LabelledSettings(Group):
    """Scenes whose true offsets are known."""

    scenes: tuple[Path, ...] = Field(
        default=(),
        description="Folders with s1_vh.tif, s2_tci.tif, truth_offsets.tif and tiles.csv, all in one CRS.",
    )
    hold_out_east_m: float | None = Field(
        default=None,
        description="Easting, metres: places east of it are held out. They only measure the result.",
    )
    hold_out_folders: tuple[Path, ...] = Field(
        default=(), description="Labelled scenes that are held out. They only measure the result."
    )
    share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the labelled places whose labels are used, drawn by plan.seed (above 0, up to "
        "1); the others are used without labels. For experiments on how many labels are needed.",
    )


class PictureSettings(Group):
    """Aligned pictures without labels."""

    folders: tuple[Path, ...] = Field(
        default=(),
        description="Folders of aligned pictures without labels: s1/<date>_<place>.png and "
        "s2/<date>_<place>.jpg.",
    )
    hold_out_places: tuple[str, ...] = Field(
        default=(), description="Places of these folders that are held out."
    )


class MineSettings(Group):
    """Tiles from the pairs of a catalog."""

    catalog: str | None = Field(
        default=None,
        description="STAC catalog whose pairs are used for training without labels: path or URL, as "
        "--catalog of `crosstie pairs`.",
    )
    pairs: int = Field(
        default=100, ge=1, description="Maximum number of pairs from the catalog, drawn by plan.seed."
    )
    tiles_per_pair: int = Field(
        default=40,
        ge=1,
        description="Maximum number of tiles of each pair, drawn by plan.seed among those worth matching.",
    )
    tile_px: int = Field(
        default=288,
        ge=64,
        le=1024,
        description="Side of a mined tile, px (64..1024); a tile of 288 px takes half a MB of memory. With "
        "pseudo_labels tiles are as large as labelled crops need.",
    )
    coarse_max_offset_m: float = Field(
        default=TileSettings().coarse_max_offset_m,
        ge=0,
        le=2000,
        description="Largest offset of a pair that the coarse step finds and removes before tiles are cut, "
        "metres (0..2000; 0 skips this step).",
    )
    pseudo_labels: bool = Field(
        default=False,
        description="Whether mined tiles get labels from the matcher that training starts from, or from the "
        "shipped one. Only confident measurements become labels; they are used like true ones.",
    )
    least_confidence: float = Field(
        default=0.9, ge=0, le=1, description="Smallest calibrated confidence of such a label (0..1)."
    )


class TrainSettings(Group):
    """All settings of a training run. Later wins: defaults, the YAML file, options of the command."""

    labelled: LabelledSettings = Field(
        default=LabelledSettings(), description="Scenes whose true offsets are known."
    )
    pictures: PictureSettings = Field(
        default=PictureSettings(), description="Pairs whose offset is not known."
    )
    mine: MineSettings = Field(
        default=MineSettings(),
        description="Tiles from the pairs of a catalog, without labels: your own archive.",
    )
    catalog: SceneQuery = Field(
        default=SceneQuery(), description="Which scenes of mine.catalog are wanted, as in `crosstie config`."
    )
    pairing: PairingRules = Field(
        default=PairingRules(), description="Which scenes make a pair, as in `crosstie config`."
    )
    storage: S3Options = Field(default=S3Options(), description=Settings.model_fields["storage"].description)
    configuration: Literal["crosstie", "s2m2", "published"] = Field(
        default="crosstie",
        description="Network to train: crosstie (used by all commands), s2m2 (the published method with its "
        "defects corrected) or published (as published). The last two are for comparison only.",
    )
    learner: CrosstieLearner = Field(
        default=CrosstieLearner(), description="Losses of the configuration crosstie."
    )
    plan: TrainingPlan = Field(default=TrainingPlan(), description="How long, how fast, on what crops.")
    use_unlabelled: bool = Field(
        default=True,
        description="Whether unlabelled pairs are used for training: pictures, mined tiles, and the labelled "
        "places without their labels.",
    )
    start_from: str | None = Field(
        default=None,
        description="Weights to start from: a .safetensors file with its .sha256 beside it, or 'shipped'; "
        "null starts from random weights. With weights, plan.burn_in defaults to 0 and plan.learning_rate "
        "to a tenth.",
    )
    calibration_batches: int = Field(
        default=60, ge=4, description="Number of batches of 8 held-out crops that calibrate the confidence."
    )
    promote_to: Path | None = Field(
        default=None,
        description="Weights in use (.safetensors): replaced by the new ones if those perform better on the "
        "held-out places; null replaces nothing.",
    )
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Device: cpu, cuda, cuda:1, or auto (CUDA where it is available).",
    )
    out: Path = Field(
        default=Path("runs/train"),
        description="Folder for checkpoint, log, pictures, mined tiles and weights.",
    )

    @property
    def weights_path(self) -> Path:
        """File that receives the trained weights."""
        return self.out / f"{self.configuration}.safetensors"

    @property
    def start_weights(self) -> Path | None:
        """File of the weights to start from, or to label with; None for the shipped ones."""
        return None if self.start_from in (None, SHIPPED_NAME) else Path(str(self.start_from))


def load_train_settings(
    path: Path | None = None, *, options: Mapping[str, object] | None = None
) -> TrainSettings:
    """Read the settings: defaults, then the YAML file, then the options of a command (None is skipped).

    Where training starts from weights, `BEGUN` stands in for the defaults.

    Raises
    ------
    SettingsError
        One line that names the key, the value and what is allowed.
    """
    of_file = read_yaml(path, hint=HINT) if path else {}
    of_options = given_options(options)
    begun = BEGUN if {**of_file, **of_options}.get("start_from") is not None else {}
    return validated(
        TrainSettings, ("start_from", begun), (f"settings {path}", of_file), ("option", of_options)
    )
