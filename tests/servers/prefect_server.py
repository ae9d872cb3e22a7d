"""A Prefect server with its own database, a process work pool and a worker that runs its flows."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from servers.process import LOOPBACK, ROOT, Child, ServerError, answers, free_ports, running

POOL = "crosstie"
"""Work pool of type `process` that the deployments name."""

PATIENCE_S = 300.0
"""How long the server may take over what it is asked."""

QUICK = {
    # Minutes become seconds: what a schedule or an event asks for is seen at once.
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_TRIGGERS_CLOCK_LOOP_SECONDS": "1",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_WORKER_PREFETCH_SECONDS": "2",
    "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
}

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "NO_COLOR": "1",
}


@dataclass(frozen=True, slots=True)
class PrefectServer:
    """A running server, and a worker for its pool."""

    url: str
    """Of the API."""
    home: Path
    """PREFECT_HOME of the server: its database lies there."""
    logs: Path
    """Folder of the logs of server and worker."""
    server: Child
    worker: Child
    auth: str | None = field(repr=False, default=None)
    """user:password that the API asks for."""

    @property
    def environment(self) -> dict[str, str]:
        """What a client exports to reach it."""
        secret = {} if self.auth is None else {"PREFECT_API_AUTH_STRING": self.auth}
        return {"PREFECT_API_URL": self.url, **QUIET, **secret}

    @property
    def database(self) -> Path:
        return self.home / "prefect.db"

    def ask(self, path: str, body: object = None, *, method: str = "POST") -> Any:
        """Call the API as a stranger does, by HTTP alone: JSON in, JSON out.

        Asks again while its database is busy, as its own clients do: SQLite may keep a request for a minute.

        Raises
        ------
        ServerError : it refuses, or does not answer
        """
        data = None if method == "GET" else json.dumps(body if body is not None else {}).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json", **self._header()}, method=method
        )
        only_looks = method == "GET" or path.endswith("/filter")
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                with urllib.request.urlopen(request, timeout=60 if only_looks else PATIENCE_S) as reply:
                    text = reply.read()
                return json.loads(text) if text else None
            except urllib.error.HTTPError as problem:
                trouble = f"{path}: {problem.code} {problem.read().decode()[:500]}"
                if problem.code != HTTPStatus.SERVICE_UNAVAILABLE:
                    raise ServerError(trouble) from problem
            except TimeoutError as problem:
                trouble = f"{path}: no answer"
                if not only_looks:
                    raise ServerError(trouble) from problem
            if time.monotonic() > deadline:
                raise ServerError(f"{trouble}, asked for {PATIENCE_S:g} s")
            time.sleep(0.3)

    def _header(self) -> dict[str, str]:
        if self.auth is None:
            return {}
        return {"Authorization": "Basic " + base64.b64encode(self.auth.encode()).decode()}


@contextmanager
def prefect_server(
    folder: Path,
    *,
    auth: str | None = None,
    flow_environment: Mapping[str, str] | None = None,
    at_once: int = 2,
) -> Iterator[PrefectServer]:
    """Run a server and a process worker until the block ends; the database is new.

    Parameters
    ----------
    auth : user:password to ask of every client
    flow_environment : what the flows' processes see besides: addresses and credentials of the other servers
    at_once : flow runs at the same time

    Raises
    ------
    ServerError : the server or the worker does not start
    """
    folder.mkdir(parents=True, exist_ok=True)
    home, worker_home = folder / "prefect-server", folder / "prefect-worker"
    for path in (home, worker_home):
        path.mkdir()
    (port,) = free_ports(1)
    url = f"http://{LOOPBACK}:{port}/api"
    server_secret = {} if auth is None else {"PREFECT_SERVER_API_AUTH_STRING": auth}
    client_secret = {} if auth is None else {"PREFECT_API_AUTH_STRING": auth}
    shared = {"PREFECT_API_URL": url, **QUIET, **QUICK, **client_secret}
    prefect = ROOT / ".venv" / "bin" / "prefect"
    with ExitStack() as stack:
        server = stack.enter_context(
            running(
                "prefect-server",
                [prefect, "server", "start", "--host", LOOPBACK, "--port", str(port), "--no-ui"],
                folder,
                environment=shared | server_secret | {"PREFECT_HOME": str(home)},
            )
        )
        server.until(lambda: answers(f"{url}/health"), timeout_s=300)
        worker = stack.enter_context(
            running(
                "prefect-worker",
                [prefect, "worker", "start", "--pool", POOL, "--type", "process", "--limit", str(at_once),
                 "--name", "crosstie-worker", "--install-policy", "never"],
                folder,
                environment={**shared, "PREFECT_HOME": str(worker_home), **(flow_environment or {})},
            )
        )  # fmt: skip
        found = PrefectServer(url, home, folder, server, worker, auth)
        worker.until(lambda: _online(found), timeout_s=300)
        yield found


def _online(server: PrefectServer) -> bool:
    try:
        workers = server.ask(f"/work_pools/{POOL}/workers/filter")
    except ServerError:  # no such pool yet
        return False
    return any(worker["status"] == "ONLINE" for worker in workers)
