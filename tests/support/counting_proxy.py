"""An HTTP proxy on loopback that counts what goes through: requests and bytes of bodies, by method and path.

The Host header is passed on as it came, because it is part of what an S3 client signs.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
"""Headers that belong to one connection, not to the message."""


@dataclass(frozen=True, slots=True)
class Passed:
    """One request and its answer."""

    method: str
    path: str
    """Without the query."""
    status: int
    size: int
    """Bytes of the body of the answer."""
    headers: dict[str, str]
    """Of the request, names in lower case."""


Refuse = Callable[[str, str, int], int | None]
"""(method, path, requests for it so far) -> status to answer with in the server's place, or None."""

Dress = Callable[[type[BaseHTTPRequestHandler]], type[BaseHTTPRequestHandler]]


@dataclass(frozen=True, slots=True)
class CountingProxy:
    url: str
    """`http://127.0.0.1:port`."""
    log: list[Passed] = field(default_factory=list)

    def requests(self, contains: str = "") -> int:
        return sum(contains in passed.path for passed in self.log)

    def received(self, contains: str = "") -> int:
        """Bytes of bodies that clients received."""
        return sum(passed.size for passed in self.log if contains in passed.path)


@contextmanager
def counting(
    upstream: str, *, refuse: Refuse | None = None, dress: Dress | None = None
) -> Iterator[CountingProxy]:
    """Stand between clients and the server at `upstream`, `http://host:port`; `dress` changes the handler."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.daemon_threads = True
    proxy = CountingProxy(f"http://127.0.0.1:{server.server_address[1]}")
    handler = _handler(urlsplit(upstream).netloc, proxy.log, refuse)
    server.RequestHandlerClass = handler if dress is None else dress(handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(host: str, log: list[Passed], refuse: Refuse | None) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def pass_on(self) -> None:
            path = urlsplit(self.path).path
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            before = sum(passed.path == path for passed in log)
            status = refuse(self.command, path, before) if refuse is not None else None
            answer, headers = b"", [("Content-Length", "0")]
            if status is None:
                status, headers, answer = self.ask(body)
            log.append(
                Passed(
                    self.command, path, status, len(answer), {k.lower(): v for k, v in self.headers.items()}
                )
            )
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on  # noqa: N815

        def ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            connection = http.client.HTTPConnection(host, timeout=60)
            try:
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in {"connection", "expect"}:
                        connection.putheader(name, value)
                connection.endheaders(body)
                response = connection.getresponse()
                answer = response.read()
                headers = [(k, v) for k, v in response.getheaders() if k.lower() not in HOP]
                length = response.getheader("Content-Length")
                if self.command != "HEAD" or length is None:
                    length = str(len(answer))
                return response.status, [*headers, ("Content-Length", length)], answer
            finally:
                connection.close()

        def log_message(self, *args: object) -> None:
            pass

    return Handler
