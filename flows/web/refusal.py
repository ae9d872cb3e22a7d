"""Refused requests: a status and a sentence, which never quotes what was sent."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

RETRY_AFTER_S = 10
"""When to try again if the fault is not the sender's, seconds."""


class Refusal(HTTPException):
    """A request is refused, with this status and sentence."""


def unauthorized(why: str) -> Refusal:
    return Refusal(401, why, headers={"WWW-Authenticate": 'Bearer realm="crosstie"'})


def unavailable(why: str) -> Refusal:
    return Refusal(503, why, headers={"Retry-After": str(RETRY_AFTER_S)})


async def answer_refusal(request: Request, problem: Exception) -> JSONResponse:
    """Answer a refusal as JSON, like all other answers."""
    del request
    assert isinstance(problem, HTTPException)  # noqa: S101 - registered for these alone
    headers: Mapping[str, str] | None = problem.headers
    return JSONResponse({"error": problem.detail}, status_code=problem.status_code, headers=headers)
