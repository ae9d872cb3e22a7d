"""Start the site."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from dataclasses import dataclass

import uvicorn

from crosstie.config import Settings
from crosstie.errors import BadInputError
from crosstie.flows.observe.json_lines import write_log_as
from crosstie.flows.site.app import make_app
from crosstie.flows.site.door import is_loopback, read_access
from crosstie.flows.site.watch import Watch
from crosstie.io.store import open_store

LOG = logging.getLogger("crosstie.site")

MOST_CONNECTIONS = 256
"""Further ones are sent back (503)."""


@dataclass(frozen=True, slots=True)
class Where:
    """Where the site is, and who may look."""

    host: str
    port: int
    """0: any free one, which is then said."""
    token_variable: str
    everyone: bool

    def url(self, port: int) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{port}"


def serve(where: Where, *, out: str, settings: Settings, every_s: float) -> None:
    """Show an archive until stopped. A store that cannot be read yet is no reason not to start.

    Raises
    ------
    BadInputError : no token, an address that is taken, a root that is none
    """
    access = read_access(where.token_variable, where.host, everyone=where.everyone)
    store = open_store(out, settings.storage)
    _log_to_stderr(settings)
    with _bound(where) as bound, Watch(store, every_s=every_s) as watch:
        app = make_app(watch, access, local=is_loopback(where.host))
        LOG.info("%s at %s/", store.url, where.url(bound.getsockname()[1]))
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


def _bound(where: Where) -> socket.socket:
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    try:
        return socket.create_server((where.host, where.port), family=family, backlog=256)
    except OSError as problem:
        raise BadInputError(
            f"cannot listen on {where.url(where.port)} ({problem.strerror}); give another --host or --port"
        ) from None


def _log_to_stderr(settings: Settings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name, level in (("crosstie", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
    write_log_as(settings.observe.log_format)
