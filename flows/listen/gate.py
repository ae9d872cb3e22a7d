"""Middleware for every request: a limit on concurrent requests, and one log line without secrets."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crosstie.flows.listen.metrics import count_notice
from crosstie.flows.web.refusal import RETRY_AFTER_S, unavailable

LOG = logging.getLogger("crosstie.listen")

UNLIMITED = ("/health", "/healthz", "/metrics")
"""Always answered, so that a busy service is not taken for a dead one."""

KNOWN = ("/scenes", "/ready", *UNLIMITED)
"""Paths that are logged as they are; any other path may hold anything."""


class Gate:
    """ASGI middleware. It reads `scene_ids` (for the log) and `notice_kind` (for metrics) from `state`."""

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self._app = app
        self._most = most
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.monotonic()
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._limited(scope, receive, watched)
        finally:
            seconds = time.monotonic() - begin
            if scope["path"] == "/scenes":
                count_notice(scope.get("state", {}).get("notice_kind", ""), status, seconds)
            _log_request(scope, status, seconds)

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in UNLIMITED:
            await self._app(scope, receive, send)
            return
        if self._under_way >= self._most:
            await _refuse(scope, receive, send)
            return
        self._under_way += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way -= 1


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    from starlette.responses import JSONResponse

    refusal = unavailable(f"too many requests at once (listen.max_requests); try again in {RETRY_AFTER_S} s")
    response = JSONResponse(
        {"error": refusal.detail}, status_code=refusal.status_code, headers=refusal.headers
    )
    await response(scope, receive, send)


def _log_request(scope: Scope, status: int, seconds: float) -> None:
    """Log a request. Only known methods, paths and scene ids are written, nothing that a sender makes up."""
    method = scope["method"] if scope["method"] in {"GET", "HEAD", "POST"} else "-"
    path = scope["path"] if scope["path"] in KNOWN else "-"
    client = (scope.get("client") or ("-",))[0]
    scenes = " ".join(scope.get("state", {}).get("scene_ids", ()))
    level = logging.DEBUG if path != "/scenes" and status < 400 else logging.INFO
    LOG.log(level, "%s %s %s %d %.0f ms %s", client, method, path, status, 1000 * seconds, scenes)
