"""Which pairs of an archive are of one place: what is solved together.

A position is that of a scene *at a place*: a swath of 250 km does not lie off by the same everywhere. So a
place is a tile of Sentinel-2's grid, where the reference's id names one. Else it is all pairs that hang
together through the scenes that they share.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from crosstie.io.adjusted.scene_names import read_scene_name
from crosstie.io.storage.root_layout import ProductKey
from crosstie.types import VerdictCode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import pyarrow as pa

PLACE_COLUMNS = (
    "pair_key", "run_key", "latest", "created", "updated", "reference_id", "secondary_id", "verdict", "crs",
    "geometry", "datetime", "crosstie:field_offered",
)  # fmt: skip
"""Columns of the index that places are made of."""

TRUSTED_VERDICTS = (VerdictCode.CORRECTED, VerdictCode.ALREADY_ALIGNED)
"""Verdicts of pairs that measure something."""


@dataclass(frozen=True, slots=True)
class ArchivePair:
    """A committed pair that measured an offset: an edge of the network."""

    product: ProductKey
    reference: str
    secondary: str
    crs: str
    outline: bytes
    """Of the corrected secondary, WKB in longitude and latitude."""
    acquired_utc: datetime | None
    """Of the secondary."""
    created_utc: datetime
    field_offered: bool = False
    """Whether it found more than an affine can follow."""


@dataclass(frozen=True, slots=True)
class ArchivePlace:
    """Pairs that are solved together."""

    name: str
    """A valid name of a folder."""
    crs: str
    """CRS of all offsets of the place."""
    pairs: tuple[ArchivePair, ...]
    """Ordered by pair and run."""


def pairs_of(table: pa.Table) -> list[ArchivePair]:
    """Pairs that measure an offset: the newest run of each, where it is trusted.

    Parameters
    ----------
    table : pa.Table
        Rows of the index, with the columns `PLACE_COLUMNS`.
    """
    return [
        ArchivePair(
            ProductKey(row["pair_key"], row["run_key"]), row["reference_id"], row["secondary_id"], row["crs"],
            row["geometry"], row["datetime"], row["created"], bool(row["crosstie:field_offered"]),
        )
        for row in table.to_pylist()
        if row["latest"] and row["verdict"] in TRUSTED_VERDICTS and row["crs"] is not None
    ]  # fmt: skip


def places_of(pairs: Sequence[ArchivePair], pattern: str | None = None) -> list[ArchivePlace]:
    """Sort pairs by the place that they are of.

    Parameters
    ----------
    pairs : Sequence[ArchivePair]
        Pairs of an archive.
    pattern : str, optional
        Regular expression whose group `place` names the place in a reference's id.

    Returns
    -------
    list of ArchivePlace
        By name. A place that is named by its position has the name that its oldest pair gave it.
    """
    named: defaultdict[tuple[str, str], list[ArchivePair]] = defaultdict(list)
    unnamed: defaultdict[str, list[ArchivePair]] = defaultdict(list)
    for pair in pairs:
        name = _name_by_id(pair, pattern)
        if name is None:
            unnamed[pair.crs].append(pair)
        else:
            named[name, pair.crs].append(pair)
    for crs, rest in unnamed.items():
        for group in _hanging_together(rest):
            named[_name_by_position(group), crs] += group
    return sorted(
        (
            ArchivePlace(name, crs, tuple(sorted(group, key=_product_of)))
            for (name, crs), group in named.items()
        ),
        key=lambda place: place.name,
    )


def _product_of(pair: ArchivePair) -> ProductKey:
    return pair.product


def _name_by_id(pair: ArchivePair, pattern: str | None) -> str | None:
    """Name that the ids give the place, with the CRS where it is not the one to be expected."""
    for scene in (pair.reference, pair.secondary):
        said = read_scene_name(scene, pattern)
        if said.place:
            return f"{_safe(said.place)}{_suffix(pair.crs)}"
        if said.tile:
            own = f"EPSG:32{'6' if said.tile[2] >= 'N' else '7'}{said.tile[:2]}"
            return f"T{said.tile}{'' if pair.crs == own else _suffix(pair.crs)}"
    return None


def _hanging_together(pairs: Sequence[ArchivePair]) -> list[list[ArchivePair]]:
    """Groups of pairs that are connected by scenes."""
    _, ends = np.unique([s for p in pairs for s in (p.reference, p.secondary)], return_inverse=True)
    i, j = ends.reshape(-1, 2).T
    n = int(ends.max()) + 1
    _, label = connected_components(coo_array((np.ones(len(i), np.int8), (i, j)), shape=(n, n)), False)
    groups: defaultdict[int, list[ArchivePair]] = defaultdict(list)
    for pair, group in zip(pairs, label[i].tolist(), strict=True):
        groups[group].append(pair)
    return list(groups.values())


def _name_by_position(pairs: Sequence[ArchivePair]) -> str:
    oldest = min(pairs, key=lambda pair: (pair.created_utc, pair.product))
    centre = shapely.from_wkb(oldest.outline).centroid
    if centre.is_empty:
        return f"nowhere{_suffix(oldest.crs)}"
    lat = f"{'n' if centre.y >= 0 else 's'}{abs(centre.y):04.1f}"
    lon = f"{'e' if centre.x >= 0 else 'w'}{abs(centre.x):05.1f}"
    return f"{lat}{lon}{_suffix(oldest.crs)}"


def _suffix(crs: str) -> str:
    try:
        code = CRS.from_user_input(crs).to_epsg()
    except CRSError:
        code = None
    return f"-{code or hashlib.sha256(crs.encode()).hexdigest()[:8]}"


def _safe(text: str) -> str:
    """A part of a folder's name; texts that differ stay different."""
    safe = re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-.")[:60]
    return safe if safe == text else f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
