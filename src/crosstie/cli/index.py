"""`crosstie index` and `crosstie status`: what an archive holds, and what is still to do."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crosstie.cli.app import EXIT_UNRELIABLE, app, exit_codes
from crosstie.cli.options import ConfigOption, JsonOption, OutOption, Search, search_options
from crosstie.cli.printing import print_table, say, say_json
from crosstie.flows.runs.in_words import counted

if TYPE_CHECKING:
    import pyarrow as pa

    from crosstie.flows.status import InProgress, Status
    from crosstie.io.archive.failures import Failure
    from crosstie.io.archive.index import IndexUpdate
    from crosstie.io.archive.run_log import RunLog

MOST_LINES = 20
"""Number of failures and of claims that are printed; `--json` has all of them."""


class ReportFormat(StrEnum):
    """Form of what is printed."""

    TABLE = "table"
    JSON = "json"


FormatOption = Annotated[
    ReportFormat, typer.Option("--format", hidden=True, help="json does what --json does.")
]


@app.command("index")
@exit_codes
def index_command(
    out: OutOption,
    config: ConfigOption = None,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Read every product again, after the root was moved or repaired."),
    ] = False,
    scene: Annotated[
        str | None,
        typer.Option(
            help="Print the corrections of this scene from the index; update nothing.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
    form: FormatOption = ReportFormat.TABLE,
) -> None:
    """Update the table of all committed corrections: OUT/_index/corrections.parquet, a stac-geoparquet file.

    Reads only the products that are not in it yet. Every flow does the same when it ends. Any number of
    updates may run at the same time. Exit code 3 if a committed product is broken: it is named, and the
    others are indexed.

    [bold]Example:[/bold] crosstie index --out products

    [bold]Example:[/bold] crosstie index --out products --scene S1A_IW_GRDH_… --json
    """
    from crosstie.config import load_settings
    from crosstie.io.archive.index import read_index, update_index
    from crosstie.io.archive.index_table import of_scene
    from crosstie.io.storage.store import open_store

    as_json = as_json or form is ReportFormat.JSON
    store = open_store(out, load_settings(config).storage)
    store.must_be_there()
    if scene is not None:
        _print_scene(scene, of_scene(read_index(store), scene), as_json=as_json)
        return
    update = update_index(store, rebuild=rebuild)
    _print_update(update, as_json=as_json)
    if update.unreadable:
        raise typer.Exit(EXIT_UNRELIABLE)


@app.command("status")
@exit_codes
@search_options()
def status_command(
    search: Search,
    out: OutOption,
    catalog: Annotated[
        str | None,
        typer.Option(
            "--catalog", help="STAC catalog: also count its pairs that are pending.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
    form: FormatOption = ReportFormat.TABLE,
) -> None:
    """Count the pairs: done by verdict, failed by code, in progress, pending.

    Changes nothing.

    A pair is counted by its latest correction. With --catalog, the pairs of the catalog are found as
    `crosstie pairs` does, and counted for the present settings and weights. Exit code 3 if pairs have failed,
    else 0: an unreliable pair is a result, not a failure.

    [bold]Example:[/bold] crosstie status --out products --catalog catalog.json

    [bold]Example:[/bold] crosstie status --out products --json | jq .failed
    """
    from crosstie.flows.status import take_status
    from crosstie.io.storage.store import open_store

    settings = search.settings()
    store = open_store(out, settings.storage)
    store.must_be_there()
    status = take_status(store, settings, catalog=catalog)
    if as_json or form is ReportFormat.JSON:
        say_json(status.as_dict())
    else:
        _print_status(status)
    if status.failed:
        raise typer.Exit(EXIT_UNRELIABLE)


def _print_update(update: IndexUpdate, *, as_json: bool) -> None:
    if as_json:
        said = {name: getattr(update, name) for name in ("url", "rows", "added", "dropped", "unreadable")}
        say_json(said)
        return
    if update.rows or update.dropped:
        dropped = f", {update.dropped} dropped because they are no longer committed" if update.dropped else ""
        say(f"{counted(update.rows, 'correction')}, {update.added} of them new{dropped}")
        say(update.url)
    else:
        say("nothing is committed here yet, so there is no index")
    for problem in update.unreadable:
        say(f"left out: {problem}", err=True)


def _print_scene(scene: str, table: pa.Table, *, as_json: bool) -> None:
    from crosstie.io.archive.index_rows import CORRECTION

    rows = table.select(["id", "datetime", "created", *CORRECTION.names]).to_pylist()
    if as_json:
        say_json(rows, default=datetime.isoformat)
        return
    if not rows:
        say(f"no correction of {scene} is in the index; `crosstie index --out …` updates it", err=True)
    for row in rows:
        say(_sentence(row))
        say(f"   secondary {row['secondary_id']} onto reference {row['reference_id']}")
        say(f"   affine {row['affine']} ({row['crs']})")
        say(f"   {row['products']}/report.html")


def _sentence(row: dict[str, Any]) -> str:
    verdict = f"{row['verdict']}{''.join(f' ({reason})' for reason in row['reasons'])}"
    before, after = (
        "-" if row[name] is None else f"{row[name]:.1f}" for name in ("rmse_before_m", "rmse_after_m")
    )
    newest = "" if row["latest"] else ", superseded by a later run"
    return f"{verdict}: {row['model']}, RMSE {before} -> {after} m, {row['created']:%Y-%m-%d}{newest}"


def _print_status(status: Status) -> None:
    say(status.root)
    rows = [("done", verdict, count) for verdict, count in sorted(status.done.items())]
    rows += [("", f"  for {reason}", count) for reason, count in sorted(status.reasons.items())]
    rows += [("failed", code, count) for code, count in sorted(status.failures.items())]
    for name, live in (("now", True), ("abandoned: the next run takes over", False)):
        count = sum(claim.live is live for claim in status.in_progress)
        rows += [("in progress", name, count)] if count else []
    if status.plan is not None:
        rows.append(("pending", "", len(status.plan.pending)))
    print_table([{"state": state, "what": what, "pairs": str(count)} for state, what, count in rows])
    if not rows:
        say("nothing is here yet")
    _print_plan(status)
    _print_lines("failed", [_failure_line(failure) for failure in status.failed])
    _print_lines("in progress", [_claim_line(claim) for claim in status.in_progress])
    _print_lines("last runs", [_log_line(log) for log in status.last_runs])


def _print_plan(status: Status) -> None:
    plan = status.plan
    if plan is None:
        return
    otherwise = (
        f" ({plan.done_otherwise} corrected with other settings or weights)" if plan.done_otherwise else ""
    )
    say(
        f"catalog: {counted(plan.pairs, 'pair')}, {plan.done} done, {plan.failed} failed, "
        f"{plan.in_progress} in progress, {plan.abandoned} abandoned, {len(plan.pending)} pending{otherwise}"
    )


def _print_lines(title: str, lines: list[str]) -> None:
    if not lines:
        return
    say()
    say(f"{title}:")
    for line in lines[:MOST_LINES]:
        say(f"  {line}")
    if len(lines) > MOST_LINES:
        say(f"  … and {len(lines) - MOST_LINES} more; --json lists all")


def _failure_line(failure: Failure) -> str:
    tried = "once" if failure.attempts == 1 else f"{failure.attempts} times"
    when = f", tried {tried}, {failure.failed_utc}" if failure.attempts else ""
    return f"{failure.pair_key}: {failure.code}{when}: {failure.message}"


def _claim_line(claim: InProgress) -> str:
    if claim.expires_utc is None:
        until = "no expiry given"
    else:
        seconds = (claim.expires_utc - datetime.now(UTC)).total_seconds()
        until = f"valid for {seconds:.0f} s" if seconds > 0 else f"expired {_ago(-seconds)} ago"
    return f"{claim.pair_key}: {claim.owner}, {until}{'' if claim.live else ', abandoned'}"


def _ago(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _log_line(log: RunLog) -> str:
    ended = "has not ended: running, or killed" if log.ended_utc is None else f"ended {log.ended_utc}"
    became = {**log.verdicts, **log.failures}
    became.pop("failed", None)  # counted again by code
    counts = [f"{count} {name}" for name, count in sorted(became.items())]
    pairs = (
        f", {counted(log.pairs, 'pair')} ({', '.join(counts)}; {log.already_done} already done)"
        if log.pairs
        else ""
    )
    return f"{log.flow}: began {log.started_utc}, {ended}{pairs}"
