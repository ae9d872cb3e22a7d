"""`crosstie monitor`: what moved in an archive, since when, by how much, and how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from crosstie.cli.app import EXIT_UNRELIABLE, app, exit_codes
from crosstie.cli.options import ConfigOption, JsonOption, OutOption, read_time
from crosstie.cli.printing import print_table, say_json

if TYPE_CHECKING:
    from crosstie.flows.archive.monitoring import MonitorReport, MovedFinding


@app.command("monitor")
@exit_codes
def monitor_command(
    out: OutOption,
    since: Annotated[
        str | None,
        typer.Option(
            help="Only what was seen with scenes acquired since 2025-06-01, or with a time.",
            show_default=False,
        ),
    ] = None,
    false_alarms: Annotated[
        float | None,
        typer.Option(
            help="Largest number of false alarms per scene of a stable series, such as 0.001.",
            show_default=False,
        ),
    ] = None,
    place: Annotated[
        str | None, typer.Option(help="Only this place; it hides what all places share.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Find jumps, drifts and outliers in the positions that `crosstie adjust` has found.

    Watches each platform and track at each place and over all places together, platforms over all their
    tracks, and platforms of one track against each other. The rate of false alarms is a setting. Changes
    nothing. Exit code 3 if something has moved.

    [bold]Example:[/bold] crosstie monitor --out products

    [bold]Example:[/bold] crosstie monitor --out s3://archive/products --since 2025-06-01 --json
    """
    from crosstie.config import load_settings
    from crosstie.flows.archive.monitoring import monitor_positions
    from crosstie.io.adjusted.publish import read_positions
    from crosstie.io.storage.store import open_store

    settings = load_settings(config, options={"monitor.false_alarms_per_scene": false_alarms})
    store = open_store(out, settings.storage)
    whole = monitor_positions(read_positions(store, place), settings.monitor)
    report = whole.since(read_time("--since", since))
    if as_json:
        said = {
            "root": store.url,
            "scenes": report.scenes,
            "series": report.series,
            "left_out": report.left_out,
            "scatter_m": report.scatter_m,
            "false_alarms_per_scene": settings.monitor.false_alarms_per_scene,
            "findings": [finding.as_dict() for finding in report.findings],
        }
        say_json(said)
    else:
        _print_report(report)
    if report.findings:
        raise typer.Exit(EXIT_UNRELIABLE)


def _print_report(report: MonitorReport) -> None:
    scatter = ", ".join(f"{sensor} {sigma:.2f} m" for sensor, sigma in report.scatter_m.items())
    typer.echo(
        f"{report.scenes} scenes in {report.series} series ({report.left_out} left out: undated, unknown or "
        f"unchecked); dates scatter by {scatter or 'an unknown amount'} per axis"
    )
    if not report.findings:
        typer.echo("nothing has moved")
        return
    print_table([_finding_row(finding) for finding in report.findings])
    typer.echo("")
    for finding in report.findings:
        typer.echo(finding.sentence)


def _finding_row(finding: MovedFinding) -> dict[str, str]:
    return {
        "what": finding.what,
        "platform": finding.platform or finding.sensor,
        "track": finding.track or "all",
        "place": finding.place or f"{finding.places} places",
        "since": finding.since_utc[:10],
        "east_m": f"{finding.east_m:+.2f}",
        "north_m": f"{finding.north_m:+.2f}",
        "sigma_m": f"{finding.sigma_m:.2f}",
        "chance": f"{finding.probability:.1g}",
    }
