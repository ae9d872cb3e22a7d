"""Child processes: ready when they are handed over, gone when the block ends, whatever happens."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

LOOPBACK = "127.0.0.1"

PORTS = range(20_000, 32_000)
"""Below those that the kernel hands out to connections, so that a free one stays free until it is taken."""

GUARD = Path(__file__).with_name("guard.py")

STOP_S = 45.0
"""Longer than the guard's own patience, twice."""

SHOWN_LINES = 25
"""Of a log, when its server does not start."""

ROOT = Path(__file__).resolve().parent.parent.parent

SERVERS_ENVIRONMENT = ROOT / ".venv-servers" / "bin"
"""Programs of the environment that the Makefile makes from requirements.txt."""


class ServerError(RuntimeError):
    """A server does not start; the message holds the end of its log."""


class ServerMissingError(ServerError):
    """A server is not installed; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running command, under its guard."""

    name: str
    log: Path
    """What it writes to stdout and stderr."""
    _guard: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Process id of the command itself.

        Raises
        ------
        ServerError : it has ended
        """
        children = psutil.Process(self._guard.pid).children()
        if not children:
            raise ServerError(f"{self.name} has ended:\n{self.tail()}")
        return min(children, key=lambda process: process.create_time()).pid

    def alive(self) -> bool:
        return self._guard.poll() is None

    def wait(self, timeout_s: float) -> int:
        """Exit code of a command that ends by itself.

        Raises
        ------
        ServerError : it did not in time
        """
        try:
            return self._guard.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ServerError(f"{self.name} still ran after {timeout_s:g} s:\n{self.tail()}") from None

    def kill(self) -> None:
        """End the command at once, as a machine that loses its power does."""
        psutil.Process(self.pid).kill()
        self._guard.wait(STOP_S)

    def stop(self) -> None:
        """Ask the command and all that it has started to end; returns when they have."""
        self._guard.terminate()
        try:
            self._guard.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()

    def tail(self) -> str:
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-SHOWN_LINES:])

    def until(self, ready: Callable[[], bool], *, timeout_s: float, every_s: float = 0.1) -> None:
        """Wait until it is ready.

        Raises
        ------
        ServerError : it ended, or took too long
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.alive():
                raise ServerError(f"{self.name} ended at its start:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} was not ready after {timeout_s:g} s:\n{self.tail()}")
            time.sleep(every_s)


@contextmanager
def running(
    name: str,
    command: Sequence[str | Path],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
    cwd: Path | None = None,
    belongings: Path | None = None,
) -> Iterator[Child]:
    """Run a command until the block ends; its log is `folder`/`name`.log.

    Parameters
    ----------
    environment : what it sees beyond this process's own environment
    user : who it runs as; None for the one who runs this
    belongings : folder that is removed when it has ended, also where this process is killed
    """
    log = folder / f"{name}.log"
    with log.open("ab") as out:
        guard = subprocess.Popen(
            [
                sys.executable,
                str(GUARD),
                str(os.getpid()),
                user or "",
                str(belongings or ""),
                *map(str, command),
            ],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=cwd or folder,
            # Ctrl-C goes to the terminal's own group: the servers are to outlive it by their orderly end
            start_new_session=True,
        )
    child = Child(name, log, guard)
    try:
        yield child
    finally:
        child.stop()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens at; all different."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            probe = held.enter_context(socket.socket())
            port = random.choice(PORTS)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            found.append(port)
    return found


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((LOOPBACK, port)) == 0


def answers(url: str, *, headers: Mapping[str, str] | None = None) -> bool:
    """Whether an HTTP server at `url` answers with success."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=dict(headers or {})), timeout=5
        ) as reply:
            return bool(200 <= reply.status < 300)
    except (OSError, urllib.error.URLError):
        return False


def program(name: str) -> Path:
    """A program of the servers' own environment.

    Raises
    ------
    ServerMissingError : it has not been made
    """
    path = SERVERS_ENVIRONMENT / name
    if not path.is_file():
        raise ServerMissingError(f"{path} is missing; `make .venv-servers` makes it")
    return path
