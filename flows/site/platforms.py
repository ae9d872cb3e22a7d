"""Platforms, as the site shows them: series of each track over all places, and what moved."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import pandas as pd
from starlette.exceptions import HTTPException

from crosstie.errors import StoreError
from crosstie.flows.site.drawings import draw_pooled
from crosstie.flows.site.places import latest_moves
from crosstie.io.adjusted.publish import adjusted_places, read_positions

if TYPE_CHECKING:
    from crosstie.flows.archive.series import TrackSeries
    from crosstie.flows.site.drawings import SeriesDrawing
    from crosstie.io.storage.store import Store

MOST_SERIES = 60
"""Drawn on one page, which says how many there are."""


@dataclass(frozen=True, slots=True)
class PlatformRow:
    """One platform, for the list."""

    name: str
    sensor: str
    scenes: int
    tracks: int
    places: int
    first: pd.Timestamp
    last: pd.Timestamp


@dataclass(frozen=True, slots=True, eq=False)
class PlatformView:
    """One platform, for its page."""

    row: PlatformRow
    drawn: list[SeriesDrawing]
    series: int
    moved: list[str]


class Platforms:
    """Platforms of the whole archive, read at most once in so many seconds."""

    def __init__(self, store: Store, *, every_s: float) -> None:
        self._store = store
        self._every_s = every_s
        self._lock = Lock()
        self._read_at = float("-inf")
        self._rows: list[PlatformRow] = []
        self._series: list[TrackSeries] = []

    def prepare(self) -> None:
        """Read now, so that the first reader need not wait; nothing where no scene has been adjusted.

        A broken table is told to whoever asks for a page.
        """
        with contextlib.suppress(StoreError):
            self._seen()

    def rows(self) -> list[PlatformRow]:
        """All platforms, by name.

        Raises
        ------
        StoreError
            A table of positions is broken.
        """
        return self._seen()[0]

    def view(self, name: str) -> PlatformView:
        """Read a platform for its page.

        Raises
        ------
        HTTPException
            No placed scene is of this platform.
        StoreError
            A table of positions is broken.
        """
        rows, series = self._seen()
        row = next((one for one in rows if one.name == name), None)
        if row is None:
            raise HTTPException(404, "no such platform")
        own = [one for one in series if one.platform == name]
        return PlatformView(
            row, draw_pooled(own[:MOST_SERIES]), len(own), latest_moves(self._store, platform=name)
        )

    def _seen(self) -> tuple[list[PlatformRow], list[TrackSeries]]:
        with self._lock:
            if time.monotonic() - self._read_at >= self._every_s:
                rows, series = _platforms_of(self._store) if adjusted_places(self._store) else ([], [])
                self._rows, self._series, self._read_at = rows, series, time.monotonic()
            return self._rows, self._series


def _platforms_of(store: Store) -> tuple[list[PlatformRow], list[TrackSeries]]:
    # What needs scipy is loaded when there is something to show: the service starts small.
    from crosstie.flows.archive.series import best_series, place_series, pooled_series, usable

    scenes = usable(read_positions(store))
    alone = place_series(scenes) if len(scenes) else []
    return _platform_rows(scenes), best_series(alone, pooled_series(alone))


def _platform_rows(scenes: pd.DataFrame) -> list[PlatformRow]:
    named = scenes[scenes["platform"] != ""]
    return [
        PlatformRow(
            str(name), own["sensor"].iloc[0], len(own), own["track"].nunique(), own["place"].nunique(),
            own["date"].min(), own["date"].max(),
        )
        for name, own in named.groupby("platform", sort=True)
    ]  # fmt: skip
