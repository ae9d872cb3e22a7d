"""The data of a training run: labelled places, some of them held out, pictures and mined tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crosstie.errors import SettingsError
from crosstie.flows.training.mined_scenes import read_mined_scenes
from crosstie.flows.training.progress import training_listener
from crosstie.io.datasets.labelled import LabelledScene, read_labelled
from crosstie.io.datasets.mined import read_mining_index
from crosstie.io.datasets.picture_pairs import read_picture_pairs
from crosstie.matcher.training.samples import TrainingScene
from crosstie.matcher.training.unlabelled import UnlabelledScene

if TYPE_CHECKING:
    from crosstie.train_settings import TrainSettings

MINED = "mined"
"""Folder of mined tiles, in the run's folder."""

PLACE_PX = 256
"""Side of the tile whose centre is a labelled place."""

LEAST_VALID = 0.8
"""Share of a picture that must be valid: training draws no crop with less."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """What a run learns from and what it is measured on."""

    scenes: tuple[TrainingScene, ...]
    held_out: tuple[TrainingScene, ...]
    unlabelled: tuple[UnlabelledScene, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of places of each part."""
        return {
            "labelled": sum(len(scene.centres_px) for scene in self.scenes),
            "held_out": sum(len(scene.centres_px) for scene in self.held_out),
            "unlabelled": sum(len(scene.centres_px) for scene in self.unlabelled),
        }


def read_data(settings: TrainSettings) -> TrainingData:
    """Read all data to learn from and to measure on; mined tiles are read from disk.

    Raises
    ------
    UnreadableRasterError
        A scene or a picture cannot be read.
    SettingsError
        The hold-out line leaves no place on one of its sides, or a place to hold out is not there.
    """
    wanted, seed = settings.labelled, settings.plan.seed
    learnt = [read_labelled(folder) for folder in wanted.scenes]
    line = np.inf if wanted.hold_out_east_m is None else wanted.hold_out_east_m
    west = [places(scene, scene.centres_m[:, 0] <= line) for scene in learnt]
    held_out = [places(scene, scene.centres_m[:, 0] > line) for scene in learnt]
    held_out += [
        places(scene, np.ones(len(scene.centres_px), np.bool_))
        for scene in map(read_labelled, wanted.hold_out_folders)
    ]
    west, held_out = ([s for s in part if len(s.centres_px)] for part in (west, held_out))
    if learnt and not west:
        raise SettingsError(f"labelled.hold_out_east_m: {line:g} m leaves no place to train on; move it")
    if not held_out and np.isfinite(line):
        raise SettingsError(f"labelled.hold_out_east_m: {line:g} m leaves no place to hold out; move it")
    if not held_out and wanted.hold_out_folders:
        raise SettingsError("labelled.hold_out_folders: no place in them is trusted; see their tiles.csv")
    scenes = keep_labels(west, wanted.share, seed=seed)
    unlabelled: list[UnlabelledScene] = []
    if settings.use_unlabelled:
        unlabelled += [UnlabelledScene(s.optical_rgb, s.optical_valid, s.sar_db, s.centres_px) for s in west]
        unlabelled += read_pictures(settings.pictures.folders, settings.pictures.hold_out_places)
        index = read_mining_index(settings.out / MINED) if settings.mine.catalog is not None else None
        if index is not None:
            mined = read_mined_scenes(
                settings.out / MINED, index["pairs"], with_labels=settings.mine.pseudo_labels
            )
            scenes, unlabelled = [*scenes, *mined[0]], [*unlabelled, *mined[1]]
    if not scenes and not unlabelled:
        raise SettingsError("nothing to learn from: no tile was mined; see the message of each pair")
    if not scenes and settings.plan.burn_in:
        raise SettingsError("plan.burn_in: no label was found to learn from in the first steps; set 0")
    return TrainingData(tuple(scenes), tuple(held_out), tuple(unlabelled))


def places(scene: LabelledScene, mask: NDArray[np.bool_]) -> TrainingScene:
    """Only the places of a scene where `mask` (N,) is True."""
    return TrainingScene(
        optical_rgb=scene.optical_rgb,
        optical_valid=scene.optical_valid,
        sar_db=scene.sar_db,
        truth_px=scene.truth_px,
        truth_step_px=scene.truth_step_px,
        centres_px=scene.centres_px[mask],
    )


def keep_labels(scenes: Sequence[TrainingScene], share: float, *, seed: int) -> list[TrainingScene]:
    """The scenes with a seeded share of their places, at least one; truth beyond these is forgotten.

    Crops are drawn around a place, so without forgetting they would also see the truth of its neighbours.
    """
    count = sum(len(scene.centres_px) for scene in scenes)
    if share >= 1 or not count:
        return list(scenes)
    drawn = np.random.default_rng((seed, 5)).permutation(count)[: max(1, round(share * count))]
    kept = np.zeros(count, np.bool_)
    kept[drawn] = True
    found, first = [], 0
    for scene in scenes:
        own = scene.centres_px[kept[first : first + len(scene.centres_px)]]
        first += len(scene.centres_px)
        if len(own):
            found.append(replace(scene, centres_px=own, truth_px=_truth_near(scene, own)))
    return found


def _truth_near(scene: TrainingScene, centres_px: NDArray[np.float64]) -> NDArray[np.float32]:
    """The truth of a scene, unknown but for the tiles around some places."""
    reach = PLACE_PX / 2 + scene.truth_step_px
    _, *shape = scene.truth_px.shape
    near = np.zeros(shape, np.bool_)
    for x, y in centres_px:
        # Nodes that a position in the tile is interpolated from.
        row, col = (
            np.abs(np.arange(nodes) * scene.truth_step_px - at) < reach
            for nodes, at in zip(shape, (y, x), strict=True)
        )
        near |= row[:, None] & col[None, :]
    return np.where(near, scene.truth_px, np.float32(np.nan))


def read_pictures(folders: Sequence[Path], hold_out_places: Sequence[str]) -> list[UnlabelledScene]:
    """Every picture pair of the folders, places held out apart.

    Raises
    ------
    UnreadableRasterError
        A folder or a picture cannot be read.
    SettingsError
        No picture shows a place that is to be held out.
    """
    pairs = [pair for folder in folders for pair in read_picture_pairs(folder)]
    there = {pair.place for pair in pairs}
    absent = [place for place in hold_out_places if place not in there]
    if absent and folders:
        raise SettingsError(
            f"pictures.hold_out_places: no picture shows {', '.join(absent)}; there are "
            f"{', '.join(sorted(there))}"
        )
    valid: dict[tuple[int, ...], NDArray[np.bool_]] = {}
    found, left_out = [], 0
    for pair in pairs:
        if pair.place in hold_out_places:
            continue
        if np.isfinite(pair.sar_db).mean() < LEAST_VALID:
            left_out += 1
            continue
        shape = pair.sar_db.shape
        everywhere = valid.setdefault(shape, np.ones(shape, np.bool_))
        middle = np.array([[shape[1] / 2, shape[0] / 2]])
        found.append(UnlabelledScene(pair.optical, everywhere, pair.sar_db, middle))
    if left_out:
        training_listener().say(
            f"{left_out} picture pairs are left out: more than a fifth of their SAR image is invalid"
        )
    return found
