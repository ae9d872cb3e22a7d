"""`crosstie train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from crosstie.cli.app import app, exit_codes
from crosstie.cli.options import TrainConfigOption, VerboseOption
from crosstie.cli.printing import say
from crosstie.cli.runs import prepare_for


@app.command("train")
@exit_codes
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
            help="Easting, metres: labelled places east of it are held out. They only measure the result.",
            show_default=False,
        ),
    ] = None,
    catalog: Annotated[
        str | None,
        typer.Option(
            "--catalog",
            help="STAC catalog whose pairs are used for training without labels: path or URL.",
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of aligned pictures used for training without labels: s1/NAME.png and s2/NAME.jpg. "
            "Repeat the option for several folders.",
            show_default=False,
        ),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option(
            help="Weights to start from: a file with its .sha256 beside it, or 'shipped'. No labels are "
            "needed then.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for checkpoints, log, pictures and weights; runs/train by default.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Optimiser steps; 1 to 4 s each on two cores.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed; the same seed gives the same weights on a CPU.", show_default=False),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda, cuda:1, or auto: CUDA where it is available.", show_default=False),
    ] = None,
    promote_to: Annotated[
        Path | None,
        typer.Option(
            help="Weights in use: replaced by the new ones if those perform better on the held-out places.",
            show_default=False,
        ),
    ] = None,
    config: TrainConfigOption = None,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print all settings as commented YAML, and stop.")
    ] = False,
    flow: Annotated[
        bool,
        typer.Option(
            "--flow", help="Run as a Prefect flow: its stages are tasks, its result is an artifact."
        ),
    ] = False,
    verbose: VerboseOption = False,
) -> None:
    """Train the matcher with labels or on your own archive. A stopped run resumes when it is started again.

    Labelled scenes supply true offsets. For pictures and for tiles of a catalog's pairs, a teacher supplies
    the offsets: a slow average of the network. Confidence is calibrated on labelled places that are held out.

    [bold]Example:[/bold] crosstie train T11SLT T11SMT --hold-out-east -13062627 --out runs/first

    [bold]Example:[/bold] crosstie train --catalog catalog.json --start-from shipped --steps 400

    [bold]Example:[/bold] crosstie train --show-config > train.yaml; crosstie train --config train.yaml --flow
    """
    if flow:
        from crosstie.flows.runs.prefect_env import prepare

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
    if flow:
        prepare_for("training.flow", verbose=verbose)
    from crosstie.flows.training.progress import report_training_to
    from crosstie.flows.training.train import run_training

    with report_training_to(Console(stderr=True)):
        if flow:
            from crosstie.flows.training.flow import training

            found = training(settings)
        else:
            found = run_training(settings)
    for name, value in found.items():
        say(f"{name:<20}{value:.4f}")
    say(f"weights: {settings.weights_path}")
