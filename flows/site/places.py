"""Adjusted places, as the site shows them: read when they are asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from crosstie.flows.site.drawings import draw_map, draw_network, draw_series
from crosstie.io.adjusted.layout import PlaceVersion, is_place_name, is_version_name
from crosstie.io.adjusted.moved import MOVED
from crosstie.io.adjusted.publish import read_edges, read_place, read_summary

if TYPE_CHECKING:
    import geopandas as gpd
    import pandas as pd

    from crosstie.flows.site.drawings import MapDrawing, NetworkDrawing, SeriesDrawing
    from crosstie.io.storage.store import Store

HEADINGS = (
    ("scene", "Scene"), ("date", "Date"), ("track", "Track"), ("dx_m", "x"), ("dy_m", "y"),
    ("sigma_x_m", "Sigma"), ("edges", "Pairs"), ("redundancy", "Redundancy"), ("verdict", "Verdict"),
)  # fmt: skip
"""Columns of the table of scenes, which can be sorted by each."""

CSV_COLUMNS = (
    "scene", "sensor", "platform", "track", "baseline", "date", "dx_m", "dy_m", "sigma_x_m", "sigma_y_m",
    "edges", "rejected_edges", "redundancy", "verdict", "part", "datum", "place", "crs", "version",
)  # fmt: skip

MOST_TABLE_ROWS = 1000
"""Of the table on a page; the CSV has all."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for a formula at the beginning of a text."""


@dataclass(frozen=True, slots=True, eq=False)
class PlaceView:
    """One place, for its page."""

    name: str
    summary: dict[str, Any]
    """adjustment.json"""
    rows: list[dict[str, Any]]
    scenes: int
    series: list[SeriesDrawing]
    network: NetworkDrawing | None
    map: MapDrawing | None


def latest_moves(store: Store, *, platform: str | None = None) -> list[str]:
    """Sentences of what the last flow found to have moved; none where there is no list, or it is broken.

    Of one platform where that is given, changes against another platform included.
    """
    try:
        said = json.loads(store.get(MOVED) or b"null")
        return [
            str(finding["sentence"])[:500]
            for finding in said["findings"]
            if platform is None or platform in (finding["platform"], finding["against"])
        ][:50]
    except (ValueError, KeyError, TypeError):
        return []


def view_place(store: Store, name: str, sort: str) -> PlaceView:
    """Read a place for its page.

    Raises
    ------
    HTTPException
        There is no such place, or it cannot be sorted so.
    StoreError
        It is broken.
    """
    if sort not in dict(HEADINGS):
        raise HTTPException(400, f"sort must be one of {', '.join(dict(HEADINGS))}")
    scenes, edges, summary = _read_whole_place(store, name)
    ordered = scenes.sort_values([sort, "scene"], na_position="last").iloc[:MOST_TABLE_ROWS]
    return PlaceView(
        name=name,
        summary=summary,
        rows=ordered.drop(columns=["geometry", "covariance"]).to_dict("records"),
        scenes=len(scenes),
        series=draw_series(scenes, edges),
        network=draw_network(scenes, edges),
        map=draw_map(scenes),
    )


def place_csv(store: Store, name: str) -> str:
    """Scenes of a place as CSV; no cell is a formula.

    Raises
    ------
    HTTPException
        There is no such place.
    StoreError
        It is broken.
    """
    scenes, _, _ = _read_whole_place(store, name)
    table = scenes[list(CSV_COLUMNS)].copy()
    for column in ("scene", "sensor", "platform", "track", "baseline", "datum"):
        table[column] = [
            f"'{text}" if text.startswith(FORMULA) else text for text in table[column].astype(str)
        ]
    text: str = table.to_csv(index=False)
    return text


def _read_whole_place(store: Store, name: str) -> tuple[gpd.GeoDataFrame, pd.DataFrame, dict[str, Any]]:
    scenes = read_place(store, name) if is_place_name(name) else None
    if scenes is None or scenes.empty or not is_version_name(scenes["version"].iloc[0]):
        raise HTTPException(404, "no such place")
    version = PlaceVersion(name, scenes["version"].iloc[0])
    edges = read_edges(store, version)
    if edges is None:
        raise HTTPException(404, "no such place")
    return scenes, edges, read_summary(store, version)
