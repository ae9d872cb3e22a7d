"""Run logs, kept beside the products: what a run was asked, when it began and ended, and its counts.

`_runs/<flow>/<started_utc>.json` is written when a run begins and again when it ends. The nightly run reads
there from which date it has to look; a dry run reads there how long a pair takes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from crosstie.io.storage.root_layout import run_log_key, run_log_prefix

if TYPE_CHECKING:
    from crosstie.io.storage.store import Store

RUN_LOG_SCHEMA = "crosstie/run/1"

MOST_READ = 50
"""Maximum number of logs of a flow that are read, newest first."""


class Counts(Protocol):
    """Counts of the pairs of a run."""

    @property
    def verdicts(self) -> Mapping[str, int]: ...
    @property
    def codes(self) -> Mapping[str, int]:
        """Failed pairs by code."""

    @property
    def already_done(self) -> int: ...
    @property
    def work_s(self) -> float:
        """Sum of the seconds that each registered pair took."""

    @property
    def over(self) -> int:
        """Pairs that have ended."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left that may succeed in a later run."""


@dataclass(frozen=True, slots=True)
class RunLog:
    """One run of a flow."""

    flow: str
    started_utc: str
    """ISO 8601."""
    scope: str
    """Hash of what decides which pairs there are, except time. Runs of one scope continue each other."""
    asked: dict[str, Any] = field(default_factory=dict)
    """Parameters of the run, fit for JSON and without secrets."""
    until_utc: str | None = None
    """The run looked at acquisitions up to this time; ISO 8601."""
    ended_utc: str | None = None
    """None while the run goes on, and for a run that was killed."""
    complete: bool = False
    """Whether it ended and nothing is left that may succeed in a later run."""
    pairs: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    """Failed pairs by code."""
    already_done: int = 0
    work_s: float = 0.0
    """Sum of the seconds that each registered pair took."""
    version: str = ""

    @property
    def key(self) -> str:
        return run_log_key(self.flow, self.started_utc)

    @property
    def seconds_per_pair(self) -> float | None:
        """Mean over the registered pairs; None where there were none."""
        registered = self.pairs - self.already_done - sum(self.failures.values())
        return self.work_s / registered if registered > 0 and self.work_s > 0 else None


def scope_hash(*parts: object) -> str:
    """Hash values that are fit for JSON; 16 hex digits."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def begin(
    store: Store,
    flow: str,
    *,
    scope: str,
    asked: dict[str, Any],
    started: datetime,
    until: datetime | None = None,
) -> RunLog:
    """Log the beginning of a run.

    Parameters
    ----------
    scope : str
        Made by `scope_hash`.
    started : datetime
        A moment before the catalog was asked.
    until : datetime or None, optional
        Latest acquisition that the run was asked for; None stands for its beginning.

    Raises
    ------
    StoreError
        The store cannot be written.
    """
    log = RunLog(
        flow=flow,
        started_utc=started.astimezone(UTC).isoformat(timespec="microseconds"),
        scope=scope,
        asked=asked,
        until_utc=min(until or started, started).isoformat(),
        version=importlib.metadata.version("crosstie"),
    )
    _write_log(store, log)
    return log


def end(store: Store, log: RunLog, counts: Counts, *, whole: bool = True) -> RunLog:
    """Log the end of a run and its counts.

    Parameters
    ----------
    whole : bool, optional
        Whether the run was asked for all pairs, not for some of them.

    Raises
    ------
    StoreError
        The store cannot be written.
    """
    ended = replace(
        log,
        ended_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        complete=whole and counts.is_complete,
        pairs=counts.over,
        verdicts=dict(counts.verdicts),
        failures=dict(counts.codes),
        already_done=counts.already_done,
        work_s=round(counts.work_s, 1),
    )
    _write_log(store, ended)
    return ended


def last_success(store: Store, flow: str, *, scope: str) -> RunLog | None:
    """Find the newest complete run of a flow over one scope; None where the latest runs include none.

    A log from the future is passed over: a clock was wrong, and to go by it would miss what came since.

    Raises
    ------
    StoreError
        The store cannot be read.
    """
    now = datetime.now(UTC)
    logs = (log for log in newest_logs(store, flow) if log.complete and log.scope == scope)
    return next(
        (log for log in logs if _is_past(log.started_utc, now) and _is_past(log.until_utc, now)), None
    )


def _is_past(text: str | None, now: datetime) -> bool:
    try:
        return text is None or datetime.fromisoformat(text) <= now
    except (TypeError, ValueError):  # no moment, or one without a zone
        return False


def newest_logs(store: Store, flow: str) -> Iterator[RunLog]:
    """Read the latest runs of a flow, newest first.

    Raises
    ------
    StoreError
        The store cannot be read.
    """
    keys = sorted(store.list(run_log_prefix(flow)), reverse=True)
    for key in islice(keys, MOST_READ):
        log = _parse_log(store.get(key))
        if log is not None:
            yield log


def _write_log(store: Store, log: RunLog) -> None:
    store.put(log.key, (json.dumps({"schema": RUN_LOG_SCHEMA, **asdict(log)}, indent=1) + "\n").encode())


def _parse_log(body: bytes | None) -> RunLog | None:
    try:
        said: Any = json.loads(body or b"")
        if said["schema"] != RUN_LOG_SCHEMA:
            return None
        return RunLog(**{name: said[name] for name in RunLog.__dataclass_fields__})
    except (KeyError, TypeError, ValueError):
        return None
