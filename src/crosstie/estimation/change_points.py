"""What moved: jumps, drifts and single outliers in the positions of scenes, scene by scene as they come.

A control chart of known false-alarm rate. At each new scene three questions are asked of what lies behind it
since the last change: is this scene far off by itself, did the mean jump a few scenes ago, does it drift?
Each answer is a test whose chance of a false alarm is known, and together they have the rate that was set (a
third each; Bonferroni). The scatter of dates is measured on successive differences, which jumps and drifts
hardly touch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.optimize import brentq

from crosstie.errors import SettingsError
from crosstie.estimation.systematic import DAYS_A_YEAR

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.types import BoolArray, FloatArray

DIFFERENCE_FREEDOM = 0.5
"""What a successive difference is worth under a median, as a share of its two degrees of freedom."""

MEDIAN_SQUARE = 2 * math.log(2)
"""Median of the squared length of two standard normal numbers (chi squared of 2 degrees)."""

FITS = 0.01
"""A scene this far from a new mean, or farther, shows that the mean is not that of all scenes after it."""


class ChangeKind(StrEnum):
    OUTLIER = "outlier"
    JUMP = "jump"
    DRIFT = "drift"


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """How often a stable series may raise an alarm, and how far back the monitor looks."""

    false_alarms_per_scene: float = 1e-3
    """Largest number of alarms per scene of a series without changes."""
    reach: int = 10
    """Number of last scenes in which a jump is looked for."""
    min_before: int = 5
    """Number of scenes without a change before any alarm."""
    min_drift_days: float = 180.0
    """Shortest time that tells a drift from scatter, days."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value) or value <= 0:
                raise SettingsError(f"monitor.{field.name} must be a finite number above 0, got {value}")
        if self.false_alarms_per_scene >= 1:
            raise SettingsError(
                f"monitor.false_alarms_per_scene must be below 1, got {self.false_alarms_per_scene}"
            )
        if self.min_before < 3:
            raise SettingsError(f"monitor.min_before must be at least 3, got {self.min_before}")

    def level(self, change: ChangeKind) -> float:
        """Level of each test for that change; a third of all for each kind of change."""
        tests = max(self.reach - 1, 1) if change is ChangeKind.JUMP else 1
        return self.false_alarms_per_scene / 3 / tests


MONITOR_DEFAULTS = MonitorSettings()


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Positions of the scenes of one sensor, platform and track at one place, N of them in order of time."""

    name: str
    days: FloatArray
    """(N,) days from any day, ascending."""
    position_m: FloatArray
    """(N, 2) metres; no NaN: leave out scenes without a position."""
    sigma_m: FloatArray
    """(N,) standard deviation per axis, of the network, metres."""

    def __post_init__(self) -> None:
        n = len(self.days)
        if self.position_m.shape != (n, 2) or self.sigma_m.shape != (n,):
            raise ValueError(
                f"{self.name}: {n} days need positions ({n}, 2) and sigmas ({n},), got "
                f"{self.position_m.shape} and {self.sigma_m.shape}"
            )
        if not (np.isfinite(self.position_m).all() and np.isfinite(self.sigma_m).all()):
            raise ValueError(f"{self.name}: positions must be finite; leave out scenes that have none")
        if (np.diff(self.days) < 0).any():
            raise ValueError(f"{self.name}: scenes must be in order of time")


@dataclass(frozen=True, slots=True)
class Alarm:
    """One change."""

    series: str
    change: ChangeKind
    at: int
    """Scene that raised the alarm."""
    since: int
    """First scene that is different; the one that the drift is counted from."""
    size_m: tuple[float, float]
    """(east, north), metres; metres a year for a drift."""
    sigma_m: float
    """Per axis, in the same unit."""
    probability: float
    """Of a statistic as large where nothing happens."""

    @property
    def sentence(self) -> str:
        east, north = self.size_m
        what = {
            ChangeKind.OUTLIER: f"scene {self.at} alone lies",
            ChangeKind.JUMP: f"from scene {self.since} on scenes lie",
            ChangeKind.DRIFT: f"scenes from {self.since} to {self.at} move by",
        }[self.change]
        unit = "m a year" if self.change is ChangeKind.DRIFT else "m"
        return (
            f"{self.series}: {what} {east:+.2f} east and {north:+.2f} north ± {self.sigma_m:.2f} {unit} off "
            f"(chance {self.probability:.1g})."
        )


@dataclass(frozen=True, slots=True)
class Scatter:
    """Of dates per axis, beyond the network's sigma."""

    sigma_m: float
    freedom: float
    """Degrees of freedom it is known with."""

    def probability(self, square: float) -> float:
        """Of a squared length, in sigmas, of two numbers as large as this.

        Half of it has Fisher's distribution of 2 and `freedom` degrees, whose tail is a power.
        """
        return math.exp(-self.freedom / 2 * math.log1p(square / self.freedom))

    def critical(self, level: float) -> float:
        """Squared length in sigmas that is exceeded with that probability."""
        return self.freedom * math.expm1(-2 * math.log(level) / self.freedom)


def scatter_of(series: Sequence[Series]) -> Scatter:
    """Scatter that series of one kind share, from successive differences: robust against the changes sought.

    Raises
    ------
    ValueError
        No series has two scenes.
    """
    steps = [np.hypot(*np.diff(s.position_m, axis=0).T) for s in series if len(s.days) > 1]
    known = [s.sigma_m[1:] ** 2 + s.sigma_m[:-1] ** 2 for s in series if len(s.days) > 1]
    if not steps:
        raise ValueError("a scatter needs a series of two scenes at least")
    length, variance = np.concatenate(steps), np.concatenate(known)
    total = np.median(length) ** 2 / MEDIAN_SQUARE
    extra = max(float(total - np.median(variance)) / 2, 0.0)
    return Scatter(math.sqrt(extra), 2 * DIFFERENCE_FREEDOM * len(length))


def watch(
    series: Series, scatter: Scatter | None = None, settings: MonitorSettings = MONITOR_DEFAULTS
) -> list[Alarm]:
    """Examine a series scene by scene, and raise an alarm at the scene where a change is found.

    Parameters
    ----------
    series : Series
        Positions at one place.
    scatter : Scatter, optional
        Scatter of series of the same kind; known better than from this series alone.
    settings : MonitorSettings
        Rate of false alarms, and how far back the monitor looks.

    Returns
    -------
    list of Alarm
        In the order in which they are raised. After a jump the mean starts at the jump; after a drift, at the
        scene that raised the alarm. An outlier is left out.
    """
    scatter = scatter or scatter_of([series])
    variance = series.sigma_m**2 + scatter.sigma_m**2
    limits = _Limits.of(scatter, settings)
    start, out, alarms = 0, np.zeros(len(series.days), np.bool_), list[Alarm]()
    for now in range(len(series.days)):
        found = _jump(series, variance, start, now, out, limits, settings)
        if found is not None:
            since, size, sigma, square = found
            kind = ChangeKind.JUMP if since < now else ChangeKind.OUTLIER
            alarms.append(Alarm(series.name, kind, now, since, size, sigma, scatter.probability(square)))
            if kind is ChangeKind.JUMP:
                start = since
                out[:] = False
            else:
                out[now] = True
            continue
        drift = _drift(series, variance, start, now, out, limits, settings)
        if drift is not None:
            size, sigma, square = drift
            alarms.append(
                Alarm(series.name, ChangeKind.DRIFT, now, start, size, sigma, scatter.probability(square))
            )
            start = now
            out[:] = False
    return alarms


@dataclass(frozen=True, slots=True)
class _Limits:
    """Squared lengths in sigmas beyond which a test speaks."""

    outlier: float
    jump: float
    drift: float
    fits: float

    @classmethod
    def of(cls, scatter: Scatter, settings: MonitorSettings) -> Self:
        return cls(
            outlier=scatter.critical(settings.level(ChangeKind.OUTLIER)),
            jump=scatter.critical(settings.level(ChangeKind.JUMP)),
            drift=scatter.critical(settings.level(ChangeKind.DRIFT)),
            fits=scatter.critical(FITS),
        )


JumpFound = tuple[int, tuple[float, float], float, float]


def _jump(
    series: Series,
    variance: FloatArray,
    start: int,
    now: int,
    out: BoolArray,
    limits: _Limits,
    settings: MonitorSettings,
) -> JumpFound | None:
    """The likeliest scene since which the mean is another; `now` itself where only this scene is far off."""
    since = np.arange(max(start + 1, now - settings.reach + 1), now + 1)
    if not len(since):
        return None
    stretch = slice(start, now + 1)
    position, weight, good = series.position_m[stretch], 1 / variance[stretch], ~out[stretch]
    last, first = since - 1 - start, since - start
    old = np.maximum(np.cumsum(weight * good)[last], 1e-300)
    old_mean = np.cumsum((weight * good)[:, None] * position, axis=0)[last] / old[:, None]
    new = np.cumsum(weight[::-1])[::-1][first]
    new_mean = np.cumsum((weight[:, None] * position)[::-1], axis=0)[::-1][first] / new[:, None]
    total = 1 / old + 1 / new
    square = ((new_mean - old_mean) ** 2).sum(axis=1) / total
    # A new mean must fit all that came since: one outlier among good scenes is no jump.
    left = ((series.position_m[since] - new_mean[:, None]) ** 2).sum(axis=2)
    misfit = left > limits.fits * (variance[since] - 1 / new[:, None])
    fits = ~(misfit & (since >= since[:, None])).any(axis=1) | (since == now)
    allowed = fits & (np.cumsum(good)[last] >= settings.min_before)
    allowed &= square > np.where(since < now, limits.jump, limits.outlier)
    if not allowed.any():
        return None
    best = int(np.argmax(np.where(allowed, square, 0)))
    east, north = (new_mean - old_mean)[best]
    return int(since[best]), (float(east), float(north)), math.sqrt(total[best]), float(square[best])


def _weighted(series: Series, variance: FloatArray, part: NDArray[np.int64]) -> tuple[FloatArray, float]:
    weight = 1 / variance[part]
    mean: FloatArray = weight @ series.position_m[part] / weight.sum()
    return mean, float(1 / weight.sum())


def _drift(
    series: Series,
    variance: FloatArray,
    start: int,
    now: int,
    out: BoolArray,
    limits: _Limits,
    settings: MonitorSettings,
) -> tuple[tuple[float, float], float, float] | None:
    """Slope since the last change, where it is more than chance makes."""
    if series.days[now] - series.days[start] < settings.min_drift_days:
        return None
    inside = start + np.flatnonzero(~out[start : now + 1])
    if len(inside) <= settings.min_before:
        return None
    weight, years = 1 / variance[inside], series.days[inside] / DAYS_A_YEAR
    centred = years - weight @ years / weight.sum()
    power = float(weight @ centred**2)
    if power == 0:
        return None
    slope = (weight * centred) @ series.position_m[inside] / power
    square = float(slope @ slope) * power
    if square <= limits.drift:
        return None
    return (float(slope[0]), float(slope[1])), power**-0.5, square


@dataclass(frozen=True, slots=True)
class PooledShift:
    """A change at one time at many places together, such as a new processor makes."""

    days: float
    """First day of the new state."""
    size_m: tuple[float, float]
    """(east, north), metres."""
    sigma_m: float
    """Per axis."""
    probability: float
    """Of a shift as large at any of the times asked, where nothing happens."""
    places: int
    """Series with scenes on both sides."""


def pooled_shift(
    series: Sequence[Series],
    days: Sequence[float] | FloatArray,
    scatter: Scatter | None = None,
    *,
    window_days: float = 180.0,
) -> PooledShift | None:
    """The strongest common shift among given times: mean after minus mean before at each place, pooled.

    Constants of the places cancel. Test the days on which a processor changed, or every month: the more times
    are tested, the stronger a shift must be.

    Parameters
    ----------
    series : Sequence[Series]
        One series per place, of one sensor and platform.
    days : Sequence[float] or FloatArray
        (T,) times to test.
    scatter : Scatter, optional
        Scatter of the series; measured on them if it is not given.
    window_days : float
        Scenes within this time before and after are compared, days.

    Returns
    -------
    PooledShift or None
        None where no place has scenes on both sides of any of the times.
    """
    scatter = scatter or scatter_of(series)
    best: PooledShift | None = None
    for day in days:
        weight, total, places = 0.0, np.zeros(2), 0
        for one in series:
            variance = one.sigma_m**2 + scatter.sigma_m**2
            near = np.abs(one.days - day) <= window_days
            before, after = (np.flatnonzero(near & side) for side in (one.days < day, one.days >= day))
            if not (len(before) and len(after)):
                continue
            (old, old_variance), (new, new_variance) = (
                _weighted(one, variance, part) for part in (before, after)
            )
            own = 1 / (old_variance + new_variance)
            weight, total, places = weight + own, total + own * (new - old), places + 1
        if not places:
            continue
        size = total / weight
        chance = min(scatter.probability(float(size @ size * weight)) * len(days), 1.0)
        if best is None or chance < best.probability:
            shift = float(size[0]), float(size[1])
            best = PooledShift(float(day), shift, weight**-0.5, chance, places)
    return best


def detectable_jump_m(
    scatter: Scatter,
    *,
    before: int,
    after: int,
    power: float = 0.8,
    settings: MonitorSettings = MONITOR_DEFAULTS,
) -> float:
    """Smallest jump that a chart notices with `power`, `after` scenes after it and `before` in front of it.

    Metres; of one of its tests alone, so the chart does a little better.
    """
    from scipy.stats import ncf  # slow to import, and settings of every command come from here

    critical = scatter.critical(settings.level(ChangeKind.JUMP)) / 2
    found = brentq(lambda value: ncf.sf(critical, 2, scatter.freedom, value) - power, 1e-3, 1e4)
    return scatter.sigma_m * math.sqrt(float(found) * (1 / before + 1 / after))
