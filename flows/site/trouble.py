"""What failed, for a page: filtered, the latest first."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from crosstie.flows.site.query import PER_PAGE, Page, Query

if TYPE_CHECKING:
    from crosstie.flows.status import Status
    from crosstie.io.archive.failures import Failure


def failures(status: Status, query: Query) -> Page:
    """Failures that a query asks for. A page beyond the last is the last."""
    found = [failure for failure in status.failed if _is_wanted(failure, query)]
    found.sort(key=lambda failure: failure.failed_utc, reverse=True)
    number = min(query.page, max(1, -(-len(found) // PER_PAGE)))
    chosen = found[(number - 1) * PER_PAGE : number * PER_PAGE]
    return Page([asdict(failure) for failure in chosen], number, len(found))


def _is_wanted(failure: Failure, query: Query) -> bool:
    if query.code and failure.code != query.code:
        return False
    ids = f"{failure.pair_key}\n{failure.reference}\n{failure.secondary}".lower()
    return query.scene.lower() in ids
