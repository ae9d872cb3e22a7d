"""Which corrections and failures a page shows: its address is read, and the rows are looked up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crosstie.errors import BadInputError
from crosstie.types import Reason, VerdictCode

if TYPE_CHECKING:
    from crosstie.flows.status import Status
    from crosstie.io.archive.failures import Failure
    from crosstie.types import BoolArray

PER_PAGE = 25

LONGEST = 200
"""Longest text to search for, characters; ids are shorter."""


@dataclass(frozen=True, slots=True)
class Query:
    """Filters of a page; an empty text filters nothing."""

    verdict: str = ""
    reason: str = ""
    scene: str = ""
    """Part of the id of the reference or of the secondary, in any case."""
    runs: str = ""
    """`all`: also runs that a later run of the same pair has replaced."""
    code: str = ""
    """Code of a failure."""
    page: int = 1

    @property
    def is_narrowed(self) -> bool:
        return bool(self.verdict or self.reason or self.scene or self.code)

    def address(self, **other: object) -> str:
        """Query part of an address: this query with some fields changed; `?` if nothing is filtered."""
        changed = replace(self, **{"page": 1, **other})  # type: ignore[arg-type]
        values = {name: getattr(changed, name) for name in Query.__dataclass_fields__}
        return "?" + urlencode(
            {name: value for name, value in values.items() if value and (name, value) != ("page", 1)}
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one page, and their place among all rows found."""

    rows: list[dict[str, Any]]
    number: int
    found: int

    @property
    def pages(self) -> int:
        return max(1, math.ceil(self.found / PER_PAGE))

    @property
    def first(self) -> int:
        """Number of the first row, from 1; 0 if there is none."""
        return min(self.found, (self.number - 1) * PER_PAGE + 1)

    @property
    def last(self) -> int:
        return self.first + len(self.rows) - 1 if self.rows else 0


def read_query(given: Mapping[str, str]) -> Query:
    """Read the query of an address; unknown names are ignored.

    Raises
    ------
    BadInputError
        A value is not allowed.
    """
    verdict, reason, runs = (given.get(name, "") for name in ("verdict", "reason", "runs"))
    for name, value, known in (
        ("verdict", verdict, [str(code) for code in VerdictCode]),
        ("reason", reason, [str(code) for code in Reason]),
        ("runs", runs, ["all"]),
    ):
        if value and value not in known:
            raise BadInputError(f"{name} must be one of {', '.join(known)}")
    scene, code = (given.get(name, "").strip() for name in ("scene", "code"))
    if len(scene) > LONGEST or len(code) > LONGEST:
        raise BadInputError(f"a text to search for has at most {LONGEST} characters")
    page = given.get("page", "1") or "1"
    if not (page.isascii() and page.isdecimal() and 1 <= int(page[:10]) < 10**9):
        raise BadInputError("page must be a number, 1 or more")
    return Query(verdict, reason, scene, runs, code, int(page[:10]))


def corrections(table: pa.Table, query: Query) -> Page:
    """Rows of the table that a query asks for, in its order. A page beyond the last shows the last."""
    (rows,) = np.nonzero(_matching_rows(table, query))
    number = _page_number(query, len(rows))
    chosen = rows[(number - 1) * PER_PAGE : number * PER_PAGE]
    return Page(table.take(pa.array(chosen, pa.int64())).to_pylist(), number, len(rows))


def _page_number(query: Query, found: int) -> int:
    return min(query.page, max(1, math.ceil(found / PER_PAGE)))


def _matching_rows(table: pa.Table, query: Query) -> BoolArray:
    wanted = np.ones(table.num_rows, bool)
    if not table.num_rows:
        return wanted
    if query.runs != "all":
        wanted &= table["latest"].to_numpy()
    if query.verdict:
        wanted &= pc.equal(table["verdict"], query.verdict).to_numpy()
    if query.reason:
        reasons = table["reasons"].combine_chunks()
        matches = pc.equal(pc.list_flatten(reasons), query.reason)
        has_reason = np.zeros(table.num_rows, bool)
        has_reason[pc.list_parent_indices(reasons).filter(matches).to_numpy()] = True
        wanted &= has_reason
    if query.scene:
        found = (
            pc.match_substring(table[name], query.scene, ignore_case=True).to_numpy()
            for name in ("secondary_id", "reference_id")
        )
        wanted &= np.logical_or(*found)
    return wanted


def failures(status: Status, query: Query) -> Page:
    """Failures that a query asks for, latest first. A page beyond the last shows the last."""
    found = [failure for failure in status.failed if _is_wanted(failure, query)]
    found.sort(key=lambda failure: failure.failed_utc, reverse=True)
    number = _page_number(query, len(found))
    chosen = found[(number - 1) * PER_PAGE : number * PER_PAGE]
    return Page([asdict(failure) for failure in chosen], number, len(found))


def _is_wanted(failure: Failure, query: Query) -> bool:
    if query.code and failure.code != query.code:
        return False
    ids = f"{failure.pair_key}\n{failure.reference}\n{failure.secondary}".lower()
    return query.scene.lower() in ids
