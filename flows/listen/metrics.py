"""Figures of the service that takes notices: counts alone, nothing of what anybody sent."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

LISTENER = CollectorRegistry()
"""What the service serves: apart from the registry of the process, where Prefect puts its own."""

NOTICES = Counter(
    "crosstie_notices",
    "Notices by way (kind: direct, or sns; empty where it was turned down before that was known) and answer "
    "(HTTP status).",
    ("kind", "answer"),
    registry=LISTENER,
)

NOTICE_SECONDS = Histogram("crosstie_notice_seconds", "Answering a notice.", registry=LISTENER)

SCENES = Counter(
    "crosstie_scenes",
    "Scenes of notices: started, or a duplicate of a run that an earlier notice started.",
    ("outcome",),
    registry=LISTENER,
)

ProcessCollector(registry=LISTENER)

# There from the start, at 0: Prometheus sees the first one as an increase.
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
    """One more notice was answered."""
    NOTICES.labels(kind, str(status)).inc()
    NOTICE_SECONDS.observe(seconds)


def count_scene(*, duplicate: bool) -> None:
    """One more scene has a run."""
    SCENES.labels("duplicate" if duplicate else "started").inc()
