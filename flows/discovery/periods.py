"""Parts of a catalog by time, such that the pairs of the parts are exactly the pairs of the whole.

A reference gets its best secondaries out of all within `pairing.max_days`: a part must see those, too. With
`pairing.best_n_per_tile` a pair's rivals lie at any time: then there are no parts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from crosstie.errors import CrosstieError
from crosstie.flows.discovery.pairs import find_pairs
from crosstie.io.storage.redaction import redacted

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.types import ScenePair


@dataclass(frozen=True, slots=True)
class Period:
    """References acquired from `start_utc` on and before `end_utc`."""

    start_utc: datetime
    end_utc: datetime

    def __str__(self) -> str:
        return f"{self.start_utc:%Y-%m-%d} to {self.end_utc:%Y-%m-%d}"


def parted(start_utc: datetime, end_utc: datetime, *, days: float, newest_first: bool) -> list[Period]:
    """Cut a span into periods of `days`, the last of them shorter; both ends belong to it.

    The cuts are counted from the start, so that the same span is cut alike each time.
    """
    step, edge = timedelta(days=days), timedelta(microseconds=1)
    periods = []
    begin = start_utc
    while begin <= end_utc:
        periods.append(Period(begin, min(begin + step, end_utc + edge)))
        begin += step
    return periods[::-1] if newest_first else periods


def pairs_of_period(
    catalog: str, settings: Settings, period: Period, *, newest_first: bool = True
) -> list[ScenePair]:
    """Pairs of a catalog whose reference was acquired in a period, in order of time.

    Raises
    ------
    CatalogError : the catalog cannot be read
    """
    reach = timedelta(days=settings.pairing.max_days)
    found = find(catalog, between(settings, period.start_utc - reach, period.end_utc + reach))
    mine = [pair for pair in found if period.start_utc <= pair.reference.acquired_utc < period.end_utc]
    mine.sort(key=lambda pair: (pair.reference.acquired_utc, pair.key), reverse=newest_first)
    return mine


def pairs_since(catalog: str, settings: Settings, since_utc: datetime) -> list[ScenePair]:
    """Pairs of a catalog with a scene acquired since then, by key.

    Raises
    ------
    CatalogError : the catalog cannot be read
    """
    earliest = None
    if settings.pairing.best_n_per_tile is None:
        # The reference may be older by max_days than the scene that is new, and rivals of that one yet older.
        earliest = since_utc - timedelta(days=2 * settings.pairing.max_days)
    found = find(catalog, between(settings, earliest, None))
    return [
        pair for pair in found if since_utc <= max(pair.reference.acquired_utc, pair.secondary.acquired_utc)
    ]


def between(settings: Settings, start_utc: datetime | None, end_utc: datetime | None) -> Settings:
    """Settings that want no more than before, and only what was acquired between two moments (None: open)."""
    earliest, latest = settings.catalog.interval_utc
    starts = [moment for moment in (earliest, start_utc) if moment is not None]
    ends = [moment for moment in (latest, end_utc) if moment is not None]
    start, end = max(starts, default=None), min(ends, default=None)
    if start is not None and end is not None and start > end:
        start = end  # nothing lies there, and a query may not end before it begins
    query = replace(settings.catalog, start_utc=start, end_utc=end)
    return settings.model_copy(update={"catalog": query})


def find(catalog: str, settings: Settings) -> list[ScenePair]:
    """Pairs that the settings want; an error says no secret of the catalog's address.

    Raises
    ------
    CatalogError : the catalog cannot be read
    """
    try:
        return find_pairs(catalog, settings)
    except CrosstieError as problem:
        raise type(problem)(redacted(str(problem))) from None


def now_utc() -> datetime:
    """Now, with its time zone."""
    return datetime.now(UTC)
