"""Adjust and monitor as a stage of a flow: Prefect tasks, artifacts, and an event for each new change."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from crosstie.errors import BadInputError
from crosstie.flows.archive.adjusting import adjust_archive
from crosstie.flows.archive.monitoring import MonitorReport, monitor_positions
from crosstie.flows.archive.solving import AdjustOptions
from crosstie.flows.archive.stacking import stack_scenes
from crosstie.flows.archive.workers import place_solver
from crosstie.flows.observe.run_metrics import FINDINGS, PLACES
from crosstie.flows.runs.in_words import counted
from crosstie.io.adjusted.moved import known_moves, write_moves
from crosstie.io.adjusted.publish import adjusted_places, read_positions
from crosstie.io.storage.redaction import redacted
from crosstie.io.storage.store import open_store

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.flows.archive.adjusting import PlaceOutcome
    from crosstie.io.storage.store import Store

LOG = logging.getLogger(__name__)

MOVED_EVENT = "crosstie.archive.moved"
"""Name of the event that is sent for each new change."""

MOST_ARTIFACT_ROWS = 500
"""Rows of a table artifact; places that were solved go first."""


def adjust_all(store: Store, settings: Settings) -> list[PlaceOutcome]:
    """Adjust the places of an archive whose pairs have changed, and count them.

    Raises
    ------
    StoreError
        The root cannot be read or written.
    SettingsError
        `compute.cluster` is an address where no scheduler answers.
    """
    outcomes = []
    with place_solver(settings.compute) as solver:
        for outcome in adjust_archive(store, AdjustOptions.of(settings.adjust), solver=solver):
            PLACES.labels(outcome.action).inc()
            for problem in outcome.problems:
                LOG.warning("place %s: %s", outcome.place, problem)
            outcomes.append(outcome)
    return outcomes


def monitor_all(store: Store, settings: Settings) -> tuple[MonitorReport, list[str]]:
    """Watch the adjusted positions, and send an event for each change that was not told of before.

    Returns
    -------
    tuple of MonitorReport and list of str
        All changes, and the keys of the new ones.

    Raises
    ------
    StoreError
        The root cannot be read or written.
    """
    report = monitor_positions(read_positions(store), settings.monitor)
    known = known_moves(store)
    new = [finding for finding in report.findings if finding.key not in known]
    for finding in new:
        FINDINGS.labels(str(finding.scope), finding.what).inc()
        LOG.warning("moved: %s", finding.sentence)
        emit_event(
            MOVED_EVENT,
            resource={"prefect.resource.id": f"crosstie.archive.{finding.key}"},
            payload=finding.as_dict(),
        )
    # Last: a run that is killed before tells of them again rather than never.
    write_moves(store, [finding.as_dict() for finding in report.findings])
    return report, [finding.key for finding in new]


def stack_all(store: Store, settings: Settings) -> dict[str, int]:
    """Write the aligned pixels of all placed scenes that `adjust.stack` asks for.

    Returns
    -------
    dict of str to int
        Scenes that were `written`, that were there `before`, and that `failed`.

    Raises
    ------
    BadInputError
        The stack lies in the product root.
    """
    said = {"written": 0, "before": 0, "failed": 0}
    for file in stack_scenes(store, settings.adjust.stack or "", settings):
        if isinstance(file, str):
            LOG.warning("not aligned: %s", file)
            said["failed"] += 1
        else:
            said["written" if file.is_new else "before"] += 1
    LOG.info("aligned scenes: %(written)d written, %(before)d there before, %(failed)d failed", said)
    return said


adjust_task = task(name="adjust the archive", cache_policy=NO_CACHE)(adjust_all)
monitor_task = task(name="monitor the archive", cache_policy=NO_CACHE)(monitor_all)
stack_task = task(name="align the placed scenes", cache_policy=NO_CACHE)(stack_all)


def adjust_and_monitor(out: str, settings: Settings) -> dict[str, Any]:
    """Adjust an archive and watch it, inside a flow.

    Returns
    -------
    dict of str to Any
        Places by what became of them, the sentences of all changes, the keys of the new ones, and with
        `adjust.stack` the number of scenes that were aligned.

    Raises
    ------
    StoreError
        The root cannot be read or written.
    BadInputError
        The scene of the datum is not there.
    """
    store = open_store(out, settings.storage)
    places = adjust_task(store, settings)
    order = sorted(places, key=lambda one: (one.action == "unchanged", one.place))
    create_table_artifact(
        [_artifact_row(one) for one in order[:MOST_ARTIFACT_ROWS]],
        key="crosstie-adjust",
        description=f"{sum(one.action == 'solved' for one in places)} of {counted(len(places), 'place')}"
        " solved anew",
    )
    said: dict[str, Any] = {
        "places": {action: sum(one.action == action for one in places) for action in ACTIONS},
        "moved": [],
        "new": [],
    }
    if adjusted_places(store):
        report, new = monitor_task(store, settings)
        create_markdown_artifact(
            moved_page(report, set(new)), key="crosstie-moved", description=f"{len(new)} new changes"
        )
        said |= {"moved": [finding.sentence for finding in report.findings], "new": new}
        if settings.adjust.stack is not None:
            said["aligned"] = stack_task(store, settings)
    return said


ACTIONS = ("solved", "unchanged", "failed")


def after_run(out: str, settings: Settings) -> None:
    """Adjust and monitor at the end of a run over pairs, if the settings ask for it.

    The pairs are committed by then: a failure here is logged, and the next run makes up for it.
    """
    if not settings.adjust.after_run:
        return
    try:
        adjust_and_monitor(out, settings)
    except BadInputError as problem:
        LOG.warning("the archive was not adjusted; `crosstie adjust` does it: %s", problem)


def moved_page(report: MonitorReport, new: set[str]) -> str:
    """Write what moved as Markdown; new changes go first."""
    lines = [
        "# What moved",
        f"{report.scenes} scenes in {report.series} series; {report.left_out} cannot be watched.",
    ]
    for heading, wanted in (("## New", True), ("## Known before", False)):
        found = [finding for finding in report.findings if (finding.key in new) is wanted]
        if found:
            lines += [heading, "\n".join(f"- {redacted(finding.sentence)}" for finding in found)]
    if not report.findings:
        lines.append("Nothing has moved.")
    return "\n\n".join(lines) + "\n"


def _artifact_row(place: PlaceOutcome) -> dict[str, str]:
    said = place.summary
    return {
        "place": place.place,
        "what": place.action,
        "scenes": str(said.get("placed", "")),
        "pairs": str(place.pairs),
        "rejected": str(len(place.rejected)) if said else "",
        "problems": redacted("; ".join(place.problems))[:400],
    }
