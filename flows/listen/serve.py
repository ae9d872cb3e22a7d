"""Start the service. Everything that can be checked is checked before the first request."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from crosstie.config import Settings, each_setting
from crosstie.errors import BadInputError, SettingsError
from crosstie.flows.listen.access import read_listener_access
from crosstie.flows.listen.app import Service, make_listen_app
from crosstie.flows.listen.sns import SnsDoor
from crosstie.flows.listen.start_run import PrefectUnavailableError, RunStarter
from crosstie.flows.observe.json_lines import log_to_stderr
from crosstie.flows.web.address import Address, bind
from crosstie.flows.web.server import serve_on
from crosstie.io.events.notices import NoticeRules
from crosstie.io.scenes.ids import SceneIds
from crosstie.io.storage.href import local_path, public_href

LOG = logging.getLogger("crosstie.listen")

DEPLOY = "`prefect deploy --all --prefect-file deploy/prefect.yaml` creates it"


def serve_events(address: Address, *, catalog: str, out: str, settings: Settings, insecure: bool) -> None:
    """Receive notices until stopped.

    Parameters
    ----------
    address : Address
        Where to listen.
    catalog, out : str
        Catalog and product root of the runs that are started.
    settings : Settings
        Of this service (`listen`, `observe`) and of the runs (all others).
    insecure : bool
        Ask callers for no secret.

    Raises
    ------
    BadInputError
        No secret, no Prefect server, no deployment, an address in use, or a secret in a URL.
    """
    access = read_listener_access(settings.listen, address.host, insecure=insecure)
    if not PREFECT_API_URL.value():
        raise BadInputError(
            "PREFECT_API_URL is not set, and the runs need a Prefect server of their own: "
            "`prefect server start`, then `export PREFECT_API_URL=http://127.0.0.1:4200/api`"
        )
    parameters = {
        "catalog": _as_parameter("--catalog", catalog),
        "out": _as_parameter("--out", out),
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
            await _check_deployment(starter)
            app = make_listen_app(Service(settings.listen, access, rules, starter, sns))
            bound, real = bind(address)
            with bound:
                LOG.info("listening on %s/scenes, starting %s", real, starter.deployment)
                # Connections beyond the requests that are handled: kept alive, or too slow to have asked yet.
                connections = 4 * settings.listen.max_requests + 64
                await serve_on(bound, app, max_connections=connections, shutdown_s=30)

    asyncio.run(run())


def changed(settings: Settings) -> dict[str, Any]:
    """Pick the settings that differ from the defaults, for the runs; the workers decide on all others."""
    usual = {setting.name: setting.value for setting in each_setting(Settings())}
    tree: dict[str, Any] = {}
    for setting in each_setting(settings):
        *groups, name = setting.name.split(".")
        own = groups in (["listen"], ["observe"])  # of this service, not of the runs
        if not (setting.is_group or own or setting.value == usual[setting.name]):
            branch = tree
            for group in groups:
                branch = branch.setdefault(group, {})
            branch[name] = setting.value
    return tree


async def _check_deployment(starter: RunStarter) -> None:
    try:
        await starter.deployment_id()
    except PrefectUnavailableError as problem:
        api = public_href(PREFECT_API_URL.value() or "")
        raise BadInputError(
            f"{problem}; PREFECT_API_URL is {api}, and {starter.deployment} must be there: {DEPLOY}"
        ) from None


def _as_parameter(option: str, href: str) -> str:
    """Make an address that a run on another machine can use, and that Prefect may store.

    Raises
    ------
    SettingsError
        The address holds a secret.
    """
    path = local_path(href)
    if path is not None:
        return str(path)
    if public_href(href) != href:
        raise SettingsError(
            f"{option} {public_href(href)}: holds a user, password or signature, and Prefect stores the "
            "parameters of runs; put the credentials into the environment of the workers"
        )
    return href
