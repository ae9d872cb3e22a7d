"""The command line: parse, call, exit code. 0 done, 2 bad input, 3 some pairs unreliable or failed, 1 bug."""

from __future__ import annotations

import functools
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from crosstie.errors import BadInputError, SettingsError

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.flows.outcome import Outcome
    from crosstie.flows.register import RegisterResult
    from crosstie.io.pairing import PairPlan

P = ParamSpec("P")
R = TypeVar("R")

EXIT_BAD_INPUT, EXIT_UNRELIABLE, EXIT_INTERRUPTED = 2, 3, 130

WIDE = 400
"""Columns of a pipe or a file: nothing is folded or cut where nobody looks."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Co-register Sentinel-1 to Sentinel-2: measure how far two images of one place disagree, and "
    "correct it with one affine, a reliability measure and a report.\n\n"
    "Begin with [bold]crosstie doctor[/bold], then [bold]crosstie register REFERENCE SECONDARY[/bold].\n\n"
    "Exit codes: 0 done, 2 bad input, 3 some pairs unreliable or failed, 1 a bug.",
)


def told(command: Callable[P, R]) -> Callable[P, R]:
    """Bad input becomes one line and exit code 2, an interrupt one line and 130; a bug keeps its trace."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except BadInputError as problem:
            typer.echo(f"error: {' '.join(str(problem).split())}", err=True)
            raise typer.Exit(EXIT_BAD_INPUT) from None
        except KeyboardInterrupt:
            typer.echo("stopped; what is committed stays, run again to go on", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None

    return run


class KindName(StrEnum):
    """What formed an image."""

    OPTICAL = "optical"
    SAR = "sar"


class PairsFormat(StrEnum):
    """How `crosstie pairs` prints."""

    TABLE = "table"
    GEOJSON = "geojson"


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="Settings as YAML; `crosstie config` prints them all.", show_default=False
    ),
]
CatalogOption = Annotated[
    str, typer.Option("--catalog", help="STAC catalogue: path or URL of a static one, or of an API.")
]
OutOption = Annotated[
    str, typer.Option("--out", "-o", help="Where products go: a folder, file://… or s3://bucket/prefix.")
]
StartOption = Annotated[
    str | None, typer.Option(help="Earliest acquisition, 2025-06-01 or with a time.", show_default=False)
]
EndOption = Annotated[
    str | None, typer.Option(help="Latest acquisition; a date means its whole day.", show_default=False)
]
BboxOption = Annotated[
    str | None,
    typer.Option(help="WEST,SOUTH,EAST,NORTH in degrees.", metavar="W,S,E,N", show_default=False),
]
MaxDaysOption = Annotated[
    float | None,
    typer.Option(help="Longest time between the two acquisitions, days.", show_default=False),
]
MaxCloudOption = Annotated[
    float | None,
    typer.Option(help="Leave out optical scenes with more cloud, per cent.", show_default=False),
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="So many pairs at most.", show_default=False)]


@app.command("register")
@told
def register_command(
    reference: Annotated[str, typer.Argument(help="Raster that stays, by default Sentinel-2.")],
    secondary: Annotated[str, typer.Argument(help="Raster that is corrected, by default Sentinel-1.")],
    out: OutOption = "crosstie-products",
    config: ConfigOption = None,
    reference_kind: Annotated[
        KindName | None, typer.Option(help="Found out where not given.", show_default=False)
    ] = None,
    secondary_kind: Annotated[
        KindName | None, typer.Option(help="Found out where not given.", show_default=False)
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights other than the shipped ones.", show_default=False)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print correction.json instead of a summary.")
    ] = False,
) -> None:
    """Register two rasters and write the correction, the tie points and a report.

    Any two rasters will do: other CRS, resolution, data type; S1 as amplitude, power or dB, or with ground
    control points only; S2 as RGB or bands.

    [bold]Example:[/bold] crosstie register s2_tci.tif s1_vh.tif --out products
    """
    from crosstie.config import load_settings
    from crosstie.flows.register import register
    from crosstie.flows.reporting import listener, told_on
    from crosstie.io.products import correction_dict
    from crosstie.types import Kind

    settings = load_settings(config, options={"weights": weights})
    with told_on(Console(stderr=True)):
        name = Path(secondary).name
        result = register(
            reference,
            secondary,
            out=out,
            settings=settings,
            reference_kind=Kind(reference_kind) if reference_kind else None,
            secondary_kind=Kind(secondary_kind) if secondary_kind else None,
            progress=functools.partial(listener().tiles, name),
        )
    if as_json:
        typer.echo(json.dumps(correction_dict(result.registration), indent=1, ensure_ascii=False))
    else:
        _print_result(result)
    if result.verdict.reasons:
        raise typer.Exit(EXIT_UNRELIABLE)


@app.command("pairs")
@told
def pairs_command(
    catalog: CatalogOption,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="Products: says which pairs are done.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    start: StartOption = None,
    end: EndOption = None,
    bbox: BboxOption = None,
    max_days: MaxDaysOption = None,
    max_cloud: MaxCloudOption = None,
    limit: LimitOption = None,
    form: Annotated[PairsFormat, typer.Option("--format", help="How to print.")] = PairsFormat.TABLE,
) -> None:
    """Show what would be done, and which scenes are left out and why. Computes nothing.

    [bold]Example:[/bold] crosstie pairs --catalog catalog.json --max-days 10 --format geojson > pairs.geojson
    """
    from crosstie.flows.plan_pairs import done_keys
    from crosstie.io.catalog import find_scenes
    from crosstie.io.pairing import PairPlan, pair_scenes

    settings = _search_settings(config, start, end, bbox, max_days, max_cloud)
    plan = pair_scenes(find_scenes(catalog, settings.catalogue), settings.pairing)
    plan = PairPlan(plan.pairs[:limit], plan.left_out)
    done = done_keys(plan.pairs, out, settings) if out is not None else None
    _print_pairs(plan, done, form)


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

    Brings its own Prefect server and cluster, unless PREFECT_API_URL and compute.scheduler name others. Run
    it again at any time: what is committed is not computed again.

    [bold]Example:[/bold] crosstie nightly --catalog catalog.json --out products --start 2025-06-01
    """
    from crosstie.flows.prefect_env import prepare

    prepare(verbose=verbose)
    settings = _search_settings(config, start, end, bbox, max_days, max_cloud)
    from crosstie.flows.nightly import run_nightly
    from crosstie.flows.reporting import told_on

    with told_on(Console(stderr=True)):
        outcomes = run_nightly(catalog, out, settings, limit=limit)
    _print_outcomes(outcomes, catalog)
    if not all(outcome.good for outcome in outcomes):
        raise typer.Exit(EXIT_UNRELIABLE)


@app.command("config")
@told
def config_command(config: ConfigOption = None) -> None:
    """Print all settings as YAML, each with what it means; a file and CROSSTIE_… variables count.

    [bold]Example:[/bold] crosstie config > crosstie.yaml; CROSSTIE_TILES__SIZE_PX=128 crosstie config
    """
    from crosstie.config import commented_yaml, load_settings

    typer.echo(commented_yaml(load_settings(config)), nl=False)


@app.command("doctor")
@told
def doctor_command(
    catalog: Annotated[
        str | None, typer.Option("--catalog", help="Also try a catalogue.", show_default=False)
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Also look where products go.", show_default=False)
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Say what is missing on this machine, and how to get it. Exit code 3 where something is.

    [bold]Example:[/bold] crosstie doctor --catalog catalog.json --out products
    """
    from crosstie.config import load_settings
    from crosstie.flows.doctor import examine

    well = True
    for finding in examine(load_settings(config), catalogue=catalog, out=out):
        well &= finding.ok
        typer.echo(f"{'ok     ' if finding.ok else 'problem'}  {finding.subject}: {finding.state}")
        if finding.remedy is not None:
            typer.echo(f"         -> {finding.remedy}")
    if not well:
        raise typer.Exit(EXIT_UNRELIABLE)


@app.command("simulate")
@told
def simulate_command(
    folder: Annotated[Path, typer.Argument(help="Where the catalogue goes; made where missing.")],
    scenes: Annotated[int, typer.Option(min=1, help="Pairs; of two and more the last is under cloud.")] = 3,
    size_px: Annotated[int, typer.Option(min=64, help="Rows and columns of every image.")] = 1024,
    seed: Annotated[int, typer.Option(help="The same seed gives the same pixels.")] = 0,
) -> None:
    """Write a catalogue of simulated scenes whose error is known, to try things out without any data.

    [bold]Example:[/bold] crosstie simulate demo; crosstie nightly --catalog demo/catalog.json --out products
    """
    from crosstie.io.simulated import write_simulated_catalogue

    typer.echo(write_simulated_catalogue(folder, seed=seed, scenes=scenes, size_px=size_px))


@app.command("train")
@told
def train_command(
    scenes: Annotated[
        list[Path],
        typer.Argument(help="Folders with s1_vh.tif, s2_tci.tif, truth_offsets.tif and tiles.csv."),
    ],
    hold_out_east: Annotated[
        float,
        typer.Option(help="Easting, metres: places east of it are never learnt from, only measured on."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Receives checkpoints, log and weights.")] = Path(
        "runs/train"
    ),
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps; 1 to 2 s each on two cores.")] = 1300,
    seed: Annotated[int, typer.Option(help="The same seed gives the same weights on a CPU.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: CUDA where there is one.")] = "auto",
) -> None:
    """Train the matcher on labelled scenes. Killed and started again, it goes on from its last checkpoint.

    [bold]Example:[/bold] crosstie train T11SLT T11SMT --hold-out-east -13062627 --out runs/first
    """
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from crosstie.flows.train import train_on_scenes
    from crosstie.matcher.training import TrainingPlan

    columns = (MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.3f}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("train", total=steps, loss=float("nan"))

        def progress(step: int, figures: dict[str, float]) -> None:
            bar.update(task, completed=step, loss=figures["loss"])
            held_out = {name: value for name, value in figures.items() if name.startswith(("median", "cmr"))}
            if held_out:
                said = ", ".join(f"{name} {value:.3g}" for name, value in held_out.items())
                bar.console.print(f"step {step}, held-out places: {said}")

        found = train_on_scenes(
            scenes,
            out,
            TrainingPlan(steps=steps, seed=seed),
            hold_out_east_m=hold_out_east,
            device=device,
            progress=progress,
        )
    for name, value in found.items():
        typer.echo(f"{name:<20}{value:.4f}")
    typer.echo(f"weights: {out / 'crosstie.safetensors'}")


def _search_settings(
    config: Path | None,
    start: str | None,
    end: str | None,
    bbox: str | None,
    max_days: float | None,
    max_cloud: float | None,
) -> Settings:
    from crosstie.config import load_settings

    return load_settings(
        config,
        options={
            "catalogue.start_utc": _moment("--start", start),
            "catalogue.end_utc": _moment("--end", end),
            "catalogue.bbox": _bbox(bbox),
            "catalogue.max_cloud_pct": max_cloud,
            "pairing.max_days": max_days,
        },
    )


def _moment(option: str, text: str | None) -> datetime | date | None:
    if text is None:
        return None
    try:
        if len(text) <= len("2025-06-01"):
            return date.fromisoformat(text)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(
            f"{option} {text}: not a date; write 2025-06-01 or 2025-06-01T10:30:00Z"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _bbox(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(f"--bbox {text}: must be four numbers, WEST,SOUTH,EAST,NORTH") from None
    return west, south, east, north


def _print_result(result: RegisterResult) -> None:
    from crosstie.io.wording import figures, headline, sentences

    registration = result.registration
    typer.echo(headline(result.verdict))
    for sentence in sentences(registration):
        typer.echo(f"  {sentence}")
    rows = [row for row in figures(registration) if row[0] != "Made by"]
    if registration.grid is not None and registration.estimate.used.any():
        x_m, y_m = registration.estimate.median_offset_m
        a = registration.grid.affine
        rows.append(("Median offset, px", f"{x_m / a.a:+.2f} columns, {y_m / a.e:+.2f} rows of {a.a:.4g} m"))
    for name, value in rows:
        typer.echo(f"  {name + ':':<27}{value}")
    if result.verdict.reasons:
        typer.echo(f"  {'Reasons:':<27}{', '.join(result.verdict.reasons)}")
    if result.products is not None:
        typer.echo(f"  {'Products:':<27}{result.products}")
        typer.echo(f"  {'Report:':<27}{result.products}/report.html")


def _print_pairs(plan: PairPlan, done: set[str] | None, form: PairsFormat) -> None:
    from crosstie.io.pairing import plan_frame

    frame = plan_frame(plan)
    if done is not None:
        frame["done"] = frame["pair_key"].isin(done)
    if form is PairsFormat.GEOJSON:
        typer.echo(frame.to_json())
    else:
        rows = [
            {
                "pair": row.pair_key,
                "days apart": f"{row.gap_days:+.1f}",
                "overlap": f"{row.overlap_pct:.0f} %",
                **({} if done is None else {"state": "already done" if row.done else "to do"}),
            }
            for row in frame.itertuples()
        ]
        _print_table(rows)
        to_do = len(plan.pairs) - (len(done) if done else 0)
        typer.echo(f"{len(plan.pairs)} pairs, {to_do} to do; {len(plan.left_out)} scenes left out")
    for scene, why in plan.left_out:
        typer.echo(f"left out: {scene}: {why}", err=form is PairsFormat.GEOJSON)


def _print_outcomes(outcomes: Sequence[Outcome], catalog: str) -> None:
    # Scene ids are long: a line of figures a pair first, then what each number stands for and where it lies.
    rows = [outcome.row() for outcome in outcomes]
    short = [name for name in (rows[0] if rows else ()) if name not in {"pair", "products"}]
    _print_table([{"#": str(n), **{name: row[name] for name in short}} for n, row in enumerate(rows, 1)])
    if not outcomes:
        typer.echo(
            f"no pair in {catalog}; `crosstie pairs --catalog {catalog}` says which scenes are left out"
        )
        return
    for n, outcome in enumerate(outcomes, 1):
        typer.echo(f"\n#{n} {outcome.pair_key}")
        for sentence in outcome.explanation:
            typer.echo(f"   {sentence}")
        if outcome.products is not None:
            typer.echo(f"   {outcome.products}/report.html")
    typer.echo("")
    counts = Counter(outcome.verdict for outcome in outcomes)
    before = sum(outcome.already_done for outcome in outcomes)
    typer.echo(
        f"{len(outcomes)} pairs: {', '.join(f'{n} {verdict}' for verdict, n in sorted(counts.items()))}"
    )
    if before == len(outcomes):
        typer.echo("All of them were already done: nothing was computed.")
    elif before:
        typer.echo(f"{before} of them were already done and not computed again.")


def _print_table(rows: Sequence[dict[str, str]]) -> None:
    if not rows:
        return
    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False, markup=False)
    console.print(table)
