"""Who may call a service: those with its token or signature key, or everyone on this machine."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field

from starlette.datastructures import Headers

from crosstie.flows.web.refusal import Refusal, unauthorized

SIGNATURE_HEADER = "X-Crosstie-Signature"


@dataclass(frozen=True, slots=True)
class Access:
    """What a caller must know. Secrets are never shown, neither in a repr nor in an answer."""

    token: bytes | None = field(default=None, repr=False)
    """Token of callers; None: no token is accepted."""
    key: bytes | None = field(default=None, repr=False)
    """Key of signatures; None: no signature is accepted."""
    open: bool = False
    """Everyone may call, because only this machine can."""

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
        """Whether the body is signed with the key; False if it has no signature.

        Raises
        ------
        Refusal
            401 for a wrong signature.
        """
        given = headers.get(SIGNATURE_HEADER)
        if given is None or self.key is None:
            return False
        right = "sha256=" + hmac.new(self.key, body, hashlib.sha256).hexdigest()
        if not _is_same_secret(given.strip().lower().encode("latin-1"), right.encode()):
            raise unauthorized(f"{SIGNATURE_HEADER} is not the HMAC-SHA256 of this body")
        return True


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
