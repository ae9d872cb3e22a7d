"""Settings of a training run that cannot end well, refused before anything is read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from crosstie.errors import SettingsError
from crosstie.flows.evaluation.promote import refuse_target
from crosstie.matcher.s2m2.learner import S2M2Learner
from crosstie.matcher.s2m2.settings import S2M2Settings

if TYPE_CHECKING:
    from crosstie.matcher.training.loop import Learner
    from crosstie.train_settings import TrainSettings

SCENE_FILES = ("s1_vh.tif", "s2_tci.tif", "truth_offsets.tif", "tiles.csv")
"""Of a labelled scene (`crosstie.io.datasets.labelled`): looked for before anything is mined or read."""


def check_settings(settings: TrainSettings) -> None:
    """Refuse settings that cannot end well, before anything is read.

    Raises
    ------
    SettingsError
        One line that names the setting and the next step.
    """
    learner_of(settings)
    _check_folders(settings)
    _check_labels(settings)
    _check_promotion(settings)


def _check_folders(settings: TrainSettings) -> None:
    """Every folder must be there and whole, and none both learnt from and held out."""
    labelled = settings.labelled
    for name, folders in (
        ("labelled.scenes", labelled.scenes),
        ("labelled.hold_out_folders", labelled.hold_out_folders),
        ("pictures.folders", settings.pictures.folders),
    ):
        for folder in folders:
            if not folder.is_dir():
                raise SettingsError(f"{name}: {folder} is not a folder; correct the path")
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


def _check_labels(settings: TrainSettings) -> None:
    """There must be something to learn from, and something to calibrate on."""
    labelled, plan = settings.labelled, settings.plan
    anything = bool(settings.pictures.folders or settings.mine.catalog)
    if not labelled.scenes and not (anything and settings.use_unlabelled and settings.start_from):
        raise SettingsError(
            "nothing to learn from: give labelled.scenes, or start_from with pictures.folders or mine.catalog"
        )
    if labelled.scenes and not _holds_out(settings) and settings.start_from is None:
        raise SettingsError(
            "labelled.hold_out_east_m: confidence is calibrated on places that are not learnt from; give a "
            "line, or labelled.hold_out_folders"
        )
    if not labelled.scenes and not settings.mine.pseudo_labels and plan.burn_in:
        raise SettingsError(
            f"plan.burn_in: without labels there is nothing to learn in the first {plan.burn_in} steps; set 0"
        )


def _check_promotion(settings: TrainSettings) -> None:
    """What is to be replaced must be replaceable, and there must be places to measure on."""
    if settings.promote_to is None:
        return
    if settings.configuration != "crosstie":
        raise SettingsError(f"promote_to: no command uses weights of {settings.configuration}; leave it out")
    if not _holds_out(settings):
        raise SettingsError("promote_to: needs labelled places that are held out, to measure on")
    refuse_target(settings.weights_path, settings.promote_to)


def _holds_out(settings: TrainSettings) -> bool:
    """Whether labelled places are held out."""
    return settings.labelled.hold_out_east_m is not None or bool(settings.labelled.hold_out_folders)


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
    SettingsError
        CUDA is wanted, and there is none.
    """
    there = torch.cuda.is_available()
    if settings.device == "auto":
        return "cuda" if there else "cpu"
    if settings.device != "cpu" and not there:
        raise SettingsError(f"device = {settings.device!r}: torch sees no CUDA device; set auto or cpu")
    return settings.device
