"""Start the site."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import uvicorn

from crosstie.config import Settings
from crosstie.flows.observe.json_lines import log_to_stderr, write_log_as
from crosstie.flows.site.app import make_app
from crosstie.flows.site.guard import is_loopback, read_access
from crosstie.flows.site.watch import Watch
from crosstie.flows.web.address import Address, bind
from crosstie.io.storage.store import open_store

LOG = logging.getLogger("crosstie.site")

MOST_CONNECTIONS = 256
"""Further ones are sent back (503)."""


@dataclass(frozen=True, slots=True)
class Where:
    """Where the site is, and who may look."""

    address: Address
    token_variable: str
    everyone: bool


def serve(where: Where, *, out: str, settings: Settings, every_s: float) -> None:
    """Show an archive until stopped. A store that cannot be read yet is no reason not to start.

    Raises
    ------
    BadInputError : no token, an address that is taken, a root that is none
    """
    host = where.address.host
    access = read_access(where.token_variable, host, everyone=where.everyone)
    store = open_store(out, settings.storage)
    log_to_stderr("crosstie", settings.observe.log_format)
    write_log_as(settings.observe.log_format)
    bound, real = bind(where.address)
    with bound, Watch(store, every_s=every_s) as watch:
        app = make_app(watch, access, local=is_loopback(host))
        LOG.info("%s at %s/", store.url, real)
        asyncio.run(uvicorn.Server(_config(app)).serve(sockets=[bound]))


def _config(app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        lifespan="off",
        log_config=None,
        access_log=False,  # it has whole addresses in it, and so whatever a caller puts there
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=10,
    )
