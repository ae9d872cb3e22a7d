"""deploy/compose.yaml in containers: podman-compose brings it up and takes it down, as a user does."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from servers.engine import Engine
from servers.process import ROOT, ServerError, program

COMPOSE_FILE = ROOT / "deploy" / "compose.yaml"

STAND_INS = {
    "postgres": "docker.io/library/postgres:15.20-bookworm",
    "seaweedfs": "docker.io/chrislusf/seaweedfs:4.48",
    "prometheus": "docker.io/prom/prometheus:v3.5.0",
}
"""Stages of images/Containerfile, and the images of others whose names they take."""

SHOWN_LINES = 15
"""Of a log, when its service is not well."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Composed:
    """Containers of a compose file."""

    engine: Engine
    files: Sequence[Path]
    """The compose file, and those that change what it says."""
    environment: Path
    """The `.env` of the user."""
    services: Mapping[str, Json]
    """Those that are started, as podman-compose has read them."""

    def compose(self, *words: str, timeout_s: float = 300) -> str:
        """What a command of podman-compose prints.

        Raises
        ------
        ServerError : it fails
        """
        return compose(self.engine, self.files, self.environment, *words, timeout_s=timeout_s)

    def bring_up(self, services: Collection[str] = (), *options: str, timeout_s: float) -> str:
        """`up` services, all by default, each when what it waits for is well: this podman cannot wait.

        Returns
        -------
        what services say that are not well in the end, and which ones wait for them; empty where all are well
        """
        waiting, begun, well = set(services or self.services), set[str](), set[str]()
        needs = {name: waiting & self.services[name].get("depends_on", {}).keys() for name in waiting}
        deadline = time.monotonic() + timeout_s
        while (waiting or begun) and time.monotonic() < deadline:
            if ready := sorted(name for name in waiting if needs[name] <= well):
                self.compose("up", "--detach", "--no-deps", *options, *ready)
            begun |= {*ready}
            waiting -= begun
            well |= {name for name in begun if self.is_well(name)}
            begun -= well
        held_up = [
            f"{name}: not started, for it waits for {', '.join(needs[name] - well)}" for name in waiting
        ]
        return "\n".join([*self.told(begun), *sorted(held_up)])

    def inspect(self, service: str) -> Json:
        """What the engine knows of the container of a service."""
        (found,) = json.loads(self.engine.ask("container", "inspect", container(service)))
        known: Json = found
        return known

    def is_well(self, service: str) -> bool:
        """Whether its own health check says so, or it has ended well where it ends by itself."""
        if "healthcheck" in self.services[service]:
            return self.engine.run("healthcheck", "run", container(service)).returncode == 0
        state = self.inspect(service)["State"]
        return (state["Status"], state["ExitCode"]) == ("exited", 0)

    def log(self, service: str) -> str:
        done = self.engine.run("logs", container(service))
        return done.stdout + done.stderr

    def told(self, services: Collection[str]) -> list[str]:
        """How services are, and their last words."""
        lines = []
        for name in sorted(services):
            about = self.inspect(name)
            lines.append(f"{name}: {about['State']['Status']}, started again {about['RestartCount']} times")
            lines += [f"    {line}" for line in self.log(name).splitlines()[-SHOWN_LINES:]]
        return lines

    def until(self, met: Callable[[], Any], *, timeout_s: float, what: str) -> Any:
        """What `met` gives, once it is true.

        Raises
        ------
        ServerError : it took too long; the message tells what services say that are not well
        """
        deadline = time.monotonic() + timeout_s
        while not (result := met()):
            if time.monotonic() > deadline:
                ill = [name for name in self.services if not self.is_well(name)]
                raise ServerError("\n".join([f"{what}: not so after {timeout_s:g} s", *self.told(ill)]))
            time.sleep(0.5)
        return result

    def execute(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a service, as `exec` does."""
        return self.engine.run("exec", container(service), *command)

    def get(self, service: str, port: int, path: str) -> str:
        """What a service of our image answers, asked from within it.

        Raises
        ------
        ServerError : it does not answer with success
        """
        asked = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=60).read().decode())"
        done = self.execute(service, "python3", "-c", asked, f"http://127.0.0.1:{port}{path}")
        if done.returncode != 0:
            raise ServerError(f"{service}:{port}{path}: {done.stderr.strip()[-200:]}")
        return done.stdout

    def processes(self, service: str) -> list[psutil.Process]:
        """All processes of a service, its first one before the others."""
        first = psutil.Process(self.inspect(service)["State"]["Pid"])
        return [first, *first.children(recursive=True)]


def container(service: str) -> str:
    return f"crosstie_{service}_1"


def compose(
    engine: Engine, files: Sequence[Path], environment: Path, *words: str, timeout_s: float = 300
) -> str:
    """What a command of podman-compose prints.

    Raises
    ------
    ServerError : it fails
    """
    # What this machine sets is no part of the user's `.env`.
    variables = {
        name: value for name, value in engine.environment.items() if not name.startswith("CROSSTIE_")
    }
    done = subprocess.run(
        [program("podman-compose"), *(f"--file={path}" for path in files), f"--env-file={environment}",
         "--profile=monitoring", *words],
        env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ServerError(f"podman-compose {words[0]} ends with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


def take_stand_ins(engine: Engine) -> None:
    """Make what stands in for the images of others.

    Raises
    ------
    ServerMissingError : install-engine.sh has not made it, or SeaweedFS is not installed
    """
    engine.take("servers", "localhost/servers")
    folder = engine.folder / "images"
    shutil.copytree(Path(__file__).with_name("images"), folder)
    shutil.copy2(program("weed"), folder / "weed")
    for stage, name in STAND_INS.items():
        engine.ask("build", "--pull=never", f"--target={stage}", f"--tag={name}", folder, timeout_s=300)


@contextmanager
def composed(
    engine: Engine, folder: Path, variables: Mapping[str, str], *, without: Collection[str] = ()
) -> Iterator[Composed]:
    """A compose file and its variables until the block ends, which takes down what has been brought up.

    Parameters
    ----------
    variables : what `.env` says
    without : services that have no image here
    """
    environment = folder / ".env"
    environment.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    files = [COMPOSE_FILE]
    services = yaml.safe_load(compose(engine, files, environment, "config"))["services"]
    made = Composed(
        engine,
        files,
        environment,
        {name: about for name, about in services.items() if name not in without},
    )
    try:
        yield made
    finally:
        made.compose("down", "--volumes", "--timeout=5")
