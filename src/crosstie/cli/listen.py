"""`crosstie listen`: notices of new scenes start runs."""

from __future__ import annotations

from typing import Annotated

import typer

from crosstie.cli.app import app, exit_codes
from crosstie.cli.options import CatalogOption, ConfigOption, HostOption, OutOption, PortOption
from crosstie.flows.runs.prefect_env import prepare as prepare_prefect


@app.command("listen")
@exit_codes
def listen_command(
    catalog: CatalogOption,
    out: OutOption,
    config: ConfigOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8088,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Ask callers for no secret; for --host 127.0.0.1 only.")
    ] = False,
) -> None:
    r"""Receive notices of new scenes over HTTP, and start a run for each.

    POST /scenes accepts S3 events (AWS, EventBridge, MinIO, SeaweedFS), SNS messages that carry them, and
    STAC items. Only the id of the scene is read. Ten notices of one scene start one run, whatever their form:
    see listen.dedupe_s. GET /health says that the service runs, GET /ready that Prefect answers as well.

    Callers send [bold]Authorization: Bearer TOKEN[/bold], or [bold]X-Crosstie-Signature: sha256=HMAC[/bold]
    of [bold]X-Crosstie-Timestamp[/bold] (seconds since 1970), a dot and the body; each signature is accepted
    once, within listen.signature_window_s. The secrets are in the environment variables that
    listen.token_env and listen.signature_env name. For HTTPS, put a proxy in front.

    [bold]Example:[/bold] PREFECT_API_URL=http://127.0.0.1:4200/api CROSSTIE_LISTEN_TOKEN=… crosstie listen
    --catalog https://stac.example.org --out s3://products

    [bold]Try it:[/bold] curl -H "Authorization: Bearer $CROSSTIE_LISTEN_TOKEN" --json @item.json
    http://127.0.0.1:8088/scenes

    [bold]MinIO:[/bold] mc admin config set HOST notify_webhook:crosstie endpoint=http://HOST:8088/scenes
    auth_token=TOKEN; mc event add HOST/scenes arn:minio:sqs::crosstie:webhook --event put --suffix item.json

    [bold]SeaweedFS:[/bold] in notification.toml, \[notification.webhook] enabled = true,
    endpoint = "http://HOST:8088/scenes", bearer_token = "TOKEN",
    path_prefixes = \["/buckets/scenes/"], max_retries = 10 (0 if not written)

    [bold]AWS:[/bold] aws sns subscribe --topic-arn ARN --protocol https
    --notification-endpoint https://HOST/scenes, with ARN in listen.sns_topics and listen.confirm_sns

    Answers: 202 with a link to the run; 200 nothing to do; 401 no token or a wrong one; 413 too long; 415 not
    JSON; 422 names no scene; 503 Prefect does not answer, try again.
    """
    prepare_prefect(verbose=False)
    from crosstie.config import load_settings
    from crosstie.flows.listen.serve import serve_events
    from crosstie.flows.web.address import Address

    settings = load_settings(config)
    serve_events(Address(host, port), catalog=catalog, out=out, settings=settings, insecure=insecure)
