"""Divide a catalog by time, so that the periods together have exactly the pairs of the whole catalog.

A reference is paired with the best secondaries within `pairing.max_days`, so each search reaches that far
beyond its period. With `pairing.best_n_per_tile` a pair competes with pairs of any time, and there is only
one period.
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
    """References acquired at `start_utc` or later, and before `end_utc`."""

    start_utc: datetime
    end_utc: datetime

    def __str__(self) -> str:
        return f"{self.start_utc:%Y-%m-%d} to {self.end_utc:%Y-%m-%d}"


def parted(start_utc: datetime, end_utc: datetime, *, days: float, newest_first: bool) -> list[Period]:
    """Cut a span into periods of `days`; the last may be shorter. Both ends belong to the span.

    Periods are counted from the start, so that the same span is cut the same way each time.
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
    """Pairs of a catalog whose reference was acquired in a period, sorted by time.

    Raises
    ------
    CatalogError
        The catalog cannot be read.
    """
    reach = timedelta(days=settings.pairing.max_days)
    found = find(catalog, between(settings, period.start_utc - reach, period.end_utc + reach))
    mine = [pair for pair in found if period.start_utc <= pair.reference.acquired_utc < period.end_utc]
    mine.sort(key=lambda pair: (pair.reference.acquired_utc, pair.key), reverse=newest_first)
    return mine


def pairs_since(catalog: str, settings: Settings, since_utc: datetime) -> list[ScenePair]:
    """Pairs of a catalog of which a scene was acquired at `since_utc` or later, sorted by key.

    Raises
    ------
    CatalogError
        The catalog cannot be read.
    """
    earliest = None
    if settings.pairing.best_n_per_tile is None:
        # The reference may be max_days older than the new scene, and competing secondaries max_days older
        # still.
        earliest = since_utc - timedelta(days=2 * settings.pairing.max_days)
    found = find(catalog, between(settings, earliest, None))
    return [
        pair for pair in found if since_utc <= max(pair.reference.acquired_utc, pair.secondary.acquired_utc)
    ]


def between(settings: Settings, start_utc: datetime | None, end_utc: datetime | None) -> Settings:
    """Narrow the settings to acquisitions between two moments; None leaves that end as it is."""
    earliest, latest = settings.catalog.interval_utc
    starts = [moment for moment in (earliest, start_utc) if moment is not None]
    ends = [moment for moment in (latest, end_utc) if moment is not None]
    start, end = max(starts, default=None), min(ends, default=None)
    if start is not None and end is not None and start > end:
        start = end  # the span is empty, and a query must not end before it begins
    query = replace(settings.catalog, start_utc=start, end_utc=end)
    return settings.model_copy(update={"catalog": query})


def find(catalog: str, settings: Settings) -> list[ScenePair]:
    """Pairs that the settings want; error messages hold no secret of the catalog's address.

    Raises
    ------
    CatalogError
        The catalog cannot be read.
    """
    try:
        return find_pairs(catalog, settings)
    except CrosstieError as problem:
        raise type(problem)(redacted(str(problem))) from None


def now_utc() -> datetime:
    """Now, with its time zone."""
    return datetime.now(UTC)
