"""What the drawings of a place are made of: numbers in SVG units, for the templates to write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import shapely

from crosstie.flows.runs.in_words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import geopandas as gpd

    from crosstie.flows.archive.series import TrackSeries
    from crosstie.types import FloatArray

WIDTH, PANEL, LANE, MAP = 760, 130, 34, 260
"""Width of the drawings, height of one axis of a series, of one lane of the network, and of the map."""

LEFT, RIGHT = 64, 12
"""Margins beside a drawing."""

MOST_SCENES, MOST_EDGES, MOST_OUTLINES = 600, 3000, 80
"""Drawn of a place; a page says how many there are."""

Dot = tuple[float, float]
Line = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class AxisDrawing:
    """One axis of a series."""

    name: str
    zero: float
    """Height of position 0."""
    ticks: list[tuple[float, str]]
    alone: list[Dot]
    """Each pair by itself."""
    adjusted: list[tuple[Dot, Line, str]]
    """Position, its 95 % bar, and the scene."""


@dataclass(frozen=True, slots=True)
class SeriesDrawing:
    """Dates of one track: before and after the adjustment."""

    title: str
    axes: list[AxisDrawing]
    days: list[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class NetworkDrawing:
    """Scenes in time, a lane for each track, and the pairs between them."""

    lanes: list[tuple[float, str]]
    used: list[Line]
    rejected: list[Line]
    scenes: list[tuple[Dot, str, str]]
    """Place, verdict and id."""
    height: int


@dataclass(frozen=True, slots=True)
class MapDrawing:
    """Outlines of the scenes, north up."""

    paths: list[str]
    corners: tuple[str, str]
    """South-west and north-east, degrees."""


def draw_series(scenes: gpd.GeoDataFrame, edges: pd.DataFrame) -> list[SeriesDrawing]:
    """Draw a series for each sensor and track with two dated scenes or more."""
    rows = scenes[scenes["date"].notna()].iloc[:MOST_SCENES]
    if rows.empty:
        return []
    across = _time_axis(rows["date"])
    alone = _alone(edges)
    return [
        _one_series(f"{sensor or 'unknown sensor'} {track}".strip(), own, alone, across)
        for (sensor, track), own in rows.groupby(["sensor", "track"], sort=True)
        if len(own) >= 2
    ]


def draw_pooled(tracks: Sequence[TrackSeries]) -> list[SeriesDrawing]:
    """Draw each series of the tracks of a platform, its latest dates, on one axis of time."""
    drawn = [(one, _rows_of(one).iloc[-MOST_SCENES:]) for one in tracks if len(one.scene) >= 2]
    if not drawn:
        return []
    across = _time_axis(pd.concat([rows["date"] for _, rows in drawn]))
    return [_one_series(_title_of(one), rows, {}, across) for one, rows in drawn]


def _rows_of(one: TrackSeries) -> pd.DataFrame:
    east, north = one.series.position_m.T
    sigma = one.series.sigma_m
    date = pd.Timestamp(0, unit="s", tz="UTC") + pd.to_timedelta(one.series.days, unit="D")
    return pd.DataFrame(
        {
            "scene": one.scene, "date": date, "dx_m": east, "dy_m": north,
            "sigma_x_m": sigma, "sigma_y_m": sigma,
        }
    )  # fmt: skip


def _title_of(one: TrackSeries) -> str:
    where = one.place or f"mean of {counted(one.places, 'place')}"
    return f"{one.track or 'unknown track'}, {where}"


def draw_network(scenes: gpd.GeoDataFrame, edges: pd.DataFrame) -> NetworkDrawing | None:
    """Draw the pairs of a place as a graph; None where no scene is dated."""
    rows = scenes[scenes["date"].notna()].iloc[:MOST_SCENES]
    if rows.empty:
        return None
    across = _time_axis(rows["date"])
    lane = rows["sensor"] + " " + rows["track"]
    names = sorted(lane.unique())
    at = {
        scene: (across(date), LANE * (names.index(own) + 0.5))
        for scene, date, own in zip(rows["scene"], rows["date"], lane, strict=True)
    }
    drawn = edges[edges["reference"].isin(at) & edges["secondary"].isin(at)].iloc[:MOST_EDGES]
    lines = [
        (_line_between(*at[a], *at[b]), kept)
        for a, b, kept in zip(drawn["reference"], drawn["secondary"], drawn["kept"], strict=True)
    ]
    return NetworkDrawing(
        lanes=[(LANE * (n + 0.5) + 4, name.strip() or "unknown") for n, name in enumerate(names)],
        used=[line for line, kept in lines if kept],
        rejected=[line for line, kept in lines if not kept],
        scenes=[
            ((round(at[scene][0], 1), at[scene][1]), verdict, scene)
            for scene, verdict in zip(rows["scene"], rows["verdict"], strict=True)
        ],
        height=LANE * len(names),
    )


def draw_map(scenes: gpd.GeoDataFrame) -> MapDrawing | None:
    """Draw the outlines of the scenes, each once; None where there are none."""
    outlines = [shape for shape in scenes.geometry if shape is not None and not shape.is_empty]
    shapes = [
        shapely.from_wkb(wkb) for wkb in list(dict.fromkeys(map(shapely.to_wkb, outlines)))[:MOST_OUTLINES]
    ]
    if not shapes:
        return None
    west, south, east, north = shapely.total_bounds(shapes)
    squeeze = max(np.cos(np.radians((south + north) / 2)), 0.05)
    scale = min((WIDTH - 20) / max((east - west) * squeeze, 1e-9), (MAP - 20) / max(north - south, 1e-9))
    paths = []
    for polygon in (part for shape in shapes for part in shapely.get_parts(shape)):
        ring = shapely.get_coordinates(shapely.get_exterior_ring(polygon))
        x, y = 10 + (ring[:, 0] - west) * squeeze * scale, 10 + (north - ring[:, 1]) * scale
        paths.append("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True)) + "Z")
    corners = f"{south:.2f}, {west:.2f}", f"{north:.2f}, {east:.2f}"
    return MapDrawing(paths, corners)


def _time_axis(dates: pd.Series) -> Callable[[pd.Timestamp], float]:
    first, last = dates.min(), dates.max()
    span = max((last - first).total_seconds(), 1.0)
    return lambda date: LEFT + (WIDTH - LEFT - RIGHT) * (date - first).total_seconds() / span


def _alone(edges: pd.DataFrame) -> dict[str, FloatArray]:
    """Offsets of each scene by each of its pairs, as if the partner lay at 0."""
    found: dict[str, list[FloatArray]] = {}
    offsets = edges[["dx_m", "dy_m"]].to_numpy(np.float64)
    for a, b, offset in zip(edges["reference"], edges["secondary"], offsets, strict=True):
        found.setdefault(a, []).append(-offset)
        found.setdefault(b, []).append(offset)
    return {scene: np.array(values) for scene, values in found.items()}


def _one_series(
    title: str,
    rows: pd.DataFrame,
    alone: dict[str, FloatArray],
    across: Callable[[pd.Timestamp], float],
) -> SeriesDrawing:
    axes = [_axis(rows, alone, across, number) for number in (0, 1)]
    ends = rows["date"].min(), rows["date"].max()
    days = [(round(across(date), 1), f"{date:%Y-%m-%d}") for date in ends]
    return SeriesDrawing(title, axes, days)


def _axis(
    rows: pd.DataFrame, alone: dict[str, FloatArray], across: Callable[[pd.Timestamp], float], number: int
) -> AxisDrawing:
    name = "xy"[number]
    placed = rows[rows[f"d{name}_m"].notna()]
    bar = 1.96 * placed[f"sigma_{name}_m"].to_numpy(np.float64)
    position = placed[f"d{name}_m"].to_numpy(np.float64)
    with_pairs = [scene for scene in rows["scene"] if scene in alone]
    single = [alone[scene][:, number] for scene in with_pairs]
    every = np.concatenate([position - bar, position + bar, *single, [0.0]])
    every = every[np.isfinite(every)]
    low, high = np.quantile(every, 0.02), np.quantile(every, 0.98)
    low, high = min(low, 0.0) - 0.5, max(high, 0.0) + 0.5

    def up(values: FloatArray) -> list[float]:
        share = (np.clip(values, low, high) - low) / (high - low)
        heights: list[float] = np.round(PANEL * (1 - share), 1).tolist()
        return heights

    x = {scene: round(across(date), 1) for scene, date in zip(rows["scene"], rows["date"], strict=True)}
    bar = np.nan_to_num(bar)
    ticks = np.array(sorted({round(low + 0.5), 0, round(high - 0.5)}), np.float64)
    return AxisDrawing(
        name=name,
        zero=up(np.zeros(1))[0],
        ticks=[(at, f"{value:.0f} m") for at, value in zip(up(ticks), ticks, strict=True)],
        alone=[(x[scene], at) for scene, values in zip(with_pairs, single, strict=True) for at in up(values)],
        adjusted=[
            ((x[scene], at), (x[scene], below, x[scene], above), scene)
            for scene, at, below, above in zip(
                placed["scene"], up(position), up(position - bar), up(position + bar), strict=True
            )
        ],
    )


def _line_between(*values: float) -> Line:
    a, b, c, d = (round(value, 1) for value in values)
    return a, b, c, d
