"""`crosstie nightly`, `backfill`, `new-scene` and `retrain`: runs over a catalog."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from crosstie.cli.app import EXIT_UNRELIABLE, app, exit_codes
from crosstie.cli.options import (
    CatalogOption,
    DryRunOption,
    JsonOption,
    LimitOption,
    OutOption,
    Search,
    TrainConfigOption,
    VerboseOption,
    search_options,
)
from crosstie.cli.plan import pairs_json, text_table
from crosstie.cli.printing import (
    outcomes_json,
    print_outcomes,
    print_table,
    say,
    say_json,
    show_waiting,
    tally_json,
)
from crosstie.codes import Order
from crosstie.flows.runs.in_words import counted
from crosstie.flows.runs.prefect_env import prepare as prepare_prefect
from crosstie.flows.runs.signals import end_on_signals, signals_wait
from crosstie.io.storage.href import public_href
from crosstie.io.storage.redaction import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crosstie.config import Settings
    from crosstie.flows.discovery.backfill import Backfill
    from crosstie.flows.runs.outcome import Outcome
    from crosstie.flows.runs.tally import Tally
    from crosstie.types import ScenePair

MOST_LISTED = 20
"""Number of pairs that a backfill lists when it ends; `crosstie status` lists them all."""

LOOKING = "finding pairs"
"""What a terminal shows until the pairs are known."""

BACKFILL_PLAN_SCHEMA = "crosstie/backfill-plan/1"


def check_then_prepare(catalog: str, out: str, settings: Settings, *, flow: str, verbose: bool) -> None:
    """Check what a run was given, then make Prefect ready: a slip of the pen costs no start of a server.

    The module of the flow is loaded while the server starts.
    """
    end_on_signals()
    from crosstie.flows.discovery.pairs import check_places

    check_places(catalog, out, settings)
    prepare_for(flow, verbose=verbose)


def prepare_for(flow: str, *, verbose: bool) -> None:
    """Make Prefect ready for the flow of that module."""
    from crosstie.flows.runs.own_server import make_ready

    def load() -> None:
        with signals_wait():
            import_module(f"crosstie.flows.{flow}")

    with show_waiting("starting Prefect"):
        make_ready(verbose=verbose, meanwhile=load)


@app.command("nightly")
@exit_codes
@search_options()
def nightly_command(
    search: Search,
    catalog: CatalogOption,
    out: OutOption,
    look_back: Annotated[
        float | None,
        typer.Option(
            "--look-back",
            min=0,
            metavar="DAYS",
            help="Only pairs with a scene acquired since the last successful run, or up to this many days "
            "before it.",
            show_default=False,
        ),
    ] = None,
    limit: LimitOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Register every pair of a catalog that is not done yet, as a Prefect flow on a Dask cluster.

    Starts its own Prefect server and cluster, unless PREFECT_API_URL and compute.cluster name others. Run it
    again at any time: a committed pair is not computed again, and a pair that another run works on is left to
    that run. Use --look-back for a large archive, so that a night does not search all of it; give the number
    of days that scenes take to reach the catalog.

    [bold]Example:[/bold] crosstie nightly --catalog catalog.json --out products --start 2025-06-01

    [bold]Example:[/bold] crosstie nightly --catalog https://stac.example.org --out s3://archive/products
    --look-back 5
    """
    prepare_prefect(verbose=verbose)  # Dask and Prefect read their variables when they are imported
    settings = search.settings({"nightly.look_back_days": look_back})
    if dry_run:
        from crosstie.flows.nightly import new_pairs, scope_of, since

        since_utc = since(out, settings, scope_of(catalog, settings))
        _print_to_do(new_pairs(catalog, settings, since_utc)[:limit], catalog, out, settings, as_json=as_json)
        return
    check_then_prepare(catalog, out, settings, flow="nightly", verbose=verbose)
    from crosstie.flows.nightly import run_nightly
    from crosstie.flows.runs.progress import report_run_to

    with report_run_to(Console(stderr=True), before=LOOKING):
        outcomes = run_nightly(catalog, out, settings, limit=limit)
    _end_with(outcomes, catalog, as_json=as_json)


@app.command("backfill")
@exit_codes
@search_options()
def backfill_command(
    search: Search,
    catalog: CatalogOption,
    out: OutOption,
    partition_days: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            metavar="DAYS",
            help="Length of the periods, which are done one by one.",
            show_default=False,
        ),
    ] = None,
    order: Annotated[Order, typer.Option(help="Which scenes come first.")] = "newest",
    priority: Annotated[
        int,
        typer.Option(
            min=-100,
            max=100,
            metavar="-100..100",
            help="Priority on a Dask scheduler that several runs share; higher goes first. A nightly run "
            "has 5, a new scene 10.",
        ),
    ] = 0,
    at_once: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            metavar="N",
            help="Number of pairs in work at the same time.",
            show_default=False,
        ),
    ] = None,
    limit: LimitOption = None,
    only_failed: Annotated[
        bool,
        typer.Option("--only-failed", help="Only pairs that failed in an earlier run; --limit counts these."),
    ] = False,
    code: Annotated[
        str | None,
        typer.Option(
            help="With --only-failed: only failures with this code; `crosstie status` lists the codes.",
            show_default=False,
        ),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Register all pairs of a long time, period by period, as a Prefect flow on a Dask cluster.

    Stop it, kill it, start it again: it resumes, and computes nothing twice. A pair belongs to the period of
    its reference (Sentinel-2); its partner must lie between --start and --end as well. Each period is planned
    when it begins, so an archive of many years needs no more memory than a month.

    [bold]Example:[/bold] crosstie backfill --catalog catalog.json --out products --start 2019-01-01
    --area basin.geojson --dry-run

    [bold]Example:[/bold] crosstie backfill --catalog catalog.json --out products --start 2019-01-01
    --only-failed --code time_limit
    """
    prepare_prefect(verbose=verbose)
    from crosstie.flows.discovery.backfill import Backfill, periods_of

    more = {"backfill.partition_days": partition_days, "compute.pairs_at_once": at_once}
    settings = search.settings(more)
    asked = Backfill(order=order, priority=priority, only_failed=only_failed, code=code, limit=limit)
    periods_of(settings, order)  # refuses a span without a beginning
    if dry_run:
        _print_backfill_plan(catalog, out, settings, asked, as_json=as_json)
        return
    check_then_prepare(catalog, out, settings, flow="backfill", verbose=verbose)
    from crosstie.flows.backfill import run_backfill
    from crosstie.flows.runs.progress import report_run_to

    with report_run_to(Console(stderr=True), before=LOOKING):
        tally = run_backfill(catalog, out, settings, asked)
    if as_json:
        say_json(tally_json(tally))
    else:
        _print_tally(tally)
    if not tally.is_well:
        raise typer.Exit(EXIT_UNRELIABLE)


@app.command("new-scene")
@exit_codes
@search_options(but=("start", "end", "bbox", "area"))
def new_scene_command(
    search: Search,
    scene: Annotated[str, typer.Argument(help="Id of a Sentinel-1 or Sentinel-2 scene of the catalog.")],
    catalog: CatalogOption,
    out: OutOption,
    limit: LimitOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Register one scene with its partners, as a Prefect flow on a Dask cluster.

    The pairs are the same as in a search of the whole catalog. A Sentinel-1 scene that is not the best
    partner of any Sentinel-2 scene has no pair; the command says so.

    [bold]Example:[/bold] crosstie new-scene S2A_MSIL1C_20201104T183541_N0209_R027_T11SLT_20201104T203551
    --catalog https://stac.example.org --out s3://archive/products --max-days 6
    """
    prepare_prefect(verbose=verbose)
    settings = search.settings()
    if dry_run:
        from crosstie.flows.new_scene import partners_of

        partners = partners_of(catalog, scene, settings)
        if partners.why_none is not None and not as_json:
            say(f"{scene}: in no pair: {partners.why_none}")
        _print_to_do(partners.pairs[:limit], catalog, out, settings, as_json=as_json)
        return
    check_then_prepare(catalog, out, settings, flow="new_scene", verbose=verbose)
    from crosstie.flows.new_scene import run_new_scene
    from crosstie.flows.runs.progress import report_run_to

    with report_run_to(Console(stderr=True), before=LOOKING):
        outcomes = run_new_scene(scene, catalog, out, settings, limit=limit)
    if not outcomes and not as_json:
        say(f"{scene}: no pair to register")
        return
    _end_with(outcomes, catalog, as_json=as_json)


@app.command("retrain")
@exit_codes
def retrain_command(
    catalog: CatalogOption,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights in use: training starts from them, and better weights replace them.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder that gets a subfolder for each training run.")
    ] = Path("runs/retrain"),
    config: TrainConfigOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Continue training on an archive, and replace the weights in use if the new ones are better.

    Meant for a schedule. It does what `crosstie train --catalog … --start-from … --promote-to … --flow` does,
    each time in a folder of its own. The weights are compared on labelled places that training never sees
    (labelled.scenes and labelled.hold_out_east_m, or labelled.hold_out_folders).

    [bold]Example:[/bold] crosstie retrain --catalog catalog.json --weights best.safetensors
    --config train.yaml
    """
    prepare_prefect(verbose=verbose)
    from crosstie.train_settings import load_train_settings

    settings = load_train_settings(config, options={"start_from": "shipped"})
    prepare_for("retrain", verbose=verbose)
    from crosstie.flows.retrain import run_retrain
    from crosstie.flows.training.progress import report_training_to

    with report_training_to(Console(stderr=True)):
        figures = run_retrain(catalog, out, weights, settings)
    for name, value in figures.items():
        say(f"{name:<20}{value:.4f}")


def _end_with(outcomes: Sequence[Outcome], catalog: str, *, as_json: bool) -> None:
    """Print how a run ended; exit code 3 if a pair failed or is unreliable."""
    if as_json:
        say_json(outcomes_json(outcomes))
    else:
        print_outcomes(outcomes, catalog)
    if any(outcome.bad for outcome in outcomes):
        raise typer.Exit(EXIT_UNRELIABLE)


def _print_to_do(
    pairs: Sequence[ScenePair], catalog: str, out: str, settings: Settings, *, as_json: bool
) -> None:
    """Print the pairs that a run would take, and which of them are done."""
    from crosstie.flows.discovery.pairs import done_keys

    done = done_keys(pairs, out, settings)
    if as_json:
        say_json(pairs_json(pairs, done, catalog=public_href(catalog)))
        return
    typer.echo(printable(text_table(pairs, done=done), block=True), nl=False)
    say(f"{counted(len(pairs), 'pair')}, {len(pairs) - len(done)} to do")


def _print_backfill_plan(
    catalog: str, out: str, settings: Settings, asked: Backfill, *, as_json: bool
) -> None:
    from crosstie.flows.backfill import planned

    parts = list(planned(catalog, out, settings, asked))
    if as_json:
        periods = [{**asdict(part), "period": str(part.period)} for part in parts]
        say_json({"schema": BACKFILL_PLAN_SCHEMA, "catalog": public_href(catalog), "periods": periods})
        return
    rows = [
        {
            "period": str(part.period),
            "pairs": str(part.pairs),
            "done": str(part.done),
            "failed before": str(part.failed),
            "to do": str(part.to_do),
            "time": "?" if part.estimated_s is None else _duration(part.estimated_s),
        }
        for part in parts
        if part.pairs
    ]
    print_table(rows)
    to_do = sum(part.to_do for part in parts)
    empty = len(parts) - len(rows)
    say(
        f"{counted(len(parts), 'period')}{f', {empty} of them without a pair' if empty else ''}: "
        f"{counted(sum(part.pairs for part in parts), 'pair')}, {to_do} to do"
    )
    known = [part.estimated_s for part in parts if part.estimated_s is not None]
    if not to_do:
        say("there is nothing to compute")
    elif known:
        # Periods before the first finished pair have no estimate; they get the mean of the others.
        per_pair = sum(known) / max(1, sum(part.to_do for part in parts if part.estimated_s is not None))
        say(f"about {_duration(per_pair * to_do)}, {counted(settings.compute.pairs_at_once, 'pair')} at once")
    else:
        say("the time cannot be estimated: no pair has been registered here yet")


def _print_tally(tally: Tally) -> None:
    for outcome in tally.unwell[:MOST_LISTED]:
        say(f"{outcome.pair_key}: {', '.join([outcome.verdict, *outcome.reasons])}")
        for sentence in outcome.explanation:
            say(f"   {sentence}")
        if outcome.products is not None:
            say(f"   {outcome.products}/report.html")
    hidden = tally.over - tally.already_done - len(tally.well) - MOST_LISTED
    if len(tally.unwell) > MOST_LISTED and hidden > 0:
        say("More pairs are not shown here; `crosstie status` lists them all.")
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(tally.verdicts.items()))
    say(f"{counted(tally.over, 'pair')}: {counts or 'none'}; {tally.already_done} of them were already done")
    for code, count in tally.codes.most_common():
        say(f"   {count} failed: {code}")
    if tally.codes:
        say("`crosstie backfill … --only-failed` retries them; --code CODE those with one code")


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
