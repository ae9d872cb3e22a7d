"""What moved in an archive: jumps, drifts and outliers of its adjusted positions, most general first.

Four questions, each with a test of known false-alarm rate: does a track move at all its places at once, does
it at one place, does a platform jump on all its tracks, do two platforms of one track differ?
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from crosstie.estimation.change_points import (
    MONITOR_DEFAULTS,
    Alarm,
    ChangeKind,
    MonitorSettings,
    Scatter,
    Series,
    pooled_shift,
    scatter_of,
    watch,
)
from crosstie.flows.archive.series import (
    TrackSeries,
    best_series,
    means_of_dates,
    place_series,
    pooled_series,
    series_of,
    usable,
)
from crosstie.flows.runs.in_words import counted

if TYPE_CHECKING:
    from datetime import datetime

MONTH_DAYS = 30.0
"""Step of the times at which a platform is asked for a jump."""

LEAST_SCENES = 3
"""Of each of two groups that are compared."""

SAME_TIME_DAYS = 20.0
"""A change at a place that is this close in time to one of all places is the same."""


SAME_SIZE_SIGMAS = 4.0
"""Sizes that differ by no more than this are the same."""


class FindingScope(StrEnum):
    """What moved."""

    TRACK = "track"
    """A platform's track, at all its places at once."""
    PLACE = "place"
    """A platform's track at one place."""
    PLATFORM = "platform"
    """A platform on all its tracks."""
    DIFFERENCE = "difference"
    """One platform against another on the same track, all the time."""


@dataclass(frozen=True, slots=True)
class MovedFinding:
    """One change."""

    scope: FindingScope
    what: str
    """`jump`, `drift`, `outlier`, or `difference`."""
    sensor: str
    platform: str
    track: str
    """Empty where it is of all tracks, as are the two above."""
    place: str
    """Empty where it is of several places."""
    places: int
    against: str
    """The platform that it differs from; empty for changes in time."""
    since_utc: str
    """Acquisition of the first scene that is different; of a difference the first of its group."""
    seen_utc: str
    """Acquisition of the scene with which it was seen."""
    scene: str
    """The first scene that is different; empty where it is of a whole platform."""
    east_m: float
    north_m: float
    """Metres; metres a year for a drift."""
    sigma_m: float
    """Per axis."""
    probability: float
    """Of one as large where nothing happens."""

    @property
    def key(self) -> str:
        """Names the change: the same in each run that finds it."""
        who = (self.platform or self.sensor, self.track, self.place, self.against)
        return "/".join((self.scope, self.what, *who, self.since_utc[:10]))

    @property
    def sentence(self) -> str:
        """Say what, where, since when, how much and how sure."""
        who = " ".join(filter(None, (self.platform or self.sensor, self.track)))
        where = f"at {self.place}" if self.place else f"over {counted(self.places, 'place')}"
        size = f"{self.east_m:+.2f} m east, {self.north_m:+.2f} m north"
        day = self.since_utc[:10]
        said = {
            "jump": f"scenes lie off by {size} since {day}",
            "drift": f"scenes drift by {size} a year since {day}",
            "outlier": f"the scene of {day} alone lies off by {size}",
            "difference": f"scenes lie {size} from those of {self.against}",
        }[self.what]
        return f"{who} {where}: {said} (± {self.sigma_m:.2f} m, chance {self.probability:.1g})"

    def as_dict(self) -> dict[str, Any]:
        """For `--json`, with the sentence."""
        return {**asdict(self), "key": self.key, "sentence": self.sentence}


@dataclass(frozen=True, slots=True)
class MonitorReport:
    """What was looked at and what was found."""

    findings: tuple[MovedFinding, ...]
    scenes: int
    """Scenes at places that were watched."""
    series: int
    """Series at places; pooled ones are not counted."""
    left_out: int
    """Scenes that cannot be watched: without a date, a sensor or a controlled position."""
    scatter_m: dict[str, float]
    """Scatter of dates per axis of each sensor, metres."""

    def since(self, moment: datetime | None) -> MonitorReport:
        """Only what was seen with scenes acquired at `moment` or later; None for all."""
        kept = tuple(
            finding
            for finding in self.findings
            if moment is None or pd.Timestamp(finding.seen_utc) >= pd.Timestamp(moment)
        )
        return MonitorReport(kept, self.scenes, self.series, self.left_out, self.scatter_m)


def monitor_positions(table: pd.DataFrame, settings: MonitorSettings = MONITOR_DEFAULTS) -> MonitorReport:
    """Watch the adjusted positions of an archive.

    Parameters
    ----------
    table : pandas.DataFrame
        From `read_positions`, or `crosstie.read_adjusted`.
    settings : MonitorSettings
        Rate of false alarms, and how far back the monitor looks.

    Returns
    -------
    MonitorReport
        Changes of all places first, then those of single ones that are not among them.
    """
    scenes = usable(table)
    alone = place_series(scenes) if len(scenes) else []
    pooled = pooled_series(alone)
    of_alone, of_pooled = _scatters(alone), _scatters(pooled)
    general = list(_watched(pooled, of_pooled, FindingScope.TRACK, settings))
    single = [
        finding
        for finding in _watched(alone, of_alone, FindingScope.PLACE, settings)
        if not any(_same_change(finding, other) for other in general)
    ]
    # A platform is asked on the means over places where there are any: places of one pass are no witnesses.
    best = best_series(alone, pooled)
    where: defaultdict[str, set[str]] = defaultdict(set)
    for one in alone:
        where[one.platform].add(one.place)
    platforms = list(_platform_jumps(best, _scatters(best), where, settings))
    differences = list(_platform_differences(alone, settings))
    return MonitorReport(
        findings=(*general, *platforms, *differences, *single),
        scenes=len(scenes),
        series=len(alone),
        left_out=len(table) - len(scenes),
        scatter_m={sensor: scatter.sigma_m for sensor, scatter in sorted(of_alone.items())},
    )


def _scatters(series: Sequence[TrackSeries]) -> dict[str, Scatter]:
    """Scatter of dates of each sensor; a sensor without a series of two scenes has none."""
    groups: defaultdict[str, list[Series]] = defaultdict(list)
    for one in series:
        if len(one.series.days) > 1:
            groups[one.sensor].append(one.series)
    return {sensor: scatter_of(group) for sensor, group in groups.items()}


def _watched(
    series: Iterable[TrackSeries],
    scatters: dict[str, Scatter],
    scope: FindingScope,
    settings: MonitorSettings,
) -> Iterator[MovedFinding]:
    for one in series:
        if one.sensor in scatters:
            alarms = watch(one.series, scatters[one.sensor], settings)
            jumps = [alarm for alarm in alarms if alarm.change is ChangeKind.JUMP]
            for alarm in alarms:
                # The first scenes of a jump look like outliers until the next ones follow.
                if alarm.change is not ChangeKind.OUTLIER or not any(
                    jump.since <= alarm.at <= jump.at for jump in jumps
                ):
                    yield _of_alarm(one, alarm, scope)


def _of_alarm(one: TrackSeries, alarm: Alarm, scope: FindingScope) -> MovedFinding:
    return MovedFinding(
        scope=scope,
        what=str(alarm.change),
        sensor=one.sensor,
        platform=one.platform,
        track=one.track,
        place=one.place,
        places=one.places,
        against="",
        since_utc=_iso(one.date(alarm.since)),
        seen_utc=_iso(one.date(alarm.at)),
        scene=str(one.scene[alarm.since]),
        east_m=alarm.size_m[0],
        north_m=alarm.size_m[1],
        sigma_m=alarm.sigma_m,
        probability=alarm.probability,
    )


def _same_change(finding: MovedFinding, other: MovedFinding) -> bool:
    """Whether a change at one place is that of all places: same track, kind, time and size."""
    alike = [(one.platform, one.track, one.what) for one in (finding, other)]
    apart = pd.Timestamp(finding.since_utc) - pd.Timestamp(other.since_utc)
    together = abs(apart / pd.Timedelta(days=1)) <= SAME_TIME_DAYS or finding.what == str(ChangeKind.DRIFT)
    more = np.hypot(finding.east_m - other.east_m, finding.north_m - other.north_m)
    sure = SAME_SIZE_SIGMAS * np.hypot(finding.sigma_m, other.sigma_m)
    return bool(alike[0] == alike[1] and together and more <= sure)


def _platform_jumps(
    series: Sequence[TrackSeries],
    scatters: dict[str, Scatter],
    where: Mapping[str, set[str]],
    settings: MonitorSettings,
) -> Iterator[MovedFinding]:
    """The strongest jump of each platform that has two tracks or more, at months and changes of baseline."""
    for group in _series_by(series, lambda one: (one.sensor, one.platform)):
        if len(group) < 2 or not group[0].platform or group[0].sensor not in scatters:
            continue
        days = np.concatenate([one.series.days for one in group])
        asked = np.arange(days.min() + MONTH_DAYS, days.max(), MONTH_DAYS)
        asked = np.unique(np.r_[asked, *(_baseline_days(one) for one in group)])
        found = pooled_shift([one.series for one in group], asked, scatters[group[0].sensor])
        if found is None or found.probability >= settings.false_alarms_per_scene:
            continue
        first = group[0]
        moment = _iso(pd.Timestamp(0, unit="s", tz="UTC") + pd.Timedelta(days=found.days))
        yield MovedFinding(
            FindingScope.PLATFORM, str(ChangeKind.JUMP), first.sensor, first.platform, "", "",
            len(where[first.platform]), "", moment, _last_utc(group), "",
            *found.size_m, found.sigma_m, found.probability,
        )  # fmt: skip


def _baseline_days(one: TrackSeries) -> np.ndarray:
    """Days of the first scene of each later processing baseline."""
    changed = np.r_[False, one.baseline[1:] != one.baseline[:-1]]
    return one.series.days[changed]


def _platform_differences(alone: Sequence[TrackSeries], settings: MonitorSettings) -> Iterator[MovedFinding]:
    """Platforms of one track against one another, at the places that both have seen."""
    for group in _series_by(alone, lambda one: (one.sensor, one.track)):
        for first, second in itertools.combinations(sorted({one.platform for one in group}), 2):
            seen = [{(one.place, one.part) for one in group if one.platform == p} for p in (first, second)]
            both = seen[0] & seen[1]
            chosen = [
                one for one in group if one.platform in (first, second) and (one.place, one.part) in both
            ]
            if chosen:
                yield from _platform_difference(first, second, chosen, settings)


def _platform_difference(
    first: str, second: str, group: list[TrackSeries], settings: MonitorSettings
) -> Iterator[MovedFinding]:
    rows = means_of_dates(group)
    places = len({one.place for one in group})
    of = {p: rows[rows["platform"] == p] for p in (first, second)}
    if min(len(dates) for dates in of.values()) < LEAST_SCENES:
        return
    one, other = (series_of(dates, places=places) for dates in of.values())
    found = _means_apart(one.series, other.series, scatter_of([one.series, other.series]))
    if found is None or found[2] >= settings.false_alarms_per_scene:
        return
    (east, north), sigma, probability = found
    yield MovedFinding(
        FindingScope.DIFFERENCE, "difference", other.sensor, second, other.track,
        group[0].place if places == 1 else "", places, first, _iso(other.date(0)),
        _last_utc([one, other]), str(other.scene[0]), east, north, sigma, probability,
    )  # fmt: skip


def _means_apart(
    one: Series, other: Series, scatter: Scatter
) -> tuple[tuple[float, float], float, float] | None:
    """How far the mean of `other` lies from that of `one`: as a jump between two made-up days."""
    both = Series(
        other.name,
        np.r_[np.zeros(len(one.days)), np.ones(len(other.days))],
        np.concatenate([one.position_m, other.position_m]),
        np.concatenate([one.sigma_m, other.sigma_m]),
    )
    found = pooled_shift([both], [1.0], scatter)
    return None if found is None else (found.size_m, found.sigma_m, found.probability)


def _series_by(
    series: Iterable[TrackSeries], key: Callable[[TrackSeries], tuple[str, ...]]
) -> list[list[TrackSeries]]:
    groups: defaultdict[tuple[str, ...], list[TrackSeries]] = defaultdict(list)
    for one in series:
        groups[key(one)].append(one)
    return [group for _, group in sorted(groups.items())]


def _last_utc(group: Sequence[TrackSeries]) -> str:
    return max(_iso(one.date(len(one.series.days) - 1)) for one in group)


def _iso(moment: pd.Timestamp) -> str:
    return moment.round("s").isoformat()
