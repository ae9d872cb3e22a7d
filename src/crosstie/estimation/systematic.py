"""What the positions of many scenes have in common: constants, a wrong height, a processor, drift, season.

One fit of one sensor at one place. The parts of any geolocation (a constant of the sensor, the assumed
height) are free. Differences of platforms, tracks and processing baselines are assumed to be small unless the
scenes show otherwise, because two of them often cannot be separated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import chdtrc

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.types import FloatArray, StrArray

DAYS_A_YEAR = 365.25

INCLINATION_DEG = 98.18
"""Inclination of Sentinel-1's orbit."""
TURNS_A_DAY = 175 / 12
"""Orbits of Sentinel-1 per day: its cycle is 175 orbits in 12 days."""


@dataclass(frozen=True, slots=True, eq=False)
class SceneFacts:
    """Scenes of one sensor at one place, as columns of equal length N."""

    position_m: FloatArray
    """(N, 2) east, north, metres: position in the network's datum."""
    covariance: FloatArray
    """(N, 2, 2) m^2"""
    days: FloatArray
    """(N,) time of acquisition, days from any day."""
    platform: StrArray
    """(N,)"""
    track: StrArray
    """(N,) pass and relative orbit, or another name of the geometry."""
    baseline: StrArray
    """(N,) processing baseline; the same for all where it is unknown."""
    lean: FloatArray
    """(N, 2) east, north: displacement in the image per metre of height, from `lean_of_sar`."""
    incidence_deg: FloatArray
    """(N,) incidence angle of `lean`, degrees."""

    def __post_init__(self) -> None:
        n = len(self.position_m)
        two, one = (n, 2), (n,)
        shapes = {"position_m": two, "covariance": (n, 2, 2), "lean": two, "incidence_deg": one, "days": one}
        shapes |= dict.fromkeys(("platform", "track", "baseline"), one)
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {getattr(self, name).shape}")


@dataclass(frozen=True, slots=True)
class SystematicSettings:
    """Prior sigmas per axis, metres, and when a part counts as significant."""

    group_m: float = 3.0
    """Differences between platforms and between processing baselines."""
    track_m: float = 1.0
    """Differences between tracks that are not due to height."""
    drift_m_per_year: float = 10.0
    season_m: float = 3.0
    """Amplitude."""
    significance: float = 0.01
    """A part is significant if the probability of one as large by chance is below this value."""
    min_years: float = 0.75
    """Shortest series with a drift and a season, years."""


SYSTEMATIC_DEFAULTS = SystematicSettings()


@dataclass(frozen=True, slots=True)
class SystematicPart:
    """One systematic part."""

    kind: str
    """constant, height, platform, track, baseline, drift, season_cosine, season_sine"""
    name: str
    """Which platform, track or baseline; empty for the others."""
    value: tuple[float, ...]
    """(east, north), metres, or metres a year for a drift; (height,) in metres."""
    sigma: tuple[float, ...]
    """In the same unit."""
    seen: bool
    """Whether it is larger than chance explains."""
    sentence: str


@dataclass(frozen=True, slots=True, eq=False)
class Systematic:
    """All parts of one sensor at one place, and the residuals."""

    parts: tuple[SystematicPart, ...]
    untold: tuple[str, ...]
    """Sentences that say what cannot be determined from these scenes, and why."""
    residual_m: FloatArray
    """(N, 2) position minus all parts, metres."""
    scatter_m: float
    """Standard deviation of a date per axis in addition to the network's covariance, metres."""

    def part(self, kind: str, name: str = "") -> SystematicPart:
        """The part of that kind and name.

        Raises
        ------
        KeyError
            There is none.
        """
        for part in self.parts:
            if part.kind == kind and part.name == name:
                return part
        raise KeyError(f"no part {kind} {name}; there are {[p.kind for p in self.parts]}")


def lean_of_sar(look_azimuth_deg: FloatArray, incidence_deg: FloatArray) -> FloatArray:
    """Displacement in a SAR image of ground that is 1 m higher than assumed.

    Higher ground is nearer to the radar, so it appears towards the radar by 1 / tan(incidence).

    Parameters
    ----------
    look_azimuth_deg : FloatArray
        (N,) direction from the radar to the ground, degrees clockwise from north.
    incidence_deg : FloatArray
        (N,) angle between the vertical and the line to the radar, degrees.

    Returns
    -------
    FloatArray
        (N, 2) east, north: displacement per metre of height.

    References
    ----------
    Small & Schubert (2008), Guide to ASAR geocoding.
    """
    azimuth = np.deg2rad(np.asarray(look_azimuth_deg, np.float64))
    towards = -np.stack([np.sin(azimuth), np.cos(azimuth)], axis=-1)
    lean: FloatArray = towards / np.tan(np.deg2rad(np.asarray(incidence_deg, np.float64)))[..., None]
    return lean


def lean_of_optical(view_azimuth_deg: FloatArray, view_zenith_deg: FloatArray) -> FloatArray:
    """Displacement in an optical image of ground that is 1 m higher than assumed: away from the sensor.

    Parameters
    ----------
    view_azimuth_deg : FloatArray
        (N,) direction from the ground to the sensor, degrees clockwise from north, as products state it.
    view_zenith_deg : FloatArray
        (N,) angle between the vertical and the line to the sensor, degrees.

    Returns
    -------
    FloatArray
        (N, 2) east, north: displacement per metre of height.
    """
    azimuth = np.deg2rad(np.asarray(view_azimuth_deg, np.float64))
    away = -np.stack([np.sin(azimuth), np.cos(azimuth)], axis=-1)
    lean: FloatArray = away * np.tan(np.deg2rad(np.asarray(view_zenith_deg, np.float64)))[..., None]
    return lean


def look_azimuth_of_sentinel1(orbit_state: str, latitude_deg: float) -> float:
    """Look direction of Sentinel-1, degrees clockwise from north: to the right of its ground track.

    Assumes a circular orbit over the rotating Earth and ignores beam steering: accurate to a degree or two.

    References
    ----------
    Capderou (2014), Handbook of satellite orbits (angle of the ground track with the meridian).
    """
    if orbit_state not in ("ascending", "descending"):
        raise ValueError(f"a pass is ascending or descending, got {orbit_state!r}")
    north = math.cos(math.radians(latitude_deg)) ** 2
    polar = math.cos(math.radians(INCLINATION_DEG))
    if north <= polar**2:
        raise ValueError(f"Sentinel-1 does not fly over latitude {latitude_deg:g}")
    heading = math.degrees(math.atan((polar - north / TURNS_A_DAY) / math.sqrt(north - polar**2)))
    return (heading + 90) % 360 if orbit_state == "ascending" else (270 - heading) % 360


def tell_apart(facts: SceneFacts, settings: SystematicSettings = SYSTEMATIC_DEFAULTS) -> Systematic:
    """Fit all parts together. Scenes are weighted by their covariance and a scatter of dates, fitted as well.

    A group of one member and, in a short series, time have no part; a sentence says so.

    Parameters
    ----------
    facts : SceneFacts
        Scenes of one sensor at one place.
    settings : SystematicSettings
        What is assumed about the size of each part.

    Raises
    ------
    ValueError
        No scene has a position.
    """
    good = np.asarray(np.isfinite(facts.position_m).all(axis=1), np.bool_)
    if not good.any():
        raise ValueError("no scene has a position; adjust the network first")
    terms, untold = _terms(facts, good, settings)
    design = np.concatenate([term.design for term in terms], axis=2)
    prior = np.concatenate([term.prior for term in terms])
    scatter = _scatter_of_dates(design[good], facts.position_m[good], facts.covariance[good], prior)
    value, covariance = _fit(
        design[good], facts.position_m[good], facts.covariance[good] + scatter**2 * np.eye(2), prior
    )
    parts, start = [], 0
    for term in terms:
        columns = slice(start, start + term.design.shape[2])
        start = columns.stop
        parts.append(_judge_term(term, value[columns], covariance[columns, columns], facts, good, settings))
    return Systematic(tuple(parts), tuple(untold), facts.position_m - design @ value, scatter)


@dataclass(frozen=True, slots=True, eq=False)
class _Term:
    kind: str
    name: str
    design: FloatArray
    """(N, 2, c)"""
    prior: FloatArray
    """(c,) 1 / variance; 0 where free."""


def _terms(
    facts: SceneFacts, good: NDArray[np.bool_], settings: SystematicSettings
) -> tuple[list[_Term], list[str]]:
    n, untold = len(facts.days), []
    both = np.broadcast_to(np.eye(2), (n, 2, 2))
    terms = [_Term("constant", "", both, np.zeros(2))]
    apart = facts.lean[good] - facts.lean[good].mean(axis=0)
    if np.abs(apart).max() > 0.1:
        terms.append(_Term("height", "", facts.lean[:, :, None], np.zeros(1)))
    else:
        untold.append("All scenes look from one side: a wrong height cannot be told from a constant.")
    for kind, names, sigma in (
        ("platform", facts.platform, settings.group_m),
        ("track", facts.track, settings.track_m),
        ("baseline", facts.baseline, settings.group_m),
    ):
        members = np.unique(names[good])
        if len(members) == 1:
            untold.append(f"All scenes are of one {kind}, {members[0]}: its part is in the constant.")
            continue
        for member in members:
            own = (names == member)[:, None, None] * both
            terms.append(_Term(kind, str(member), own, np.full(2, sigma**-2)))
    years = (facts.days - facts.days[good].mean()) / DAYS_A_YEAR
    if np.ptp(years[good]) < settings.min_years:
        untold.append(f"{365 * np.ptp(years[good]):.0f} days are too few to tell a drift or a season.")
        return terms, untold
    turn = 2 * np.pi * facts.days / DAYS_A_YEAR
    terms += [
        _Term("drift", "", years[:, None, None] * both, np.full(2, settings.drift_m_per_year**-2)),
        _Term("season_cosine", "", np.cos(turn)[:, None, None] * both, np.full(2, settings.season_m**-2)),
        _Term("season_sine", "", np.sin(turn)[:, None, None] * both, np.full(2, settings.season_m**-2)),
    ]
    return terms, untold


def _fit(
    design: FloatArray, position: FloatArray, covariance: FloatArray, prior: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Weighted least squares; values (c,) and their covariance (c, c)."""
    weight = np.linalg.inv(covariance)
    weighted = np.einsum("nai,nab->nib", design, weight)
    normal = np.einsum("nib,nbj->ij", weighted, design) + np.diag(prior)
    inverse = np.linalg.pinv(normal, hermitian=True)
    value: FloatArray = inverse @ np.einsum("nib,nb->i", weighted, position)
    return value, np.asarray(inverse, np.float64)


def _scatter_of_dates(
    design: FloatArray, position: FloatArray, covariance: FloatArray, prior: FloatArray
) -> float:
    """Standard deviation per axis that the covariances lack for chi-square to equal its freedom."""
    low, high = 0.0, float(np.abs(position - np.median(position, axis=0)).max()) + 1e-6
    for _ in range(40):
        middle = (low + high) / 2
        full = covariance + (middle**2 + 1e-12) * np.eye(2)
        value, spread = _fit(design, position, full, prior)
        left, weight = position - design @ value, np.linalg.inv(full)
        square = np.einsum("na,nab,nb->", left, weight, left)
        used = np.einsum("nai,nab,nbj,ij->", design, weight, design, spread, optimize=True)
        low, high = (middle, high) if square > max(2 * len(position) - used, 1) else (low, middle)
    return high if high > 2e-6 else 0.0


UNITS = {"drift": "m a year"}

SAYS = {
    "constant": "All scenes lie",
    "platform": "Scenes of platform {name} lie",
    "track": "Scenes of track {name} lie, apart from any height,",
    "baseline": "Scenes of processing baseline {name} lie",
    "drift": "Scenes move by",
    "season_cosine": "With the season, on day 0 of each year, scenes lie",
    "season_sine": "With the season, a quarter of a year later, scenes lie",
}


def _judge_term(
    term: _Term,
    value: FloatArray,
    covariance: FloatArray,
    facts: SceneFacts,
    good: NDArray[np.bool_],
    settings: SystematicSettings,
) -> SystematicPart:
    square = float(value @ np.linalg.pinv(covariance, hermitian=True) @ value)
    seen = bool(chdtrc(len(value), square) < settings.significance)
    sigma = np.sqrt(np.maximum(np.diag(covariance), 0))
    if term.kind == "height":
        angles = np.unique(np.round(facts.incidence_deg[good], 1))
        angle = f"{angles[0]:g}" if len(angles) == 1 else f"{angles[0]:g} to {angles[-1]:g}"
        side = "higher" if value[0] > 0 else "lower"
        sentence = (
            f"The ground is {abs(value[0]):.1f} ± {sigma[0]:.1f} m {side} than the products assumed "
            f"(mirrored between look directions, incidence {angle} degrees)."
        )
    else:
        sentence = (
            f"{SAYS[term.kind].format(name=term.name)} {value[0]:+.2f} ± {sigma[0]:.2f} m east and "
            f"{value[1]:+.2f} ± {sigma[1]:.2f} {UNITS.get(term.kind, 'm')} north."
        )
    if not seen:
        sentence += " That is no more than chance makes."
    return SystematicPart(term.kind, term.name, tuple(value.tolist()), tuple(sigma.tolist()), seen, sentence)
