"""Train a matcher: read the data, train, calibrate and measure on held-out places, write the weights.

Nothing of Prefect here: `crosstie.flows.training.flow` runs the same three stages as tasks.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from crosstie.config import ComputeSettings, Settings, TileSettings
from crosstie.errors import SettingsError
from crosstie.flows.evaluation import promote as promotion
from crosstie.flows.evaluation.evaluate import Evaluation, Protocol, evaluate, place, some_of
from crosstie.flows.registration.load_matcher import keep_freed_memory
from crosstie.flows.training.data import MINED, PLACE_PX, TrainingData, read_data
from crosstie.flows.training.log import TrainingLog
from crosstie.flows.training.mine import MiningRules, labelled_side_px, mine_catalog
from crosstie.flows.training.progress import listener
from crosstie.io.datasets.labelled import read_labelled
from crosstie.io.datasets.scene_tiles import scenes as benchmark_scenes
from crosstie.matcher.calibration import Calibration
from crosstie.matcher.matching import Matcher
from crosstie.matcher.s2m2.learner import S2M2Learner
from crosstie.matcher.s2m2.settings import S2M2Settings
from crosstie.matcher.training.held_out import measure
from crosstie.matcher.training.held_out_calibration import calibrate
from crosstie.matcher.training.loop import Learner, train
from crosstie.matcher.weights import Weights, save, save_tensors
from crosstie.matcher.weights import load as load_weights

if TYPE_CHECKING:
    from crosstie.io.datasets.benchmark_pair import BenchmarkPair
    from crosstie.matcher.evaluation.comparison import Comparison
    from crosstie.train_settings import TrainSettings

SCENE_FILES = ("s1_vh.tif", "s2_tci.tif", "truth_offsets.tif", "tiles.csv")
"""Of a labelled scene (`crosstie.io.datasets.labelled`): looked for before anything is mined or read."""

BLOCK_PX = 1024
"""Templates of one block of a scene count as one place when two matchers are compared."""

COMPARED = 600
"""Templates at most that new and old weights are compared on."""


def run_training(settings: TrainSettings) -> dict[str, float]:
    """Mine, train, calibrate, save and, if asked to, promote. A run that was cut goes on where it was.

    `settings.out` receives `checkpoint.pt`, `log.csv`, `curves.png`, `heatmaps.png`, `tensorboard/`, `mined/`
    and, at the end, `<configuration>.safetensors` with its sha256.

    Returns
    -------
    Figures on the held-out places.

    Raises
    ------
    BadInputError : a scene, a picture, a catalog or weights cannot be used
    SettingsError : settings that contradict each other, or a run of other settings in `settings.out`
    """
    check(settings)
    mine(settings)
    figures = train_and_save(settings)
    decision = promote(settings)
    if decision is not None:
        listener().say(promotion_line(settings, decision))
    return figures


def weights_path(settings: TrainSettings) -> Path:
    """Where the trained weights lie."""
    return settings.out / f"{settings.configuration}.safetensors"


def check(settings: TrainSettings) -> None:
    """Refuse what cannot end well before anything is read.

    Raises
    ------
    SettingsError : one line that names the setting and the next step
    """
    labelled, plan = settings.labelled, settings.plan
    learner_of(settings)
    for name, folders in (
        ("labelled.scenes", labelled.scenes),
        ("labelled.hold_out_folders", labelled.hold_out_folders),
        ("pictures.folders", settings.pictures.folders),
    ):
        for folder in folders:
            if not folder.is_dir():
                raise SettingsError(f"{name}: {folder} is not a folder; mend the path")
            absent = [file for file in SCENE_FILES if not (folder / file).is_file()]
            if absent and name.startswith("labelled"):
                raise SettingsError(
                    f"{name}: {folder} has no {', '.join(absent)}; a labelled scene has them all"
                )
    twice = {path.resolve() for path in labelled.scenes} & {
        path.resolve() for path in labelled.hold_out_folders
    }
    if twice:
        raise SettingsError(
            f"labelled.hold_out_folders: {min(twice)} is in labelled.scenes, too; keep it in one"
        )
    anything = bool(settings.pictures.folders or settings.mine.catalog)
    if not labelled.scenes and not (anything and settings.use_unlabelled and settings.start_from):
        raise SettingsError(
            "nothing to learn from: give labelled.scenes, or start_from with pictures.folders or mine.catalog"
        )
    if (
        labelled.scenes
        and labelled.hold_out_east_m is None
        and not labelled.hold_out_folders
        and settings.start_from is None
    ):
        raise SettingsError(
            "labelled.hold_out_east_m: confidence is calibrated on places that are not learnt from; give a "
            "line, or labelled.hold_out_folders"
        )
    if not labelled.scenes and not settings.mine.pseudo_labels and plan.burn_in:
        raise SettingsError(
            f"plan.burn_in: without labels there is nothing to learn in the first {plan.burn_in} steps; set 0"
        )
    if settings.promote_to is not None:
        if settings.configuration != "crosstie":
            raise SettingsError(
                f"promote_to: no command uses weights of {settings.configuration}; leave it out"
            )
        if labelled.hold_out_east_m is None and not labelled.hold_out_folders:
            raise SettingsError("promote_to: needs labelled places that are held out, to measure on")
        promotion.refuse_target(weights_path(settings), settings.promote_to)


def learner_of(settings: TrainSettings) -> Learner:
    """The losses of the configuration that is trained."""
    if settings.configuration == "published":
        return S2M2Learner(S2M2Settings.published(), search_px=settings.plan.search_px, guarded=False)
    if settings.configuration == "s2m2":
        return S2M2Learner(S2M2Settings.mended(), search_px=settings.plan.search_px)
    learner = replace(settings.learner, search_px=settings.plan.search_px)
    least = min(learner.sizes_px, default=0) + 2 * learner.search_px
    odd = [px for px in (learner.search_px, *learner.sizes_px) if px % 8 or px < 8]
    if odd or not learner.sizes_px:
        raise SettingsError(
            f"learner.sizes_px and plan.search_px must be multiples of 8, got {learner.sizes_px} and "
            f"{learner.search_px}"
        )
    if settings.use_unlabelled and settings.plan.unlabelled_crop_px < least:
        raise SettingsError(
            f"plan.unlabelled_crop_px: {settings.plan.unlabelled_crop_px} px hold no template of "
            f"{min(learner.sizes_px)} px and its search; {least} do"
        )
    return learner


def device_of(settings: TrainSettings) -> str:
    """The device, `auto` resolved.

    Raises
    ------
    SettingsError : CUDA is wanted and there is none
    """
    there = torch.cuda.is_available()
    if settings.device == "auto":
        return "cuda" if there else "cpu"
    if settings.device != "cpu" and not there:
        raise SettingsError(f"device = {settings.device!r}: torch sees no CUDA device; set auto or cpu")
    return settings.device


def mine(settings: TrainSettings) -> int:
    """Mine the catalog, if there is one, into `<out>/mined`; returns how many pairs were.

    Raises
    ------
    BadInputError : the catalog or the weights cannot be used
    """
    if settings.mine.catalog is None or not settings.use_unlabelled:
        return 0
    keep_freed_memory()
    to = listener()
    keys = mine_catalog(
        settings.mine.catalog,
        mining_settings(settings),
        mining_rules(settings),
        settings.out / MINED,
        partial(Matcher.load, settings.start_weights, device=device_of(settings)),
        progress=to.mined,
        tell=to.say,
    )
    return len(keys)


def mining_rules(settings: TrainSettings) -> MiningRules:
    """What is taken from the catalog."""
    wanted = settings.mine
    return MiningRules(
        pairs=wanted.pairs,
        tiles_per_pair=wanted.tiles_per_pair,
        side_px=max(wanted.tile_px, labelled_side_px(settings.plan))
        if wanted.pseudo_labels
        else wanted.tile_px,
        search_px=settings.plan.search_px,
        pseudo_labels=wanted.pseudo_labels,
        least_confidence=wanted.least_confidence,
        seed=settings.plan.seed,
    )


def mining_settings(settings: TrainSettings) -> Settings:
    """Settings of a registration whose tiles are those that are mined."""
    side = mining_rules(settings).side_px
    if not 32 <= side <= 1024:
        raise SettingsError(
            f"mine.pseudo_labels: crops of {settings.plan.crop_px} px need tiles of {side} px"
        )
    return Settings(
        tiles=TileSettings(
            size_px=side,
            stride_px=side,
            search_px=settings.plan.search_px,
            coarse_max_offset_m=settings.mine.coarse_max_offset_m,
        ),
        catalog=settings.catalog,
        pairing=settings.pairing,
        storage=settings.storage,
        compute=ComputeSettings(device="cpu" if settings.device == "cpu" else "auto"),
        weights=settings.start_weights,
    )


def train_and_save(settings: TrainSettings) -> dict[str, float]:
    """Train on what is there, calibrate, measure, write the weights; returns the figures.

    Raises
    ------
    BadInputError : as `run_training`
    """
    keep_freed_memory()
    device = device_of(settings)
    start = None
    if settings.start_from is not None:
        if settings.configuration != "crosstie":
            raise SettingsError(f"start_from: not known for {settings.configuration}; leave it out")
        start = load_weights(settings.start_weights)
    data = read_data(settings)
    if start is None and not data.held_out:
        raise SettingsError(
            "nothing to calibrate on: give labelled.hold_out_east_m or labelled.hold_out_folders"
        )
    of_data = described(settings, start)
    _same_data(settings.out, of_data)
    to = listener()
    to.say(", ".join(f"{name} places: {count}" for name, count in data.counts.items()))
    learner = learner_of(settings)
    with TrainingLog(settings.out, learner, data.held_out, settings.plan.draws, device) as log:
        last = 0

        def progress(step: int, figures: dict[str, float]) -> None:
            nonlocal last
            last = step
            log.stepped(step, figures)
            to.step(step, settings.plan.steps, figures)

        network = train(
            data.scenes,
            data.held_out,
            settings.plan,
            settings.out,
            learner=learner,
            unlabelled=data.unlabelled,
            start_from=None if start is None else start.network.state_dict(),
            device=device,
            progress=progress,
            observe=log.evaluated,
        )
    if 0 < last < settings.plan.steps:
        to.say(f"stopped after step {last}: {settings.plan.watched} rose no more")
    facts = {
        "configuration": settings.configuration,
        "plan": json.dumps(asdict(settings.plan)),
        "learner": json.dumps(asdict(learner)),  # type: ignore[call-overload]
        "data": json.dumps(of_data | {"places": data.counts}),
        "seed": str(settings.plan.seed),
    }
    if settings.configuration != "crosstie":
        figures = learner.figures(network, data.held_out, settings.plan.draws, device)
        save_tensors(weights_path(settings), network, facts=facts | _as_text(figures))
        return figures
    calibration, figures, how = _calibrated(settings, data, network, start, device)
    to.say(f"confidence {how}")
    save(
        weights_path(settings),
        network.cpu(),
        calibration,
        facts=facts | {"calibration": how} | _as_text(figures),
    )
    return figures


def described(settings: TrainSettings, start: Weights | None) -> dict[str, Any]:
    """What is learnt from, fit for JSON: a run goes on with the same only."""
    tree = settings.model_dump(
        mode="json",
        include={"labelled", "pictures", "mine", "catalog", "pairing", "configuration", "use_unlabelled"},
    )
    return tree | {"start_from_sha256": None if start is None else start.sha256}


def _same_data(out: Path, now: dict[str, Any]) -> None:
    """Refuse to go on with a run on other data; `train` does the same for the plan."""
    path = out / "data.json"
    if path.exists() and (out / "checkpoint.pt").exists():
        before = json.loads(path.read_text())
        other = [name for name in now if before.get(name) != now[name]]
        if other:
            raise SettingsError(
                f"{out}: holds a run with another {', '.join(other)}; choose another folder, or remove it"
            )
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(now, indent=1))


def _calibrated(
    settings: TrainSettings, data: TrainingData, network: Any, start: Weights | None, device: str
) -> tuple[Calibration, dict[str, float], str]:
    """Calibration, figures on held-out places, and how the calibration came about."""
    if not data.held_out:
        if start is None:
            raise SettingsError("nothing to calibrate on; give weights to start from, or hold places out")
        return start.calibration, {}, "kept from the weights it started from: no labelled place is held out"
    sizes = tuple(sorted(set(settings.learner.sizes_px), reverse=True))
    draws, batches = settings.plan.draws, settings.calibration_batches
    calibration, error = calibrate(
        network, data.held_out, draws, batches=batches, sizes_px=sizes, device=device
    )
    measured = measure(
        network, data.held_out, draws, sizes_px=sizes, batches=max(1, batches // 3), seed=777, device=device
    )
    figures = {name: value for size in sizes for name, value in measured.figures(size).items()}
    return calibration, figures | {"calibration_error": error}, "calibrated on the held-out places"


def _as_text(figures: dict[str, float]) -> dict[str, str]:
    return {name: f"{value:.4f}" for name, value in figures.items()}


def promote(settings: TrainSettings) -> Comparison | None:
    """Compare the new weights with those in use on the held-out places, and replace these if they are better.

    The decision is kept in `<promote_to>.comparison.json`.

    Returns
    -------
    The decision; None where nothing was to be replaced.
    """
    target = settings.promote_to
    if target is None:
        return None
    new_path, old_path = weights_path(settings), promotion.opponent(None, target)
    groups = place(
        some_of(held_out_templates(settings), COMPARED, seed=settings.plan.seed),
        Protocol(search_px=settings.plan.search_px, seed=settings.plan.seed),
    )
    device = device_of(settings)
    found: list[tuple[Evaluation, str]] = []
    for path in (old_path, new_path):
        matcher = Matcher.load(path, device=device)
        found.append((evaluate(groups, matcher, search_px=settings.plan.search_px), matcher.weights_sha256))
    (old, old_sha256), (new, new_sha256) = found
    decision = promotion.compared(old, new)
    tree = promotion.comparison_report(decision, old, new, old_sha256=old_sha256, new_sha256=new_sha256)
    promotion.write_comparison(target, tree)
    if decision.better:
        promotion.promote(new_path, target)
    return decision


def promotion_line(settings: TrainSettings, decision: Comparison) -> str:
    """What became of the weights in use, on one line."""
    at = ", ".join(f"{c.threshold_px:g} px: {c.old:.1%} -> {c.new:.1%}" for c in decision.changes)
    end = "replaced by the new weights" if decision.better else f"kept: {'; '.join(decision.reasons)}"
    return f"{settings.promote_to}: {end} ({decision.n} held-out templates within {at})"


def held_out_templates(settings: TrainSettings) -> list[BenchmarkPair]:
    """Templates of the held-out places, each block of ground a place of its own.

    Raises
    ------
    BadInputError : no template fits there
    """
    wanted, learner = settings.labelled, settings.learner
    sizes = tuple(sorted({max(learner.sizes_px), min(learner.sizes_px)}, reverse=True))
    cut = partial(benchmark_scenes, sizes_px=sizes, search_px=settings.plan.search_px)
    found = [pair for folder in wanted.hold_out_folders for pair in cut(folder)]
    if wanted.hold_out_east_m is not None:
        for folder in wanted.scenes:
            scene = read_labelled(folder)
            east = scene.centres_px[scene.centres_m[:, 0] > wanted.hold_out_east_m]
            found += [pair for pair in cut(folder) if len(east) and _is_at(pair, east)]
    return [_with_block(pair) for pair in found]


def _is_at(pair: BenchmarkPair, centres_px: NDArray[np.float64]) -> bool:
    """Whether a template's centre lies in the tile of one of some places."""
    assert pair.tile is not None  # noqa: S101
    far = np.abs(centres_px - np.array(pair.tile.centre_px)).max(axis=1)
    return bool((far <= PLACE_PX / 2).any())


def _with_block(pair: BenchmarkPair) -> BenchmarkPair:
    if pair.tile is None:
        return pair
    return replace(pair, place=f"{pair.place} {pair.tile.row // BLOCK_PX} {pair.tile.col // BLOCK_PX}")
