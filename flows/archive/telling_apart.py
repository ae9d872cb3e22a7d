"""What scenes of one sensor at a place have in common: a wrong height, a platform, a track, drift, season."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pyproj import Transformer

from crosstie.estimation.systematic import (
    SceneFacts,
    lean_of_sar,
    look_azimuth_of_sentinel1,
    tell_apart,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import geopandas as gpd

SAR = "sentinel-1"
"""Sensor whose look direction follows from its pass."""

INCIDENCE_DEG = 39.0
"""Of the middle of the IW swath: items do not say it, and a height goes with its tangent."""

FEWEST_SCENES = 6
"""Of a sensor: fewer tell no parts."""


def systematic_parts(scenes: gpd.GeoDataFrame, centre_m: Sequence[float]) -> dict[str, Any]:
    """Tell the systematic parts of each sensor apart.

    Parameters
    ----------
    scenes : geopandas.GeoDataFrame
        Rows of scenes.parquet of one place.
    centre_m : Sequence[float]
        Middle of the place in its CRS.

    Returns
    -------
    dict of str to Any
        By sensor: parts (kind, name, value, sigma, seen, sentence), what cannot be told, and the scatter of
        dates. Scenes of the largest part of the network, placed and dated.
    """
    rows = scenes[scenes["dx_m"].notna() & scenes["date"].notna() & (scenes["sensor"] != "")]
    if not len(rows):
        return {}
    rows = rows[rows["part"] == rows["part"].mode().max()]
    to_lon_lat = Transformer.from_crs(rows["crs"].iloc[0], "EPSG:4326", always_xy=True)
    lon, lat = to_lon_lat.transform(centre_m[0], centre_m[1])
    found = {}
    for sensor, own in rows.groupby("sensor", sort=True):
        if len(own) >= FEWEST_SCENES:
            found[str(sensor)] = _parts_of(own, lon, lat)
    return found


def _parts_of(rows: pd.DataFrame, lon: float, lat: float) -> dict[str, Any]:
    n = len(rows)
    lean, incidence = np.zeros((n, 2)), np.full(n, INCIDENCE_DEG)
    if rows["sensor"].iloc[0] == SAR:
        azimuth = [look_azimuth_of_sentinel1(name, lat) for name in passes_of_scenes(rows, lon)]
        lean = lean_of_sar(np.array(azimuth), incidence)
    since = rows["date"] - pd.Timestamp(0, unit="s", tz="UTC")
    facts = SceneFacts(
        position_m=rows[["dx_m", "dy_m"]].to_numpy(np.float64),
        covariance=np.stack(rows["covariance"].to_list()).reshape(n, 2, 2) + 1e-6 * np.eye(2),
        days=np.asarray(since / pd.Timedelta(days=1), np.float64),
        platform=_or_unknown_text(rows["platform"]),
        track=_or_unknown_text(rows["track"]),
        baseline=_or_unknown_text(rows["baseline"]),
        lean=lean,
        incidence_deg=incidence,
    )
    told = tell_apart(facts)
    return {
        "scenes": n,
        "scatter_m": told.scatter_m,
        "parts": [
            {
                "kind": part.kind,
                "name": part.name,
                "value": list(part.value),
                "sigma": list(part.sigma),
                "seen": part.seen,
                "sentence": part.sentence,
            }
            for part in told.parts
        ],
        "untold": list(told.untold),
    }


def passes_of_scenes(rows: pd.DataFrame, lon: float) -> list[str]:
    """Pass of each scene of Sentinel-1: as its track is named, else by the time of day.

    The satellites fly along the border of day and night: to the north in the evening, to the south in the
    morning of the place.
    """
    hour = (rows["date"].dt.hour + rows["date"].dt.minute / 60 + lon / 15) % 24
    by_time = np.where(hour >= 12, "ascending", "descending")
    named = [
        {"a": "ascending", "d": "descending"}.get(track[:1].lower(), "") if track else ""
        for track in rows["track"]
    ]
    return [name or str(time) for name, time in zip(named, by_time, strict=True)]


def _or_unknown_text(column: pd.Series) -> np.ndarray:
    return column.replace("", "unknown").to_numpy(np.str_)
