"""The ASGI application: POST /scenes receives notices; GET /health, /ready and /metrics tell its state."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from crosstie.config import ListenSettings
from crosstie.flows.listen.body import check_content_type, read_body
from crosstie.flows.listen.gate import Gate
from crosstie.flows.listen.metrics import LISTENER, count_scene
from crosstie.flows.listen.sns import SnsDoor
from crosstie.flows.listen.start_run import BurstGuard, PrefectUnavailableError, RunStarter
from crosstie.flows.web.access import SIGNATURE_HEADER, Access
from crosstie.flows.web.refusal import Refusal, answer_refusal, unauthorized, unavailable
from crosstie.io.events.notices import NoticeError, NoticeRules, Notices, read_json, read_notices
from crosstie.io.events.sns import Envelope, SnsError, read_envelope

READY_S = 5.0
"""How long a good answer of /ready is kept, seconds, so that frequent checks do not burden Prefect."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Service:
    """What the endpoints need. Only `access` holds secrets."""

    settings: ListenSettings
    access: Access
    rules: NoticeRules
    starter: RunStarter
    sns: SnsDoor


def make_listen_app(service: Service) -> Starlette:
    """Build the ASGI application."""
    endpoints = Endpoints(service)
    app = Starlette(
        routes=[
            Route("/scenes", endpoints.scenes, methods=["POST"]),
            Route("/health", endpoints.health),
            Route("/healthz", endpoints.health),  # the name that other services use
            Route("/metrics", metrics),
            Route("/ready", endpoints.ready),
        ],
        middleware=[Middleware(Gate, most=service.settings.max_requests)],
        exception_handlers={HTTPException: answer_refusal},
    )
    app.router.redirect_slashes = False  # a redirect would use the host name that the sender claims
    return app


class Endpoints:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._guard = BurstGuard(service.starter)
        self._ready_until = 0.0

    async def health(self, request: Request) -> Response:
        """The process runs."""
        del request
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """A notice would start a run: Prefect answers, and it has the deployment."""
        del request
        starter = self._service.starter
        if time.monotonic() >= self._ready_until:
            await _or_unavailable(starter.deployment_id())
            self._ready_until = time.monotonic() + READY_S
        return JSONResponse({"status": "ready", "deployment": starter.deployment})

    async def scenes(self, request: Request) -> Response:
        """Start a run for every scene that the message announces."""
        try:
            return await self._answered(request)
        except Refusal as problem:
            if problem.status_code >= 500:  # the sender tries again, with the same signature
                self._service.access.forget(request.headers)
            raise

    async def _answered(self, request: Request) -> Response:
        message, admitted = await self._admitted_message(request)
        try:
            envelope = read_envelope(message)
            request.state.notice_kind = "direct" if envelope is None else "sns"
            if envelope is None:
                if not admitted:
                    raise unauthorized(f"send Authorization: Bearer TOKEN, or {SIGNATURE_HEADER}")
                return await self._started(request, read_notices(message, self._service.rules))
            if not admitted:
                await self._service.sns.admit(envelope)
            return await self._opened(request, envelope)
        except (NoticeError, SnsError) as problem:
            raise Refusal(422, str(problem)) from None

    async def _admitted_message(self, request: Request) -> tuple[object, bool]:
        """Read the message, and whether the sender is known; an unknown one may still be Amazon."""
        service = self._service
        admitted = service.access.by_header(request.headers)
        signed = service.access.key is not None and SIGNATURE_HEADER in request.headers
        if not (admitted or signed or service.sns.topics):
            raise unauthorized("the request has no token")  # before reading: a stranger may use no memory
        check_content_type(request)
        body = await read_body(
            request,
            most_bytes=service.settings.max_body_bytes,
            timeout_s=service.settings.body_timeout_s,
        )
        admitted = service.access.by_signature(request.headers, body) or admitted
        try:
            return read_json(body), admitted
        except NoticeError as problem:
            raise Refusal(422, str(problem)) if admitted else unauthorized("no token") from None

    async def _opened(self, request: Request, envelope: Envelope) -> Response:
        if envelope.kind == "SubscriptionConfirmation":
            await self._service.sns.confirm_subscription(envelope)
            return JSONResponse({"confirmed": True})
        if envelope.kind == "UnsubscribeConfirmation":
            return JSONResponse({"ignored": 1})
        return await self._started(request, read_notices(read_json(envelope.message), self._service.rules))

    async def _started(self, request: Request, notices: Notices) -> Response:
        """Answer 202 with a run, or a list of runs and of refused notices; 200 if there was no scene."""
        request.state.scene_ids = notices.scene_ids
        answers: list[dict[str, Any]] = [
            asdict(await _or_unavailable(self._guard.start(scene_id))) for scene_id in notices.scene_ids
        ]
        for started in answers:
            count_scene(duplicate=started["duplicate"])
        if not answers:
            return JSONResponse({"ignored": notices.ignored})
        answers += [{"error": reason} for reason in notices.refused]
        return JSONResponse(answers[0] if len(answers) == 1 else answers, status_code=202)


async def metrics(request: Request) -> Response:
    """Metrics for Prometheus: counts of requests and answers; nothing of what was sent."""
    del request
    return Response(generate_latest(LISTENER), media_type=CONTENT_TYPE_LATEST)


async def _or_unavailable(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except PrefectUnavailableError as problem:
        raise unavailable(str(problem)) from None
