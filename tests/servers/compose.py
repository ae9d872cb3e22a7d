"""The process set of a compose file without a container engine: the same commands, environment and users.

By hand: `PYTHONPATH=tests .venv/bin/python -m servers.compose --env-file deploy/.env` starts what
deploy/compose.yaml declares, and stops it at Ctrl-C. Each service has namespaces of its own (files, network,
processes), as a container has; programs of this machine stand in for the images. It takes root on Linux. What
it does without: compose_file.NOT_DONE.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from servers.compose_file import Service, read_compose
from servers.compose_images import stand_in
from servers.compose_plan import entering
from servers.process import ROOT, Child, ServerError, ServerMissingError, running

COMPOSE_FILE = ROOT / "deploy" / "compose.yaml"

NEEDED = ("ip", "unshare", "nsenter", "setpriv")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Composed:
    """Running services of a compose file."""

    services: Mapping[str, Service]
    folder: Path
    """Logs, volumes, state."""
    engine: Child

    def state(self) -> dict[str, Json]:
        """Of each process: service, state, pid, code, starts, addresses."""
        found: dict[str, Json] = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        return found

    def of(self, service: str) -> list[Json]:
        """State of a service and its replicas."""
        return [found for found in self.state().values() if found["service"] == service]

    def log(self, service: str) -> str:
        """What a service and its replicas have written."""
        return "".join(
            path.read_text(encoding="utf-8", errors="replace")
            for path in sorted(self.folder.glob(f"{service}-[0-9]*.log"))
        )

    def ready(self) -> bool:
        """Whether all are as they shall be: healthy, or ended well where they end by themselves."""
        return all(
            found["state"] == "healthy" if self.services[found["service"]].check else found["code"] == 0
            for found in self.state().values()
        )

    def until(self, met: Callable[[], Any], *, timeout_s: float, what: str) -> Any:
        """What `met` gives, once it is true.

        Raises
        ------
        ServerError : it took too long, or the engine has ended; the message tells how each service is
        """
        deadline = time.monotonic() + timeout_s
        while not (result := met()):
            if time.monotonic() > deadline or not self.engine.alive():
                raise ServerError(f"{what}: not so after {timeout_s:g} s\n{self.told()}")
            time.sleep(0.2)
        return result

    def told(self) -> str:
        """How all are, and the last words of those that are not well."""
        lines = [self.engine.tail()]
        for name, found in self.state().items():
            lines.append(f"{name}: {found['state']}, started {found['starts']} times, code {found['code']}")
            if found["state"] not in {"healthy", "waiting"} and (self.folder / f"{name}.log").exists():
                text = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
                lines += [f"    {line}" for line in text.splitlines()[-15:]]
        return "\n".join(lines)

    def execute(self, service: str, *command: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command in the first replica of a service, as `docker compose exec` does."""
        declared = self.services[service]
        entered = entering(self.of(service)[0]["pid"], declared, stand_in(declared.image), command)
        return subprocess.run(entered, capture_output=True, text=True, timeout=timeout_s, check=False)

    def get(self, service: str, port: int, path: str) -> str:
        """What the first replica of a service answers, asked from within its own network.

        Raises
        ------
        ServerError : it does not answer with success
        """
        asked = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=60).read().decode())"
        pid = self.of(service)[0]["pid"]
        done = subprocess.run(
            ["nsenter", f"--target={pid}", "--net", "--", sys.executable, "-I", "-c", asked,
             f"http://127.0.0.1:{port}{path}"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise ServerError(f"{service}:{port}{path}: {done.stderr.strip().splitlines()[-1]}")
        return done.stdout

    def processes(self, service: str) -> list[psutil.Process]:
        """All processes of a service, its first one before the others."""
        found = []
        for pid in [one["pid"] for one in self.of(service) if one["pid"]]:
            with contextlib.suppress(psutil.NoSuchProcess):
                first = psutil.Process(pid)
                found += [first, *first.children(recursive=True)]
        return found


def why_not() -> str:
    """What is missing here to start processes this way; empty where nothing is."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "namespaces of its own for each service take root on Linux"
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} missing; `apt-get install iproute2 util-linux` brings them"
    tried = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return tried.stderr.strip()


@contextmanager
def compose_processes(
    folder: Path,
    *,
    variables: Mapping[str, str],
    file: Path = COMPOSE_FILE,
    profiles: frozenset[str] = frozenset(),
    without: frozenset[str] = frozenset(),
) -> Iterator[Composed]:
    """Start the services of a compose file until the block ends; yields before they are ready.

    Parameters
    ----------
    folder : where logs, volumes and state go
    variables : what `.env` would say
    without : services that no program of this machine stands in for

    Raises
    ------
    ServerMissingError : a program that stands in for an image is missing, or namespaces are not to be had
    ComposeError : the file is wrong
    """
    if problem := why_not():
        raise ServerMissingError(problem)
    folder.mkdir(parents=True, exist_ok=True)
    declared = read_compose(file, variables, volumes=folder / "volumes", profiles=profiles)
    services = {name: service for name, service in declared.items() if name not in without}
    for service in services.values():
        stand_in(service.image)
    (folder / "plan.json").write_text(
        json.dumps([asdict(service) for service in services.values()], indent=1)
    )
    (folder / "state.json").unlink(missing_ok=True)
    with running(
        "engine",
        [sys.executable, "-m", "servers.compose_engine", folder],
        folder,
        environment={"PYTHONPATH": str(ROOT / "tests")},
    ) as engine:
        engine.until((folder / "state.json").exists, timeout_s=120)
        yield Composed(services, folder, engine)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m servers.compose", description=__doc__)
    parser.add_argument("--file", type=Path, default=COMPOSE_FILE)
    parser.add_argument("--env-file", type=Path, help="NAME=value lines; the environment goes before them")
    parser.add_argument("--profile", action="append", default=[])
    parser.add_argument("--folder", type=Path, help="logs and volumes; a temporary one otherwise")
    given = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    variables = {**(read_env(given.env_file) if given.env_file else {}), **os.environ}
    with contextlib.ExitStack() as stack, contextlib.suppress(KeyboardInterrupt):
        folder = given.folder or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="crosstie-compose-"))
        )
        composed = stack.enter_context(
            compose_processes(
                folder.resolve(), variables=variables, file=given.file, profiles=frozenset(given.profile)
            )
        )
        tell(f"starting; logs are in {folder}")
        composed.until(composed.ready, timeout_s=300, what="all services are well")
        for service in composed.services.values():
            for port in service.ports:
                tell(f"{service.name:16}{port.host}:{port.published}")
        tell("Ctrl-C stops them.")
        signal.pause()


def read_env(path: Path) -> dict[str, str]:
    """Variables of an `.env` file: NAME=value lines, comments, blank lines."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
