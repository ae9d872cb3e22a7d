"""Platforms, as the site shows them: series of each track over all places, and what moved."""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import pandas as pd
from starlette.exceptions import HTTPException

from crosstie.flows.site.drawings import draw_pooled
from crosstie.flows.site.places import latest_moves
from crosstie.io.adjusted.publish import adjusted_places, read_adjusted

if TYPE_CHECKING:
    from crosstie.flows.archive.series import TrackSeries
    from crosstie.flows.site.drawings import SeriesDrawing
    from crosstie.io.storage.store import Store

MOST_TRACKS = 60
"""Drawn on one page."""


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
    series: list[SeriesDrawing]
    moved: list[str]


class Platforms:
    """Adjusted positions of the whole archive, read at most once in so many seconds."""

    def __init__(self, store: Store, *, every_s: float) -> None:
        self._store = store
        self._every_s = every_s
        self._lock = Lock()
        self._read_at = float("-inf")
        self._scenes = pd.DataFrame()
        self._series: list[TrackSeries] = []

    def rows(self) -> list[PlatformRow]:
        """All platforms, by name.

        Raises
        ------
        StoreError
            A table of positions is broken.
        """
        scenes, _ = self._seen()
        if scenes.empty:
            return []
        named = scenes[scenes["platform"] != ""]
        return [
            PlatformRow(
                str(name), own["sensor"].iloc[0], len(own), own["track"].nunique(), own["place"].nunique(),
                own["date"].min(), own["date"].max(),
            )
            for name, own in named.groupby("platform", sort=True)
        ]  # fmt: skip

    def view(self, name: str) -> PlatformView:
        """Read a platform for its page.

        Raises
        ------
        HTTPException
            No placed scene is of this platform.
        StoreError
            A table of positions is broken.
        """
        row = next((one for one in self.rows() if one.name == name), None)
        if row is None:
            raise HTTPException(404, "no such platform")
        own = [one for one in self._seen()[1] if one.platform == name][:MOST_TRACKS]
        return PlatformView(row, draw_pooled(own), latest_moves(self._store, platform=name))

    def _seen(self) -> tuple[pd.DataFrame, list[TrackSeries]]:
        # What needs scipy is loaded when the first page asks for it: the service starts small.
        from crosstie.flows.archive.series import best_series, place_series, usable

        with self._lock:
            if time.monotonic() - self._read_at >= self._every_s:
                found = bool(adjusted_places(self._store))
                self._scenes = usable(read_adjusted(self._store)) if found else pd.DataFrame()
                self._series = best_series(place_series(self._scenes)) if len(self._scenes) else []
                self._read_at = time.monotonic()
            return self._scenes, self._series
