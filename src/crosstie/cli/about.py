"""`crosstie config` and `crosstie doctor`: what is set, and what is missing."""

from __future__ import annotations

from typing import Annotated

import typer

from crosstie.cli.app import EXIT_UNRELIABLE, app, exit_codes
from crosstie.cli.options import ConfigOption


@app.command("config")
@exit_codes
def config_command(config: ConfigOption = None) -> None:
    """Print all settings as YAML, each with what it means; a file and CROSSTIE_… variables count.

    [bold]Example:[/bold] crosstie config > crosstie.yaml; CROSSTIE_TILES__SIZE_PX=128 crosstie config
    """
    from crosstie.config import commented_yaml, load_settings

    typer.echo(commented_yaml(load_settings(config)), nl=False)


@app.command("doctor")
@exit_codes
def doctor_command(
    catalog: Annotated[
        str | None, typer.Option("--catalog", help="Also try a catalog.", show_default=False)
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
    for finding in examine(load_settings(config), catalog=catalog, out=out):
        well &= finding.ok
        typer.echo(f"{'ok     ' if finding.ok else 'problem'}  {finding.subject}: {finding.state}")
        if finding.remedy is not None:
            typer.echo(f"         -> {finding.remedy}")
    if not well:
        raise typer.Exit(EXIT_UNRELIABLE)
