"""Start the deployment for a scene, once: Prefect's server remembers, whatever is restarted here."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.utilities.urls import url_for

from crosstie.errors import CrosstieError
from crosstie.io.storage.href import public_href

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

CREATED = 201
"""What Prefect answers for a new run; 200 gives back the one that has the key already."""

REFUSED = (409, 422)
"""What Prefect answers when a deployment does not take the parameters."""

BROKEN = (StateType.FAILED, StateType.CRASHED)
"""How a run ends that may be worth another; one that was cancelled was not wanted."""

MOST_ATTEMPTS = 8
"""Runs of a scene within `dedupe_s`, if all fail; the next night looks at it once more."""


class PrefectUnavailableError(CrosstieError):
    """Prefect's API does not answer, or not as it should; nothing was started that is known of."""


@dataclass(frozen=True, slots=True)
class Started:
    """A run for a scene."""

    scene_id: str
    flow_run_id: str
    flow_run_url: str
    duplicate: bool
    """The run is there because of an earlier notice."""


@dataclass(frozen=True, slots=True)
class RunStarter:
    """Starts runs of one deployment, one a scene and `dedupe_s`."""

    client: PrefectClient
    deployment: str
    """Flow and deployment, `crosstie-new-scene/new-scene`."""
    parameters: Mapping[str, Any]
    """Of every run, besides scene_id: catalog, out, settings. The sender has no say in them."""
    dedupe_s: float
    """How long a scene is not started again, seconds."""
    timeout_s: float
    """Longest time for all that Prefect is asked for one scene, seconds."""

    async def deployment_id(self) -> UUID:
        """Look the deployment up.

        Raises
        ------
        PrefectUnavailableError : no answer, or no such deployment
        """
        try:
            async with asyncio.timeout(self.timeout_s):
                return (await self.client.read_deployment_by_name(self.deployment)).id
        except ObjectNotFound:
            raise PrefectUnavailableError(f"Prefect has no deployment {self.deployment}") from None
        except (httpx.HTTPError, TimeoutError) as problem:
            raise _unavailable(problem) from None

    async def start(self, scene_id: str) -> Started:
        """Start a run for a scene, or find the one that an earlier notice started.

        A run is told by a key of the scene, the current stretch of `dedupe_s` and the attempt, which the
        server keeps unique; a look at the stretch before makes two notices meet that a border parts. A run
        that failed is no reason to start none: the first files of a scene may come before the others, or
        before the catalog knows it.

        Raises
        ------
        PrefectUnavailableError : no answer, or no such deployment; to be tried again
        """
        deployment_id = await self.deployment_id()
        now_utc = datetime.now(UTC)
        keys = self._keys(scene_id, now_utc, back=0)
        try:
            async with asyncio.timeout(self.timeout_s):
                earlier = await self._earlier(scene_id, now_utc)
                if earlier and (earlier[-1].state_type not in BROKEN or len(earlier) >= MOST_ATTEMPTS):
                    return _started(scene_id, earlier[-1].id, duplicate=True)
                attempt = sum(run.idempotency_key in keys for run in earlier)
                # Not create_flow_run_from_deployment: it keeps to itself whether the run is new.
                response = await self.client.request(
                    "POST",
                    "/deployments/{id}/create_flow_run",
                    path_params={"id": deployment_id},
                    json={
                        "name": scene_id,
                        "parameters": {**self.parameters, "scene_id": scene_id},
                        "idempotency_key": keys[attempt],
                    },
                )
        except (httpx.HTTPError, TimeoutError) as problem:
            raise _unavailable(problem) from None
        return _started(scene_id, UUID(response.json()["id"]), duplicate=response.status_code != CREATED)

    async def _earlier(self, scene_id: str, now_utc: datetime) -> list[FlowRun]:
        """Runs for a scene in the last `dedupe_s`, in the order of their attempts."""
        keys = [key for back in (1, 0) for key in self._keys(scene_id, now_utc, back=back)]
        runs = await self.client.read_flow_runs(
            flow_run_filter=FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=keys))
        )
        since_utc = now_utc - timedelta(seconds=self.dedupe_s)
        lately = [run for run in runs if run.created and run.created > since_utc]
        return sorted(lately, key=lambda run: keys.index(run.idempotency_key or ""))

    def _keys(self, scene_id: str, now_utc: datetime, *, back: int) -> list[str]:
        """Keys of a scene's runs in the current stretch of time, or in one `back`.

        The same scene of another catalog, or for other products, is another run.
        """
        job = "\n".join([self.deployment, *(str(self.parameters[name]) for name in ("catalog", "out"))])
        digest = hashlib.sha256(job.encode()).hexdigest()[:12]
        begin = (now_utc.timestamp() // self.dedupe_s - back) * self.dedupe_s
        return [f"crosstie/{scene_id}/{digest}/{begin:.0f}/{n}" for n in range(1, MOST_ATTEMPTS + 1)]


class BurstGuard:
    """Notices of one scene that come together ask Prefect once; what it said is kept for a minute."""

    def __init__(self, starter: RunStarter, *, keep_s: float = 60.0, most: int = 4096) -> None:
        self._starter = starter
        self._keep_s = min(keep_s, starter.dedupe_s)
        self._most = most
        self._asked: dict[str, tuple[float, asyncio.Task[Started]]] = {}

    async def start(self, scene_id: str) -> Started:
        """As `RunStarter.start`; whoever comes second hears that the run is a duplicate."""
        self._forget()
        known = self._asked.get(scene_id)
        # Shielded: the sender may hang up, others who wait for the same run do not.
        if known is not None:
            return replace(await asyncio.shield(known[1]), duplicate=True)
        task = asyncio.create_task(self._starter.start(scene_id))
        self._asked[scene_id] = (time.monotonic(), task)
        task.add_done_callback(partial(self._settle, scene_id))
        return await asyncio.shield(task)

    def _settle(self, scene_id: str, task: asyncio.Task[Started]) -> None:
        """Keep nothing of an attempt that failed: the next notice tries again."""
        if task.cancelled() or task.exception() is not None:
            del self._asked[scene_id]

    def _forget(self) -> None:
        """Let go of the oldest; the dict holds them in the order of their coming."""
        limit = time.monotonic() - self._keep_s
        for scene_id, (asked, task) in list(self._asked.items()):
            if asked > limit and len(self._asked) <= self._most:
                return
            if task.done():  # what is under way is asked once, however long it takes
                del self._asked[scene_id]


def _started(scene_id: str, run_id: UUID, *, duplicate: bool) -> Started:
    """With the page of the run where the server has pages, else its address in the API."""
    url = url_for("flow-run", obj_id=run_id) or url_for("flow-run", obj_id=run_id, url_type="api")
    return Started(scene_id, str(run_id), public_href(url or ""), duplicate)


def _unavailable(problem: Exception) -> PrefectUnavailableError:
    """Say what failed; not what Prefect wrote, which quotes parameters."""
    if isinstance(problem, PrefectHTTPStatusError):
        code = problem.response.status_code
        hint = "; is the deployment of this version? `prefect deploy` brings it up to date"
        return PrefectUnavailableError(f"Prefect's API answered {code}{hint if code in REFUSED else ''}")
    return PrefectUnavailableError(f"Prefect's API does not answer ({type(problem).__name__})")
