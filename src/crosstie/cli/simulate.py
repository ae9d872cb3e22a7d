"""`crosstie simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crosstie.cli.app import app, told


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
