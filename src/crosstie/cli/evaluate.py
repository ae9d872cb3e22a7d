"""`crosstie evaluate`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from crosstie.cli.app import EXIT_UNRELIABLE, app, exit_codes
from crosstie.cli.options import ConfigOption, LimitOption, WeightsOption
from crosstie.cli.printing import print_table, say
from crosstie.errors import SettingsError
from crosstie.io.datasets.names import Dataset, Part, Split

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.flows.evaluation.evaluate import Evaluation
    from crosstie.flows.evaluation.placement import Placement, Protocol
    from crosstie.flows.evaluation.promote import MeasuredWeights, Promotion
    from crosstie.io.datasets.benchmark_pair import BenchmarkPair
    from crosstie.matcher.evaluation.comparison import Comparison

MOST_PLACES = 20
"""Maximum number of places in the table."""


@app.command("evaluate")
@exit_codes
def evaluate_command(
    dataset: Annotated[
        Dataset | None,
        typer.Option(
            help="Data set in its published layout: sen12, qxs, scenes, ombria, sebast144 or sih1733; needs "
            "--data.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the data set.", show_default=False)] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a data set: a CSV with the columns reference, secondary, dx_px, dy_px (and "
            "place): two images of one size, paths relative to the CSV, and their true offset, secondary "
            "minus reference.",
            show_default=False,
        ),
    ] = None,
    weights: WeightsOption = None,
    split: Annotated[
        Split,
        typer.Option(
            help="How sen12 and qxs are split: place (no place is in both parts), or published (pair by "
            "pair, parts as large as published)."
        ),
    ] = Split.PLACE,
    part: Annotated[Part, typer.Option(help="Part of sen12, qxs or ombria to measure.")] = Part.ALL,
    template_px: Annotated[
        list[int] | None,
        typer.Option(
            min=16,
            help="Side of the template, px; repeat the option for several. Default: 192, 128 and 64 in "
            "scenes and sih1733, in other pictures the largest that fits (192 in 256).",
            show_default=False,
        ),
    ] = None,
    search_px: Annotated[int, typer.Option(min=4, max=128, help="Search radius per axis, px.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Seed of parts, cuts, known shifts and of --limit.")] = 0,
    limit: LimitOption = None,
    figures_path: Annotated[
        Path | None,
        typer.Option("--figures", help="Write all figures to this file.", show_default=False),
    ] = None,
    per_pair: Annotated[
        bool, typer.Option("--per-pair", help="With --figures: list every pair as well.")
    ] = False,
    csv_path: Annotated[
        Path | None,
        typer.Option("--csv", help="Write a table to this file, one row a pair.", show_default=False),
    ] = None,
    picture_path: Annotated[
        Path | None,
        typer.Option(
            "--picture",
            help="Draw errors, reliability of the confidence and the worst pairs to this PNG file.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Other weights to measure on the same pairs. Default with --promote-to: the weights in that "
            "file, else the shipped ones.",
            show_default=False,
        ),
    ] = None,
    promote_to: Annotated[
        Path | None,
        typer.Option(
            help="Replace this file with --weights only if they are better; the old weights are kept beside "
            "it. Exit code 3 if they are not better.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Measure how well a matcher finds known offsets: share within 1, 2 and 5 px, distances, confidence.

    A square is cut from each reference and searched in its secondary. In pictures of up to 256 px it is cut
    at random. In scenes the secondary is moved first: a matcher that always answers zero gains nothing.

    Weights are better if significantly more pairs are within 1 px (bootstrap over places and sign test), and
    not significantly fewer within 2 and 5 px.

    [bold]Example:[/bold] crosstie evaluate --dataset sen12 --data SEN1-2 --part test --picture sen12.png

    [bold]Example:[/bold] crosstie evaluate --pairs pairs.csv --weights new.safetensors --promote-to
    best.safetensors
    """
    from crosstie.config import load_settings
    from crosstie.flows.evaluation.datasets import some_of
    from crosstie.flows.evaluation.placement import Protocol, place_templates
    from crosstie.flows.evaluation.promote import compare_and_promote, refuse_target

    outputs = [path for path in (figures_path, csv_path, picture_path) if path is not None]
    for path in outputs:
        _refuse_unwritable(path)
    settings = load_settings(config, options={"weights": weights})
    if promote_to is not None:
        refuse_target(weights, promote_to)
        _refuse_unwritable(promote_to)
    protocol = Protocol(search_px=search_px, sizes_px=tuple(template_px or ()), seed=seed)
    found, truth = _pairs_and_truth(pairs, dataset, data, protocol, part=part, split=split)
    groups = place_templates(some_of(found, limit, seed=seed), protocol)
    measure = partial(_measured, groups=groups, settings=settings, search_px=search_px)

    new = measure(settings.weights, label="measure")
    facts = {
        **_source_facts(pairs, dataset, part=part, split=split),
        "truth": truth,
        "seed": seed,
        "search_px": search_px,
        "weights_sha256": new.sha256,
    }
    _print_evaluation(new.evaluation, facts)
    title = f"{dataset or pairs}, weights {new.sha256[:12]}"
    _write_outputs(new.evaluation, facts, title, figures_path, csv_path, picture_path, per_pair=per_pair)
    for path in outputs:
        say(f"written: {path}")
    if against is not None or promote_to is not None:
        end = compare_and_promote(new, measure, against=against, target=promote_to, facts=facts)
        _print_comparison(end.comparison)
        _print_promotion(end, promote_to)


def _source_facts(
    table: Path | None, dataset: Dataset | None, *, part: Part, split: Split
) -> dict[str, object]:
    """Say which pairs were measured, for the written figures."""
    in_parts = dataset in (Dataset.SEN12, Dataset.QXS) and part is not Part.ALL
    return {
        "schema": "crosstie/evaluation/1",
        "source": str(table or dataset),
        "split": split if in_parts else None,
        "part": part,
    }


def _pairs_and_truth(
    table: Path | None,
    dataset: Dataset | None,
    data: Path | None,
    protocol: Protocol,
    *,
    part: Part,
    split: Split,
) -> tuple[list[BenchmarkPair], str]:
    """List the pairs that the options name, and say where their true offsets come from."""
    from crosstie.flows.evaluation.datasets import TRUTH, load_pairs
    from crosstie.io.datasets.pair_table import read_pair_table

    if table is not None and dataset is None and data is None:
        if part is not Part.ALL:
            raise SettingsError("--part: a table of pairs has no parts; leave it out")
        return read_pair_table(table), "as the table says"
    if table is None and dataset is not None and data is not None:
        return load_pairs(dataset, data, protocol, part=part, split=split), TRUTH[dataset]
    raise SettingsError("give either --pairs TABLE, or --dataset NAME with --data FOLDER")


def _measured(
    weights: Path | None,
    *,
    groups: Sequence[Sequence[Placement]],
    settings: Settings,
    search_px: int,
    label: str = "against",
) -> MeasuredWeights:
    """Evaluate weights; show a progress bar on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from crosstie.flows.evaluation.evaluate import evaluate
    from crosstie.flows.evaluation.promote import MeasuredWeights
    from crosstie.flows.registration.load_matcher import load_matcher

    matcher = load_matcher(settings.model_copy(update={"weights": weights}))
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=sum(map(len, groups)))
        found = evaluate(
            groups, matcher, search_px=search_px, progress=lambda count: bar.advance(task, count)
        )
    return MeasuredWeights(weights, matcher.weights_sha256, found)


def _write_outputs(
    evaluation: Evaluation,
    facts: dict[str, object],
    title: str,
    figures_path: Path | None,
    csv_path: Path | None,
    picture_path: Path | None,
    *,
    per_pair: bool,
) -> None:
    """Write the files that were asked for."""
    from crosstie.flows.evaluation.report import csv_text, evaluation_report, picture

    if figures_path is not None:
        tree = facts | evaluation_report(evaluation, per_pair=per_pair)
        _write_out(figures_path, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")
    if csv_path is not None:
        _write_out(csv_path, csv_text(evaluation))
    if picture_path is not None:
        _write_out(picture_path, picture(evaluation, title))


def _refuse_unwritable(path: Path) -> None:
    """Refuse a file that cannot be written, before anything is measured."""
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if path.is_dir() or not parent.is_dir() or not os.access(parent, os.W_OK):
        raise SettingsError(f"{path}: cannot be written; give the path of a file")


def _write_out(path: Path, body: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body if isinstance(body, bytes) else body.encode())


def _print_evaluation(evaluation: Evaluation, facts: dict[str, object]) -> None:
    """Print figures by size and by place, and a summary."""
    whole, places = evaluation.figures(), evaluation.sections(evaluation.places)
    by_size = evaluation.sections(evaluation.sizes_px)
    rows = [_figures_row("template", f"{n} px", by_size[n]) for n in sorted(by_size, key=int, reverse=True)]
    print_table(rows)
    if len(places) > 1:
        say()
        hardest = sorted(places, key=lambda name: (places[name]["cmr_1"], name))[:MOST_PLACES]
        print_table([_figures_row("place", name, places[name]) for name in sorted(hardest)])
        if len(places) > len(hardest):
            say(f"(the {len(hardest)} hardest of {len(places)} places; all are in --figures)")
    say()
    say(
        f"{whole['n']:.0f} measured: {whole['cmr_1']:.1%} within 1 px, {whole['cmr_2']:.1%} within 2 px, "
        f"{whole['cmr_5']:.1%} within 5 px; {whole['ms_per_pair']:.0f} ms each "
        f"(median {whole['ms_median']:.0f})"
    )
    say(f"confidence: {whole['expected_calibration_error']:.3f} expected calibration error")
    say(f"true offsets: {facts['truth']}")
    say(f"weights: {facts['weights_sha256']}")


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
    """Print both matchers side by side, and the decision."""
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
    say()
    print_table(rows)
    say("the new weights are better" if comparison.better else "the new weights are not better:")
    for reason in comparison.reasons:
        say(f"  {reason}")


def _print_promotion(end: Promotion, target: Path | None) -> None:
    """Say what became of the weights at the target; exit code 3 where the new ones are not better."""
    if target is None:
        return
    say(f"comparison: {end.written}")
    if not end.promoted:
        say(f"not promoted: {target} is as it was")
        raise typer.Exit(EXIT_UNRELIABLE)
    say(f"promoted: {target}" + (f"; the old ones are kept as {end.kept}" if end.kept else ""))
