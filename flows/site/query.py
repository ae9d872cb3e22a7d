"""Which corrections a page shows: read off its address, and looked up in the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crosstie.errors import BadInputError
from crosstie.types import Reason, VerdictCode

if TYPE_CHECKING:
    from numpy.typing import NDArray

PER_PAGE = 25

LONGEST = 200
"""Of a text to look for, characters; ids are shorter."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for; an empty text asks for nothing in particular."""

    verdict: str = ""
    reason: str = ""
    scene: str = ""
    """Part of the id of the reference or of the secondary, in any case."""
    runs: str = ""
    """`all`: also runs that a later one of their pair has replaced."""
    code: str = ""
    """Of a failure."""
    page: int = 1

    @property
    def is_narrowed(self) -> bool:
        return bool(self.verdict or self.reason or self.scene or self.code)

    def address(self, **other: object) -> str:
        """The query part of an address: this one, but for some fields; `?` where it asks for nothing."""
        changed = replace(self, **{"page": 1, **other})  # type: ignore[arg-type]
        said = {name: getattr(changed, name) for name in Query.__dataclass_fields__}
        return "?" + urlencode(
            {name: value for name, value in said.items() if value and (name, value) != ("page", 1)}
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one page, and where they are among all that were found."""

    rows: list[dict[str, Any]]
    number: int
    found: int

    @property
    def pages(self) -> int:
        return max(1, -(-self.found // PER_PAGE))

    @property
    def first(self) -> int:
        """Number of the first row, from 1; 0 where there is none."""
        return min(self.found, (self.number - 1) * PER_PAGE + 1)

    @property
    def last(self) -> int:
        return self.first + len(self.rows) - 1 if self.rows else 0


def read_query(given: Mapping[str, str]) -> Query:
    """Read the query of an address; what has no meaning here is passed over.

    Raises
    ------
    BadInputError : a value that cannot be
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
        raise BadInputError(f"what is looked for has {LONGEST} characters at most")
    page = given.get("page", "1") or "1"
    if not (page.isascii() and page.isdecimal() and 1 <= int(page[:10]) < 10**9):
        raise BadInputError("page must be a number from 1 on")
    return Query(verdict, reason, scene, runs, code, int(page[:10]))


def corrections(table: pa.Table, query: Query) -> Page:
    """Rows of a table in its own order. A page beyond the last is the last."""
    (rows,) = np.nonzero(_wanted(table, query))
    number = min(query.page, max(1, -(-len(rows) // PER_PAGE)))
    chosen = rows[(number - 1) * PER_PAGE : number * PER_PAGE]
    return Page(table.take(pa.array(chosen, pa.int64())).to_pylist(), number, len(rows))


def _wanted(table: pa.Table, query: Query) -> NDArray[np.bool_]:
    wanted = np.ones(table.num_rows, bool)
    if not table.num_rows:
        return wanted
    if query.runs != "all":
        wanted &= table["latest"].to_numpy()
    if query.verdict:
        wanted &= pc.equal(table["verdict"], query.verdict).to_numpy()
    if query.reason:
        reasons = table["reasons"].combine_chunks()
        is_it = pc.equal(pc.list_flatten(reasons), query.reason)
        has_it = np.zeros(table.num_rows, bool)
        has_it[pc.list_parent_indices(reasons).filter(is_it).to_numpy()] = True
        wanted &= has_it
    if query.scene:
        found = (
            pc.match_substring(table[name], query.scene, ignore_case=True).to_numpy()
            for name in ("secondary_id", "reference_id")
        )
        wanted &= np.logical_or(*found)
    return wanted
