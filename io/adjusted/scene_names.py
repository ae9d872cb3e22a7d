"""What the id of a scene says of it: sensor, platform, track, processing baseline, day and tile.

The index holds ids and no metadata of scenes. Ids of Sentinel-1 and Sentinel-2 say nearly all; for others a
pattern with named groups does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ORBITS_PER_CYCLE = 175
"""Orbits of Sentinel-1 in one cycle of 12 days: relative orbits count from 1 to this number."""

FIRST_ORBIT = {"S1A": 73, "S1B": 27, "S1C": 172, "S1D": 42}
"""Absolute orbit of relative orbit 1."""

S1C_MOVED_UTC = (datetime(2026, 6, 9, tzinfo=UTC), datetime(2026, 6, 24, tzinfo=UTC))
"""Sentinel-1C changed its place in the orbit between these days; in between no track is named."""

S1C_FIRST_ORBIT_AFTER = 99

GROUPS = ("place", "sensor", "platform", "track", "baseline", "date")
"""Named groups that a pattern may have."""

SENSORS_IN_SHORT = {"s1": "sentinel-1", "s2": "sentinel-2"}
"""What a pattern may find for a sensor, and what that is called."""

_MISSION = re.compile(r"(?:^|[_-])(S[12])([A-D]?)(?=[_-]|$)", re.IGNORECASE)
_ACQUIRED = re.compile(r"(?<!\d)(\d{8})(?:T(\d{6}))?(?!\d)")
_TILE = re.compile(r"_T?(\d{2}[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])(?=[_.]|$)")
_S1_ORBIT = re.compile(r"^(S1[A-D])_.*_\d{8}T\d{6}_(\d{6})_[0-9A-F]{6}")
_S2_ORBIT = re.compile(r"^S2[A-D]_.*_(R\d{3})_")
_S2_BASELINE = re.compile(r"^S2[A-D]_.*_(N\d{4})_")


@dataclass(frozen=True, slots=True)
class SceneName:
    """What an id says; a text is empty where it says nothing."""

    scene: str
    sensor: str = ""
    """`sentinel-1` or `sentinel-2`, or what a pattern found."""
    platform: str = ""
    """`sentinel-1a`, ..."""
    track: str = ""
    """Relative orbit, `R008`, or what a pattern found."""
    baseline: str = ""
    """Processing baseline of Sentinel-2, `N0511`."""
    acquired_utc: datetime | None = None
    tile: str = ""
    """Tile of Sentinel-2's grid, `31UFS`."""
    place: str = ""
    """What the pattern calls the place; empty without a pattern."""


def read_scene_name(scene: str, pattern: str | None = None) -> SceneName:
    """Read what the id of a scene says.

    Parameters
    ----------
    scene : str
        Id of a scene.
    pattern : str, optional
        Regular expression, searched in the id; its groups `place`, `sensor`, `platform`, `track`, `baseline`
        and `date` (20250602 or 20250602T103629) win over what ids of Sentinel say.
    """
    mission = _MISSION.search(scene)
    number = mission[1][1] if mission else ""
    letter = mission[2].lower() if mission else ""
    tile = _TILE.search(scene)
    name = SceneName(
        scene=scene,
        sensor=f"sentinel-{number}" if number else "",
        platform=f"sentinel-{number}{letter}" if letter else "",
        acquired_utc=_time_in(scene),
        tile=tile[1] if tile else "",
    )
    return _by_pattern(_with_orbit(name), pattern)


def _with_orbit(name: SceneName) -> SceneName:
    sar, optical = _S1_ORBIT.match(name.scene), _S2_ORBIT.match(name.scene)
    baseline = _S2_BASELINE.match(name.scene)
    track = ""
    if sar is not None:
        first = _first_orbit(sar[1], name.acquired_utc)
        track = "" if first is None else f"R{(int(sar[2]) - first) % ORBITS_PER_CYCLE + 1:03d}"
    elif optical is not None:
        track = optical[1]
    return replace(name, track=track, baseline=baseline[1] if baseline else "")


def _first_orbit(mission: str, when: datetime | None) -> int | None:
    if mission != "S1C" or when is None or when < S1C_MOVED_UTC[0]:
        return FIRST_ORBIT[mission]
    return S1C_FIRST_ORBIT_AFTER if when >= S1C_MOVED_UTC[1] else None


def _by_pattern(name: SceneName, pattern: str | None) -> SceneName:
    found = re.search(pattern, name.scene) if pattern else None
    if found is None:
        return name
    said = {key: text for key, text in found.groupdict().items() if key in GROUPS and text}
    sensor = said.pop("sensor", name.sensor)
    return replace(
        name,
        acquired_utc=_time_in(said.pop("date", "")) or name.acquired_utc,
        sensor=SENSORS_IN_SHORT.get(sensor.lower(), sensor),
        **said,
    )


def _time_in(text: str) -> datetime | None:
    """The first moment that a text holds; a day is its beginning."""
    read: Callable[[str, str], datetime] = datetime.strptime
    for day, time in _ACQUIRED.findall(text):
        try:
            return read(day + (time or "000000"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        except ValueError:
            continue
    return None
