"""A STAC API: stac-fastapi-pgstac over PostgreSQL with PostGIS, on loopback."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers.process import (
    LOOPBACK,
    ServerError,
    ServerMissingError,
    answers,
    free_ports,
    program,
    running,
)

HOW_TO_GET_POSTGIS = "tests/servers/install-postgis.sh, as root on Debian or Ubuntu, installs them"

POSTGRES_USER = "postgres"
"""Whom the server runs as where this process is root: PostgreSQL refuses root."""

FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=40")
"""What is lost with the machine is lost with the test."""


@dataclass(frozen=True, slots=True)
class StacApi:
    """A running STAC API with the transaction extension."""

    url: str
    """Of the landing page."""

    def load(self, collections: Iterable[dict[str, Any]], items: Iterable[dict[str, Any]]) -> None:
        """Put collections and items into the catalog, as JSON says them.

        Raises
        ------
        ServerError : the API refuses one
        """
        for collection in collections:
            self._post("/collections", collection)
        by_collection: dict[str, list[dict[str, Any]]] = {}
        for item in items:
            by_collection.setdefault(item["collection"], []).append(item)
        for name, group in by_collection.items():
            for first in range(0, len(group), 1000):
                found = {item["id"]: item for item in group[first : first + 1000]}
                self._post(f"/collections/{name}/bulk_items", {"items": found, "method": "upsert"})

    def _post(self, path: str, body: dict[str, Any]) -> None:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60):
                pass
        except urllib.error.HTTPError as problem:
            raise ServerError(
                f"{self.url}{path}: {problem.code} {problem.read().decode()[:500]}"
            ) from problem


def postgres_programs() -> Path:
    """Folder of the newest PostgreSQL that has PostGIS.

    Raises
    ------
    ServerMissingError : there is none
    """
    for version in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True):
        number = version.parent.parent.name
        if Path(f"/usr/share/postgresql/{number}/extension/postgis.control").is_file():
            return version.parent
    raise ServerMissingError(f"PostgreSQL with PostGIS is missing; {HOW_TO_GET_POSTGIS}")


@contextmanager
def pgstac(folder: Path) -> Iterator[StacApi]:
    """Run a database and the API over it until the block ends; the catalog is empty.

    Raises
    ------
    ServerMissingError : PostgreSQL, PostGIS or the API is not installed; the message says how to get it
    ServerError : one of them does not start
    """
    folder.mkdir(parents=True, exist_ok=True)
    programs, api, migrate = postgres_programs(), program("uvicorn"), program("pypgstac")
    database_port, api_port = free_ports(2)
    with _database(programs, folder, database_port) as environment:
        _run_once("migrate", [migrate, "migrate"], folder, environment)
        command = [
            api, "--factory", "stac_fastapi.pgstac.app:create_app",
            "--host", LOOPBACK, "--port", str(api_port), "--no-access-log",
        ]  # fmt: skip
        settings = {
            "ENABLE_TRANSACTIONS_EXTENSIONS": "TRUE",
            "DB_MIN_CONN_SIZE": "1",
            "DB_MAX_CONN_SIZE": "8",
        }
        with running("stac-api", command, folder, environment=environment | settings) as child:
            url = f"http://{LOOPBACK}:{api_port}"
            child.until(lambda: answers(f"{url}/_mgmt/ping") and answers(f"{url}/collections"), timeout_s=240)
            yield StacApi(url)


@contextmanager
def _database(programs: Path, folder: Path, port: int) -> Iterator[dict[str, str]]:
    """Run PostgreSQL over a new cluster; yields what its clients export."""
    user = POSTGRES_USER if os.geteuid() == 0 else None
    password = secrets.token_urlsafe(16)
    # below /tmp itself: a folder of root's, as pytest makes them, is closed to another user
    home = Path(f"/tmp/crosstie-postgres-{os.getpid()}-{port}")
    home.mkdir(mode=0o700)
    try:
        asked = home / "password"
        asked.write_text(password)
        if user is not None:
            for path in (home, asked):
                shutil.chown(path, user)
        data = home / "data"
        initialise = [
            programs / "initdb", "--pgdata", data, "--username", "pgstac", "--pwfile", asked, "--locale", "C",
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-sync", "--no-instructions",
        ]  # fmt: skip
        _run_once("initdb", initialise, folder, {}, user=user, cwd=home)
        command: list[str | Path] = [
            programs / "postgres", "-D", data, "-p", str(port), "-c", f"listen_addresses={LOOPBACK}",
            "-c", f"unix_socket_directories={home}",
        ]  # fmt: skip
        for setting in FAST:
            command += ["-c", setting]
        environment = {
            "PGHOST": LOOPBACK,
            "PGPORT": str(port),
            "PGUSER": "pgstac",
            "PGPASSWORD": password,
            "PGDATABASE": "postgres",
        }
        with running("postgres", command, folder, user=user, cwd=home, belongings=home) as child:
            waiting = [programs / "pg_isready", "--quiet"]
            child.until(lambda: _succeeds(waiting, environment), timeout_s=240)
            yield environment
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _succeeds(command: list[Path], environment: dict[str, str]) -> bool:
    return subprocess.run(command, env=os.environ | environment, check=False).returncode == 0


def _run_once(
    name: str,
    command: list[str | Path],
    folder: Path,
    environment: dict[str, str],
    *,
    user: str | None = None,
    cwd: Path | None = None,
) -> None:
    with running(name, command, folder, environment=environment, user=user, cwd=cwd) as child:
        if child.wait(120) != 0:
            raise ServerError(f"{name} failed:\n{child.tail()}")
