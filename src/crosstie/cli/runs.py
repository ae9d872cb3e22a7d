"""`crosstie nightly`, `backfill`, `new-scene`, `retrain`: runs over a catalog."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from crosstie.cli.app import EXIT_UNRELIABLE, app, exit_codes
from crosstie.cli.options import (
    AreaOption,
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
from crosstie.cli.printing import print_outcomes, print_table

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.flows.backfill import Backfill
    from crosstie.flows.runs.tally import Tally

MOST_LISTED = 20
"""Pairs that a backfill lists when it ends: more are looked up with `crosstie status`."""

VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show what Prefect says, too.")]


class OrderName(StrEnum):
    """Which references go first."""

    NEWEST = "newest"
    OLDEST = "oldest"


@app.command("nightly")
@exit_codes
def nightly_command(
    catalog: CatalogOption,
    out: OutOption,
    config: ConfigOption = None,
    start: StartOption = None,
    end: EndOption = None,
    bbox: BboxOption = None,
    area: AreaOption = None,
    max_days: MaxDaysOption = None,
    max_cloud: MaxCloudOption = None,
    look_back: Annotated[
        float | None,
        typer.Option(
            "--look-back",
            min=0,
            help="Only pairs with a scene acquired since the last success less so many days.",
            show_default=False,
        ),
    ] = None,
    limit: LimitOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Register every pair of a catalog that is not done yet, as a Prefect flow on a Dask cluster.

    Brings its own Prefect server and cluster, unless PREFECT_API_URL and compute.cluster name others. Run
    it again at any time: what is committed is not computed again, and a pair that another run works on is
    left to it. With --look-back a large archive is not gone through every night; give as many days as scenes
    take to reach the catalog.

    [bold]Example:[/bold] crosstie nightly --catalog catalog.json --out products --start 2025-06-01

    [bold]Example:[/bold] crosstie nightly --catalog https://stac.example.org --out s3://archive/products
    --look-back 5
    """
    settings = _prepared(config, start, end, bbox, area, max_days, max_cloud, verbose=verbose)
    if look_back is not None:
        settings = _with(settings, "nightly", look_back_days=look_back)
    from crosstie.flows.nightly import run_nightly
    from crosstie.flows.runs.progress import report_progress_to

    with report_progress_to(Console(stderr=True)):
        outcomes = run_nightly(catalog, out, settings, limit=limit)
    print_outcomes(outcomes, catalog)
    if any(outcome.bad for outcome in outcomes):
        raise typer.Exit(EXIT_UNRELIABLE)


@app.command("backfill")
@exit_codes
def backfill_command(
    catalog: CatalogOption,
    out: OutOption,
    config: ConfigOption = None,
    start: StartOption = None,
    end: EndOption = None,
    bbox: BboxOption = None,
    area: AreaOption = None,
    max_days: MaxDaysOption = None,
    max_cloud: MaxCloudOption = None,
    partition_days: Annotated[
        float | None,
        typer.Option(
            min=0.01, help="Length of the periods that are planned one after another.", show_default=False
        ),
    ] = None,
    order: Annotated[OrderName, typer.Option(help="Which scenes go first.")] = OrderName.NEWEST,
    priority: Annotated[
        int,
        typer.Option(
            min=-100,
            max=100,
            help="On a Dask scheduler that several runs share: tiles of a higher one go first. A nightly run "
            "has 5, a new scene 10.",
        ),
    ] = 0,
    at_once: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="So many pairs at the same time.", show_default=False),
    ] = None,
    only_failed: Annotated[
        bool, typer.Option("--only-failed", help="Only pairs that an earlier run has given up.")
    ] = False,
    code: Annotated[
        str | None,
        typer.Option(
            help="With --only-failed: only those with this reason, as `crosstie status` lists them.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be done and how long it takes; do nothing.")
    ] = False,
    verbose: VerboseOption = False,
) -> None:
    """Register the pairs of an area and a time, period after period, as a Prefect flow on a Dask cluster.

    Stop it, kill it, start it again: it goes on where it was, and computes nothing twice. The period is that
    of the references (Sentinel-2); their partners come from the same --start to --end. Each period is planned
    when its turn comes, so an archive of many years needs no more memory than a month.

    [bold]Example:[/bold] crosstie backfill --catalog catalog.json --out products --start 2019-01-01
    --area basin.geojson --dry-run

    [bold]Example:[/bold] crosstie backfill --catalog catalog.json --out products --start 2019-01-01
    --only-failed --code time_limit
    """
    settings = _prepared(config, start, end, bbox, area, max_days, max_cloud, verbose=verbose)
    if partition_days is not None:
        settings = _with(settings, "backfill", partition_days=partition_days)
    if at_once is not None:
        settings = _with(settings, "compute", pairs_at_once=at_once)
    from crosstie.flows.backfill import Backfill, run_backfill
    from crosstie.flows.runs.progress import report_progress_to

    asked = Backfill(order=order.value, priority=priority, only_failed=only_failed, code=code)
    if dry_run:
        _print_plan(catalog, out, settings, asked)
        return
    with report_progress_to(Console(stderr=True)):
        tally = run_backfill(catalog, out, settings, asked)
    _print_tally(tally)
    if not tally.is_well:
        raise typer.Exit(EXIT_UNRELIABLE)


@app.command("new-scene")
@exit_codes
def new_scene_command(
    scene: Annotated[str, typer.Argument(help="Id of a Sentinel-1 or Sentinel-2 scene in the catalog.")],
    catalog: CatalogOption,
    out: OutOption,
    config: ConfigOption = None,
    max_days: MaxDaysOption = None,
    max_cloud: MaxCloudOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Register one scene with its partners, as a Prefect flow on a Dask cluster.

    The partners are those that a search of the whole catalog would give it. A Sentinel-1 scene that is the
    best partner of no Sentinel-2 scene is in no pair, and that is said.

    [bold]Example:[/bold] crosstie new-scene S2A_MSIL1C_20201104T183541_N0209_R027_T11SLT_20201104T203551
    --catalog https://stac.example.org --out s3://archive/products --max-days 6
    """
    settings = _prepared(config, None, None, None, None, max_days, max_cloud, verbose=verbose)
    from crosstie.flows.new_scene import run_new_scene
    from crosstie.flows.runs.progress import report_progress_to

    with report_progress_to(Console(stderr=True)):
        outcomes = run_new_scene(scene, catalog, out, settings)
    if outcomes:
        print_outcomes(outcomes, catalog)
    else:
        typer.echo(f"{scene}: no pair to register")
    if any(outcome.bad for outcome in outcomes):
        raise typer.Exit(EXIT_UNRELIABLE)


@app.command("retrain")
@exit_codes
def retrain_command(
    catalog: CatalogOption,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights in use: training starts from them, and better ones replace them.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Receives a folder for each training run.")] = Path(
        "runs/retrain"
    ),
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="Settings of training as YAML; `crosstie train --show-config` prints them all.",
            show_default=False,
        ),
    ] = None,
    verbose: VerboseOption = False,
) -> None:
    """Train on an archive from the weights in use, and put better ones in their place: for a schedule.

    The same as `crosstie train --catalog … --start-from … --promote-to … --flow`, each time in a folder of
    its own. The new weights replace those in use only where they measure better on labelled places that the
    settings hold out (labelled.scenes and labelled.hold_out_east_m, or labelled.hold_out_folders).

    [bold]Example:[/bold] crosstie retrain --catalog catalog.json --weights best.safetensors
    --config train.yaml
    """
    from crosstie.flows.runs.prefect_env import prepare

    prepare(verbose=verbose)
    from crosstie.flows.retrain import run_retrain
    from crosstie.flows.training.progress import report_training_to
    from crosstie.train_settings import load_train_settings

    settings = load_train_settings(config, options={"start_from": "shipped"})
    with report_training_to(Console(stderr=True)):
        figures = run_retrain(catalog, out, weights, settings)
    for name, value in figures.items():
        typer.echo(f"{name:<20}{value:.4f}")


def _prepared(
    config: Path | None,
    start: str | None,
    end: str | None,
    bbox: str | None,
    area: Path | None,
    max_days: float | None,
    max_cloud: float | None,
    *,
    verbose: bool,
) -> Settings:
    """Settings of a run; Prefect, which comes after this, is told how loud to be."""
    from crosstie.flows.runs.prefect_env import prepare

    prepare(verbose=verbose)
    return search_settings(config, start, end, bbox, max_days, max_cloud, area=area)


def _with(settings: Settings, group: str, **values: object) -> Settings:
    """Settings with some values of a group replaced, and checked like all others."""
    from crosstie.config import Settings, validated, walk

    given = {setting.name: setting.value for setting in walk(settings) if not setting.is_group}
    options = {f"{group}.{name}": value for name, value in values.items()}
    return validated(Settings, ("settings", given), ("option", options))


def _print_plan(catalog: str, out: str, settings: Settings, asked: Backfill) -> None:
    from crosstie.flows.backfill import planned

    parts = list(planned(catalog, out, settings, asked))
    rows = [
        {
            "period": str(part.period),
            "pairs": str(part.pairs),
            "done": str(part.done),
            "failed before": str(part.failed),
            "to do": str(part.to_do),
            "time": "?" if part.estimated_s is None else _clock(part.estimated_s),
        }
        for part in parts
        if part.pairs
    ]
    print_table(rows)
    to_do = sum(part.to_do for part in parts)
    empty = len(parts) - len(rows)
    typer.echo(
        f"{len(parts)} periods{f', {empty} of them without a pair' if empty else ''}: "
        f"{sum(part.pairs for part in parts)} pairs, {to_do} to do"
    )
    known = [part.estimated_s for part in parts if part.estimated_s is not None]
    if not to_do:
        typer.echo("nothing would be computed")
    elif known:
        # Periods before the first pair that is done are reckoned like those after it.
        per_pair = sum(known) / max(1, sum(part.to_do for part in parts if part.estimated_s is not None))
        typer.echo(f"about {_clock(per_pair * to_do)}, {settings.compute.pairs_at_once} pairs at once")
    else:
        typer.echo("how long it takes is not known: no pair has been registered here yet")


def _print_tally(tally: Tally) -> None:
    for outcome in tally.unwell[:MOST_LISTED]:
        typer.echo(f"{outcome.pair_key}: {', '.join([outcome.verdict, *outcome.reasons])}")
        for sentence in outcome.explanation:
            typer.echo(f"   {sentence}")
        if outcome.products is not None:
            typer.echo(f"   {outcome.products}/report.html")
    hidden = tally.over - tally.already_done - len(tally.well) - MOST_LISTED
    if len(tally.unwell) > MOST_LISTED and hidden > 0:
        typer.echo("and more: `crosstie status` lists them all")
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(tally.verdicts.items()))
    typer.echo(f"{tally.over} pairs: {counts or 'none'}; {tally.already_done} of them were done before")
    for code, count in tally.codes.most_common():
        typer.echo(f"   {count} failed: {code}")
    if tally.codes:
        typer.echo("`crosstie backfill … --only-failed` tries these again, --code CODE those of one reason")


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
