"""What one catalog may cost: the one home of its limits, and what it has used of them.

A catalog is written by others. A few kilobytes of it can ask for gigabytes of memory or hours of waiting, so
everything that it makes this machine do is counted. What goes beyond a limit is refused: an item alone where
the item is to blame, else the catalog.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from crosstie.errors import CatalogError

MIB = 2**20


@dataclass(frozen=True, slots=True)
class CatalogLimits:
    """Limits for one search of one catalog. The largest public catalogs stay far below them."""

    seconds: float = 1800
    """Time in all, seconds."""
    total_bytes: int = 4096 * MIB
    """Bytes read in all, after decompression."""
    document_bytes: int = 64 * MIB
    """Bytes of one JSON document, after decompression."""
    document_values: int = 4_000_000
    """Values of one JSON document. Each takes up to 200 bytes of memory, whatever its length in the file."""
    depth: int = 64
    """Levels of nesting in JSON."""
    files: int = 200_000
    """Files of a static catalog, the first included."""
    pages: int = 20_000
    """Answers of an API."""
    items: int = 500_000
    """Items that are looked at, or rows that are read of a table."""
    table_files: int = 10_000
    """Files of a table in parts."""
    table_rows: int = 20_000_000
    """Rows of a table, wanted or not."""
    table_bytes: int = 256 * MIB
    """Bytes of the wanted rows and columns of a table, in memory."""
    table_process_bytes: int = 1024 * MIB
    """Memory of the process that decodes a table, above what it needs to start."""
    table_process_seconds: int = 8
    """Processor time of that process, seconds."""
    text: int = 8192
    """Characters of one text of an item: an id, an address, a property."""
    outline_bytes: int = 65_536
    """Bytes of one outline as WKB. GEOS reads nested geometries recursively: 180 kB overflow its stack."""
    outline_vertices: int = 2000
    """Vertices of one outline."""
    all_vertices: int = 10_000_000
    """Vertices of all outlines."""
    repaired_vertices: int = 200
    """Vertices of an outline that crosses itself or the antimeridian: the work grows with their square."""
    free_repair: int = 16
    """Vertices up to which such an outline counts nothing towards `repair_work`."""
    repair_work: int = 1_000_000
    """Sum of the squares of the vertices of all repaired outlines."""


LIMITS = CatalogLimits()


class DocumentLimitError(CatalogError):
    """One document goes beyond a limit. If it is an item, it alone is left out."""


class CatalogLimitError(CatalogError):
    """The catalog as a whole goes beyond a limit."""


@dataclass(slots=True)
class CatalogBudget:
    """What a catalog has used of its limits, over all its files, pages and redirects."""

    limits: CatalogLimits = LIMITS
    started: float = field(default_factory=time.monotonic)
    bytes: int = 0
    files: int = 0
    pages: int = 0
    items: int = 0

    def seconds_left(self) -> float:
        """Seconds until the time is up.

        Raises
        ------
        CatalogError
            It is up.
        """
        left = self.started + self.limits.seconds - time.monotonic()
        if left <= 0:
            raise self.refusal("takes", self.limits.seconds, "seconds")
        return left

    def add_bytes(self, number: int) -> None:
        """Count bytes after decompression."""
        self.bytes += number
        if self.bytes > self.limits.total_bytes:
            raise self.refusal("holds", self.limits.total_bytes, "bytes")

    def add_file(self) -> None:
        """Count a file of a static catalog."""
        self.files += 1
        if self.files > self.limits.files:
            raise self.refusal("links to", self.limits.files, "files")

    def add_page(self) -> None:
        """Count an answer of an API."""
        self.pages += 1
        if self.pages > self.limits.pages:
            raise self.refusal("gives", self.limits.pages, "pages")

    def add_item(self) -> None:
        """Count an item, wanted or not."""
        self.items += 1
        if self.items > self.limits.items:
            raise self.refusal("gives", self.limits.items, "items")

    @staticmethod
    def refusal(does: str, limit: float, what: str) -> CatalogError:
        """Say that a limit is exceeded, and what to do."""
        return CatalogLimitError(
            f"the catalog {does} more than {limit:,.0f} {what}; search less of it: a shorter time, a smaller"
            " area, one collection"
        )
