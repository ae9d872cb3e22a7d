"""Keep the newest of several products of one acquisition.

An archive may hold a scene and its reprocessed version, the same scene in two collections, or one item twice.
Pairs with each of them would register the same pixels again.
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
"""Longest time between two versions of one acquisition, microseconds: each version computes its times anew.
Slices of a pass, and tiles that a pass cuts in two, are farther apart or cover other ground."""

SAME_GROUND = 0.5
"""Smallest common area of two versions, as a share of the larger footprint."""

LEVELS = ("L1C", "L2A")
"""Levels of one optical acquisition, the preferred last: at the ground, without the haze."""

Rank = tuple[int, tuple[int, ...], int, str, str, str]


def keep_newest(scenes: Scenes, ground: Ground) -> tuple[BoolArray, list[LeftOut]]:
    """Say which scenes to keep, and why the others are older versions.

    Two scenes are versions of one acquisition if satellite, product, tile, time and ground agree; L1C and L2A
    count as one product. L2A wins, then the newer baseline, then the later creation, then the later id.

    Returns
    -------
    BoolArray
        (N,) True for the scenes to keep.
    list of LeftOut
        The others.
    """
    keep = np.ones(len(scenes), bool)
    left_out: list[LeftOut] = []
    for rows in _rows_of_equal_ids(scenes.id.tolist()):
        older = sorted(rows, key=lambda n: _rank(scenes, n), reverse=True)[1:]
        keep[older] = False
        left_out += [
            LeftOut(scenes.id[n], "listed twice", "its id is listed more than once: the newest is taken")
            for n in older
        ]
    groups = [
        sorted(rows, key=lambda n: _rank(scenes, n), reverse=True) for rows in _of_one_time(scenes, keep)
    ]
    same_ground = _on_same_ground(groups, ground)
    for rows in groups:
        kept: list[int] = []
        for n in rows:
            newer = next((k for k in kept if (k, n) in same_ground), None)
            if newer is None:
                kept.append(n)
                continue
            keep[n] = False
            left_out.append(LeftOut(scenes.id[n], "older version", _why_older(scenes, n, newer)))
    return keep, left_out


def _rows_of_equal_ids(ids: Sequence[str]) -> list[list[int]]:
    rows = defaultdict(list)
    if len(set(ids)) < len(ids):
        for n, name in enumerate(ids):
            rows[name].append(n)
    return [group for group in rows.values() if len(group) > 1]


def _of_one_time(scenes: Scenes, keep: BoolArray) -> list[list[int]]:
    """Group the rows that one satellite took of one tile at one time; a satellite must be named."""
    codes: dict[tuple[object, ...], int] = {}
    # levels of optical products have the same geometry
    product = ["of a level" if kind in LEVELS else kind for kind in scenes.product_type]
    columns = zip(scenes.is_sar.tolist(), scenes.platform, product, scenes.mgrs_tile, strict=True)
    code = np.array([codes.setdefault(key, len(codes)) for key in columns], np.int64)
    named = keep & np.array([platform is not None for platform in scenes.platform], bool)
    order = np.lexsort((scenes.acquired_us, code))
    order = order[named[order]]
    apart = (np.diff(code[order]) != 0) | (np.diff(scenes.acquired_us[order]) > SAME_MOMENT_US)
    starts = np.concatenate([[0], np.flatnonzero(apart) + 1, [len(order)]])
    several = np.flatnonzero(np.diff(starts) > 1)
    return [order[starts[n] : starts[n + 1]].tolist() for n in several]


def _on_same_ground(groups: list[list[int]], ground: Ground) -> set[tuple[int, int]]:
    """Pairs of rows, the newer first, that cover the same ground."""
    pairs = [(rows[i], rows[j]) for rows in groups for j in range(len(rows)) for i in range(j)]
    if not pairs:
        return set()
    a, b = np.array(pairs, np.int64).T
    area = ground.area_m2
    of_larger = overlaps(ground, ground, a, b) * np.minimum(area[a], area[b]) / np.maximum(area[a], area[b])
    return {pair for pair, share in zip(pairs, of_larger, strict=True) if share >= SAME_GROUND}


def _rank(scenes: Scenes, n: int) -> Rank:
    baseline = tuple(int(part) for part in re.findall(r"\d+", scenes.processing_baseline[n] or ""))
    level = LEVELS.index(scenes.product_type[n]) if scenes.product_type[n] in LEVELS else -1
    return (
        level,
        baseline,
        int(scenes.created_us[n]),
        scenes.id[n],
        str(scenes.collection[n]),
        str(scenes.href[n]),
    )


def _why_older(scenes: Scenes, n: int, newer: int) -> str:
    ours, theirs = scenes.processing_baseline[n], scenes.processing_baseline[newer]
    if scenes.product_type[n] != scenes.product_type[newer]:
        return (
            f"{scenes.id[newer]} is {scenes.product_type[newer]} of the same acquisition, this is"
            f" {scenes.product_type[n] or 'of no level that is named'} (catalog.product_types chooses)"
        )
    if ours != theirs:
        how = f"baseline {theirs or 'not said'} against {ours or 'not said'}"
    elif scenes.created_us[n] != scenes.created_us[newer] and scenes.created_us[n] != UNKNOWN:
        how = "made later"
    else:
        how = "of a later id"
    return f"{scenes.id[newer]} is a newer version of the same acquisition ({how})"
