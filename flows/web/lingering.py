"""An answer that is given before the whole request has come reaches a client that still sends.

A server that closes a connection with unread bytes resets it, and the reset takes the answer away from the
client (RFC 9112, section 9.6). uvicorn closes like that. Here the rest of a body is read and dropped, within
limits, after the answer was sent and before the connection is closed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True, slots=True)
class LingerLimits:
    """How much of a body is read after its answer."""

    all_s: float = 15.0
    """In all, seconds."""
    pause_s: float = 2.0
    """Without a further byte, seconds."""
    most_bytes: int = 64 * 2**20


class Lingering:
    """ASGI middleware around everything else: it holds back the end of an answer, not its bytes."""

    def __init__(self, app: ASGIApp, limits: LingerLimits | None = None) -> None:
        self._app = app
        self._limits = limits or LingerLimits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        is_read = answered = False

        async def counted() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = is_read or not _more_follows(message)
            return message

        async def without_end(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                answered = True
                message = {**message, "more_body": True}
            await send(message)

        await self._app(scope, counted, without_end)
        if not answered:
            return  # the application broke off: the server answers for it
        if not is_read:
            await self._drop_rest(receive)
        await send({"type": "http.response.body", "body": b""})

    async def _drop_rest(self, receive: Receive) -> None:
        dropped = 0
        try:
            async with asyncio.timeout(self._limits.all_s):
                while dropped <= self._limits.most_bytes:
                    async with asyncio.timeout(self._limits.pause_s):
                        message = await receive()
                    dropped += len(message.get("body", b""))
                    if not _more_follows(message):
                        return
        except TimeoutError:
            return


def _has_body(scope: Scope) -> bool:
    return any(name in {b"content-length", b"transfer-encoding"} for name, _ in scope["headers"])


def _more_follows(message: Message) -> bool:
    return message["type"] == "http.request" and bool(message.get("more_body"))
