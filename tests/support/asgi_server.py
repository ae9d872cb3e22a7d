"""An ASGI application behind the server of both services, on a real socket, in a thread."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp

from crosstie.flows.web.connections import ConnectionLimits
from crosstie.flows.web.server import serve_on


@contextmanager
def serving(app: ASGIApp, *, limits: ConnectionLimits | None = None, most: int = 192) -> Iterator[int]:
    """Serve until the block ends; gives the port.

    Parameters
    ----------
    most : int
        Connections at once; further ones are refused.
    """
    bound = socket.create_server(("127.0.0.1", 0), backlog=512)
    loop = asyncio.new_event_loop()
    task = loop.create_task(serve_on(bound, app, max_connections=most, shutdown_s=1, limits=limits))

    def run() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        finally:
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield bound.getsockname()[1]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(30)
        bound.close()
