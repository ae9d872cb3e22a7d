"""Settings of `crosstie train`: one YAML file, overridden by options, checked at the door."""

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
        description="Easting, metres: places east of it are never learnt from, only measured on.",
    )
    hold_out_folders: tuple[Path, ...] = Field(
        default=(), description="Labelled scenes that are never learnt from, only measured on."
    )
    share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the labelled places that keep their label, drawn by plan.seed (above 0, to 1); "
        "the others become unlabelled pairs. For experiments on how many labels are needed.",
    )


class PictureSettings(Group):
    """Aligned pictures without labels."""

    folders: tuple[Path, ...] = Field(
        default=(),
        description="Folders of aligned pictures without labels: s1/<date>_<place>.png and "
        "s2/<date>_<place>.jpg.",
    )
    hold_out_places: tuple[str, ...] = Field(
        default=(), description="Places of these folders that are never learnt from."
    )


class MineSettings(Group):
    """Tiles from the pairs of a catalog."""

    catalog: str | None = Field(
        default=None,
        description="STAC catalog whose pairs are learnt from without labels: path or URL, as --catalog of "
        "`crosstie pairs`.",
    )
    pairs: int = Field(
        default=100, ge=1, description="Maximum number of pairs of the catalog, drawn by plan.seed."
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
        description="Side of a mined tile, px (64..1024); half a MB of memory each at 288. With "
        "pseudo_labels they are made as large as labelled crops need.",
    )
    coarse_max_offset_m: float = Field(
        default=TileSettings().coarse_max_offset_m,
        ge=0,
        le=2000,
        description="Largest error of a pair that is looked for and taken off first, metres (0..2000; 0 "
        "skips this).",
    )
    pseudo_labels: bool = Field(
        default=False,
        description="Whether the matcher that training starts from (else the shipped one) labels mined tiles "
        "it is sure of; they are then learnt from like labelled ones.",
    )
    least_confidence: float = Field(
        default=0.9, ge=0, le=1, description="Calibrated confidence that such a label needs (0..1)."
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
        default=MineSettings(), description="Your own archive: pairs of a catalog, cut into tiles."
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
        description="What is trained: crosstie (used by all commands), s2m2 (the published method with its "
        "defects mended) or published (as published); the last two are for comparison only.",
    )
    learner: CrosstieLearner = Field(
        default=CrosstieLearner(), description="Losses of the configuration crosstie."
    )
    plan: TrainingPlan = Field(default=TrainingPlan(), description="How long, how fast, on what crops.")
    use_unlabelled: bool = Field(
        default=True,
        description="Whether unlabelled pairs are learnt from: pictures, mined tiles, and the labelled "
        "places themselves, unseen by their label.",
    )
    start_from: str | None = Field(
        default=None,
        description="Weights to go on from: a .safetensors file with its .sha256 beside it, or 'shipped'; "
        "null begins anew. With weights, plan.burn_in is 0 and plan.learning_rate a tenth where not set.",
    )
    calibration_batches: int = Field(
        default=60, ge=4, description="Batches of 8 held-out crops that the confidence is fitted on."
    )
    promote_to: Path | None = Field(
        default=None,
        description="Weights in use (.safetensors): replaced by the new ones if these measure better on the "
        "held-out places; null replaces nothing.",
    )
    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="cpu, cuda, cuda:1, or auto."
    )
    out: Path = Field(
        default=Path("runs/train"), description="Receives checkpoint, log, pictures, mined tiles and weights."
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
