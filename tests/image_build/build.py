"""Carries out the instructions of a Dockerfile, each stage in a root of its own.

What another system would be needed for is left out, and listed: packages of Debian (`apt-get`), which the
machine's own stand in for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from image_build import context
from image_build.recipe import Instruction, Recipe, Stage, filled
from image_build.root import Mount, Root, empty_root

SHOWN = 3000
"""Characters of a failed step's output."""


class StepError(RuntimeError):
    """A step of the Dockerfile fails; the message holds its output."""


@dataclass(slots=True)
class Build:
    """Stages that are done, and what they took."""

    recipe: Recipe
    folder: Path
    arguments: Mapping[str, str]
    """--build-arg"""
    roots: dict[str, Root] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def root(self, name: str) -> Root:
        """Root of a stage, built when it is first asked for.

        Raises
        ------
        StepError : one of its steps fails
        """
        if name not in self.roots:
            self._make(self.recipe.stage(name))
        return self.roots[name]

    def _make(self, stage: Stage) -> None:
        path = self.folder / stage.name
        if stage.base in {other.name for other in self.recipe.stages}:
            below = self.root(stage.base)
            started = time.monotonic()
            _copy(below.path, path)
            root = Root(path, below.mounts)
        else:
            started = time.monotonic()
            root = empty_root(path)
        for step in stage.steps:
            values = self.values(stage, before=step)
            if step.word == "RUN":
                self._run(root, step, values, _workdir(self.recipe, stage, before=step))
            elif step.word == "COPY":
                self._bring(root, step, values, _workdir(self.recipe, stage, before=step))
            elif step.word == "WORKDIR":
                (root.path / step.text.lstrip("/")).mkdir(parents=True, exist_ok=True)
        self.roots[stage.name] = root
        self.seconds[stage.name] = time.monotonic() - started

    def values(self, stage: Stage, *, before: Instruction | None = None) -> dict[str, str]:
        """Arguments and variables that a step of a stage sees."""
        found: dict[str, str] = {}
        for level in self.recipe.lineage(stage.name):
            for step in level.steps:
                if step is before:
                    return found
                if step.word == "ARG":
                    for name, default in step.assignments.items():
                        found[name] = self.arguments.get(name, default or self.recipe.arguments.get(name, ""))
                elif step.word == "ENV":
                    found |= {name: filled(value, found) for name, value in step.assignments.items()}
        return found

    def _run(self, root: Root, step: Instruction, values: Mapping[str, str], cwd: str) -> None:
        if step.text.startswith("apt-get"):
            self.left_out.append(step.text)
            return
        settings, folders = pip_settings()
        mounts = [Mount(folder, str(folder)) for folder in folders]
        for mount in step.mounts:
            if mount["type"] == "cache":
                mounts.append(Mount(_pip_cache(), mount["target"], writable=True))
            elif mount["type"] == "bind":
                origin = self.root(mount["from"]).path if "from" in mount else context.ROOT
                mounts.append(Mount(origin / mount["source"].lstrip("/"), mount["target"]))
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": "/root",
            **settings,
            **values,
        }
        result = subprocess.run(
            root.command(["/bin/sh", "-c", step.text], environment, cwd=cwd, mounts=mounts),
            capture_output=True,
            text=True,
        )
        if result.returncode != 0:
            raise StepError(
                f"RUN {step.text}\nends with {result.returncode}:\n{(result.stdout + result.stderr)[-SHOWN:]}"
            )

    def _bring(self, root: Root, step: Instruction, values: Mapping[str, str], cwd: str) -> None:
        *sources, target = (filled(word, values) for word in step.form)
        into = root.path / (target if target.startswith("/") else f"{cwd}/{target}").lstrip("/")
        origin = step.flag("from")
        for source in sources:
            if origin is not None:
                whole = self.root(origin).path / source.lstrip("/")
                _copy(whole, into / whole.name if target.endswith("/") else into)
                continue
            for path in _files(source):
                inside = path.relative_to(source) if path != Path(source) else None
                end = into / (inside or path.name) if inside or target.endswith("/") else into
                end.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(context.ROOT / path, end, follow_symlinks=False)
                if mode := step.flag("chmod"):
                    end.chmod(int(mode, 8))


def _files(source: str) -> list[Path]:
    """Files of the context at or below a path.

    Raises
    ------
    StepError : there is none
    """
    sent = {Path(path) for path in context.sent(context.IGNORE.read_text())}
    found = [path for path in sorted(sent) if Path(source) in (path, *path.parents)]
    files = [path for path in found if (context.ROOT / path).is_symlink() or (context.ROOT / path).is_file()]
    if not files:
        raise StepError(f"COPY {source}: not in the context; see .dockerignore")
    return files


def _workdir(recipe: Recipe, stage: Stage, *, before: Instruction) -> str:
    cwd = "/"
    for level in recipe.lineage(stage.name):
        for step in level.steps:
            if step is before:
                return cwd
            if step.word == "WORKDIR":
                cwd = step.text
    return cwd


def _copy(source: Path, target: Path) -> None:
    """As hard links: a step of a later stage adds files, and changes none of an earlier one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--link", "--no-target-directory", source, target], check=True)


@cache
def pip_settings() -> tuple[dict[str, str], list[Path]]:
    """What pip is told on this machine, as variables, and the folders that this names."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings: dict[str, str] = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in ("global", "install", ":env:"):
            settings["PIP_" + option.upper().replace("-", "_")] = value.strip("'\"")
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        if name in os.environ:
            settings[name] = os.environ[name]
    words = [word.removeprefix("file://") for value in settings.values() for word in value.split()]
    paths = [Path(word) for word in words if word.startswith("/") and Path(word).exists()]
    # An index of files names others beside its pages.
    folders = [path.parent if path.name == "simple" else path for path in paths]
    return settings, [path for path in folders if not path.is_relative_to("/etc/ssl")]


@cache
def _pip_cache() -> Path:
    found = subprocess.run(
        [sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    Path(found).mkdir(parents=True, exist_ok=True)
    return Path(found)
