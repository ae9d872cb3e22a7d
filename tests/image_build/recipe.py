"""A Dockerfile as stages of instructions."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

FLAG = re.compile(r"--([a-z]+)=(\S+)\s+")

VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of a Dockerfile, continued lines joined."""

    word: str
    """In capitals: RUN, COPY, …"""
    flags: tuple[tuple[str, str], ...]
    """--name=value before the text; a name may come twice."""
    text: str

    @property
    def form(self) -> list[str]:
        """The words of an exec form (JSON), or of a shell's line."""
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)

    @property
    def assignments(self) -> dict[str, str]:
        """Of ENV, ARG and LABEL; a name alone is empty."""
        return dict(part.partition("=")[::2] for part in shlex.split(self.text))

    def flag(self, name: str) -> str | None:
        return dict(self.flags).get(name)

    @property
    def mounts(self) -> list[dict[str, str]]:
        """Of RUN --mount: type, source, target, …"""
        return [
            dict(part.partition("=")[::2] for part in value.split(","))
            for name, value in self.flags
            if name == "mount"
        ]


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    base: str
    """Another stage, or an image."""
    steps: tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    arguments: Mapping[str, str] = field(default_factory=dict)
    """ARG before the first stage."""
    stages: tuple[Stage, ...] = ()

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    def lineage(self, name: str) -> list[Stage]:
        """The stages that a stage stands on, the lowest first, itself last."""
        names = {stage.name for stage in self.stages}
        found = [self.stage(name)]
        while found[0].base in names:
            found.insert(0, self.stage(found[0].base))
        return found


def read(text: str) -> Recipe:
    """Take a Dockerfile apart; its syntax is the linter's business."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    arguments: dict[str, str] = {}
    stages: list[tuple[str, str, list[Instruction]]] = []
    for line in joined:
        step = _instruction(line)
        if step.word == "FROM":
            base, _, name = step.text.partition(" AS ")
            stages.append((name or base, base, []))
        elif stages:
            stages[-1][2].append(step)
        else:
            arguments |= step.assignments
    return Recipe(arguments, tuple(Stage(name, base, tuple(steps)) for name, base, steps in stages))


def _instruction(line: str) -> Instruction:
    word, _, rest = line.partition(" ")
    flags = []
    while found := FLAG.match(rest):
        flags.append((found[1], found[2]))
        rest = rest[found.end() :]
    return Instruction(word.upper(), tuple(flags), rest.strip())


def filled(text: str, values: Mapping[str, str]) -> str:
    """Put the values of arguments and variables into a text."""
    return VARIABLE.sub(lambda found: values.get(found[1], ""), text)
