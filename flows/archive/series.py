"""Adjusted positions as series in time: of a track at a place, and of a track over all its places.

All places that a pass sees share what is wrong with that date. So places are not pooled as if they were
independent: their mean is taken date by date, and its scatter is measured on the means themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosstie.estimation.change_points import Series
from crosstie.estimation.fit import RAYLEIGH_MEDIAN
from crosstie.flows.archive.solving import LEAST_SIGMA_M, ScenePlacement
from crosstie.io.adjusted.tables import POSITIONS

if TYPE_CHECKING:
    from crosstie.types import FloatArray, StrArray

PASS_GAP_DAYS = 0.02
"""Scenes of one track that are closer in time are of one pass: slices and tiles of it, half an hour."""

POOLING_ROUNDS = 30
"""Of place constants against means of dates, and of weights."""

OUTLYING_SIGMAS = 2.0
"""Residuals this long weigh half."""


SERIES_COLUMNS = (
    "place", "part", "sensor", "platform", "track", "days", "dx_m", "dy_m", "sigma_m", "scene", "baseline",
)  # fmt: skip
"""Columns that a series is made of; means over places lack the first two."""


@dataclass(frozen=True, slots=True, eq=False)
class TrackSeries:
    """Positions of the scenes of one platform and track, in order of time."""

    sensor: str
    platform: str
    track: str
    place: str
    """Empty where it is the mean over places."""
    part: int
    """Part of the place's network."""
    places: int
    """Places that it is of."""
    series: Series
    scene: StrArray
    """(N,) a scene of each date."""
    baseline: StrArray
    """(N,) its processing baseline."""

    @property
    def name(self) -> str:
        return self.series.name

    def date(self, row: int) -> pd.Timestamp:
        """Moment of a scene."""
        return pd.Timestamp(0, unit="s", tz="UTC") + pd.Timedelta(days=float(self.series.days[row]))


def usable(table: pd.DataFrame) -> pd.DataFrame:
    """Scenes that can be watched: dated, of a known sensor, placed by pairs that control one another.

    Parameters
    ----------
    table : pandas.DataFrame
        From `read_positions` or `read_adjusted`.
    """
    rows = table[
        (table["verdict"] == str(ScenePlacement.PLACED)) & table["date"].notna() & (table["sensor"] != "")
    ]
    since = rows["date"] - pd.Timestamp(0, unit="s", tz="UTC")
    variance = (rows["sigma_x_m"] ** 2 + rows["sigma_y_m"] ** 2) / 2
    return pd.DataFrame(rows[POSITIONS.names]).assign(
        days=since / pd.Timedelta(days=1), sigma_m=np.sqrt(variance)
    )


def place_series(scenes: pd.DataFrame) -> list[TrackSeries]:
    """Series of each platform and track at each place; parts that no pair connects are not mixed."""
    keys = ["place", "part", "sensor", "platform", "track"]
    ordered = scenes.dropna(subset=keys).sort_values([*keys, "days", "scene"], kind="stable")
    # Sorted once and cut: thousands of tables of a few rows each cost a hundred times as much.
    numbers = ordered.groupby(keys, sort=True).ngroup().to_numpy()
    columns = {name: ordered[name].to_numpy() for name in SERIES_COLUMNS}
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    return [
        _columns_as_series(
            {name: column[own] for name, column in columns.items()},
            place=str(columns["place"][own][0]),
            part=int(columns["part"][own][0]),
        )
        for own in map(slice, starts, [*starts[1:], len(ordered)])
    ]


def pooled_series(alone: Iterable[TrackSeries]) -> list[TrackSeries]:
    """Mean over places of each platform and track that is seen at two places or more."""
    groups: dict[tuple[str, str, str], list[TrackSeries]] = {}
    for one in alone:
        groups.setdefault((one.sensor, one.platform, one.track), []).append(one)
    return [
        series_of(means_of_dates(group), places=len({one.place for one in group}))
        for _, group in sorted(groups.items())
        if len(group) > 1
    ]


def best_series(alone: Sequence[TrackSeries], pooled: Sequence[TrackSeries]) -> list[TrackSeries]:
    """The mean over places of each platform and track, or its only series."""
    have = {(one.platform, one.track, one.sensor) for one in pooled}
    return [*pooled, *(one for one in alone if (one.platform, one.track, one.sensor) not in have)]


def series_of(rows: pd.DataFrame, *, place: str = "", part: int = 0, places: int = 1) -> TrackSeries:
    """Make a series of rows of one platform and track."""
    rows = rows.sort_values(["days", "scene"], kind="stable")
    columns = {name: rows[name].to_numpy() for name in SERIES_COLUMNS if name in rows}
    return _columns_as_series(columns, place=place, part=part, places=places)


def _columns_as_series(
    rows: Mapping[str, np.ndarray], *, place: str = "", part: int = 0, places: int = 1
) -> TrackSeries:
    """Make a series of columns in order of time."""
    sensor, platform, track = (str(rows[name][0]) for name in ("sensor", "platform", "track"))
    series = Series(
        " ".join(filter(None, (place, platform or sensor, track))),
        rows["days"].astype(np.float64),
        np.column_stack([rows["dx_m"], rows["dy_m"]]).astype(np.float64),
        rows["sigma_m"].astype(np.float64),
    )
    return TrackSeries(
        sensor, platform, track, place, part, places, series,
        rows["scene"].astype(np.str_), rows["baseline"].astype(np.str_),
    )  # fmt: skip


def means_of_dates(group: list[TrackSeries]) -> pd.DataFrame:
    """Mean over places of each date, less the constant of each place; columns as `series_of` takes them.

    Series of several platforms may be given: constants of places are shared, so platforms can be compared.
    """
    lengths = [len(one.series.days) for one in group]
    days = np.concatenate([one.series.days for one in group])
    _, place = np.unique([f"{one.place}/{one.part}" for one in group], return_inverse=True)
    place = np.repeat(place, lengths)
    position = np.concatenate([one.series.position_m for one in group])
    weight = 1 / np.maximum(np.concatenate([one.series.sigma_m for one in group]), LEAST_SIGMA_M) ** 2
    order = np.argsort(days, kind="stable")
    number = np.empty(len(days), np.int64)
    number[order] = np.cumsum(np.r_[False, np.diff(days[order]) > PASS_GAP_DAYS])
    mean, total = _without_constants(position, weight, place, number)
    first = order[np.unique(number[order], return_index=True)[1]]
    return pd.DataFrame(
        {
            "days": days[first],
            "dx_m": mean[:, 0],
            "dy_m": mean[:, 1],
            "sigma_m": np.sqrt(1 / total),
            "scene": np.concatenate([one.scene for one in group])[first],
            "baseline": np.concatenate([one.baseline for one in group])[first],
            "platform": np.repeat([one.platform for one in group], lengths)[first],
            "sensor": group[0].sensor,
            "track": group[0].track,
        }
    )


def _without_constants(
    position: FloatArray, weight: FloatArray, place: np.ndarray, number: np.ndarray
) -> tuple[FloatArray, FloatArray]:
    """(D, 2) mean of each date less the constants of its places, and (D,) its weight.

    A place that moves by itself is an outlier among the others, and weighs little (Cauchy's loss).
    """
    robust = weight.copy()
    mean = np.zeros((int(number.max()) + 1, 2))
    for _ in range(POOLING_ROUNDS):
        constant = _weighted_means(position - mean[number], robust, place)
        mean = _weighted_means(position - constant[place], robust, number)
        left = np.hypot(*(position - constant[place] - mean[number]).T) * np.sqrt(weight)
        scale = max(float(np.median(left)) / RAYLEIGH_MEDIAN, 1.0)
        robust = weight / (1 + (left / (OUTLYING_SIGMAS * scale)) ** 2)
    return mean, np.bincount(number, weights=robust).astype(np.float64)


def _weighted_means(values: FloatArray, weight: FloatArray, group: np.ndarray) -> FloatArray:
    sums = [np.bincount(group, weights=weight * values[:, axis]) for axis in (0, 1)]
    means: FloatArray = np.stack(sums, axis=1) / np.bincount(group, weights=weight)[:, None]
    return means
