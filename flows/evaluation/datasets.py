"""The pairs of a public set or of a table whose true offset is known, whole or in part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crosstie.errors import SettingsError
from crosstie.flows.evaluation.placement import Protocol
from crosstie.io.datasets import public_sets as sets
from crosstie.io.datasets.names import Dataset, Part, Split
from crosstie.io.datasets.scene_tiles import scenes, sih1733
from crosstie.io.datasets.split import split_at_random, split_by_place

if TYPE_CHECKING:
    from crosstie.io.datasets.benchmark_pair import BenchmarkPair

SCENE_SIZES_PX = (192, 128, 64)
"""Sides of the templates of a whole scene."""

TRUTH = {
    Dataset.SEN12: "taken as zero, as published: nobody has measured it",
    Dataset.QXS: "taken as zero, as published: nobody has measured it; the set names no places, runs of "
    "consecutive numbers stand for them",
    Dataset.SCENES: "a classical dense matcher, smoothed: noise 0.5 to 1 px",
    Dataset.OMBRIA: "a classical dense matcher; pairs without a distinct peak are left out",
    Dataset.SEBAST144: "taken as zero, as published; a classical matcher finds a median of 1 px",
    Dataset.SIH1733: "taken as zero, as published; a classical matcher finds less than 0.5 px",
}
"""Where the true offsets of each set come from."""

PUBLISHED_TEST_SHARE = {Dataset.SEN12: 1 - 256_000 / 282_384, Dataset.QXS: 4_000 / 20_000}
"""Of SEN1-2 16,000 labelled and 240,000 unlabelled pairs of 282,384 were learnt from; of QXS-SAROPT 4,000 of
20,000 were tested on."""


def load_pairs(
    dataset: Dataset,
    folder: Path,
    protocol: Protocol,
    *,
    part: Part = Part.ALL,
    split: Split = Split.PLACE,
) -> list[BenchmarkPair]:
    """List the pairs of one set, or of one part of it.

    Raises
    ------
    BadInputError
        The folder does not hold the set as it is published.
    SettingsError
        The set has no such part.
    """
    sizes = protocol.sizes_px or SCENE_SIZES_PX
    if dataset in (Dataset.SEN12, Dataset.QXS):
        pairs = sets.sen12(folder) if dataset is Dataset.SEN12 else sets.qxs(folder)
        if split is Split.PLACE:
            return split_by_place(pairs, part, seed=protocol.seed)
        share = PUBLISHED_TEST_SHARE[dataset]
        return split_at_random(pairs, part, seed=protocol.seed, test_share=share)
    if dataset is Dataset.OMBRIA and part is not Part.TRAIN:
        return sets.ombria(folder, role="test" if part is Part.TEST else None)
    if part is not Part.ALL:
        raise SettingsError(f"--part {part}: {dataset} has no such part; leave it out")
    if dataset is Dataset.SEBAST144:
        return sets.sebast144(folder)
    tiled = scenes if dataset is Dataset.SCENES else sih1733
    return tiled(folder, sizes_px=sizes, search_px=protocol.search_px)


def some_of(pairs: Sequence[BenchmarkPair], limit: int | None, *, seed: int) -> list[BenchmarkPair]:
    """At most `limit` pairs, drawn by the seed, in the order of the set."""
    if limit is None or limit >= len(pairs):
        return list(pairs)
    chosen = np.random.default_rng((seed, 3)).permutation(len(pairs))[:limit]
    return [pairs[n] for n in sorted(chosen.tolist())]
