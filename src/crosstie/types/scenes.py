"""Scenes of a catalog, and pairs of them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime

from crosstie.codes import Kind


@dataclass(frozen=True, slots=True)
class SceneRef:
    """One scene of a catalog: what pairing and reading need of it."""

    id: str
    """Identifier in the catalog."""
    kind: Kind
    acquired_utc: datetime
    """Middle of the acquisition, UTC."""
    footprint_wkt: str
    """Outline as WKT in EPSG:4326."""
    hrefs: tuple[str, ...]
    """URL or path of the raster; several if each band is a file of its own."""
    platform: str | None = None
    """`sentinel-1a`, `sentinel-2b`, ..."""
    cloud_cover_pct: float | None = None
    """Cloud cover, 0..100; None if the catalog does not say, as for all fields below."""
    collection: str | None = None
    """Id of its collection."""
    product_type: str | None = None
    """`GRD`, `RTC`, `L1C` or `L2A`; any other as the catalog writes it."""
    orbit_state: str | None = None
    """`ascending` or `descending`."""
    relative_orbit: int | None = None
    """Track, from 1."""
    mgrs_tile: str | None = None
    """Sentinel-2 tile, `31UFS`."""
    processing_baseline: str | None = None
    """Version of the processor, such as `05.10`."""
    created_utc: datetime | None = None
    """When the product was made."""
    declared: tuple[tuple[float, float], ...] = ()
    """(scale, offset) of each band of the raster as the catalog declares them, or of all bands where there is
    one; empty where it does not. What the raster itself declares goes before."""
    classes: str | None = None
    """URL or path of the scene classification (SCL) that tells its clouds; None if there is none."""

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("a scene needs an id, got an empty one")
        if not self.hrefs:
            raise ValueError(f"scene {self.id}: needs at least one href")
        if self.acquired_utc.tzinfo is None:
            raise ValueError(f"scene {self.id}: acquired_utc must carry a time zone, got {self.acquired_utc}")


@dataclass(frozen=True, slots=True)
class ScenePair:
    """Two scenes of one place: the reference stays, the secondary is corrected."""

    reference: SceneRef
    secondary: SceneRef

    @property
    def key(self) -> str:
        """Stable text made of the two ids; a valid name of a folder or an object."""
        return pair_key(self.reference.id, self.secondary.id)


def pair_key(reference_id: str, secondary_id: str) -> str:
    """Make the folder name of a pair: readable, at most 180 characters, of these two ids and no others.

    Ids that need no change are the name. Others are made fit for a folder, and a digest of both follows: of
    10 hex digits, or of 32 where the joined ids could be taken for those of another pair.
    """
    parts = [re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") for text in (reference_id, secondary_id)]
    key = "__".join(parts)
    exact = f"{reference_id}__{secondary_id}"
    # `a__b__c` is of `a` and `b__c`: Sentinel-1 SLC have a double underscore in their names, Sentinel-2 none.
    is_plain = key == exact and len(key) <= 180
    if exact.find("__") != len(reference_id) or (is_plain and _ENDS_LIKE_A_DIGEST.search(key)):
        both = json.dumps([reference_id, secondary_id])
        return f"{key[:147]}-{hashlib.sha256(both.encode()).hexdigest()[:32]}"
    if is_plain:
        return key
    digest = hashlib.sha256(exact.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return f"{key[:169]}-{digest}"


_ENDS_LIKE_A_DIGEST = re.compile(r"-(?:[0-9a-f]{10}|[0-9a-f]{32})\Z")
"""What ids that need a change could be given as their name."""
