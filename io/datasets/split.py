"""Which pairs of a set are for testing: by place, or as published."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crosstie.errors import SettingsError
from crosstie.io.datasets.benchmark_pair import BenchmarkPair
from crosstie.io.datasets.names import Part

TEST_SHARE = 0.2
"""Approximate share of the pairs that a split by place keeps for testing."""


def split_by_place(
    pairs: Sequence[BenchmarkPair], part: Part, *, seed: int, test_share: float = TEST_SHARE
) -> list[BenchmarkPair]:
    """Take one part of a set so that no place is in both; the same seed gives the same parts.

    Places are taken for testing in a drawn order until they hold `test_share` of the pairs; one place at
    least is left to train on.

    Raises
    ------
    SettingsError
        There is only one place, which cannot be split.
    """
    if part is Part.ALL:
        return list(pairs)
    places = sorted({pair.place for pair in pairs})
    if len(places) < 2:
        raise SettingsError(
            f"only one place ({places[0]}), which a split by place cannot divide; take --part all"
        )
    counts = dict.fromkeys(places, 0)
    for pair in pairs:
        counts[pair.place] += 1
    test: set[str] = set()
    for index in np.random.default_rng((seed, 1)).permutation(len(places)):
        if sum(counts[place] for place in test) >= test_share * len(pairs) or len(test) == len(places) - 1:
            break
        test.add(places[index])
    return [pair for pair in pairs if (pair.place in test) == (part is Part.TEST)]


def split_at_random(
    pairs: Sequence[BenchmarkPair], part: Part, *, seed: int, test_share: float
) -> list[BenchmarkPair]:
    """Take one part of a set pair by pair, as published: neighbours that overlap end up in both parts.

    The lists of the published parts are not at hand, only their sizes: whose seed they had is not known, so
    the parts are as large as published, scaled to the set, but not the same pairs.
    """
    if part is Part.ALL:
        return list(pairs)
    n_test = round(test_share * len(pairs))
    test = set(np.random.default_rng((seed, 2)).permutation(len(pairs))[:n_test].tolist())
    chosen = [pair for n, pair in enumerate(pairs) if (n in test) == (part is Part.TEST)]
    if not chosen:
        raise SettingsError(f"the published split leaves no pair of {len(pairs)} to {part}; take --part all")
    return chosen
