"""Which scenes of a catalog are wanted. Part of the settings, so it imports little."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator

from crosstie.codes import Orbit

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


def _bare_date(value: object) -> object:
    """Read a date from text as a date: pydantic would make it midnight and lose the rest of the day.

    YAML makes a number of 20250612, which pydantic would count from 1970.
    """
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or (len(text) > len("2025-06-12") and not text.isdecimal()):
        return text
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"must be a date such as 2025-06-12 or 20250612, got {text}") from None


Moment = Annotated[datetime | date, BeforeValidator(_bare_date)]
"""A time or a date. The validator is for settings files and JSON; Python callers give the value itself."""

SAR_COLLECTIONS = ("sentinel-1-grd", "sentinel-1-rtc")
OPTICAL_COLLECTIONS = ("sentinel-2-l1c", "sentinel-2-l2a", "sentinel-2-c1-l2a")

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class SceneQuery:
    """Which scenes of a catalog are wanted."""

    start_utc: Moment | None = None
    """Earliest acquisition, inclusive; a date without a time includes the whole day. None: no limit."""
    end_utc: Moment | None = None
    """Latest acquisition, inclusive; a date without a time includes the whole day. None: no limit."""
    bbox: Box | None = None
    """Area: (west, south, east, north), degrees; west > east crosses the antimeridian. None: everywhere."""
    intersects: str | None = None
    """Area as WKT in degrees; scenes that touch it are used. None: everywhere."""
    sar_collections: tuple[str, ...] = SAR_COLLECTIONS
    """Collections of SAR scenes. With the default also any other collection whose items say that they are of
    Sentinel-1."""
    optical_collections: tuple[str, ...] = OPTICAL_COLLECTIONS
    """Collections of optical scenes. With the default also any other collection whose items say that they are
    of Sentinel-2."""
    sar_assets: tuple[str, ...] = ()
    """Assets of a SAR scene that may be read, the best first. Empty: the names of the provider, else those
    that hold vh, hv, vv or hh as a word, else an image with all bands (data, image, measurement)."""
    optical_assets: tuple[str, ...] = ()
    """Assets of an optical scene that may be read, the best first. Empty: the names of the provider, else
    those that hold visual, tci, red or b04 as a word, else an image with all bands (data, image)."""
    cloud_masks: bool = True
    """Do not match what the scene classification (SCL) of a Sentinel-2 item calls cloud or the shadow of one.
    A classification that cannot be read, or that the pixels contradict, is not used."""
    max_cloud_pct: float | None = None
    """Largest cloud cover of optical scenes, per cent, 0..100; scenes without a value are used. None: no
    limit."""
    orbit: Orbit = "any"
    """Orbit direction of the SAR scenes: any, ascending or descending."""
    tracks: tuple[int, ...] = ()
    """Relative orbits of the SAR scenes, 1..175, for all satellites. Empty: any."""
    platforms: tuple[str, ...] = ()
    """Satellites: S1A, S1C, S2B, ... The list limits only the missions that it names. Empty: any."""
    product_types: tuple[str, ...] = ()
    """Product types: GRD, RTC, L1C, L2A. The list limits only the missions that it names. Empty: any."""
    preset: Literal["auto", "earth-search", "planetary-computer", "cdse", "none"] = "auto"
    """Provider whose names of collections, assets and properties the catalog uses: earth-search,
    planetary-computer, cdse (Copernicus Data Space), or none (the names of all three are tried). auto
    chooses by the address of the catalog."""
    allow_hosts: tuple[str, ...] = ()
    """Hosts on a private network or on this machine that a catalog on another host may refer to, without
    scheme and port. A catalog may always refer to its own host. Metadata services of clouds are never
    allowed."""
    allow_buckets: tuple[str, ...] = ()
    """S3 buckets that a catalog may refer to, besides its own. Empty: all."""

    def __post_init__(self) -> None:
        for name in ("start_utc", "end_utc"):
            when = getattr(self, name)
            if isinstance(when, datetime) and when.tzinfo is None:
                raise ValueError(f"{name} must carry a time zone or be a bare date, got {when}")
        start, end = self.interval_utc
        if start and end and start > end:
            raise ValueError(f"the query ends ({end}) before it begins ({start})")
        if not self.collections:
            raise ValueError("a query needs at least one collection")
        if self.max_cloud_pct is not None and not 0 <= self.max_cloud_pct <= 100:
            raise ValueError(f"max_cloud_pct must lie in 0..100, got {self.max_cloud_pct}")
        if self.bbox is not None:
            west, south, east, north = self.bbox
            if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90):
                raise ValueError(f"bbox must be west, south, east, north in degrees, got {self.bbox}")
        for track in self.tracks:
            if not 1 <= track <= 175:
                raise ValueError(f"tracks of Sentinel-1 are 1..175, got {track}")
        for platform in self.platforms:
            if _mission(platform) is None:
                raise ValueError(f"platforms are S1A, S1B, S1C, S2A, S2B, ..., got {platform!r}")
        if self.intersects is not None:
            area_from_wkt(self.intersects)
        for host in self.allow_hosts:
            if not re.fullmatch(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\]?", host):
                raise ValueError(f"allow_hosts are names or numbers without scheme and port, got {host!r}")
        for bucket in self.allow_buckets:
            if not re.fullmatch(r"[a-z0-9][a-z0-9.-]+[a-z0-9]", bucket):
                raise ValueError(f"allow_buckets are names of buckets without s3://, got {bucket!r}")

    @property
    def collections(self) -> tuple[str, ...]:
        return self.sar_collections + self.optical_collections

    def takes_any_collection(self, *, sar: bool) -> bool:
        """Say whether scenes of a kind may be of any collection: the user has named none for them."""
        return (
            self.sar_collections == SAR_COLLECTIONS
            if sar
            else self.optical_collections == OPTICAL_COLLECTIONS
        )

    @property
    def interval_utc(self) -> tuple[datetime | None, datetime | None]:
        """Earliest and latest time wanted, both inclusive; None if open."""
        return _moment(self.start_utc, time.min), _moment(self.end_utc, time.max)

    @property
    def boxes(self) -> tuple[Box, ...]:
        """`bbox` in parts that do not cross the antimeridian; empty if it is None."""
        if self.bbox is None:
            return ()
        west, south, east, north = self.bbox
        if west <= east:
            return (self.bbox,)
        return (west, south, 180.0, north), (-180.0, south, east, north)

    @property
    def area(self) -> BaseGeometry | None:
        """`intersects` as a geometry; None if it is None."""
        return None if self.intersects is None else area_from_wkt(self.intersects)

    @property
    def full_platforms(self) -> frozenset[str]:
        """`platforms` in the form that catalogs use: sentinel-1a, ..."""
        return frozenset(full_platform(name) for name in self.platforms)


def full_platform(name: str) -> str:
    """Write a platform in the form that catalogs use: S1A and Sentinel-1A become sentinel-1a."""
    text = name.strip().lower().replace("_", "-").replace(" ", "-")
    if len(text) == 3 and text[0] == "s" and text[1].isdigit():
        return f"sentinel-{text[1:]}"
    return text


def _mission(platform: str) -> str | None:
    text = full_platform(platform)
    return text[:10] if text.startswith(("sentinel-1", "sentinel-2")) and len(text) == 11 else None


@lru_cache(maxsize=16)
def area_from_wkt(wkt: str) -> BaseGeometry:
    """Read an area from WKT in degrees, and repair its outline.

    Raises
    ------
    ValueError
        No WKT, or no area of the Earth in degrees.
    """
    import shapely  # not needed to read settings without an area

    try:
        area: Any = shapely.from_wkt(wkt)
    except shapely.errors.GEOSException as problem:
        raise ValueError(f"intersects is not WKT ({str(problem).splitlines()[0]}): {wkt[:80]!r}") from None
    if area is None or area.is_empty:
        raise ValueError("intersects is empty; give an area, or leave it out")
    west, south, east, north = area.bounds
    if not (west >= -360 and east <= 360 and south >= -90 and north <= 90):
        raise ValueError(f"intersects must be in degrees of longitude and latitude, got bounds {area.bounds}")
    from crosstie.io.scenes.footprint import lonlat_outlines  # needs the above

    outline: BaseGeometry = lonlat_outlines([area])[0]
    return outline


def _moment(when: datetime | date | None, bare: time) -> datetime | None:
    if when is None or isinstance(when, datetime):
        return when
    return datetime.combine(when, bare, tzinfo=UTC)
