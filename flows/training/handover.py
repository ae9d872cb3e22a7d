"""New weights against those in use, on the places that are held out; the better ones stay in use."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crosstie.flows.evaluation.datasets import some_of
from crosstie.flows.evaluation.evaluate import evaluate
from crosstie.flows.evaluation.placement import Protocol, place_templates
from crosstie.flows.evaluation.promote import MeasuredWeights, compare_and_promote
from crosstie.flows.training.checks import device_of
from crosstie.flows.training.data import PLACE_PX
from crosstie.io.datasets.labelled import read_labelled
from crosstie.io.datasets.scene_tiles import scenes as benchmark_scenes
from crosstie.matcher.matching import Matcher

if TYPE_CHECKING:
    from crosstie.io.datasets.benchmark_pair import BenchmarkPair
    from crosstie.matcher.evaluation.comparison import Comparison
    from crosstie.train_settings import TrainSettings
    from crosstie.types import FloatArray

PLACE_BLOCK_PX = 1024
"""Templates of one block of a scene count as one place when two matchers are compared."""

COMPARED = 600
"""Largest number of templates that new and old weights are compared on."""


def hand_over(settings: TrainSettings) -> Comparison | None:
    """Compare the new weights with those in use on the held-out places, and replace these if they are better.

    The decision is kept in `<promote_to>.comparison.json`.

    Returns
    -------
    Comparison | None
        The decision; None where nothing was to be replaced.
    """
    target = settings.promote_to
    if target is None:
        return None
    search_px, seed, device = settings.plan.search_px, settings.plan.seed, device_of(settings)
    groups = place_templates(
        some_of(held_out_templates(settings), COMPARED, seed=seed), Protocol(search_px=search_px, seed=seed)
    )

    def measure(weights: Path | None) -> MeasuredWeights:
        matcher = Matcher.load(weights, device=device)
        found = evaluate(groups, matcher, search_px=search_px)
        return MeasuredWeights(weights, matcher.weights_sha256, found)

    return compare_and_promote(measure(settings.weights_path), measure, target=target).comparison


def handover_line(settings: TrainSettings, decision: Comparison) -> str:
    """One line that says what became of the weights in use."""
    at = ", ".join(f"{c.threshold_px:g} px: {c.old:.1%} -> {c.new:.1%}" for c in decision.changes)
    end = "replaced by the new weights" if decision.better else f"kept: {'; '.join(decision.reasons)}"
    return f"{settings.promote_to}: {end} ({decision.n} held-out templates within {at})"


def held_out_templates(settings: TrainSettings) -> list[BenchmarkPair]:
    """Templates of the held-out places; each block of ground counts as one place.

    Raises
    ------
    BadInputError
        No template fits there.
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


def _is_at(pair: BenchmarkPair, centres_px: FloatArray) -> bool:
    """Whether a template's centre lies in the tile of one of some places."""
    assert pair.tile is not None  # noqa: S101
    far = np.abs(centres_px - np.array(pair.tile.centre_px)).max(axis=1)
    return bool((far <= PLACE_PX / 2).any())


def _with_block(pair: BenchmarkPair) -> BenchmarkPair:
    """The pair with its block of ground as its place."""
    if pair.tile is None:
        return pair
    return replace(
        pair, place=f"{pair.place} {pair.tile.row // PLACE_BLOCK_PX} {pair.tile.col // PLACE_BLOCK_PX}"
    )
