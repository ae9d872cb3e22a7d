"""What an archive holds at one time: all that the pages and the metrics show."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from crosstie.flows.status import STATUS_COLUMNS, status_of
from crosstie.io.archive.damage import known_damage
from crosstie.io.archive.index import survey
from crosstie.io.archive.listing import list_archive
from crosstie.io.archive.run_log import newest_logs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crosstie.flows.status import Status
    from crosstie.io.archive.run_log import RunLog
    from crosstie.io.storage.store import Store

PAGE_COLUMNS = (
    *STATUS_COLUMNS, "reference_id", "secondary_id", "datetime", "model", "offset_x_m", "offset_y_m",
    "crs", "bbox", "rmse_before_m", "rmse_after_m", "tie_points_used", "seconds",
)  # fmt: skip
"""Columns of the index that the pages show."""


@dataclass(frozen=True, slots=True)
class FlowRuns:
    """The latest runs of a flow; None if there is none."""

    flow: str
    last: RunLog | None
    ended: RunLog | None
    """The newest that has ended."""
    complete: RunLog | None
    """The newest that left nothing to retry."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """An archive at one time."""

    status: Status
    table: pa.Table
    """Committed runs with the columns `PAGE_COLUMNS`, newest first."""
    pairs: Mapping[tuple[str, ...], float]
    """(verdict, first reason or '') of a pair's latest run -> number of pairs."""
    unreadable: int
    """Committed runs with broken products; they have no row."""
    runs: tuple[FlowRuns, ...]
    taken_utc: datetime
    """When reading the store began."""
    took_s: float

    @property
    def newest_commit_utc(self) -> datetime | None:
        """When the newest run was made; None if there is none."""
        moment: datetime | None = self.table["created"][0].as_py() if self.table.num_rows else None
        return moment


def take_snapshot(store: Store, before: Snapshot | None = None) -> Snapshot:
    """Read an archive: one listing, the index, and the products that the index lacks.

    Parameters
    ----------
    store : Store
        Product root.
    before : Snapshot or None
        An earlier one of the same archive; its rows are not read again.

    Raises
    ------
    StoreError
        The store cannot be read, or its index is broken.
    """
    taken_utc, begin = datetime.now(UTC), time.monotonic()
    stock = list_archive(store)
    whole = stock.committed - known_damage(store, stock).keys()
    table = survey(store, whole, columns=PAGE_COLUMNS, before=None if before is None else before.table)
    status = status_of(store, stock, table)
    order = pc.sort_indices(table, [("created", "descending"), ("pair_key", "ascending")])
    return Snapshot(
        status=status,
        table=table.take(order).combine_chunks(),
        pairs=_count_pairs(table),
        unreadable=len(stock.committed) - table.num_rows,
        runs=tuple(_latest_runs(store, flow) for flow in sorted(stock.flows)),
        taken_utc=taken_utc,
        took_s=time.monotonic() - begin,
    )


def _count_pairs(table: pa.Table) -> dict[tuple[str, ...], float]:
    latest = table.filter(table["latest"])
    reasons = (found[0] if found else "" for found in latest["reasons"].to_pylist())
    return dict(Counter(zip(latest["verdict"].to_pylist(), reasons, strict=True)))


def _latest_runs(store: Store, flow: str) -> FlowRuns:
    last = ended = complete = None
    for log in newest_logs(store, flow):
        last = last or log
        ended = ended or (log if log.ended_utc is not None else None)
        if log.complete:
            complete = log
            break
    return FlowRuns(flow, last, ended, complete)
