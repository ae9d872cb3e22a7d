"""The body of a request: read piece by piece, up to a limit."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from crosstie.flows.web.refusal import Refusal


def check_content_type(request: Request) -> None:
    """Refuse what is not JSON. SNS says text/plain; some senders say nothing.

    Raises
    ------
    Refusal
        415.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "the body is compressed; send it uncompressed")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in {"", "application/json", "text/plain"}:
        return
    if not (kind.startswith("application/") and kind.endswith("+json")):
        raise Refusal(415, "the Content-Type must be application/json")


async def read_body(request: Request, *, most_bytes: int, timeout_s: float) -> bytes:
    """Read the body. A declared length counts only to refuse: the bytes are counted as well.

    Raises
    ------
    Refusal
        413 as soon as it is too long, 408 if it takes too long.
    """
    too_long = Refusal(
        413, f"the body is longer than {most_bytes} bytes (listen.max_body_bytes)", {"Connection": "close"}
    )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > most_bytes:
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for piece in request.stream():
                body += piece
                if len(body) > most_bytes:
                    raise too_long
    except TimeoutError:
        raise Refusal(
            408, f"the body did not arrive within {timeout_s:g} s", {"Connection": "close"}
        ) from None
    except ClientDisconnect:
        raise Refusal(400, "the sender closed the connection") from None
    return bytes(body)
