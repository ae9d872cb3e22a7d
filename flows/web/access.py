"""Who may call a service: those with its token or signature key, or everyone on this machine."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from starlette.datastructures import Headers

from crosstie.flows.web.refusal import Refusal, unauthorized

SIGNATURE_HEADER = "X-Crosstie-Signature"
TIME_HEADER = "X-Crosstie-Timestamp"

MAX_REMEMBERED = 100_000
"""Maximum number of signatures that are remembered; the oldest is forgotten first."""


@dataclass(slots=True)
class SeenSignatures:
    """Signatures of the last minutes, so that a message that someone has recorded is not taken twice."""

    window_s: float = 300.0
    """How far the time of a signature may be from now, seconds."""
    _seen: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def admit(self, signature: str, said_s: float) -> None:
        """Take a signature, once.

        Raises
        ------
        Refusal
            401: its time is too far from now, or it was taken before.
        """
        now = time.time()
        if not abs(now - said_s) <= self.window_s:
            raise unauthorized(f"{TIME_HEADER} is more than {self.window_s:g} s from the time here")
        while self._seen and (next(iter(self._seen.values())) < now or len(self._seen) >= MAX_REMEMBERED):
            self._seen.popitem(last=False)
        if signature in self._seen:
            raise unauthorized("this signature was received before; sign with the time of now")
        self._seen[signature] = now + 2 * self.window_s

    def forget(self, signature: str) -> None:
        """Let a message be sent again as it is, because nothing came of it."""
        self._seen.pop(signature, None)


@dataclass(frozen=True, slots=True)
class Access:
    """What a caller must know. Secrets are never shown, neither in a repr nor in an answer."""

    token: bytes | None = field(default=None, repr=False)
    """Token of callers; None: no token is accepted."""
    key: bytes | None = field(default=None, repr=False)
    """Key of signatures; None: no signature is accepted."""
    open: bool = False
    """Everyone may call, because only this machine can."""
    seen: SeenSignatures = field(default_factory=SeenSignatures, repr=False, compare=False)
    """Signatures that were received."""

    def by_header(self, headers: Headers) -> bool:
        """Whether the headers admit the caller. If not, a signature of the body still may.

        Raises
        ------
        Refusal
            401 for a wrong token; 403 for the request of a web page, where no token is needed.
        """
        if self.open:
            if "origin" in headers:  # a page in a browser of this machine, which may be anyone's
                raise Refusal(403, "requests from web pages need a token")
            return True
        given = _token_of(headers.get("authorization"))
        if given is None or self.token is None:
            return False
        if not _is_same_secret(given, self.token):
            raise unauthorized("the token is wrong")
        return True

    def by_signature(self, headers: Headers, body: bytes) -> bool:
        """Whether time and body are signed with the key; False if there is no signature.

        Raises
        ------
        Refusal
            401 for a wrong signature, an old one, or one that was received before.
        """
        given = headers.get(SIGNATURE_HEADER)
        if given is None or self.key is None:
            return False
        said = headers.get(TIME_HEADER, "")
        if not (said.isascii() and said.isdecimal() and len(said) <= 12):
            raise unauthorized(f"{TIME_HEADER} is not the time of the signature, whole seconds since 1970")
        right = "sha256=" + hmac.new(self.key, said.encode() + b"." + body, hashlib.sha256).hexdigest()
        if not _is_same_secret(given.strip().lower().encode("latin-1"), right.encode()):
            raise unauthorized(
                f"{SIGNATURE_HEADER} is not the HMAC-SHA256 of {TIME_HEADER}, a dot and the body"
            )
        self.seen.admit(right, float(said))
        return True

    def forget(self, headers: Headers) -> None:
        """Let a signed message be sent again as it is: the service could not do what it asks."""
        self.seen.forget(headers.get(SIGNATURE_HEADER, "").strip().lower())


def _token_of(header: str | None) -> bytes | None:
    """Read the token of a Bearer header, or the password of a Basic one, as in a webhook's URL."""
    scheme, _, value = (header or "").strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("latin-1")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip().encode("latin-1"), validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return None


def _is_same_secret(given: bytes, right: bytes) -> bool:
    """Compare in constant time, so that neither secret nor length can be guessed from it."""
    return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(right).digest())
