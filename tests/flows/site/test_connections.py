"""Connections that send nothing stop no service: with real sockets against the server of both services.

The guards, each of which fails a test if taken away (`flows/web/connections.py`): the timer of a new
connection, the timer after an answer, the timer of an answer that nobody takes, and the number of those that
wait, of one client and of all.
"""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from asgi_server import serving

from crosstie.flows.web.connections import ConnectionLimits

pytestmark = pytest.mark.server

PATIENT = ConnectionLimits(header_s=600, idle_s=600, stalled_s=600)


async def app(scope: Any, receive: Any, send: Any) -> None:
    long = scope["path"] == "/long"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(400 if long else 1):
        body = b"x" * (2**20 if long else 2)
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def health(port: int) -> int:
    return httpx.get(f"http://127.0.0.1:{port}/health", timeout=30).status_code


def is_closed(connection: socket.socket, within_s: float = 30) -> bool:
    connection.settimeout(within_s)
    try:
        while connection.recv(2**16):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: "])
@pytest.mark.parametrize("limits", [None, PATIENT])
def test_half_sent_requests_do_not_stop_a_service(sent: bytes, limits: ConnectionLimits | None):
    with serving(app, limits=limits) as port, ExitStack() as held:
        for _ in range(300):
            connection = held.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            connection.sendall(sent)
        assert health(port) == 200


def test_many_clients_together_do_not_stop_it_either():
    limits = ConnectionLimits(header_s=600, idle_s=600, waiting_each=10_000)
    with serving(app, limits=limits) as port, ExitStack() as held:
        for _ in range(300):
            held.enter_context(socket.create_connection(("127.0.0.1", port), 30))
        assert health(port) == 200


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\n"])
def test_headers_have_a_time_limit(sent: bytes):
    with (
        serving(app, limits=ConnectionLimits(header_s=0.5)) as port,
        socket.create_connection(("127.0.0.1", port), 30) as connection,
    ):
        connection.sendall(sent)
        assert is_closed(connection)


def test_dripping_headers_have_it_too():
    with (
        serving(app, limits=ConnectionLimits(header_s=0.5)) as port,
        socket.create_connection(("127.0.0.1", port), 30) as connection,
        pytest.raises(ConnectionError),
    ):
        drip(connection)


def drip(connection: socket.socket) -> None:
    for letter in "GET / HTTP/1.1\r\nX: " + "x" * 5000:
        connection.sendall(letter.encode())
        time.sleep(0.01)


@pytest.mark.parametrize("more", [b"", b"GET /health HTTP/1.1\r\n"])
def test_idle_connections_have_a_time_limit(more: bytes):
    with (
        serving(app, limits=ConnectionLimits(idle_s=0.5, header_s=600)) as port,
        socket.create_connection(("127.0.0.1", port), 30) as connection,
    ):
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
        connection.sendall(more)
        assert is_closed(connection)


def test_requests_one_after_another_and_at_once_are_answered():
    with serving(app, limits=ConnectionLimits(idle_s=600, header_s=600)) as port:
        with httpx.Client() as client:
            assert {client.get(f"http://127.0.0.1:{port}/").status_code for _ in range(20)} == {200}
        with socket.create_connection(("127.0.0.1", port), 30) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3 + b"GET / HTTP/1.0\r\n\r\n")
            connection.settimeout(30)
            said = b""
            while piece := connection.recv(2**16):
                said += piece
            assert said.count(b"HTTP/1.1 200") == 4


def test_an_answer_that_nobody_takes_has_a_time_limit():
    with (
        serving(app, limits=ConnectionLimits(stalled_s=0.5)) as port,
        socket.create_connection(("127.0.0.1", port), 30) as connection,
    ):
        connection.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(2)
        taken = 0
        connection.settimeout(30)
        try:
            while piece := connection.recv(2**20):
                taken += len(piece)
        except ConnectionError:
            pass
        assert taken < 400 * 2**20
