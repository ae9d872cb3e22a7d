"""What adjusted scenes have in common, with truth that is known."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from shapely.geometry import Point

from crosstie.estimation.systematic import lean_of_sar, look_azimuth_of_sentinel1
from crosstie.flows.archive.telling_apart import INCIDENCE_DEG, passes_of_scenes, systematic_parts

CENTRE_M = (500_000.0, 6_900_000.0)
"""62 degrees north, in the middle of zone 35."""

LAT, LON = 62.2, 27.0
HEIGHT_M = 20.0


def scenes(sensor: str, pass_: str, position: np.ndarray, *, track: str = "") -> gpd.GeoDataFrame:
    """Scenes every twelve days, at the time of day of their pass."""
    n = len(position)
    hour = {"ascending": 16, "descending": 4}[pass_]
    first = pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(hours=hour)
    return gpd.GeoDataFrame(
        {
            "scene": [f"{sensor}-{pass_}-{k}" for k in range(n)],
            "sensor": sensor, "platform": f"{sensor}a", "track": track, "baseline": "",
            "date": first + pd.to_timedelta(12 * np.arange(n), "D"),
            "dx_m": position[:, 0], "dy_m": position[:, 1], "covariance": [np.diag([0.04, 0.04]).ravel()] * n,
            "part": 0, "crs": "EPSG:32635",
        },
        geometry=[Point(LON, LAT)] * n, crs=4326,
    )  # fmt: skip


def mirrored(rng: np.random.Generator, n: int = 15, track: str = "") -> gpd.GeoDataFrame:
    found = []
    for pass_ in ("ascending", "descending"):
        azimuth = np.full(n, look_azimuth_of_sentinel1(pass_, LAT))
        lean = lean_of_sar(azimuth, np.full(n, INCIDENCE_DEG))
        position = HEIGHT_M * lean + np.array([3.0, -2.0]) + rng.normal(0, 1.0, (n, 2))
        found.append(scenes("sentinel-1", pass_, position, track=f"{pass_}-1" if track else ""))
    return pd.concat(found, ignore_index=True)


@pytest.mark.parametrize("track", ["", "named"])
def test_a_wrong_height_is_told_from_the_mirror_of_the_passes(track: str) -> None:
    told = systematic_parts(mirrored(np.random.default_rng(0), track=track), CENTRE_M)["sentinel-1"]
    [height] = [part for part in told["parts"] if part["kind"] == "height"]
    assert height["seen"]
    assert abs(height["value"][0] - HEIGHT_M) < 2
    assert abs(height["value"][0] - HEIGHT_M) < 4 * height["sigma"][0]
    assert "39 degrees" in height["sentence"]
    json.dumps(told, allow_nan=False)


def test_from_one_side_a_height_cannot_be_told_and_that_is_said() -> None:
    rng = np.random.default_rng(1)
    told = systematic_parts(scenes("sentinel-1", "ascending", rng.normal(0, 1, (12, 2))), CENTRE_M)
    assert not [part for part in told["sentinel-1"]["parts"] if part["kind"] == "height"]
    assert any("height cannot be told" in sentence for sentence in told["sentinel-1"]["untold"])


def test_the_time_of_day_tells_the_pass() -> None:
    table = mirrored(np.random.default_rng(2))
    assert passes_of_scenes(table, LON) == ["ascending"] * 15 + ["descending"] * 15
    # At the other side of the world the clock of UTC is another.
    shifted = table.assign(date=table["date"] - pd.Timedelta(hours=12))
    assert passes_of_scenes(shifted, LON - 180) == passes_of_scenes(table, LON)


def test_few_undated_unplaced_or_other_scenes_tell_nothing() -> None:
    rng = np.random.default_rng(3)
    few = scenes("sentinel-1", "ascending", rng.normal(0, 1, (5, 2)))
    assert systematic_parts(few, CENTRE_M) == {}
    many = scenes("sentinel-1", "ascending", rng.normal(0, 1, (9, 2)))
    assert systematic_parts(many.assign(dx_m=np.nan), CENTRE_M) == {}
    assert systematic_parts(many.assign(sensor=""), CENTRE_M) == {}
    nat = pd.Series([pd.NaT] * 9, dtype=many["date"].dtype)
    assert systematic_parts(many.assign(date=nat), CENTRE_M) == {}
