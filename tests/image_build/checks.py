"""What is wrong in the files that the image is built from.

Each check takes a text, so that a misspelt copy can be shown to fail.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import dask
from botocore.credentials import EnvProvider
from prefect.settings import Settings
from pydantic import BaseModel

from image_build import context, recipe
from image_build.recipe import Recipe, Stage

BIN = Path(sys.executable).parent

FULL_TAG = re.compile(r"^[a-z]+:\d+\.\d+\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?$")
"""Of one release, not the newest of a line."""

LABELS = {"title", "description", "version", "revision", "licenses", "base.name"}

OF_THE_SYSTEM = {
    *(
        "PATH",
        "HOME",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONUNBUFFERED",
        "MPLCONFIGDIR",
        "XDG_CACHE_HOME",
        "DO_NOT_TRACK",
    )
}

MOUNT_KEYS = {"type", "id", "source", "target", "from", "required", "sharing", "readonly"}

SECRET = re.compile(r"(PASSWORD|SECRET|TOKEN|KEY|AUTH_STRING|SIGNATURE)")

NEVER_SENT = re.compile(
    r"^runs(/|$)|(^|/)(\.git|\.venv[^/]*|\.env|\.aws|shared|demo-[a-z]+|benchmarks|tests|[^/]*\.(tif|pem|key|log|pyc))(/|$)"
)


LEFTOVERS = ("flows/__pycache__/run.pyc", "src/crosstie.egg-info/PKG-INFO", "src/.mypy_cache/3.11/x.json")
"""What work in a checkout leaves in folders that are sent: it may be there or not when this is asked."""


def lint(text: str) -> list[str]:
    """hadolint, by the settings beside the Dockerfile."""
    settings = context.FOLDER / "hadolint.yaml"
    found = subprocess.run(
        [BIN / "hadolint", "--config", settings, "--format", "json", "-"],
        input=text,
        capture_output=True,
        text=True,
    )
    if not found.stdout.strip():  # it could not read its settings
        return [found.stderr.strip()]
    return [f"line {fault['line']}: {fault['code']} {fault['message']}" for fault in json.loads(found.stdout)]


def lint_shell(text: str) -> list[str]:
    """shellcheck, as POSIX sh."""
    found = subprocess.run(
        [BIN / "shellcheck", "--shell", "sh", "--severity", "style", "--format", "gcc", "-"],
        input=text,
        capture_output=True,
        text=True,
    )
    return (found.stdout + found.stderr).splitlines()


def in_recipe(text: str) -> list[str]:
    """What a linter cannot know: names that must agree with other files."""
    plan = recipe.read(text)
    project = tomllib.loads((context.ROOT / "pyproject.toml").read_text())["project"]
    found = [f"image {name} has no full tag" for name in _images(plan) if not FULL_TAG.match(name)]
    for stage in plan.stages:
        found += [f"{stage.name}: {fault}" for fault in _in_stage(plan, stage)]
    last = plan.stages[-1]
    labels = {name for step in last.steps if step.word == "LABEL" for name in step.assignments}
    found += [
        f"label {name} is missing" for name in LABELS if f"org.opencontainers.image.{name}" not in labels
    ]
    declared = _assigned(last, "ARG")
    if declared.get("VERSION") != project["version"]:
        found.append(f"VERSION is {declared.get('VERSION')}, the project's is {project['version']}")
    users = [step.text for step in last.steps if step.word == "USER"]
    if users[-1:] != ["10001:10001"]:
        found.append(f"the last USER is {users[-1:]}, not 10001:10001")
    if not any(step.word == "HEALTHCHECK" for step in last.steps):
        found.append("there is no HEALTHCHECK")
    return found


def in_entrypoint(text: str) -> list[str]:
    """Secrets that no program reads."""
    listed = re.search(r'^known="([^"]*)"', text, re.MULTILINE)
    if listed is None:
        return ["there is no list `known`"]
    names = listed[1].split()
    read = prefect_names() | {*_aws_names()} | _crosstie_names()
    return [f"{name}: no program of the image reads it" for name in names if name not in read]


def in_ignore(text: str) -> list[str]:
    """Exceptions that let nothing in, and what must not be let in."""
    let_in = [pattern[1:] for pattern in context.patterns(text) if pattern.startswith("!")]
    found = [f"{path} is not there" for path in let_in if not (context.ROOT / path).exists()]
    sent = context.sent(text)
    found += [f"{path} must not be sent" for path in sorted(sent) if NEVER_SENT.search(path)]
    found += [f"{path} would be sent" for path in LEFTOVERS if not context.left_out(text, path)]
    wanted = recipe.read(context.DOCKERFILE.read_text())
    for source in _sources(wanted):
        if not any(Path(source) in (Path(path), *Path(path).parents) for path in sent):
            found.append(f"{source} is copied, but is not sent")
    return found


def in_pins(text: str) -> list[str]:
    """Requirements that are not of one version."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = [
        f"{line} is not pinned" for line in lines if not re.fullmatch(r"[A-Za-z0-9_.\-]+==[\w.+!]+", line)
    ]
    names = {line.partition("==")[0].lower() for line in lines}
    return found + [f"{name} is missing" for name in ("setuptools", "cyclonedx-bom") if name not in names]


@cache
def prefect_names() -> set[str]:
    """Every variable of the environment that Prefect reads."""
    return {name.upper() for name in _names_of(Settings)}


def _names_of(model: type[BaseModel]) -> Iterator[str]:
    prefix = str(model.model_config.get("env_prefix", "")).upper()
    for name, about in model.model_fields.items():
        inner = about.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _names_of(inner)
            continue
        yield f"{prefix}{name}"
        alias: Any = about.validation_alias
        yield from (choice for choice in getattr(alias, "choices", ()) if isinstance(choice, str))


def _aws_names() -> list[str]:
    return [EnvProvider.ACCESS_KEY, EnvProvider.SECRET_KEY, *EnvProvider.TOKENS]


def _crosstie_names() -> set[str]:
    texts = [
        path.read_text()
        for part in ("src/crosstie/cli", "src/crosstie/settings", "flows")
        for path in (context.ROOT / part).rglob("*.py")
    ]
    return set(re.findall(r"\bCROSSTIE_[A-Z_]+\b", "\n".join(texts))) | {"CROSSTIE_LISTEN_SIGNATURE"}


def _images(plan: Recipe) -> list[str]:
    stages = {stage.name for stage in plan.stages}
    bases = {recipe.filled(stage.base, plan.arguments) for stage in plan.stages}
    return sorted(bases - stages - {"scratch"})


def _assigned(stage: Stage, word: str) -> dict[str, str]:
    return {
        name: value for step in stage.steps if step.word == word for name, value in step.assignments.items()
    }


def _sources(plan: Recipe) -> list[str]:
    """Paths of the context that COPY and RUN --mount take."""
    found = []
    for step in (step for stage in plan.stages for step in stage.steps):
        if step.word == "COPY" and step.flag("from") is None:
            found += step.form[:-1]
        found += [mount["source"] for mount in step.mounts if mount["type"] == "bind" and "from" not in mount]
    return found


def _in_stage(plan: Recipe, stage: Stage) -> list[str]:
    found = []
    names = {other.name for other in plan.stages}
    arguments = _assigned(stage, "ARG")
    variables: set[str] = set()
    for level in plan.lineage(stage.name):
        variables |= set(_assigned(level, "ARG")) | set(_assigned(level, "ENV"))
    texts = [f"{step.text} {step.flags}" for step in stage.steps]
    used = {name for text in texts for name in recipe.VARIABLE.findall(text)}
    found += [f"${{{name}}} is not declared" for name in sorted(used - variables)]
    found += [f"ARG {name} is not used" for name in sorted(set(arguments) - used)]
    found += [f"ARG {name} has no value" for name in arguments if not _has_value(plan, stage, name)]
    found += [f"ENV {name} is read by nothing" for name in _assigned(stage, "ENV") if not _is_read(name)]
    for name in (*arguments, *_assigned(stage, "ENV")):
        if SECRET.search(name):
            found.append(f"{name} would be a secret in the image")
    for step in stage.steps:
        origins = [step.flag("from"), *(mount.get("from") for mount in step.mounts)]
        found += [f"{origin} is no stage" for origin in origins if origin is not None and origin not in names]
        keys = {key for mount in step.mounts for key in mount}
        found += [f"--mount has no {key}" for key in sorted(keys - MOUNT_KEYS)]
        scripts = re.findall(r"/steps/(\S+?\.sh)", step.text)
        found += [
            f"no script {script}" for script in scripts if not (context.FOLDER / "steps" / script).is_file()
        ]
    return found + [f"{source} is not there" for source in _missing(plan, stage)]


def _has_value(plan: Recipe, stage: Stage, name: str) -> bool:
    line = next(step for step in stage.steps if step.word == "ARG" and name in step.assignments)
    return "=" in line.text or name in plan.arguments


def _missing(plan: Recipe, stage: Stage) -> list[str]:
    return [source for source in _sources(Recipe({}, (stage,))) if not (context.ROOT / source).exists()]


def _is_read(name: str) -> bool:
    if name.startswith("PREFECT_"):
        return name in prefect_names()
    if name.startswith("DASK_"):
        keys = dask.config.collect_env({name: "x"})
        return all(key.replace("_", "-") in dask.config.config for key in keys)
    return name in OF_THE_SYSTEM
