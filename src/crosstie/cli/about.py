"""`crosstie config` and `crosstie doctor`: the settings in use, and what is missing."""

from __future__ import annotations

from typing import Annotated

import typer

from crosstie.cli.app import EXIT_UNRELIABLE, app, exit_codes
from crosstie.cli.options import ConfigOption
from crosstie.cli.printing import say


@app.command("config")
@exit_codes
def config_command(config: ConfigOption = None) -> None:
    """Print all settings as YAML with a description of each.

    The values are those in use: of the defaults, --config and CROSSTIE_… variables.

    [bold]Example:[/bold] crosstie config > crosstie.yaml; CROSSTIE_TILES__SIZE_PX=128 crosstie config
    """
    from crosstie.config import commented_yaml, load_settings

    typer.echo(commented_yaml(load_settings(config)), nl=False)


@app.command("doctor")
@exit_codes
def doctor_command(
    catalog: Annotated[
        str | None, typer.Option("--catalog", help="STAC catalog: also try to read it.", show_default=False)
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="Product root: also check its free space.", show_default=False),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Check this machine: say what is missing and how to get it. Exit code 3 if something is missing.

    [bold]Example:[/bold] crosstie doctor --catalog catalog.json --out products
    """
    from crosstie.config import load_settings
    from crosstie.flows.doctor import examine

    all_ok = True
    for finding in examine(load_settings(config), catalog=catalog, out=out):
        all_ok &= finding.ok
        say(f"{'ok     ' if finding.ok else 'problem'}  {finding.subject}: {finding.state}")
        if finding.remedy is not None:
            say(f"         -> {finding.remedy}")
    if not all_ok:
        raise typer.Exit(EXIT_UNRELIABLE)
