"""An archive adjusted place by place: `crosstie adjust`, without Prefect.

A version of a place is named by its pairs, the settings and the algorithm. Where that version is there,
nothing is written; so a night that adds ten scenes solves their places alone, and a run that was killed goes
on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from crosstie.errors import BadInputError, StoreError
from crosstie.flows.archive.measuring import measure_pairs
from crosstie.flows.archive.solving import AdjustOptions, solve_place
from crosstie.flows.archive.tracks import with_track_fields
from crosstie.flows.archive.workers import PlaceSolver
from crosstie.io.adjusted.layout import PlaceVersion, current_key, is_version_name
from crosstie.io.adjusted.places import PLACE_COLUMNS, pairs_of, places_of
from crosstie.io.adjusted.publish import (
    known_measurements,
    make_current,
    publish_place,
    read_place,
    read_summary,
)
from crosstie.io.adjusted.tables import ADJUSTED_SCHEMA
from crosstie.io.archive.index import survey
from crosstie.io.archive.listing import list_archive

if TYPE_CHECKING:
    from crosstie.flows.archive.workers import SolvePlace
    from crosstie.io.adjusted.places import ArchivePair, ArchivePlace
    from crosstie.io.adjusted.tables import MeasuredPairs
    from crosstie.io.storage.store import Store

ADJUSTMENT_VERSION = "3"
"""Counts with each change of the algorithm that changes results."""

IN_PROCESS = PlaceSolver()

PlaceProgress = Callable[[str, int, int], None]
"""Called with (name, places done, places in all)."""


@dataclass(frozen=True, slots=True)
class PlaceOutcome:
    """What became of one place."""

    place: str
    url: str | None
    """Its current table; None where there is none."""
    action: str
    """`solved`, `unchanged` or `failed`; of a dry run `to solve` or `unchanged`."""
    pairs: int
    summary: dict[str, Any]
    """What adjustment.json holds; empty where nothing is solved."""
    problems: tuple[str, ...] = ()
    """Why pairs are left out, or why the place failed: one sentence each."""
    seconds: float = 0.0

    @property
    def rejected(self) -> list[dict[str, Any]]:
        """Pairs that contradict the others."""
        found: list[dict[str, Any]] = self.summary.get("rejected", [])
        return found

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "place": self.place,
            "url": self.url,
            "action": self.action,
            "pairs": self.pairs,
            "seconds": round(self.seconds, 3),
            "problems": list(self.problems),
            "adjustment": self.summary or None,
        }


def find_places(store: Store, options: AdjustOptions, only: Sequence[str] = ()) -> list[ArchivePlace]:
    """Find the places of an archive; those named `only`, and of a datum scene those that it is in.

    Raises
    ------
    StoreError
        The root cannot be read, or the index is broken.
    BadInputError
        A place or the scene of the datum is not there.
    """
    table = survey(store, list_archive(store).committed, columns=PLACE_COLUMNS)
    places = places_of(pairs_of(table), options.scene_ids)
    names = [place.name for place in places]
    missing = sorted(set(only) - set(names))
    if missing:
        raise BadInputError(
            f"place {missing[0]}: no such place; {len(names)} are there: {', '.join(names[:10]) or 'none'}"
        )
    places = [place for place in places if not only or place.name in only]
    if options.scene is None and not options.held:
        return places
    with_datum = [place for place in places if _has_datum(place, options)]
    if not with_datum:
        what = f"has this {'scene' if options.scene else 'table of scenes'}"
        raise BadInputError(
            f"datum {options.datum}: no trusted pair of {store.url} {what}; "
            "`crosstie index --scene` lists what there is of one"
        )
    return with_datum


def adjust_archive(
    store: Store,
    options: AdjustOptions,
    *,
    only: Sequence[str] = (),
    dry_run: bool = False,
    progress: PlaceProgress | None = None,
    solver: PlaceSolver = IN_PROCESS,
) -> Iterator[PlaceOutcome]:
    """Adjust the places of an archive; each is committed when it is solved.

    Parameters
    ----------
    store : Store
        Product root.
    options : AdjustOptions
        Datum and test.
    only : Sequence[str]
        Names of places; none for all.
    dry_run : bool
        Say what would be done, and write nothing.
    progress : PlaceProgress, optional
        Called as places are done.
    solver : PlaceSolver, optional
        How places are solved: in this process, one by one, unless `place_solver` says otherwise.

    Yields
    ------
    PlaceOutcome
        By name of the place.

    Raises
    ------
    StoreError
        The root cannot be read or written.
    BadInputError
        A place or the scene of the datum is not there.
    """
    options = options.with_table()
    places = find_places(store, options, only)
    adjusted = partial(adjust_place, store, options=options, dry_run=dry_run, solve=solver.solve)
    if progress is not None:
        progress("places", 0, len(places))
    for number, outcome in enumerate(_in_order(adjusted, places, solver.at_once), 1):
        yield outcome
        if progress is not None:
            progress("places", number, len(places))


def _in_order(
    adjusted: Callable[[ArchivePlace], PlaceOutcome], places: Sequence[ArchivePlace], at_once: int
) -> Iterator[PlaceOutcome]:
    if at_once == 1:
        yield from map(adjusted, places)
        return
    pool = ThreadPoolExecutor(at_once)
    try:
        yield from pool.map(adjusted, places)
    finally:
        pool.shutdown(cancel_futures=True)


def adjust_place(
    store: Store,
    place: ArchivePlace,
    options: AdjustOptions,
    *,
    dry_run: bool = False,
    solve: SolvePlace = solve_place,
) -> PlaceOutcome:
    """Adjust one place, unless its version is there; a place that fails does not stop the others.

    Raises
    ------
    StoreError
        The root cannot be read or written.
    """
    begun = time.monotonic()
    version = PlaceVersion(place.name, version_of(place, place.pairs, options))
    url, pairs = store.url_of(current_key(place.name)), len(place.pairs)
    before = _current_version(store, place.name)
    if before == version:
        return PlaceOutcome(place.name, url, "unchanged", pairs, read_summary(store, version))
    if dry_run:
        return PlaceOutcome(place.name, url if before else None, "to solve", pairs, {})
    if store.exists(version.commit):
        # Committed by a run that was killed then, or solved for this datum before.
        make_current(store, version)
        return PlaceOutcome(place.name, url, "solved", pairs, read_summary(store, version))
    usable, measured, problems = measure_pairs(store, place.pairs, _earlier(store, before))
    if not usable:
        return PlaceOutcome(place.name, url if before else None, "failed", pairs, {}, tuple(problems))
    # Named by what is used: a product that is repaired makes another version.
    version = PlaceVersion(place.name, version_of(place, usable, options))
    if before == version:
        return PlaceOutcome(
            place.name, url, "unchanged", pairs, read_summary(store, version), tuple(problems)
        )
    try:
        solved = solve(place, usable, measured, options, version.version)
        solved = with_track_fields(store, solved, usable)
    except BadInputError as problem:
        return PlaceOutcome(
            place.name, url if before else None, "failed", pairs, {}, (*problems, str(problem))
        )
    publish_place(store, version, solved.files)
    took = time.monotonic() - begun
    return PlaceOutcome(place.name, url, "solved", pairs, solved.summary, tuple(problems), took)


def version_of(place: ArchivePlace, pairs: Sequence[ArchivePair], options: AdjustOptions) -> str:
    """Name a version of `place` by all that its result depends on: 16 hex digits of a sha256."""
    held = options.held_at(place.name, _scenes_of(pairs)) if options.held else {}
    datum = ["held", sorted(held.items())] if options.held else options.datum
    text = json.dumps(
        [
            ADJUSTED_SCHEMA, ADJUSTMENT_VERSION, place.name, place.crs, datum, options.false_alarm,
            options.scene_ids, [list(pair.product) for pair in pairs],
        ]
    )  # fmt: skip
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _current_version(store: Store, place: str) -> PlaceVersion | None:
    """Version of the current table; None where there is none or it is broken, which a new one mends."""
    try:
        table = read_place(store, place)
    except StoreError:
        return None
    names = [] if table is None else table["version"].unique().tolist()
    return PlaceVersion(place, names[0]) if len(names) == 1 and is_version_name(names[0]) else None


def _earlier(store: Store, version: PlaceVersion | None) -> MeasuredPairs | None:
    """Measurements of the version before; a broken one is measured anew."""
    if version is None:
        return None
    try:
        return known_measurements(store, version)
    except StoreError:
        return None


def _has_datum(place: ArchivePlace, options: AdjustOptions) -> bool:
    scenes = _scenes_of(place.pairs)
    return options.scene in scenes or bool(options.held_at(place.name, scenes))


def _scenes_of(pairs: Sequence[ArchivePair]) -> set[str]:
    return {scene for pair in pairs for scene in (pair.reference, pair.secondary)}
