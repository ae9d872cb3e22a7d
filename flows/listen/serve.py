"""Start the service: everything that can be wrong is found before the first request."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import uvicorn
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from crosstie.config import Settings, each_setting
from crosstie.errors import BadInputError, SettingsError
from crosstie.flows.listen.app import Service, make_app
from crosstie.flows.listen.sns import SnsDoor
from crosstie.flows.listen.start_run import PrefectUnavailableError, RunStarter
from crosstie.flows.observe.json_lines import log_to_stderr
from crosstie.flows.web.access import read_access
from crosstie.flows.web.address import Address, bind
from crosstie.io.events.notices import NoticeRules
from crosstie.io.scenes.ids import SceneIds
from crosstie.io.storage.href import local_path, public_href

LOG = logging.getLogger("crosstie.listen")

DEPLOY = "`prefect deploy --all --prefect-file deploy/prefect.yaml` makes it"


def serve(address: Address, *, catalog: str, out: str, settings: Settings, insecure: bool) -> None:
    """Take notices until stopped.

    Raises
    ------
    BadInputError : no secret, no Prefect, no deployment, an address that is taken, a secret in a URL
    """
    access = read_access(settings.listen, address.host, insecure=insecure)
    if not PREFECT_API_URL.value():
        raise BadInputError(
            "PREFECT_API_URL is not set, and a run needs a Prefect server that outlives this command: "
            "`prefect server start`, then `export PREFECT_API_URL=http://127.0.0.1:4200/api`"
        )
    parameters = {
        "catalog": _lasting("--catalog", catalog),
        "out": _lasting("--out", out),
        "settings": changed(settings),
    }
    log_to_stderr(LOG.name, settings.observe.log_format)
    sns = SnsDoor(topics=settings.listen.sns_topics, confirm=settings.listen.confirm_sns)
    rules = NoticeRules(
        SceneIds(settings.listen.also_ids),
        sar_collections=settings.catalog.sar_collections,
        optical_collections=settings.catalog.optical_collections,
    )

    async def run() -> None:
        async with get_client() as client:
            starter = RunStarter(
                client,
                settings.listen.deployment,
                parameters,
                dedupe_s=settings.listen.dedupe_s,
                timeout_s=settings.listen.prefect_timeout_s,
            )
            await _check(starter)
            app = make_app(Service(settings.listen, access, rules, starter, sns))
            bound, real = bind(address)
            with bound:
                LOG.info("listening on %s/scenes, starting %s", real, starter.deployment)
                await uvicorn.Server(_config(app, settings.listen.max_requests)).serve(sockets=[bound])

    asyncio.run(run())


def changed(settings: Settings) -> dict[str, Any]:
    """Settings of a run: those that differ from the defaults; the others are the worker's own to set."""
    usual = {setting.name: setting.value for setting in each_setting(Settings())}
    tree: dict[str, Any] = {}
    for setting in each_setting(settings):
        *groups, name = setting.name.split(".")
        mine = groups in (["listen"], ["observe"])  # of this service, not of the runs that it starts
        if not (setting.is_group or mine or setting.value == usual[setting.name]):
            branch = tree
            for group in groups:
                branch = branch.setdefault(group, {})
            branch[name] = setting.value
    return tree


def _config(app: object, max_requests: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        lifespan="off",
        log_config=None,
        access_log=False,  # it has whole addresses in it, and so whatever a sender puts there
        server_header=False,
        proxy_headers=False,
        # Connections beyond those whose requests are limited: kept alive, or too slow to have asked yet.
        limit_concurrency=4 * max_requests + 64,
        timeout_graceful_shutdown=30,
    )


async def _check(starter: RunStarter) -> None:
    try:
        await starter.deployment_id()
    except PrefectUnavailableError as problem:
        api = public_href(PREFECT_API_URL.value() or "")
        raise BadInputError(
            f"{problem}; PREFECT_API_URL is {api}, and {starter.deployment} must be there: {DEPLOY}"
        ) from None


def _lasting(option: str, href: str) -> str:
    """Address that a run in another place can follow, and that Prefect may keep.

    Raises
    ------
    SettingsError : it carries a secret
    """
    path = local_path(href)
    if path is not None:
        return str(path)
    if public_href(href) != href:
        raise SettingsError(
            f"{option} {public_href(href)}: carries a user, password or signature, and Prefect keeps the "
            "parameters of runs; give workers their credentials in the environment"
        )
    return href
