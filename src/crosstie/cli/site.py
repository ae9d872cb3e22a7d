"""`crosstie site`: an archive in a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from crosstie.cli.app import app, exit_codes
from crosstie.cli.options import ConfigOption, HostOption, OutOption, PortOption


@app.command("site")
@exit_codes
def site_command(
    out: OutOption,
    config: ConfigOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8091,
    every_s: Annotated[
        float,
        typer.Option(
            "--every-s",
            min=1,
            max=86_400,
            help="Time between two readings of the archive, seconds; longer for a large one.",
        ),
    ] = 60,
    token_env: Annotated[
        str, typer.Option("--token-env", help="Environment variable that holds the token of readers.")
    ] = "CROSSTIE_SITE_TOKEN",  # noqa: S107 - the name of a variable
    everyone: Annotated[
        bool,
        typer.Option("--open", help="Ask nobody for a token, even if other machines can reach the address."),
    ] = False,
) -> None:
    """Show the products in a browser: corrections, reports, failures, last runs. Changes nothing.

    / lists the committed corrections, newest first, and filters them by verdict, reason and scene; each has
    its picture, report and files. /failures lists the failed pairs. /metrics has the state of the archive for
    Prometheus, and /healthz says that the service runs; these two need no token and name no scene.

    If the environment holds a token, callers send [bold]Authorization: Bearer TOKEN[/bold]; in a browser the
    token is the password of any user name. Without a token the site serves this machine only, unless --open
    is given. For HTTPS, put a proxy in front.

    [bold]Example:[/bold] crosstie site --out products; then open http://127.0.0.1:8091/

    [bold]Example:[/bold] CROSSTIE_SITE_TOKEN=… crosstie site --out s3://products --host 0.0.0.0
    """
    from crosstie.config import load_settings
    from crosstie.flows.site.serve import Where, serve_site
    from crosstie.flows.web.address import Address

    settings = load_settings(config)
    serve_site(Where(Address(host, port), token_env, everyone), out=out, settings=settings, every_s=every_s)
