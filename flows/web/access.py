"""Who may announce scenes: callers with the token or the key of signatures, or everyone on this machine."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.datastructures import Headers

from crosstie.config import ListenSettings
from crosstie.errors import SettingsError
from crosstie.flows.web.refusal import Refusal, unauthorized

SIGNATURE_HEADER = "X-Crosstie-Signature"


@dataclass(frozen=True, slots=True)
class Access:
    """What a caller must know. Secrets are never shown: not in a repr, not in an answer."""

    token: bytes | None = field(default=None, repr=False)
    """Token of callers; None where none is taken."""
    key: bytes | None = field(default=None, repr=False)
    """Key of signatures; None where none are taken."""
    open: bool = False
    """Everyone may, because only this machine can call."""

    def by_header(self, headers: Headers) -> bool:
        """Whether the headers alone admit the caller; a later look at the body may still.

        Raises
        ------
        Refusal : 401 for a wrong token, 403 for a web page's request where everyone on this machine may
        """
        if self.open:
            if "origin" in headers:  # a page in a browser here, which may be anyone's
                raise Refusal(403, "requests of web pages are not taken without a token")
            return True
        given = _token(headers.get("authorization"))
        if given is None or self.token is None:
            return False
        if not _same(given, self.token):
            raise unauthorized("the token is wrong")
        return True

    def by_signature(self, headers: Headers, body: bytes) -> bool:
        """Whether the body is signed with the key; False where it is not signed at all.

        Raises
        ------
        Refusal : 401, for a wrong signature
        """
        given = headers.get(SIGNATURE_HEADER)
        if given is None or self.key is None:
            return False
        right = "sha256=" + hmac.new(self.key, body, hashlib.sha256).hexdigest()
        if not _same(given.strip().lower().encode("latin-1"), right.encode()):
            raise unauthorized(f"{SIGNATURE_HEADER} is not the HMAC-SHA256 of this body")
        return True


def read_access(
    settings: ListenSettings, host: str, *, insecure: bool, environment: Mapping[str, str] = os.environ
) -> Access:
    """Take the secrets out of the variables that the settings name.

    Raises
    ------
    SettingsError : a variable is empty, or callers would need no secret on more than this machine
    """
    if insecure:
        if not _is_loopback(host):
            raise SettingsError(
                f"--insecure lets everyone in, and --host {host} is open to other machines; "
                "leave out one of them"
            )
        return Access(open=True)
    token = _secret(environment, settings.token_env)
    key = _secret(environment, settings.signature_env)
    if settings.signature_env and key is None:
        raise SettingsError(_empty("signature_env", settings.signature_env))
    if token is None and key is None:
        if settings.token_env:
            raise SettingsError(_empty("token_env", settings.token_env))
        raise SettingsError(
            "listen.token_env and listen.signature_env are both null: name the variable of a secret in one, "
            "or try things out on this machine with --insecure"
        )
    return Access(token, key)


def _empty(setting: str, variable: str) -> str:
    return (
        f"listen.{setting}: the environment variable {variable} is not set; put a secret there, as "
        f"`export {variable}=$(openssl rand -hex 32)` does, or try things out with --insecure"
    )


def _secret(environment: Mapping[str, str], variable: str | None) -> bytes | None:
    """Value of a variable; files of secrets end with a line feed that is no part of them."""
    return environment.get(variable, "").strip().encode() or None if variable else None


def _token(header: str | None) -> bytes | None:
    """Token of a Bearer header, or the password of a Basic one, which the address of a webhook can carry."""
    scheme, _, value = (header or "").strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("latin-1")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip().encode("latin-1"), validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return None


def _same(given: bytes, right: bytes) -> bool:
    """Compare in a time that tells nothing, not even the length."""
    return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(right).digest())


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
