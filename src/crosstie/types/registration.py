"""Everything that is known about a pair once it is registered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from crosstie.types.control_points import ControlPoints
from crosstie.types.correction import Estimate
from crosstie.types.displacement import FieldFit
from crosstie.types.tie_points import TiePoints

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox


@dataclass(frozen=True, slots=True)
class Provenance:
    """What made a result, so that it can be reproduced."""

    versions: tuple[tuple[str, str], ...]
    """(package, version), crosstie first."""
    weights_sha256: str
    settings_hash: str
    created_utc: datetime
    seconds: float
    """Wall time from reading the headers to the verdict."""


@dataclass(frozen=True, slots=True)
class CloudsTold:
    """What the catalog of a scene tells of its clouds, and what became of that."""

    href: str
    """Path or URL of the scene classification."""
    hidden_share: float | None
    """Share of the valid pixels of the common ground that it hides, 0..1; None where it could not be read."""
    ignored: str | None = None
    """Why it is not used; None where it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """All that is known about a pair after the verdict, before products are written."""

    pair_key: str
    run_key: str
    reference_id: str
    reference_hrefs: tuple[str, ...]
    secondary_id: str
    secondary_hrefs: tuple[str, ...]
    grid: GeoBox | None
    """The common grid; None if the images do not overlap."""
    planned: int
    """Number of tiles worth matching."""
    points: TiePoints
    """Tie points of all matched tiles."""
    estimate: Estimate
    provenance: Provenance
    reference_control: ControlPoints | None = None
    """Where control points say where the reference lies."""
    secondary_control: ControlPoints | None = None
    """Where control points say where the secondary lies."""
    reference_mask: str | None = None
    """Path or URL of what the user left out of the reference."""
    secondary_mask: str | None = None
    """Path or URL of what the user left out of the secondary."""
    reference_clouds: CloudsTold | None = None
    """What the catalog tells of the reference's clouds; None where it tells nothing."""
    secondary_clouds: CloudsTold | None = None
    """What the catalog tells of the secondary's clouds; None where it tells nothing."""
    field: FieldFit | None = None
    """The displacement field, or why there is none; None where it was not asked for."""
