"""Metrics of the listener: counts only, nothing of what was sent."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

LISTENER = CollectorRegistry()
"""Registry of the listener. The default registry of the process holds those of Prefect as well."""

NOTICES = Counter(
    "crosstie_notices",
    "Notices by kind (direct or sns; empty if refused before that was known) and answer (HTTP status).",
    ("kind", "answer"),
    registry=LISTENER,
)

NOTICE_SECONDS = Histogram("crosstie_notice_seconds", "Time to answer a notice.", registry=LISTENER)

SCENES = Counter(
    "crosstie_scenes",
    "Scenes of notices: started, or a duplicate of a run that an earlier notice started.",
    ("outcome",),
    registry=LISTENER,
)

ProcessCollector(registry=LISTENER)

# Start at 0, so that Prometheus sees the first notice as an increase.
for _kind, _answer in (
    ("direct", "202"),
    ("direct", "503"),
    ("sns", "202"),
    ("sns", "503"),
    ("", "401"),
    ("", "503"),
):
    NOTICES.labels(_kind, _answer)
for _outcome in ("started", "duplicate"):
    SCENES.labels(_outcome)


def count_notice(kind: str, status: int, seconds: float) -> None:
    """Count an answered notice."""
    NOTICES.labels(kind, str(status)).inc()
    NOTICE_SECONDS.observe(seconds)


def count_scene(*, duplicate: bool) -> None:
    """Count a scene that has a run."""
    SCENES.labels("duplicate" if duplicate else "started").inc()
