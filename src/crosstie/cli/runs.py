"""`crosstie nightly`: runs over a catalogue."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from crosstie.cli.app import EXIT_UNRELIABLE, app, told
from crosstie.cli.options import (
    BboxOption,
    CatalogOption,
    ConfigOption,
    EndOption,
    LimitOption,
    MaxCloudOption,
    MaxDaysOption,
    OutOption,
    StartOption,
    search_settings,
)
from crosstie.cli.printing import print_outcomes


@app.command("nightly")
@told
def nightly_command(
    catalog: CatalogOption,
    out: OutOption,
    config: ConfigOption = None,
    start: StartOption = None,
    end: EndOption = None,
    bbox: BboxOption = None,
    max_days: MaxDaysOption = None,
    max_cloud: MaxCloudOption = None,
    limit: LimitOption = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what Prefect says, too.")] = False,
) -> None:
    """Register every pair of a catalogue that is not done yet, as a Prefect flow on a Dask cluster.

    Brings its own Prefect server and cluster, unless PREFECT_API_URL and compute.cluster name others. Run
    it again at any time: what is committed is not computed again.

    [bold]Example:[/bold] crosstie nightly --catalog catalog.json --out products --start 2025-06-01
    """
    from crosstie.flows.prefect_env import prepare

    prepare(verbose=verbose)
    settings = search_settings(config, start, end, bbox, max_days, max_cloud)
    from crosstie.flows.nightly import run_nightly
    from crosstie.flows.reporting import told_on

    with told_on(Console(stderr=True)):
        outcomes = run_nightly(catalog, out, settings, limit=limit)
    print_outcomes(outcomes, catalog)
    if not all(outcome.good for outcome in outcomes):
        raise typer.Exit(EXIT_UNRELIABLE)
