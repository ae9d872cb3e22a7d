"""`crosstie site`: an archive in a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from crosstie.cli.app import app, exit_codes
from crosstie.cli.options import ConfigOption


@app.command("site")
@exit_codes
def site_command(
    out: Annotated[
        str, typer.Option("--out", "-o", help="Where products are: a folder, file://… or s3://bucket/prefix.")
    ],
    config: ConfigOption = None,
    host: Annotated[str, typer.Option(help="Address to serve on; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8091,
    every_s: Annotated[
        float,
        typer.Option(
            "--every-s",
            min=1,
            max=86_400,
            help="How often the archive is looked at, seconds; a large one less often.",
        ),
    ] = 60,
    token_env: Annotated[
        str, typer.Option("--token-env", help="Environment variable that holds the token of those who look.")
    ] = "CROSSTIE_SITE_TOKEN",  # noqa: S107 - the name of a variable
    everyone: Annotated[
        bool, typer.Option("--open", help="Ask nobody for a token, on an address that other machines reach.")
    ] = False,
) -> None:
    """Show an archive in a browser: corrections, reports, failures, last runs. Reads only.

    / lists the committed corrections, the newest first, by verdict, reason and scene; each with its picture,
    report and files. /failures lists what was given up. /metrics has the state of the archive for Prometheus,
    and /healthz says that the process serves; these two ask for no token and name no scene.

    With a token in the environment callers send [bold]Authorization: Bearer TOKEN[/bold]; a browser asks for
    it as the password of any user. Without one only this machine is served, unless --open is given. HTTPS is
    the matter of a proxy in front.

    [bold]Example:[/bold] crosstie site --out products; then open http://127.0.0.1:8091/

    [bold]Example:[/bold] CROSSTIE_SITE_TOKEN=… crosstie site --out s3://products --host 0.0.0.0
    """
    from crosstie.config import load_settings
    from crosstie.flows.site.serve import Where, serve
    from crosstie.flows.web.address import Address

    settings = load_settings(config)
    serve(Where(Address(host, port), token_env, everyone), out=out, settings=settings, every_s=every_s)
