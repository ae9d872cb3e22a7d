"""Train a matcher: read the data, train, calibrate and measure on held-out places, write the weights.

Nothing of Prefect here: `crosstie.flows.training.flow` runs the same three stages as tasks.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosstie.config import ComputeSettings, Settings, TileSettings
from crosstie.errors import SettingsError
from crosstie.flows.heap import keep_freed_memory
from crosstie.flows.training.checks import check_settings, device_of, learner_of
from crosstie.flows.training.data import MINED, TrainingData, read_data
from crosstie.flows.training.handover import hand_over, handover_line
from crosstie.flows.training.log import TrainingLog
from crosstie.flows.training.mine import MiningRules, labelled_side_px, mine_catalog
from crosstie.flows.training.progress import training_listener
from crosstie.matcher.calibration import Calibration
from crosstie.matcher.matching import Matcher
from crosstie.matcher.training.held_out import measure
from crosstie.matcher.training.held_out_calibration import calibrate
from crosstie.matcher.training.loop import Learner, train
from crosstie.matcher.weights import Weights, save, save_tensors
from crosstie.matcher.weights import load as load_weights

if TYPE_CHECKING:
    from crosstie.train_settings import TrainSettings


def run_training(settings: TrainSettings) -> dict[str, float]:
    """Mine, train, calibrate, save and, if asked to, promote. A run that was cut short is resumed.

    `settings.out` receives `checkpoint.pt`, `log.csv`, `curves.png`, `heatmaps.png`, `tensorboard/`, `mined/`
    and, at the end, `<configuration>.safetensors` with its sha256.

    Returns
    -------
    dict[str, float]
        Figures on the held-out places.

    Raises
    ------
    BadInputError
        A scene, a picture, a catalog or weights cannot be used.
    SettingsError
        The settings contradict each other, or `settings.out` holds a run with other settings.
    """
    check_settings(settings)
    mine(settings)
    figures = train_and_save(settings)
    decision = hand_over(settings)
    if decision is not None:
        training_listener().say(handover_line(settings, decision))
    return figures


def mine(settings: TrainSettings) -> int:
    """Mine the catalog, if there is one, into `<out>/mined`; returns how many pairs were.

    Raises
    ------
    BadInputError
        The catalog or the weights cannot be used.
    """
    if settings.mine.catalog is None or not settings.use_unlabelled:
        return 0
    keep_freed_memory()
    to = training_listener()
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
    """Train, calibrate, measure and write the weights; returns the figures on held-out places.

    Raises
    ------
    BadInputError
        As `run_training`.
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
    of_data = data_record(settings, start)
    _refuse_other_data(settings.out, of_data)
    learner = learner_of(settings)
    network = _trained(settings, data, learner, start, device)
    facts = {
        "configuration": settings.configuration,
        "plan": json.dumps(asdict(settings.plan)),
        "learner": json.dumps(asdict(learner)),  # type: ignore[call-overload]
        "data": json.dumps(of_data | {"places": data.counts}),
        "seed": str(settings.plan.seed),
    }
    if settings.configuration != "crosstie":
        figures = learner.figures(network, data.held_out, settings.plan.draws, device)
        save_tensors(settings.weights_path, network, facts=facts | _as_text(figures))
        return figures
    calibration, figures, how = _calibrated(settings, data, network, start, device)
    training_listener().say(f"confidence {how}")
    save(
        settings.weights_path,
        network.cpu(),
        calibration,
        facts=facts | {"calibration": how} | _as_text(figures),
    )
    return figures


def _trained(
    settings: TrainSettings, data: TrainingData, learner: Learner, start: Weights | None, device: str
) -> Any:
    """Train and return the averaged network; log the run and tell the listener how far it is."""
    to = training_listener()
    to.say(", ".join(f"{name} places: {count}" for name, count in data.counts.items()))
    last = 0
    with TrainingLog(settings.out, learner, data.held_out, settings.plan.draws, device) as log:

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
        to.say(f"stopped after step {last}: {settings.plan.watched} stopped rising")
    return network


def data_record(settings: TrainSettings, start: Weights | None) -> dict[str, Any]:
    """What is learnt from, as JSON holds it: a run is resumed only with the same data."""
    tree = settings.model_dump(
        mode="json",
        include={"labelled", "pictures", "mine", "catalog", "pairing", "configuration", "use_unlabelled"},
    )
    if settings.catalog.cloud_masks:
        del tree["catalog"]["cloud_masks"]  # runs of earlier versions do not know of it, and can go on
    return tree | {"start_from_sha256": None if start is None else start.sha256}


def _refuse_other_data(out: Path, now: dict[str, Any]) -> None:
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
    """Figures as the header of a weights file holds them."""
    return {name: f"{value:.4f}" for name, value in figures.items()}
