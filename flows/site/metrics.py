"""/metrics of the site: the state of the archive when it was last read."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from crosstie.types import Reason, VerdictCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client.core import Metric

    from crosstie.flows.site.snapshot import FlowRuns, Snapshot
    from crosstie.flows.site.watch import Watch
    from crosstie.io.archive.run_log import RunLog

KNOWN_PAIRS: set[tuple[str, ...]] = {
    (str(VerdictCode.CORRECTED), ""),
    (str(VerdictCode.ALREADY_ALIGNED), ""),
    *((str(VerdictCode.UNRELIABLE), str(reason)) for reason in Reason),
}
"""Reported even if there are none, because a rule that divides by them needs a number."""


def registry_of(watch: Watch) -> CollectorRegistry:
    """Make a registry of this archive and of the memory and CPU time of the process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ArchiveCollector(watch))
    ProcessCollector(registry=registry)
    return registry


class ArchiveCollector(Collector):
    """Reports what was last read, so that a scrape never waits for the store."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[Metric]:
        seen = self._watch.seen
        yield CounterMetricFamily(
            "crosstie_archive_scan_errors", "Failed attempts to read the archive.", value=seen.failures
        )
        if seen.snapshot is not None:
            yield from _pair_metrics(seen.snapshot)
            yield from _scan_metrics(seen.snapshot)
            yield from _run_metrics(seen.snapshot.runs)


def _pair_metrics(snapshot: Snapshot) -> Iterator[Metric]:
    status = snapshot.status
    yield _gauge(
        "crosstie_archive_pairs",
        "Pairs by the verdict of their latest correction and its first reason.",
        ("verdict", "reason"),
        dict.fromkeys(KNOWN_PAIRS, 0.0) | dict(snapshot.pairs),
    )
    yield _gauge(
        "crosstie_archive_failures",
        "Failed pairs by code, without those that are being retried or have been done since.",
        ("code",),
        {(code,): count for code, count in status.failures.items()},
    )
    live = Counter("live" if claim.live else "abandoned" for claim in status.in_progress)
    yield _gauge("crosstie_archive_in_progress", "Pairs that a run works on.", (), {(): live["live"]})
    yield _gauge(
        "crosstie_archive_abandoned",
        "Pairs whose run was killed; the next run takes over.",
        (),
        {(): live["abandoned"]},
    )
    yield _gauge(
        "crosstie_archive_unreadable", "Committed runs with broken products.", (), {(): snapshot.unreadable}
    )


def _scan_metrics(snapshot: Snapshot) -> Iterator[Metric]:
    newest = snapshot.newest_commit_utc
    yield _gauge(
        "crosstie_archive_newest_commit_timestamp_seconds",
        "When the newest committed correction was made.",
        (),
        {} if newest is None else {(): newest.timestamp()},
    )
    yield _gauge(
        "crosstie_archive_scan_timestamp_seconds",
        "When the archive was last read.",
        (),
        {(): snapshot.taken_utc.timestamp()},
    )
    yield _gauge(
        "crosstie_archive_scan_seconds",
        "How long reading the archive took.",
        (),
        {(): round(snapshot.took_s, 3)},
    )


def _run_metrics(runs: Iterable[FlowRuns]) -> Iterator[Metric]:
    runs = list(runs)
    for what, text, moments in (
        ("start", "When the last run of a flow began.", [(r.flow, r.last, "started_utc") for r in runs]),
        (
            "end",
            "When the last finished run of a flow ended.",
            [(r.flow, r.ended, "ended_utc") for r in runs],
        ),
        (
            "success",
            "When the last run of a flow ended that left nothing to retry.",
            [(r.flow, r.complete, "ended_utc") for r in runs],
        ),
    ):
        found = {(flow,): _seconds(log, field) for flow, log, field in moments}
        yield _gauge(
            f"crosstie_run_last_{what}_timestamp_seconds",
            text,
            ("flow",),
            {labels: value for labels, value in found.items() if value is not None},
        )
    outcomes: dict[tuple[str, ...], float] = {}
    for run in runs:
        if run.ended is not None:
            counts = {**run.ended.verdicts, "already_done": run.ended.already_done}
            outcomes |= {(run.flow, outcome): count for outcome, count in counts.items()}
    yield _gauge(
        "crosstie_run_last_pairs",
        "Pairs of the last finished run of a flow; already_done are counted by verdict as well.",
        ("flow", "outcome"),
        outcomes,
    )


def _seconds(log: RunLog | None, field: str) -> float | None:
    try:
        return None if log is None else datetime.fromisoformat(getattr(log, field)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _gauge(
    name: str, text: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family
