"""Faults between a client and the S3 server: a proxy that spoils one request, or all from one on."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from counting_proxy import counting

REFUSALS = {
    "500": (500, "InternalError"),
    "503": (503, "ServiceUnavailable"),
    "SlowDown": (503, "SlowDown"),
    "429": (429, "TooManyRequests"),
    "403": (403, "AccessDenied"),
    "404": (404, "NoSuchKey"),
    "409": (409, "ConditionalRequestConflict"),
}
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "stop": signal.SIGSTOP}


@dataclass(frozen=True, slots=True)
class WireFault:
    """What is done to the n-th request of a kind, and to how many from there on."""

    action: str
    """A key of `REFUSALS`; `reset`, `half-reset`, `half`, `cut`, `late`, `twice`, `second-answer`, `lost`;
    or a signal to the client: `kill`, `term`, `stop` before the server has the request, `…-after` it."""
    operations: tuple[str, ...]
    """Of `operation_of`; empty: all."""
    at: int
    """The first request of these that is spoilt, from 1."""
    times: int = 1


@dataclass(slots=True)
class Wire:
    """The connection of one client; how often its fault struck."""

    url: str = ""
    fault: WireFault | None = None
    pid: int = 0
    struck: int = 0
    seen: int = 0
    pid_known: threading.Event = field(default_factory=threading.Event)
    resumed: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def client_is(self, pid: int) -> None:
        self.pid = pid
        self.pid_known.set()

    def send(self, number: int) -> None:
        """Send the client a signal."""
        if not self.pid_known.wait(60) or self.pid <= 0:  # 0 would be this process and its group
            raise TimeoutError("the client has no number yet")
        os.kill(self.pid, number)

    def action_for(self, operation: str) -> str | None:
        fault = self.fault
        if fault is None or (fault.operations and operation not in fault.operations):
            return None
        with self._lock:
            self.seen += 1
            if not fault.at <= self.seen < fault.at + fault.times:
                return None
            self.struck += 1
        return fault.action


def operation_of(method: str, target: str, headers: Any) -> str:
    """Name an S3 request: GET, LIST, HEAD, PUT, CREATE, COPY, DELETE, BEGIN, PART or COMPLETE."""
    query = parse_qs(urlsplit(target).query, keep_blank_values=True)
    if method == "GET":
        return "LIST" if "list-type" in query else "GET"
    if method == "POST":
        return "DELETE" if "delete" in query else "BEGIN" if "uploads" in query else "COMPLETE"
    if method == "PUT":
        if "partNumber" in query:
            return "PART"
        if headers.get("x-amz-copy-source"):
            return "COPY"
        return "CREATE" if headers.get("if-none-match") else "PUT"
    return method


SERVER_LOCK = threading.Lock()
"""The server on loopback looks and writes in two steps; S3 does it in one."""


@contextmanager
def faulty_wire(upstream: str) -> Iterator[Wire]:
    """Stand between one client and the server."""
    wire = Wire()
    with counting(upstream, dress=lambda handler: _spoiling(handler, wire)) as proxy:
        wire.url = proxy.url
        try:
            yield wire
        finally:
            wire.resumed.set()


def _spoiling(handler: Any, wire: Wire) -> type[BaseHTTPRequestHandler]:
    class Spoiling(handler):
        def handle(self) -> None:
            with suppress(OSError):  # the client was killed between two requests
                super().handle()

        def pass_on(self) -> None:
            operation = operation_of(self.command, self.path, self.headers)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            action = wire.action_for(operation)
            with suppress(OSError):  # the client was killed
                self.spoil(action, body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on  # noqa: N815

        def spoil(self, action: str | None, body: bytes) -> None:
            if action in REFUSALS:
                status, code = REFUSALS[action]
                said = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
                self.answer(status, [], b"" if self.command == "HEAD" else said)
                return
            if action == "reset":
                self.reset()
                return
            if action in SIGNALS:
                wire.send(SIGNALS[action])
                if action == "kill":
                    return
                if action == "stop":
                    wire.resumed.wait(60)  # on its way until the client goes on
            if action == "late":
                time.sleep(1.5)
            with SERVER_LOCK:
                status, headers, answer = self.ask(body)
                if action in ("twice", "second-answer"):
                    again = self.ask(body)
                    if action == "second-answer":
                        status, headers, answer = again
            if action is not None and action.endswith("-after"):
                wire.send(SIGNALS[action.removesuffix("-after")])
            if action == "lost":
                self.reset()
            elif action == "cut":  # whole to HTTP, cut off to whoever reads it
                self.answer(status, headers, answer[: len(answer) // 2])
            elif action in ("half", "half-reset"):
                self.answer(status, headers, answer, cut=len(answer) // 2)
                self.reset() if action == "half-reset" else self.hang_up()
            else:
                self.answer(status, headers, answer)

        def answer(
            self, status: int, headers: list[tuple[str, str]], body: bytes, *, cut: int | None = None
        ) -> None:
            length = dict(headers).get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
            self.send_response_only(status)
            for name, value in [(k, v) for k, v in headers if k != "Content-Length"]:
                self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(body if cut is None else body[:cut])
            self.wfile.flush()

        def reset(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.hang_up()

        def hang_up(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.close()
            with suppress(OSError):
                self.rfile.close()

    return Spoiling
