"""The command line: parse, call, exit code. 0 done, 2 bad input, 3 some pairs unreliable or failed, 1 bug."""

from __future__ import annotations

import functools
import json
import os
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
    from crosstie.flows.evaluate import Evaluation, Placement
    from crosstie.flows.outcome import Outcome
    from crosstie.flows.register import RegisterResult
    from crosstie.io.pairing import PairPlan
    from crosstie.matcher.comparison import Comparison

P = ParamSpec("P")
R = TypeVar("R")

EXIT_BAD_INPUT, EXIT_UNRELIABLE, EXIT_INTERRUPTED = 2, 3, 130

WIDE = 400
"""Columns of a pipe or a file: nothing is folded or cut where nobody looks."""

MOST_PLACES = 20
"""Lines of a table that are still read."""

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


class DatasetName(StrEnum):
    """Sets that `crosstie evaluate` knows the layout of."""

    SEN12 = "sen12"
    QXS = "qxs"
    SCENES = "scenes"
    OMBRIA = "ombria"
    SEBAST144 = "sebast144"
    SIH1733 = "sih1733"


class SplitName(StrEnum):
    """How a set is parted."""

    PLACE = "place"
    PUBLISHED = "published"


class PartName(StrEnum):
    """Which part of a set."""

    ALL = "all"
    TRAIN = "train"
    TEST = "test"


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
        list[Path] | None,
        typer.Argument(
            help="Labelled scenes: folders with s1_vh.tif, s2_tci.tif, truth_offsets.tif and tiles.csv.",
            show_default=False,
        ),
    ] = None,
    hold_out_east: Annotated[
        float | None,
        typer.Option(
            help="Easting, metres: labelled places east of it are never learnt from, only measured on.",
            show_default=False,
        ),
    ] = None,
    catalog: Annotated[
        str | None,
        typer.Option(
            "--catalog",
            help="Also learn from the pairs of a STAC catalogue, without labels: path or URL.",
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[
        list[Path] | None,
        typer.Option(
            help="Also learn from a folder of aligned pictures, without labels: s1/NAME.png and s2/NAME.jpg. "
            "Again for several.",
            show_default=False,
        ),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option(
            help="Weights to go on from: a file with its .sha256 beside it, or 'shipped'. With them no label "
            "is needed.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Receives checkpoints, log, pictures and weights; runs/train by default.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Optimiser steps; 1 to 4 s each on two cores.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="The same seed gives the same weights on a CPU.", show_default=False),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda, cuda:1, or auto: CUDA where there is one.", show_default=False),
    ] = None,
    promote_to: Annotated[
        Path | None,
        typer.Option(
            help="Weights in use: replaced by the new ones if these measure better on the held-out places.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="All settings of training as YAML; options win over it.",
            show_default=False,
        ),
    ] = None,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print all settings as commented YAML, and stop.")
    ] = False,
    flow: Annotated[
        bool,
        typer.Option("--flow", help="Run as a Prefect flow: its stages are tasks, its result an artifact."),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what Prefect says, too.")] = False,
) -> None:
    """Train the matcher, with labels or on your own archive. Killed and started again, it goes on.

    Labelled scenes teach by their truth; pictures and the tiles of a catalogue's pairs by what a slow average
    of the network, the teacher, finds in them. Confidence is calibrated on labelled places that are held out.

    [bold]Example:[/bold] crosstie train T11SLT T11SMT --hold-out-east -13062627 --out runs/first

    [bold]Example:[/bold] crosstie train --catalog catalog.json --start-from shipped --steps 400

    [bold]Example:[/bold] crosstie train --show-config > train.yaml; crosstie train --config train.yaml --flow
    """
    if flow:
        from crosstie.flows.prefect_env import prepare

        prepare(verbose=verbose)
    from crosstie.config import commented_yaml
    from crosstie.train_settings import load_train_settings

    settings = load_train_settings(
        config,
        options={
            "labelled.scenes": scenes or None,
            "labelled.hold_out_east_m": hold_out_east,
            "mine.catalog": catalog,
            "pictures.folders": pictures or None,
            "start_from": start_from,
            "out": out,
            "plan.steps": steps,
            "plan.seed": seed,
            "device": device,
            "promote_to": promote_to,
        },
    )
    if show_config:
        typer.echo(commented_yaml(settings), nl=False)
        return
    from crosstie.flows.train import run_training, weights_path
    from crosstie.flows.training_progress import told_on

    with told_on(Console(stderr=True)):
        if flow:
            from crosstie.flows.training_flow import training

            found = training(settings)
        else:
            found = run_training(settings)
    for name, value in found.items():
        typer.echo(f"{name:<20}{value:.4f}")
    typer.echo(f"weights: {weights_path(settings)}")


@app.command("evaluate")
@told
def evaluate_command(
    dataset: Annotated[
        DatasetName | None,
        typer.Option(help="A set in its published layout, with --data.", show_default=False),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the set.", show_default=False)] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a set: a CSV with the columns reference, secondary, dx_px, dy_px (and place): "
            "two images of one size, paths relative to the CSV, and their true offset, secondary minus "
            "reference.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights other than the shipped ones.", show_default=False)
    ] = None,
    split: Annotated[
        SplitName,
        typer.Option(
            help="How sen12 and qxs are parted: no place in both parts, or pair by pair, the parts as large "
            "as published."
        ),
    ] = SplitName.PLACE,
    part: Annotated[
        PartName, typer.Option(help="Which part of sen12, qxs or ombria is measured.")
    ] = PartName.ALL,
    template_px: Annotated[
        list[int] | None,
        typer.Option(
            min=16,
            help="Side of the template; again for several. Left out: 192, 128 and 64 in scenes and sih1733, "
            "in other pictures the largest that fits (192 in 256).",
            show_default=False,
        ),
    ] = None,
    search_px: Annotated[int, typer.Option(min=4, max=128, help="How far is searched, per axis.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Of parts, cuts and known shifts.")] = 0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="So many pairs at most, drawn by the seed.", show_default=False)
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write all figures there.", show_default=False)
    ] = None,
    per_pair: Annotated[bool, typer.Option("--per-pair", help="With --json: every pair, too.")] = False,
    csv_path: Annotated[
        Path | None, typer.Option("--csv", help="Write a table there, one row a pair.", show_default=False)
    ] = None,
    picture_path: Annotated[
        Path | None,
        typer.Option(
            "--picture",
            help="Draw errors, reliability of the confidence and the worst pairs there (PNG).",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Other weights to measure on the same pairs. Left out with --promote-to: what lies there, "
            "else the shipped ones.",
            show_default=False,
        ),
    ] = None,
    promote_to: Annotated[
        Path | None,
        typer.Option(
            help="Put --weights there if, and only if, they are better; what they replace is kept beside. "
            "Exit code 3 where they are not better.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Measure how well a matcher finds known offsets: share within 1, 2 and 5 px, distances, confidence.

    A square is cut from each reference and searched in its secondary. In pictures of up to 256 px it is cut
    at random, in scenes the secondary is moved first: a matcher that always answers zero gains nothing.

    Better means: within 1 px in more pairs than chance explains (bootstrap over places, and sign test), and
    no more than chance lost at 2 and 5 px.

    [bold]Example:[/bold] crosstie evaluate --dataset sen12 --data SEN1-2 --part test --picture sen12.png

    [bold]Example:[/bold] crosstie evaluate --pairs pairs.csv --weights new.safetensors --promote-to
    best.safetensors
    """
    from crosstie.config import load_settings
    from crosstie.flows import evaluate, promote
    from crosstie.io.benchmark_split import Part

    outputs = [path for path in (json_path, csv_path, picture_path) if path is not None]
    for path in outputs:
        _refuse_unwritable(path)
    settings = load_settings(config, options={"weights": weights})
    if promote_to is not None:
        promote.refuse_target(weights, promote_to)
        _refuse_unwritable(promote_to)
    protocol = evaluate.Protocol(search_px=search_px, sizes_px=tuple(template_px or ()), seed=seed)
    if pairs is not None and dataset is None and data is None:
        if part is not PartName.ALL:
            raise SettingsError("--part: a table of pairs has no parts; leave it out")
        found, truth = evaluate.load_table(pairs), "as the table says"
    elif pairs is None and dataset is not None and data is not None:
        named = evaluate.Dataset(dataset)
        found = evaluate.load_pairs(named, data, protocol, part=Part(part), split=evaluate.Split(split))
        truth = evaluate.TRUTH[named]
    else:
        raise SettingsError("give either --pairs TABLE, or --dataset NAME with --data FOLDER")
    groups = evaluate.place(evaluate.some_of(found, limit, seed=seed), protocol)

    new, new_sha256 = _measured(groups, settings, search_px, "measure")
    facts: dict[str, object] = {
        "schema": "crosstie/evaluation/1",
        "source": str(pairs or dataset),
        "truth": truth,
        "split": split
        if dataset in (DatasetName.SEN12, DatasetName.QXS) and part is not PartName.ALL
        else None,
        "part": part,
        "seed": seed,
        "search_px": search_px,
        "weights_sha256": new_sha256,
    }
    _print_evaluation(new, facts)
    if json_path is not None:
        tree = facts | evaluate.report(new, per_pair=per_pair)
        _write_out(json_path, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")
    if csv_path is not None:
        _write_out(csv_path, evaluate.csv_text(new))
    if picture_path is not None:
        title = f"{dataset or pairs}, weights {new_sha256[:12]}"
        _write_out(picture_path, evaluate.picture(new, title))
    for path in outputs:
        typer.echo(f"written: {path}")
    if against is None and promote_to is None:
        return

    other = promote.opponent(against, promote_to)
    old, old_sha256 = _measured(groups, settings.model_copy(update={"weights": other}), search_px, "against")
    decision = promote.compared(old, new)
    _print_comparison(decision)
    if promote_to is None:
        return
    tree = promote.comparison_report(decision, old, new, old_sha256=old_sha256, new_sha256=new_sha256)
    written = promote.write_comparison(promote_to, tree | {"evaluation": facts})
    typer.echo(f"comparison: {written}")
    if not decision.better:
        typer.echo(f"not promoted: {promote_to} is as it was")
        raise typer.Exit(EXIT_UNRELIABLE)
    if weights is not None:
        kept = promote.promote(weights, promote_to)
        typer.echo(f"promoted: {promote_to}" + (f"; the old ones are kept as {kept}" if kept else ""))


def _measured(
    groups: Sequence[Sequence[Placement]], settings: Settings, search_px: int, what: str
) -> tuple[Evaluation, str]:
    """Evaluate one set of weights, with a bar where somebody looks."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from crosstie.flows.evaluate import evaluate
    from crosstie.flows.loading import load_matcher

    matcher = load_matcher(settings)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=sum(map(len, groups)))
        found = evaluate(
            groups, matcher, search_px=search_px, progress=lambda count: bar.advance(task, count)
        )
    return found, matcher.weights_sha256


def _refuse_unwritable(path: Path) -> None:
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if path.is_dir() or not parent.is_dir() or not os.access(parent, os.W_OK):
        raise SettingsError(f"{path}: cannot be written; give the path of a file")


def _write_out(path: Path, body: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body if isinstance(body, bytes) else body.encode())


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


def _print_evaluation(evaluation: Evaluation, facts: dict[str, object]) -> None:
    whole, places = evaluation.figures(), evaluation.sections(evaluation.places)
    by_size = evaluation.sections(evaluation.sizes_px)
    rows = [_figures_row("template", f"{n} px", by_size[n]) for n in sorted(by_size, key=int, reverse=True)]
    _print_table(rows)
    if len(places) > 1:
        typer.echo("")
        hardest = sorted(places, key=lambda name: (places[name]["cmr_1"], name))[:MOST_PLACES]
        _print_table([_figures_row("place", name, places[name]) for name in sorted(hardest)])
        if len(places) > len(hardest):
            typer.echo(f"(the {len(hardest)} hardest of {len(places)} places; all are in --json)")
    typer.echo("")
    typer.echo(
        f"{whole['n']:.0f} measured: {whole['cmr_1']:.1%} within 1 px, {whole['cmr_2']:.1%} within 2 px, "
        f"{whole['cmr_5']:.1%} within 5 px; {whole['ms_per_pair']:.0f} ms each "
        f"(median {whole['ms_median']:.0f})"
    )
    typer.echo(f"confidence: {whole['expected_calibration_error']:.3f} expected calibration error")
    typer.echo(f"true offsets: {facts['truth']}")
    typer.echo(f"weights: {facts['weights_sha256']}")


def _figures_row(head: str, name: str, figures: dict[str, float]) -> dict[str, str]:
    return {
        head: name,
        "n": f"{figures['n']:.0f}",
        **{f"<= {t} px": f"{figures[f'cmr_{t}']:.1%}" for t in (1, 2, 5)},
        "mean px": f"{figures['mean_distance_px']:.2f}",
        "RMSE px": f"{figures['rmse_px']:.2f}",
        "RMSE(T=5)": f"{figures['rmse_t5_px']:.2f}",
        "median px": f"{figures['median_px']:.2f}",
    }


def _print_comparison(comparison: Comparison) -> None:
    rows = [
        {
            "within": f"{change.threshold_px:g} px",
            "old": f"{change.old:.1%}",
            "new": f"{change.new:.1%}",
            "gain": f"{change.gain:+.1%}",
            "by chance": f"{change.low:+.1%} to {change.high:+.1%}",
        }
        for change in comparison.changes
    ]
    typer.echo("")
    _print_table(rows)
    typer.echo("the new weights are better" if comparison.better else "the new weights are not better:")
    for reason in comparison.reasons:
        typer.echo(f"  {reason}")


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
