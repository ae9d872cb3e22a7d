"""What a backfill is asked for, and the periods that follow from it; checked before anything is started."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from crosstie.codes import Order
from crosstie.errors import SettingsError
from crosstie.flows.discovery.periods import Period, now_utc, parted

if TYPE_CHECKING:
    from crosstie.config import Settings


@dataclass(frozen=True, slots=True)
class Backfill:
    """Parameters of a backfill besides the settings."""

    order: Order = "newest"
    """Which references go first."""
    priority: int = 0
    """Priority on a Dask scheduler that several runs share; tiles of a higher one go first. (A nightly run
    has 5, a new scene 10.)"""
    only_failed: bool = False
    """Whether to try only the pairs that an earlier run has given up."""
    code: str | None = None
    """With `only_failed`: try only pairs with this failure code."""
    limit: int | None = None
    """Maximum number of pairs, done ones included; with `only_failed`, of failed pairs that are tried again.
    None for all."""

    def __post_init__(self) -> None:
        if self.code is not None and not self.only_failed:
            raise SettingsError(f"a code ({self.code}) selects among failed pairs; set only_failed, too")


def periods_of(settings: Settings, order: Order) -> list[Period]:
    """Periods of the span that the settings ask for, in the order of the work.

    Raises
    ------
    SettingsError
        The span has no beginning.
    """
    start, end = settings.catalog.interval_utc
    if start is None:
        raise SettingsError(
            "a backfill needs to know from when on: give --start, or set catalog.start_utc (where the end "
            "is left open it is today)"
        )
    days = settings.backfill.partition_days
    if settings.pairing.best_n_per_tile is not None:  # the best pairs are known only once all are
        days = 1 + ((end or now_utc()) - start) / timedelta(days=1)
    return parted(start, end or now_utc(), days=days, newest_first=order == "newest")
