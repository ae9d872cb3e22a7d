"""Start the site."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass

from crosstie.config import Settings
from crosstie.flows.observe.json_lines import log_to_stderr, write_log_as
from crosstie.flows.site.app import make_site_app
from crosstie.flows.site.guard import read_site_access
from crosstie.flows.site.watch import Watch
from crosstie.flows.web.address import Address, bind
from crosstie.flows.web.server import serve_on
from crosstie.io.storage.address import is_loopback
from crosstie.io.storage.store import open_store

LOG = logging.getLogger("crosstie.site")

MOST_CONNECTIONS = 256
"""Further connections are refused (503)."""


@dataclass(frozen=True, slots=True)
class Where:
    """Where the site is, and who may read."""

    address: Address
    token_variable: str
    everyone: bool


def serve_site(where: Where, *, out: str, settings: Settings, every_s: float) -> None:
    """Show an archive until stopped. The site starts even if the store cannot be read yet.

    Parameters
    ----------
    where : Where
        Address, and who may read.
    out : str
        Product root.
    settings : Settings
        `storage` and `observe` are used.
    every_s : float
        Time between two readings of the archive, seconds.

    Raises
    ------
    BadInputError
        No token, an address in use, or a root that is no root.
    """
    host = where.address.host
    access = read_site_access(where.token_variable, host, everyone=where.everyone)
    store = open_store(out, settings.storage)
    store.must_be_there()
    log_to_stderr("crosstie", settings.observe.log_format)
    write_log_as(settings.observe.log_format)
    bound, real = bind(where.address)
    with bound, Watch(store, every_s=every_s) as watch:
        app = make_site_app(watch, access, local=is_loopback(host))
        threading.Thread(target=app.state.prepare, name="prepare", daemon=True).start()
        LOG.info("%s at %s/", store.url, real)
        asyncio.run(serve_on(bound, app, max_connections=MOST_CONNECTIONS, shutdown_s=10))
