"""The keys under a product root: a key from its parts, and the parts from a key.

<pair_key>/<run_key>/<file>            products of one run of a pair; `_COMMIT` is written last
<pair_key>/<run_key>/_WRITING.<w>/<f>  products of one writer, until one writer is chosen
<pair_key>/<run_key>/_WRITER           the writer that is chosen, until the commit
<pair_key>/<run_key>/_CLAIM.<n>        who is working on the run
<pair_key>/<run_key>/_FAILED.json      why the run failed
_index/corrections.parquet             all committed runs in one table
_index/parts/<name>                    rows of some runs, to be added to that table
_runs/<flow>/<started_utc>.json        one run of a flow
"""

from __future__ import annotations

from typing import NamedTuple

COMMIT = "_COMMIT"
FAILURE = "_FAILED.json"
CLAIM_PREFIX = "_CLAIM."
WRITER = "_WRITER"
WRITING_PREFIX = "_WRITING."

INDEX = "_index/corrections.parquet"
INDEX_PARTS = "_index/parts"
RUN_LOGS = "_runs"

RESERVED = "_"
"""First character of every top folder that belongs to no pair, and of every file that is no product."""

JOINT = "__"
"""Between the two ids of every pair key, and in the name of no other top folder."""


class ProductKey(NamedTuple):
    """Names the products of one run of one pair."""

    pair_key: str
    run_key: str

    @property
    def prefix(self) -> str:
        """Key under which all files of this run are."""
        return f"{self.pair_key}/{self.run_key}"

    @property
    def commit(self) -> str:
        """Key of the commit."""
        return self.file(COMMIT)

    @property
    def failure(self) -> str:
        """Key of the failure record."""
        return self.file(FAILURE)

    @property
    def writer(self) -> str:
        """Key of the record of the writer whose products are to be committed."""
        return self.file(WRITER)

    def writing(self, writer: str) -> str:
        """Key under which the products of one writer are until they are committed."""
        return self.file(f"{WRITING_PREFIX}{writer}")

    def written_by(self, writer: str, name: str) -> str:
        """Key of a file of one writer until it is committed."""
        return f"{self.writing(writer)}/{name}"

    def claim(self, number: int) -> str:
        """Key of a claim; the first has number 1."""
        return self.file(f"{CLAIM_PREFIX}{number}")

    def file(self, name: str) -> str:
        """Key of a file."""
        return f"{self.prefix}/{name}"


def is_reserved(top: str) -> bool:
    """Whether a top folder belongs to no pair. The key of a pair may begin with `_` as well."""
    return top.startswith(RESERVED) and JOINT not in top


class ProductFile(NamedTuple):
    """A file in the folder of a run of a pair."""

    product: ProductKey
    name: str

    @property
    def claim_number(self) -> int | None:
        """Number of a claim; None for any other file."""
        number = self.name.removeprefix(CLAIM_PREFIX)
        return int(number) if number != self.name and number.isdecimal() else None


def product_file(key: str) -> ProductFile | None:
    """Split a key `<pair_key>/<run_key>/<file>` into its parts; None for a key of any other form."""
    parts = key.split("/")
    if len(parts) != 3 or is_reserved(parts[0]):
        return None
    return ProductFile(ProductKey(parts[0], parts[1]), parts[2])


def run_log_prefix(flow: str) -> str:
    """Key under which the logs of a flow are."""
    return f"{RUN_LOGS}/{flow}"


def run_log_key(flow: str, started_utc: str) -> str:
    """Key of the log of one run of a flow.

    Parameters
    ----------
    flow : str
        Str.
    started_utc : str
        ISO 8601 with microseconds, so that keys sort by time.
    """
    return f"{run_log_prefix(flow)}/{started_utc.replace(':', '').replace('+0000', 'Z')}.json"


def flow_of_run_log(key: str) -> str | None:
    """Name of the flow that a run log belongs to; None for any other key."""
    parts = key.split("/")
    return parts[1] if len(parts) == 3 and parts[0] == RUN_LOGS else None


def index_part_key(name: str) -> str:
    """Key of a part of the index."""
    return f"{INDEX_PARTS}/{name}"


def index_part_name(key: str) -> str | None:
    """Name of the part of the index that has this key; None for any other key."""
    name = key.removeprefix(f"{INDEX_PARTS}/")
    return name if name != key and name.endswith(".parquet") else None
