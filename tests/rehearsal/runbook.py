"""The commands of deploy/README.md in order, and a user who types them, in one shell and others that stay."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from servers.process import Child, answers, running

BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>.*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
HEADING = re.compile(r"^#{1,6} (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of commands."""

    section: str
    """The heading above it."""
    text: str
    shell: str | None
    """Name of the shell of its own that it stays in; None for the one that is typed in."""
    ready: str | None
    """URL that answers once what stays is up."""
    stops: tuple[str, ...]
    """Shells in which Ctrl-C is typed first."""
    not_run: str | None
    """Why the test does not run it; None where it does."""


def blocks(page: str) -> Iterator[Block]:
    """The blocks of commands of a page, as its comments mark them.

    Raises
    ------
    ValueError : a comment before a block says what nobody understands
    """
    for found in BLOCK.finditer(page):
        if found["language"] != "sh":
            continue
        said = dict.fromkeys(("shell", "ready", "stop", "not run"), "")
        for part in (found["mark"] or "").split("; ") if found["mark"] else ():
            name, _, value = part.partition(": ")
            if name in said:
                said[name] = value
            elif said["not run"]:  # the reason itself had a semicolon
                said["not run"] += f"; {part}"
            else:
                raise ValueError(f"<!-- {found['mark']} -->: {name!r} is none of {', '.join(said)}")
        yield Block(
            section=[heading[1] for heading in HEADING.finditer(_prose(page[: found.start()]))][-1],
            text=found["text"],
            shell=said["shell"] or None,
            ready=said["ready"] or None,
            stops=tuple(said["stop"].split(", ")) if said["stop"] else (),
            not_run=said["not run"] or None,
        )


def _prose(text: str) -> str:
    """A page without what is in its blocks: a comment of the shell looks like a heading."""
    return BLOCK.sub("", text)


@dataclass(slots=True)
class User:
    """Types commands into shells, and sees how they end."""

    home: Path
    """Their home folder."""
    cwd: Path
    """Folder that the shell that is typed in is in."""
    ports: Mapping[str, str]
    """Ports of the page -> free ones of this machine."""
    fresh: Mapping[str, str]
    """Environment that every new shell begins with."""
    variables: dict[str, str] = field(default_factory=dict)
    """Environment of the shell that is typed in."""
    shells: dict[str, Child] = field(default_factory=dict)
    """Those that stay, by name."""
    _opened: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.variables = dict(self.fresh)

    def here(self, text: str) -> str:
        """A text of the page with the ports of this machine."""
        for port, free in self.ports.items():
            text = re.sub(rf"(?<=[ =:]){port}\b", free, text)
        return text

    def types(self, block: Block, *, timeout_s: float) -> tuple[int, str]:
        """Run a block in the shell that is typed in, which keeps folder and variables; exit code, output."""
        for name in block.stops:
            self.stops(name)
        left, folder = self.home / ".left", self.home / ".folder"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c",
             f"{self.here(block.text)}\nenv -0 > '{left}'; pwd > '{folder}'\n"],
            env=self.variables, cwd=self.cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            pairs = (line.split("=", 1) for line in left.read_text().split("\0") if "=" in line)
            self.variables = {name: value for name, value in pairs if name != "_"}
            self.cwd = Path(folder.read_text().rstrip("\n"))
        return done.returncode, done.stdout

    def opens(self, block: Block, *, timeout_s: float) -> Child:
        """Run a block in a shell of its own until it is ready; Ctrl-C first in what ran there before."""
        assert block.shell is not None
        self.stops(block.shell)
        command = ["bash", "-euo", "pipefail", "-c", self.here(block.text)]
        child = self._opened.enter_context(
            running(block.shell, command, self.home, environment=self.fresh, cwd=self.home)
        )
        self.shells[block.shell] = child
        ready = self.here(block.ready or "")
        child.until(lambda: answers(ready), timeout_s=timeout_s)
        return child

    def stops(self, name: str) -> None:
        """Ctrl-C, where that shell is open."""
        if name in self.shells:
            self.shells.pop(name).stop()

    def leaves(self) -> None:
        """Close all shells."""
        self._opened.close()
