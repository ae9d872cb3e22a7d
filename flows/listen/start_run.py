"""Start one run for a scene. Prefect's server remembers it, so a restart of the listener repeats none."""

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
"""Prefect's answer for a new run; 200 means that a run with this key existed."""

REFUSED = (409, 422)
"""Prefect's answers when the deployment does not accept the parameters."""

BROKEN = (StateType.FAILED, StateType.CRASHED)
"""States after which a run may be started again; a cancelled run was not wanted."""

MOST_ATTEMPTS = 8
"""Most runs of a scene within `dedupe_s` if all fail; the next night tries it again."""


class PrefectUnavailableError(CrosstieError):
    """Prefect's API does not answer, or answers with an error; as far as is known, no run was started."""


@dataclass(frozen=True, slots=True)
class Started:
    """A run for a scene."""

    scene_id: str
    flow_run_id: str
    flow_run_url: str
    duplicate: bool
    """An earlier notice started this run."""


@dataclass(frozen=True, slots=True)
class RunStarter:
    """Starts runs of one deployment, one per scene and `dedupe_s`."""

    client: PrefectClient
    deployment: str
    """Flow and deployment, `crosstie-new-scene/new-scene`."""
    parameters: Mapping[str, Any]
    """Parameters of every run besides scene_id: catalog, out, settings. A sender cannot change them."""
    dedupe_s: float
    """How long a scene starts no second run, seconds."""
    timeout_s: float
    """Longest time for all requests to Prefect for one scene, seconds."""

    async def deployment_id(self) -> UUID:
        """Look up the deployment.

        Raises
        ------
        PrefectUnavailableError
            Prefect does not answer, or has no such deployment.
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

        The server keeps the key of a run unique. The key is made of the scene, the current period of length
        `dedupe_s` and the number of the attempt. Runs of the period before are searched as well, so that two
        notices on both sides of a period's end start one run. After a failed run the next notice starts
        another: the first files of a scene may arrive before the others, or before the catalog lists it.

        Raises
        ------
        PrefectUnavailableError
            Prefect does not answer, or has no such deployment; the sender should try again.
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
                # Not create_flow_run_from_deployment, which does not tell whether the run is new.
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
        """Find the runs for a scene in the last `dedupe_s`, in the order of their attempts."""
        keys = [key for back in (1, 0) for key in self._keys(scene_id, now_utc, back=back)]
        runs = await self.client.read_flow_runs(
            flow_run_filter=FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=keys))
        )
        since_utc = now_utc - timedelta(seconds=self.dedupe_s)
        lately = [run for run in runs if run.created and run.created > since_utc]
        return sorted(lately, key=lambda run: keys.index(run.idempotency_key or ""))

    def _keys(self, scene_id: str, now_utc: datetime, *, back: int) -> list[str]:
        """Keys of a scene's runs in the current period, or `back` periods before.

        The same scene of another catalog, or for another product root, has other keys.
        """
        job = "\n".join([self.deployment, *(str(self.parameters[name]) for name in ("catalog", "out"))])
        digest = hashlib.sha256(job.encode()).hexdigest()[:12]
        begin = (now_utc.timestamp() // self.dedupe_s - back) * self.dedupe_s
        return [f"crosstie/{scene_id}/{digest}/{begin:.0f}/{n}" for n in range(1, MOST_ATTEMPTS + 1)]


class BurstGuard:
    """Asks Prefect once for all notices of a scene that arrive together, and keeps the answer a minute."""

    def __init__(self, starter: RunStarter, *, keep_s: float = 60.0, most: int = 4096) -> None:
        self._starter = starter
        self._keep_s = min(keep_s, starter.dedupe_s)
        self._most = most
        self._asked: dict[str, tuple[float, asyncio.Task[Started]]] = {}

    async def start(self, scene_id: str) -> Started:
        """As `RunStarter.start`; later callers are told that the run is a duplicate."""
        self._forget()
        known = self._asked.get(scene_id)
        # Shielded, because other senders may wait for the same run when this one closes its connection.
        if known is not None:
            return replace(await asyncio.shield(known[1]), duplicate=True)
        task = asyncio.create_task(self._starter.start(scene_id))
        self._asked[scene_id] = (time.monotonic(), task)
        task.add_done_callback(partial(self._settle, scene_id))
        return await asyncio.shield(task)

    def _settle(self, scene_id: str, task: asyncio.Task[Started]) -> None:
        """Forget a failed attempt, so that the next notice tries again."""
        if task.cancelled() or task.exception() is not None:
            del self._asked[scene_id]

    def _forget(self) -> None:
        """Drop the oldest answers; the dict keeps the order of arrival."""
        limit = time.monotonic() - self._keep_s
        for scene_id, (asked, task) in list(self._asked.items()):
            if asked > limit and len(self._asked) <= self._most:
                return
            if task.done():  # a request under way is never repeated, however long it takes
                del self._asked[scene_id]


def _started(scene_id: str, run_id: UUID, *, duplicate: bool) -> Started:
    """Add the page of the run if the server has pages, else its address in the API."""
    url = url_for("flow-run", obj_id=run_id) or url_for("flow-run", obj_id=run_id, url_type="api")
    return Started(scene_id, str(run_id), public_href(url or ""), duplicate)


def _unavailable(problem: Exception) -> PrefectUnavailableError:
    """Name the failure, but not the text of Prefect, which quotes parameters."""
    if isinstance(problem, PrefectHTTPStatusError):
        code = problem.response.status_code
        hint = "; is the deployment of this version? `prefect deploy --all` updates it"
        return PrefectUnavailableError(f"Prefect's API answered {code}{hint if code in REFUSED else ''}")
    return PrefectUnavailableError(f"Prefect's API does not answer ({type(problem).__name__})")
