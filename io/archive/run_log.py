"""The log of runs beside the products: what each was asked, when it began and ended, what became of it.

`_runs/<flow>/<started_utc>.json` is written when a run begins and again when it ends. The nightly run takes
from it since when it has to look; a dry run takes from it how long a pair takes.
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
"""Logs of a flow that are looked through, the newest first."""


class Counts(Protocol):
    """What became of the pairs of a run."""

    @property
    def verdicts(self) -> Mapping[str, int]: ...
    @property
    def codes(self) -> Mapping[str, int]:
        """Failed pairs by code."""

    @property
    def already_done(self) -> int: ...
    @property
    def work_s(self) -> float:
        """Seconds of all pairs registered, one after the other."""

    @property
    def over(self) -> int:
        """Pairs that are over."""

    @property
    def is_complete(self) -> bool:
        """Nothing is left that may succeed another time."""


@dataclass(frozen=True, slots=True)
class RunLog:
    """One run of a flow."""

    flow: str
    started_utc: str
    """ISO 8601."""
    scope: str
    """Hash of what decides which pairs there are, time apart: only runs of one scope follow one another."""
    asked: dict[str, Any] = field(default_factory=dict)
    """What the run was asked, fit for JSON and without secrets."""
    until_utc: str | None = None
    """Acquisitions up to then were looked at; ISO 8601."""
    ended_utc: str | None = None
    """None while it runs, and of a run that was killed."""
    complete: bool = False
    """It ended, and nothing is left that may be well another time."""
    pairs: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    """Failed pairs by code."""
    already_done: int = 0
    work_s: float = 0.0
    """Seconds of all pairs registered, one after the other."""
    version: str = ""

    @property
    def key(self) -> str:
        return run_log_key(self.flow, self.started_utc)

    @property
    def seconds_per_pair(self) -> float | None:
        """Mean over the pairs registered; None where there were none."""
        registered = self.pairs - self.already_done - sum(self.failures.values())
        return self.work_s / registered if registered > 0 and self.work_s > 0 else None


def scope_hash(*parts: object) -> str:
    """16 hex digits over values fit for JSON."""
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
    scope : from `scope_hash`
    started : before the catalog was asked
    until : the last acquisition that the run was asked for; None up to its beginning

    Raises
    ------
    StoreError : the store cannot be written
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
    """Log the end of a run and what became of its pairs.

    Parameters
    ----------
    whole : it was asked for all pairs, not for some of them

    Raises
    ------
    StoreError : the store cannot be written
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
    """The newest complete run of a flow over one scope; None where there is none among the latest runs.

    Raises
    ------
    StoreError : the store cannot be read
    """
    return next((log for log in newest_logs(store, flow) if log.complete and log.scope == scope), None)


def newest_logs(store: Store, flow: str) -> Iterator[RunLog]:
    """The latest runs of a flow, the newest first.

    Raises
    ------
    StoreError : the store cannot be read
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
