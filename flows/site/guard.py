"""Middleware for every request and answer: who may read, and what a browser may do with the answer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crosstie.errors import SettingsError
from crosstie.flows.web.access import Access
from crosstie.flows.web.refusal import Refusal
from crosstie.io.storage.address import is_loopback

UNGUARDED = ("/healthz", "/metrics")
"""Answered without a token, because monitoring has none; they name no scene."""


HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
}
"""Headers of every answer that does not set them itself."""

CHALLENGE = {"WWW-Authenticate": 'Basic realm="crosstie", charset="UTF-8"'}
"""Makes a browser ask for user and password; the password is the token, the user name may be any."""


class Guard:
    """ASGI middleware.

    Parameters
    ----------
    app : ASGI application
        Answers the requests that pass.
    access : Access or None
        What a caller must know; None lets everyone read.
    hosts : sequence of str
        Host names that a request may use; empty: any. A site without a token accepts the names of this
        machine only. Otherwise a foreign web page could point its own name at this address and read along.
    """

    def __init__(self, app: ASGIApp, *, access: Access | None, hosts: Sequence[str] = ()) -> None:
        self._app = app
        self._access = access
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refusal(scope["path"], Headers(scope=scope))
        await (self._app if refused is None else refused)(scope, receive, guarded)

    def _refusal(self, path: str, headers: Headers) -> PlainTextResponse | None:
        if self._hosts and _host_name(headers.get("host", "")) not in self._hosts:
            return PlainTextResponse("this site does not answer to this host name\n", 400)
        if self._access is None or path in UNGUARDED:
            return None
        try:
            if self._access.by_header(headers):
                return None
            why = "a token is needed"
        except Refusal as refusal:
            why = refusal.detail
        text = f"{why}: Authorization: Bearer TOKEN, or the token as the password of any user\n"
        return PlainTextResponse(text, 401, headers=CHALLENGE)


def read_site_access(
    variable: str, host: str, *, everyone: bool, environment: Mapping[str, str] = os.environ
) -> Access | None:
    """Read the token from an environment variable; None if everyone may read.

    Raises
    ------
    SettingsError
        There is no token, and other machines could read without --open.
    """
    token = environment.get(variable, "").strip().encode()
    if everyone:
        if token:
            raise SettingsError(
                f"--open lets everyone read, and {variable} holds a token; leave out one of them"
            )
        return None
    if token:
        return Access(token)
    if is_loopback(host):
        return None
    raise SettingsError(
        f"other machines can reach --host {host}, and the environment variable {variable} holds no token: "
        f"put one there, as `export {variable}=$(openssl rand -hex 32)` does, or give --open if a proxy in "
        "front checks who may read"
    )


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
