"""HTTP for catalogs: repeats requests to a busy server, and connects only where a policy allows.

Every redirect is checked before it is followed. A connection uses exactly the IP address that was checked, so
a name that resolves differently a moment later (DNS rebinding) changes nothing. Behind a proxy of the
environment the proxy looks names up; then addresses are checked as written only.
"""

from __future__ import annotations

import io
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, NewConnectionError, ProtocolError
from urllib3.util import Retry

from crosstie.errors import CatalogError
from crosstie.io.storage.address import AddressPolicy, RemoteAddress, parse_address, short_href
from crosstie.io.storage.budget import MIB, CatalogBudget, CatalogLimits, DocumentLimitError
from crosstie.io.storage.redaction import without_queries
from crosstie.io.storage.trust import is_untrusted

if TYPE_CHECKING:
    from typing import Self

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
"""Longest wait between repetitions that a server may ask for, seconds."""

PIECE_BYTES = MIB // 4
"""Bytes of an answer that are read at once, after decompression."""

PROBE_LIMITS = CatalogLimits(seconds=180)
"""Limits for following the redirects of one raster."""

KEPT_S = 300
"""How long the final address of a raster is remembered, seconds."""

RETRY_STATUSES = (429, 500, 502, 503, 504)


class PatientRetry(Retry):
    """Repeats requests of every method. Searches by POST change nothing, so they may be repeated too."""

    budget: CatalogBudget | None = None
    """Repetitions end when its time is up."""

    def new(self, **changes: Any) -> Self:
        """Make the rule for what is left of the repetitions."""
        again = super().new(**changes)
        again.budget = self.budget
        return again

    def increment(self, *args: Any, **options: Any) -> Self:
        """Count one more failure. The answer is dropped unread: it may never end.

        Raises
        ------
        CatalogError
            The time is up.
        MaxRetryError
            Nothing is left of the repetitions, or none helps: the server's certificate is not trusted.
        """
        error = options.get("error")
        if error is not None and is_untrusted(error):
            return Retry.increment(self.new(total=0), *args, **options)  # raises
        again = super().increment(*args, **options)
        response = options.get("response")
        if response is not None:
            response.close()
        if self.budget is not None and again.get_backoff_time() > self.budget.seconds_left():
            raise self.budget.refusal("takes", self.budget.limits.seconds, "seconds")
        return again

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        """Seconds that the server asks us to wait.

        Raises
        ------
        CatalogError
            More than `LONGEST_WAIT_S`, or more than there is time for.
        """
        asked = super().get_retry_after(response)
        longest = LONGEST_WAIT_S if self.budget is None else min(LONGEST_WAIT_S, self.budget.seconds_left())
        if asked is not None and asked > longest:
            raise CatalogError(
                f"the server asks to wait {asked:.0f} s (Retry-After), at most {longest:.0f} s are waited;"
                " try again later"
            )
        return asked


def patient_retry(budget: CatalogBudget | None = None) -> PatientRetry:
    """Rule for repeating a request: after no answer, 429 and 5xx, with growing waits."""
    rule = PatientRetry(
        total=MAX_RETRIES,
        backoff_factor=BACKOFF_S,
        status_forcelist=RETRY_STATUSES,
        allowed_methods=None,
        raise_on_status=False,
    )
    rule.budget = budget
    return rule


class _WithoutQueries(logging.Filter):
    """Removes queries from urllib3's log lines, which hold whole addresses with their signatures."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = without_queries(record.getMessage()), ()
        return True


_WITHOUT_QUERIES = _WithoutQueries()


def guard(
    session: requests.Session, policy: AddressPolicy, retries: Retry, budget: CatalogBudget | None = None
) -> None:
    """Restrict a session to addresses that `policy` allows, and to answers within the limits of `budget`.

    Any other address raises `CatalogError`, and so does an answer that is too long or too slow. Bodies of
    redirects are not read.
    """
    for name in ("urllib3.connectionpool", "urllib3.util.retry"):
        logging.getLogger(name).addFilter(_WITHOUT_QUERIES)  # adding it again has no effect
    for scheme in ("http://", "https://"):
        session.mount(scheme, _CheckedAdapter(policy, retries, budget or CatalogBudget()))


def get(url: str, policy: AddressPolicy, budget: CatalogBudget | None = None) -> bytes:
    """Fetch a small file.

    Raises
    ------
    CatalogError
        The address, or one that it redirects to, is not allowed; or the answer exceeds a limit.
    OSError
        No answer, or an error from the server.
    """
    return fetch(url, policy, budget)[0]


def fetch(url: str, policy: AddressPolicy, budget: CatalogBudget | None = None) -> tuple[bytes, str]:
    """Fetch a small file, and say from where it came after redirects: its own links mean that address.

    Raises
    ------
    CatalogError
        The address, or one that it redirects to, is not allowed; or the answer exceeds a limit.
    OSError
        No answer, or an error from the server.
    """
    budget = budget or CatalogBudget()
    with requests.Session() as session:
        guard(session, policy, patient_retry(budget), budget)
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
            CatalogBudget(PROBE_LIMITS),
        )
        with session.get(url, timeout=TIMEOUT_S, headers={"Range": "bytes=0-0"}, stream=True) as answer:
            PROBES.add(1 + len(answer.history))
            # an error status is left to GDAL, which asks again and reports it
            return str(answer.url) if answer.history else url


class _CheckedAdapter(HTTPAdapter):
    """Checks each request, and so each redirect, before anything is sent, and reads no more than allowed."""

    def __init__(self, policy: AddressPolicy, retries: Retry, budget: CatalogBudget) -> None:
        self._policy = policy
        self._budget = budget
        self._sockets: dict[HTTPConnection, socket.socket] = {}
        super().__init__(max_retries=retries)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        checks, sockets = self._policy, self._sockets

        class Plain(_CheckedConnection, HTTPConnection):
            policy, opened = checks, sockets

        class Secure(_CheckedConnection, HTTPSConnection):
            policy, opened = checks, sockets

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}

    def send(
        self, request: requests.PreparedRequest, stream: bool = False, *args: Any, **options: Any
    ) -> requests.Response:
        """Send a request if its address is allowed, and read the answer if it is not to be streamed.

        Raises
        ------
        CatalogError
            The address is not allowed; the answer is too long, or the time is up.
        """
        url, catalog = request.url or "", self._policy.catalog
        address = parse_address(url)
        self._policy.check_address(address, shown=url, http_host=None if catalog is None else catalog.host)
        for left in reversed(range(MAX_BODIES)):
            try:
                return self._answer(request, stream, *args, **options)
            except requests.exceptions.ChunkedEncodingError:
                if not left:
                    raise
        raise AssertionError  # the last attempt returns or raises

    def _answer(
        self, request: requests.PreparedRequest, stream: bool, *args: Any, **options: Any
    ) -> requests.Response:
        for done in [connection for connection in self._sockets if connection.sock is None]:
            self._sockets.pop(done).close()  # servers may close after each answer
        left = self._budget.seconds_left()
        options["timeout"] = min(TIMEOUT_S, left)
        with self._ended_after(left):
            answer = super().send(request, True, *args, **options)
            answer.encoding = answer.encoding or "utf-8"  # guessing it from a long body takes minutes
            if answer.is_redirect:
                answer.raw.close()
                answer.raw = io.BytesIO()
            elif not stream:
                answer.raw = io.BytesIO(self._body(answer))
        return answer

    def close(self) -> None:
        super().close()
        while self._sockets:
            self._sockets.popitem()[1].close()

    def _body(self, answer: requests.Response) -> bytes:
        shown, longest = short_href(answer.url), self._budget.limits.document_bytes
        if "," in answer.headers.get("Content-Encoding", ""):
            raise CatalogError(f"{shown} is compressed more than once; refused")
        body = bytearray()
        try:
            for piece in answer.raw.stream(PIECE_BYTES, decode_content=True):
                self._budget.add_bytes(len(piece))
                body += piece
                if len(body) > longest:
                    raise DocumentLimitError(f"{shown} is longer than {longest:,} bytes")
        except ProtocolError as problem:
            raise requests.exceptions.ChunkedEncodingError(problem) from None
        except HTTPError as problem:
            raise requests.exceptions.ConnectionError(problem) from None
        except CatalogError:
            answer.raw.close()
            raise
        return bytes(body)

    @contextmanager
    def _ended_after(self, seconds: float) -> Iterator[None]:
        """Shut all connections down when the time is up: a timeout of a socket begins anew with each byte."""

        def shut() -> None:
            for opened in list(self._sockets.values()):
                with suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds, shut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except OSError:  # requests' own errors are OSErrors
            self._budget.seconds_left()  # says so if this was the cause
            raise
        else:
            self._budget.seconds_left()  # a body without a length looks whole when it is cut
        finally:
            timer.cancel()


class _CheckedConnection(HTTPConnection):
    """Looks up its host itself, and connects only to the IP addresses that it has checked."""

    policy: AddressPolicy
    opened: dict[HTTPConnection, socket.socket]
    """Duplicates of the sockets, which still work when TLS has taken the first over."""

    def _new_conn(self) -> socket.socket:
        name, failed = self._dns_host, None
        address = RemoteAddress("https", name.strip("[]").rstrip(".").lower(), self.port, "", "")
        for number in self.policy.allowed_ips(address):
            self._dns_host = number
            try:
                found = super()._new_conn()
                if self in self.opened:
                    self.opened[self].close()
                self.opened[self] = found.dup()
                return found
            except NewConnectionError as problem:
                failed = problem
            finally:
                self._dns_host = name
        raise failed or NewConnectionError(self, f"Failed to resolve {name!r}: it has no number")
