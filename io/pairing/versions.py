"""One acquisition, several products of it: the newest is kept.

Archives hold a scene as it was first made and as it was made again, the same scene in two collections, and at
times one item twice. A pair of each would be the same work for the same pixels.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from crosstie.io.scenes.overlap import Ground, overlaps
from crosstie.io.scenes.table import UNKNOWN, LeftOut, Scenes

if TYPE_CHECKING:
    from crosstie.types import BoolArray

SAME_MOMENT_US = 5_000_000
"""Versions of one acquisition differ by less: each reckons its times anew. Slices of a pass, and tiles that a
pass cuts in two, lie farther apart or cover other ground."""

SAME_GROUND = 0.5
"""Versions share at least so much of the larger footprint."""

Rank = tuple[tuple[int, ...], int, str, str, str]


def newest(scenes: Scenes, ground: Ground) -> tuple[BoolArray, list[LeftOut]]:
    """Whether each scene is the newest of its kind, and why not.

    The newer baseline goes first, then the later creation, then the later id. Two are versions of one
    acquisition where satellite, product, tile, moment and ground agree.
    """
    keep = np.ones(len(scenes), bool)
    left_out: list[LeftOut] = []
    for rows in _same(scenes.id.tolist()):
        best, *others = sorted(rows, key=lambda n: _rank(scenes, n), reverse=True)
        keep[others] = False
        left_out += [
            LeftOut(scenes.id[n], "listed twice", "its id is listed more than once: the newest is taken")
            for n in others
        ]
        del best
    groups = [
        sorted(rows, key=lambda n: _rank(scenes, n), reverse=True) for rows in _one_moment(scenes, keep)
    ]
    alike = _alike(groups, ground)
    for rows in groups:
        kept: list[int] = []
        for n in rows:
            newer = next((k for k in kept if (k, n) in alike), None)
            if newer is None:
                kept.append(n)
                continue
            keep[n] = False
            left_out.append(LeftOut(scenes.id[n], "older version", _older(scenes, n, newer)))
    return keep, left_out


def _same(ids: Sequence[str]) -> list[list[int]]:
    rows = defaultdict(list)
    if len(set(ids)) < len(ids):
        for n, name in enumerate(ids):
            rows[name].append(n)
    return [group for group in rows.values() if len(group) > 1]


def _one_moment(scenes: Scenes, keep: BoolArray) -> list[list[int]]:
    """Groups of rows that one satellite took at one moment of one tile; a satellite must be named."""
    codes: dict[tuple[object, ...], int] = {}
    columns = zip(scenes.is_sar.tolist(), scenes.platform, scenes.product_type, scenes.mgrs_tile, strict=True)
    code = np.array([codes.setdefault(key, len(codes)) for key in columns], np.int64)
    named = keep & np.array([platform is not None for platform in scenes.platform], bool)
    order = np.lexsort((scenes.acquired_us, code))
    order = order[named[order]]
    apart = (np.diff(code[order]) != 0) | (np.diff(scenes.acquired_us[order]) > SAME_MOMENT_US)
    starts = np.concatenate([[0], np.flatnonzero(apart) + 1, [len(order)]])
    several = np.flatnonzero(np.diff(starts) > 1)
    return [order[starts[n] : starts[n + 1]].tolist() for n in several]


def _alike(groups: list[list[int]], ground: Ground) -> set[tuple[int, int]]:
    """Pairs of rows, the newer first, that lie on the same ground."""
    pairs = [(rows[i], rows[j]) for rows in groups for j in range(len(rows)) for i in range(j)]
    if not pairs:
        return set()
    a, b = np.array(pairs, np.int64).T
    area = ground.area_m2
    of_larger = overlaps(ground, ground, a, b) * np.minimum(area[a], area[b]) / np.maximum(area[a], area[b])
    return {pair for pair, share in zip(pairs, of_larger, strict=True) if share >= SAME_GROUND}


def _rank(scenes: Scenes, n: int) -> Rank:
    baseline = tuple(int(part) for part in re.findall(r"\d+", scenes.processing_baseline[n] or ""))
    return baseline, int(scenes.created_us[n]), scenes.id[n], str(scenes.collection[n]), str(scenes.href[n])


def _older(scenes: Scenes, n: int, newer: int) -> str:
    ours, theirs = scenes.processing_baseline[n], scenes.processing_baseline[newer]
    if ours != theirs:
        how = f"baseline {theirs or 'not said'} against {ours or 'not said'}"
    elif scenes.created_us[n] != scenes.created_us[newer] and scenes.created_us[n] != UNKNOWN:
        how = "made later"
    else:
        how = "of a later id"
    return f"{scenes.id[newer]} is a newer version of the same acquisition ({how})"
