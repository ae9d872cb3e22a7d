"""Many scenes as columns. Single scenes are made only when asked for, so that 100 000 scenes stay cheap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self, overload

import numpy as np
import shapely

from crosstie.io.scenes.footprint import DECIMALS, lonlat_outlines
from crosstie.types import Kind, SceneRef

if TYPE_CHECKING:
    from crosstie.types import BoolArray, FloatArray, IntArray, Objects

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

UNKNOWN = np.iinfo(np.int64).min
"""Stands for a time or a number that the catalog does not give."""


TOLD = ("left_out", "seen")
"""Fields of scenes that are no columns."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A scene that is in no pair, and why."""

    scene: str
    """Its id."""
    rule: str
    """The rule that left it out, in the same words for all scenes: a heading."""
    why: str
    """The reason in one sentence, with the values."""


@dataclass(frozen=True, slots=True, eq=False)
class Scenes(Sequence[SceneRef]):
    """Scenes as columns (N,), and as a sequence of `SceneRef`."""

    id: Objects
    is_sar: BoolArray
    acquired_us: IntArray
    """Acquisition, whole microseconds since 1970, so that time gaps are exact."""
    outline: Objects
    """Polygons in degrees, as `footprint.lonlat_outlines` makes them."""
    href: Objects
    """Tuples of addresses."""
    declared: Objects
    """Tuples of scale and offset of each band, as the catalog declares them; empty if it does not."""
    platform: Objects
    cloud_cover_pct: FloatArray
    """NaN if the catalog does not give it."""
    collection: Objects
    product_type: Objects
    orbit_state: Objects
    relative_orbit: IntArray
    """`UNKNOWN` if the catalog does not give it."""
    mgrs_tile: Objects
    processing_baseline: Objects
    created_us: IntArray
    """`UNKNOWN` if the catalog does not give it."""
    classes: Objects
    """Address of the scene classification, or None."""
    left_out: tuple[LeftOut, ...] = ()
    """Scenes that were found but are not in the columns."""
    seen: str = ""
    """What the catalog holds, where it gave no scene of a kind: for a message."""

    def __len__(self) -> int:
        return len(self.id)

    @overload
    def __getitem__(self, index: int) -> SceneRef: ...
    @overload
    def __getitem__(self, index: slice) -> list[SceneRef]: ...
    def __getitem__(self, index: int | slice) -> SceneRef | list[SceneRef]:
        if isinstance(index, slice):
            return self.refs(np.arange(len(self))[index])
        return self.refs(np.array([range(len(self))[index]]))[0]

    def __iter__(self) -> Iterator[SceneRef]:
        return iter(self.refs(np.arange(len(self))))

    def __repr__(self) -> str:
        return f"Scenes({len(self)} scenes, {len(self.left_out)} left out)"

    def take(self, rows: IntArray | BoolArray) -> Self:
        """Keep only these rows, in this order; `left_out` stays."""
        columns = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name not in TOLD}
        return replace(self, **columns)

    def refs(self, rows: IntArray) -> list[SceneRef]:
        """Make single scenes of these rows."""
        wkt = shapely.to_wkt(self.outline[rows], rounding_precision=DECIMALS)
        return [
            SceneRef(
                id=self.id[n],
                kind=Kind.SAR if self.is_sar[n] else Kind.OPTICAL,
                acquired_utc=utc_from_us(int(self.acquired_us[n])),
                footprint_wkt=text,
                hrefs=self.href[n],
                declared=self.declared[n],
                classes=self.classes[n],
                platform=self.platform[n],
                cloud_cover_pct=None if np.isnan(self.cloud_cover_pct[n]) else float(self.cloud_cover_pct[n]),
                collection=self.collection[n],
                product_type=self.product_type[n],
                orbit_state=self.orbit_state[n],
                relative_orbit=None if self.relative_orbit[n] == UNKNOWN else int(self.relative_orbit[n]),
                mgrs_tile=self.mgrs_tile[n],
                processing_baseline=self.processing_baseline[n],
                created_utc=None if self.created_us[n] == UNKNOWN else utc_from_us(int(self.created_us[n])),
            )
            for n, text in zip(rows.tolist(), wkt, strict=True)
        ]

    @classmethod
    def of(cls, scenes: Sequence[SceneRef]) -> Scenes:
        """Make columns of single scenes. An outline that is not WKT becomes None."""
        if isinstance(scenes, Scenes):
            return scenes
        wkt = [scene.footprint_wkt for scene in scenes]
        return Scenes(
            id=objects([scene.id for scene in scenes]),
            is_sar=np.array([scene.kind is Kind.SAR for scene in scenes], bool),
            acquired_us=np.array([microseconds(scene.acquired_utc) for scene in scenes], np.int64),
            outline=lonlat_outlines(shapely.from_wkt(wkt, on_invalid="ignore")),
            href=objects([scene.hrefs for scene in scenes]),
            declared=objects([scene.declared for scene in scenes]),
            classes=objects([scene.classes for scene in scenes]),
            platform=objects([scene.platform for scene in scenes]),
            cloud_cover_pct=np.array([scene.cloud_cover_pct for scene in scenes], np.float64),
            collection=objects([scene.collection for scene in scenes]),
            product_type=objects([scene.product_type for scene in scenes]),
            orbit_state=objects([scene.orbit_state for scene in scenes]),
            relative_orbit=np.array([_or_unknown(scene.relative_orbit) for scene in scenes], np.int64),
            mgrs_tile=objects([scene.mgrs_tile for scene in scenes]),
            processing_baseline=objects([scene.processing_baseline for scene in scenes]),
            created_us=np.array(
                [UNKNOWN if s.created_utc is None else microseconds(s.created_utc) for s in scenes], np.int64
            ),
        )


def objects(values: Sequence[object]) -> Objects:
    """Make an array (N,) of Python objects; tuples stay whole."""
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def utc_from_us(us: int) -> datetime:
    """Convert whole microseconds since 1970 to a time in UTC."""
    return EPOCH + us * MICROSECOND


def microseconds(when: datetime) -> int:
    """Convert a time to whole microseconds since 1970."""
    return (when - EPOCH) // MICROSECOND


def _or_unknown(number: int | None) -> int:
    return int(UNKNOWN) if number is None else number
