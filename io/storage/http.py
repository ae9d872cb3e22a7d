"""HTTP for catalogs: repeats requests to a busy server, and connects only where a policy allows.

Every redirect is checked before it is followed. A connection uses exactly the IP address that was checked, so
a name that resolves differently a moment later (DNS rebinding) changes nothing. Behind a proxy of the
environment the proxy looks names up; then addresses are checked as written only.
"""

from __future__ import annotations

import logging
import threading
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError
from urllib3.util import Retry

from crosstie.io.storage.address import AddressPolicy, RemoteAddress, parse_address
from crosstie.io.storage.redaction import without_queries

if TYPE_CHECKING:
    import socket

    from urllib3 import BaseHTTPResponse

TIMEOUT_S = 60
"""Longest wait for an answer to one request, seconds."""

MAX_RETRIES = 5
"""Maximum number of repetitions of a request."""

MAX_BODIES = 3
"""Maximum number of times that a body is asked for that the server cuts off."""

BACKOFF_S = 0.5
"""Scale of the waits between repetitions, seconds: 0, 1, 2, 4, 8."""

LONGEST_WAIT_S = 120
"""Longest wait between repetitions, seconds, even if the server asks for more."""

KEPT_S = 300
"""How long the final address of a raster is remembered, seconds."""

RETRY_STATUSES = (429, 500, 502, 503, 504)


class PatientRetry(Retry):
    """Repeats requests of every method. Searches by POST change nothing, so they may be repeated too."""

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        """Seconds that the server asks us to wait, at most `LONGEST_WAIT_S`."""
        asked = super().get_retry_after(response)
        return None if asked is None else min(asked, LONGEST_WAIT_S)


def patient_retry() -> PatientRetry:
    """Rule for repeating a request: after no answer, 429 and 5xx, with growing waits."""
    return PatientRetry(
        total=MAX_RETRIES,
        backoff_factor=BACKOFF_S,
        status_forcelist=RETRY_STATUSES,
        allowed_methods=None,
        raise_on_status=False,
    )


class _WithoutQueries(logging.Filter):
    """Removes queries from urllib3's log lines, which hold whole addresses with their signatures."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = without_queries(record.getMessage()), ()
        return True


_WITHOUT_QUERIES = _WithoutQueries()


def guard(session: requests.Session, policy: AddressPolicy, retries: Retry) -> None:
    """Restrict a session to addresses that `policy` allows; any other raises `CatalogError`."""
    for name in ("urllib3.connectionpool", "urllib3.util.retry"):
        logging.getLogger(name).addFilter(_WITHOUT_QUERIES)  # adding it again has no effect
    for scheme in ("http://", "https://"):
        session.mount(scheme, _CheckedAdapter(policy, retries))


def get(url: str, policy: AddressPolicy) -> bytes:
    """Fetch a small file.

    Raises
    ------
    CatalogError
        The address, or one that it redirects to, is not allowed.
    OSError
        No answer, or an error from the server.
    """
    return fetch(url, policy)[0]


def fetch(url: str, policy: AddressPolicy) -> tuple[bytes, str]:
    """Fetch a small file, and say from where it came after redirects: its own links mean that address.

    Raises
    ------
    CatalogError
        The address, or one that it redirects to, is not allowed.
    OSError
        No answer, or an error from the server.
    """
    with requests.Session() as session:
        guard(session, policy, patient_retry())
        answer = session.get(url, timeout=TIMEOUT_S)
        answer.raise_for_status()
        return answer.content, str(answer.url)


def final_address(url: str) -> str:
    """Follow the redirects of a raster: each must be on the public internet or on the host of `url` itself.

    Raises
    ------
    CatalogError
        A redirect is not allowed.
    OSError
        No answer.
    """
    return _final_address(url, int(time.monotonic() // KEPT_S))


class _Probes:
    """Requests that were sent to follow redirects, of all threads, and the bytes of their answers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = 0

    def add(self, requests: int) -> None:
        with self._lock:
            self._requests += requests

    def sent(self) -> tuple[int, int]:
        return self._requests, self._requests  # one byte is asked for each time


PROBES = _Probes()


@lru_cache(maxsize=4096)
def _final_address(url: str, period: int) -> str:
    del period  # part of the cache key: the address is looked up again in the next period
    with requests.Session() as session:
        guard(
            session,
            AddressPolicy.of(url),
            PatientRetry(total=2, connect=0, backoff_factor=BACKOFF_S, allowed_methods=None),
        )
        with session.get(url, timeout=TIMEOUT_S, headers={"Range": "bytes=0-0"}, stream=True) as answer:
            PROBES.add(1 + len(answer.history))
            # an error status is left to GDAL, which asks again and reports it
            return str(answer.url) if answer.history else url


class _CheckedAdapter(HTTPAdapter):
    """Checks each request, and so each redirect, before anything is sent."""

    def __init__(self, policy: AddressPolicy, retries: Retry) -> None:
        self._policy = policy
        super().__init__(max_retries=retries)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        checks = self._policy

        class Plain(_CheckedConnection, HTTPConnection):
            policy = checks

        class Secure(_CheckedConnection, HTTPSConnection):
            policy = checks

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """Send a request if its address is allowed.

        Raises
        ------
        CatalogError
            It is not.
        """
        url, catalog = request.url or "", self._policy.catalog
        address = parse_address(url)
        self._policy.check_address(address, shown=url, http_host=None if catalog is None else catalog.host)
        for left in reversed(range(MAX_BODIES)):
            answer = super().send(request, *args, **options)
            if options.get("stream"):
                return answer
            try:
                answer.content  # noqa: B018  reads the body
                return answer
            except requests.exceptions.ChunkedEncodingError:
                if not left:
                    raise
        raise AssertionError  # the last attempt returns or raises


class _CheckedConnection(HTTPConnection):
    """Looks up its host itself, and connects only to the IP addresses that it has checked."""

    policy: AddressPolicy

    def _new_conn(self) -> socket.socket:
        name, failed = self._dns_host, None
        address = RemoteAddress("https", name.strip("[]").rstrip(".").lower(), self.port, "", "")
        for number in self.policy.allowed_ips(address):
            self._dns_host = number
            try:
                return super()._new_conn()
            except NewConnectionError as problem:
                failed = problem
            finally:
                self._dns_host = name
        raise failed or NewConnectionError(self, f"Failed to resolve {name!r}: it has no number")
