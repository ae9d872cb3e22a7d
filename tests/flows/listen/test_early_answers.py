"""An answer that comes before the request has ended arrives, whatever is still on the way.

Over a slow wire, each end waits for the other: the server has answered and closed while most of the body
is in flight. Without `flows/web/lingering.py` the client is told of a reset and not of the answer.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest
from asgi_server import serving

from crosstie.flows.web.lingering import Lingering, LingerLimits

pytestmark = pytest.mark.server

ANSWER = b'{"error": "no"}'
CLOSES = [(b"connection", b"close")]


async def early(scope: Any, receive: Any, send: Any) -> None:
    """Answer at once, after one piece of the body, or after the whole of it."""
    if scope["path"] == "/piece":
        await receive()
    while scope["path"] == "/whole" and (await receive()).get("more_body"):
        pass
    length = (b"content-length", str(len(ANSWER)).encode())
    await send({"type": "http.response.start", "status": 413, "headers": [length, *CLOSES]})
    await send({"type": "http.response.body", "body": ANSWER})


def asked(port: int, path: str, size: int, *, chunked: bool) -> bytes:
    """Send all of a body before reading anything, as most clients do."""
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (size, b" " * size) if chunked else b" " * size
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        client.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n" % (path.encode(), length))
        time.sleep(0.05)  # the server has answered, and would have closed
        client.sendall(body)
        answer = b""
        while piece := client.recv(65_536):
            answer += piece
    return answer


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [10, 20_001, 3_000_000])
@pytest.mark.parametrize("path", ["/at-once", "/piece", "/whole"])
def test_a_client_that_still_sends_gets_its_answer(path: str, size: int, chunked: bool) -> None:
    with serving(early) as port:
        answer = asked(port, path, size, chunked=chunked)
    assert answer.startswith(b"HTTP/1.1 413")
    assert answer.endswith(ANSWER)


@pytest.mark.parametrize(
    "limits", [LingerLimits(pause_s=0.2), LingerLimits(all_s=0.2), LingerLimits(most_bytes=500_000)]
)
def test_what_follows_is_dropped_within_limits(limits: LingerLimits) -> None:
    received = 0

    async def endless() -> Any:
        nonlocal received
        received += 1
        await asyncio.sleep(0.3 if limits.pause_s < 1 else 0.001)
        return {"type": "http.request", "body": b" " * 1000, "more_body": True}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/at-once", "headers": [(b"transfer-encoding", b"chunked")]}
    asyncio.run(asyncio.wait_for(Lingering(early, limits)(scope, endless, send), 30))
    assert received <= 502
    assert [message.get("more_body", False) for message in sent] == [False, True, False]


def test_a_client_that_waits_for_a_word_is_not_told_to_send() -> None:
    """`Expect: 100-continue`: the answer stands in for the word, and the body never comes."""
    with serving(early) as port, socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(
            b"POST /at-once HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = b""
        while piece := client.recv(65_536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 413")
    assert answer.endswith(ANSWER)
