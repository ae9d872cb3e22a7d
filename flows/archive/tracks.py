"""The displacement field of each track at a place, from the tie points of its scenes.

Only tracks whose pairs show relief are read, and theirs anew with each version: a field is a mean over all
its dates.
"""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from crosstie.errors import StoreError
from crosstie.estimation.track_field import FEWEST_DATES, DatePoints, track_field
from crosstie.flows.archive.measuring import PRODUCTS_AT_ONCE
from crosstie.flows.archive.solving import OPTICAL
from crosstie.io.adjusted.layout import EDGES, SCENES, SUMMARY, field_file
from crosstie.io.adjusted.measured import read_pair_points
from crosstie.io.adjusted.publish import as_json
from crosstie.io.adjusted.tables import decode_edges, decode_scenes
from crosstie.io.products.displacement import displacement_cog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crosstie.estimation.track_field import TrackField
    from crosstie.flows.archive.solving import SolvedPlace
    from crosstie.io.adjusted.places import ArchivePair
    from crosstie.io.storage.store import Store
    from crosstie.types import FloatArray, TiePoints


def with_track_fields(store: Store, solved: SolvedPlace, pairs: Sequence[ArchivePair]) -> SolvedPlace:
    """Add the fields of the tracks of a place to its files.

    Parameters
    ----------
    store : Store
        Product root.
    solved : SolvedPlace
        The place, adjusted.
    pairs : Sequence[ArchivePair]
        The pairs that it was adjusted from.

    Returns
    -------
    SolvedPlace
        The same, with a file for each track that has a field, and `tracks` in the summary.
    """
    scenes = decode_scenes(solved.files[SCENES], SCENES).set_index("scene")
    edges = decode_edges(solved.files[EDGES], EDGES)
    position = {scene: scenes.loc[scene, ["dx_m", "dy_m"]].to_numpy(np.float64) for scene in scenes.index}
    used = set(edges.loc[edges["kept"], "pair_key"])
    by_track: defaultdict[str, list[ArchivePair]] = defaultdict(list)
    for pair in pairs:
        # Sentinel-2 is orthorectified: against it a date shows its own relief. Against another it would show
        # that of the other, too.
        against_optical = (
            scenes.loc[pair.reference, "sensor"] == OPTICAL != scenes.loc[pair.secondary, "sensor"]
        )
        if pair.product.pair_key in used and against_optical:
            by_track[scenes.loc[pair.secondary, "track"]].append(pair)
    files, said = dict(solved.files), {}
    for track, own in sorted(by_track.items()):
        name = field_file(track)
        found = _field_of(store, own, position) if name is not None and _shows_relief(own) else None
        if name is not None and found is not None:
            files[name] = displacement_cog(found.field)
            said[track] = _told(found, name)
    summary = solved.summary | {"tracks": said}
    return replace(solved, files=files | {SUMMARY: as_json(summary)}, summary=summary)


def _shows_relief(pairs: Sequence[ArchivePair]) -> bool:
    scenes = {pair.secondary for pair in pairs}
    return len(scenes) >= FEWEST_DATES and any(pair.field_offered for pair in pairs)


def _field_of(
    store: Store, pairs: Sequence[ArchivePair], position: dict[str, FloatArray]
) -> TrackField | None:
    with ThreadPoolExecutor(PRODUCTS_AT_ONCE) as pool:
        read = list(pool.map(partial(_points_of, store), pairs))
    by_scene: defaultdict[str, list[tuple[TiePoints, FloatArray]]] = defaultdict(list)
    for pair, points in zip(pairs, read, strict=True):
        at = position[pair.reference]
        if points is not None and np.isfinite(at).all():
            by_scene[pair.secondary].append((points, at))
    dates = [
        DatePoints(
            scene=scene,
            xy_m=np.concatenate([points.xy_m for points, _ in own]),
            offset_m=np.concatenate([points.offset_m + at for points, at in own]),
            sigma_m=np.concatenate([points.sigma_m for points, _ in own]),
        )
        for scene, own in by_scene.items()
    ]
    return track_field(dates, pairs[0].crs)


def _points_of(store: Store, pair: ArchivePair) -> TiePoints | None:
    """Tie points of a pair; None of a broken product, whose measurement an earlier version holds."""
    try:
        return read_pair_points(store, pair.product).confident
    except StoreError:
        return None


def _told(found: TrackField, name: str) -> dict[str, Any]:
    moved = np.array([[shift.dx_m, shift.dy_m] for shift in found.shifts.values()])
    return {
        "field": name,
        "dates": found.dates,
        "relief_m": found.relief_m,
        "noise_m": found.noise_m,
        # Of a scene of which nothing is known but its track.
        "scatter_m": float(np.sqrt(moved.var(axis=0, ddof=1).mean())),
        "scenes": {
            scene: {
                "dx_m": shift.dx_m, "dy_m": shift.dy_m, "sigma_m": shift.sigma_m, "tiles": shift.tiles
            }
            for scene, shift in sorted(found.shifts.items())
        },
    }  # fmt: skip
