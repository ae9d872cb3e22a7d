"""The HTTP server of both services."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import uvicorn

from crosstie.flows.web.connections import ConnectionLimits, protocol_with
from crosstie.flows.web.lingering import Lingering

if TYPE_CHECKING:
    from starlette.types import ASGIApp


async def serve_on(
    bound: socket.socket,
    app: ASGIApp,
    *,
    max_connections: int,
    shutdown_s: int,
    limits: ConnectionLimits | None = None,
) -> None:
    """Answer requests on a socket until the process is told to stop.

    Parameters
    ----------
    bound : socket.socket
        Listens already.
    app : ASGI application
        Answers the requests.
    max_connections : int
        Further connections are refused (503).
    shutdown_s : int
        How long requests may take to end when the server stops, seconds.
    limits : ConnectionLimits, optional
        Of connections that wait; by default half of all may.
    """
    limits = limits or ConnectionLimits(
        waiting=max(max_connections // 2, 1), waiting_each=max(max_connections // 4, 1)
    )
    config = uvicorn.Config(
        Lingering(app),
        http=protocol_with(limits),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # it would log whole addresses, and so whatever a caller writes there
        server_header=False,
        proxy_headers=False,
        limit_concurrency=max_connections,
        timeout_keep_alive=int(limits.idle_s),
        timeout_graceful_shutdown=shutdown_s,
    )
    await uvicorn.Server(config).serve(sockets=[bound])
