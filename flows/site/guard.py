"""What every request and every answer passes: who may look, and what a browser may do with what it gets."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crosstie.errors import SettingsError
from crosstie.flows.web.access import Access
from crosstie.flows.web.refusal import Refusal

UNGUARDED = ("/healthz", "/metrics")
"""Figures without any name: answered without a token, as whoever watches the service has none."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")

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
"""Of every answer that does not say otherwise itself."""

CHALLENGE = {"WWW-Authenticate": 'Basic realm="crosstie", charset="UTF-8"'}
"""A browser asks for user and password then; the password is the token, the user is anything."""


class Door:
    """ASGI middleware.

    Parameters
    ----------
    access : what a caller must know; None lets everyone look
    hosts : names by which the site may be called; empty: any. Without a token on this machine it is but its
        own, or a page of elsewhere could have its name point here, and read along
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
        if self._hosts and _name(headers.get("host", "")) not in self._hosts:
            return PlainTextResponse("this site is called by another name\n", 400)
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


def read_access(
    variable: str, host: str, *, everyone: bool, environment: Mapping[str, str] = os.environ
) -> Access | None:
    """Take the token out of a variable; None where everyone may look.

    Raises
    ------
    SettingsError : there is no token, and the site would be open to other machines without saying so
    """
    token = environment.get(variable, "").strip().encode()
    if everyone:
        if token:
            raise SettingsError(
                f"--open lets everyone look, and {variable} holds a token; leave out one of them"
            )
        return None
    if token:
        return Access(token)
    if is_loopback(host):
        return None
    raise SettingsError(
        f"--host {host} is open to other machines, and the environment variable {variable} holds no token: "
        f"put one there, as `export {variable}=$(openssl rand -hex 32)` does, or say --open where a proxy in "
        "front asks who comes"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can call an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
