"""The files that the image is built from: linters, names, pins; a misspelling in each is found."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from image_build import checks, context
from packaging.requirements import Requirement

DOCKERFILE = context.DOCKERFILE.read_text()
HEALTH_LINE = next(line for line in DOCKERFILE.splitlines() if line.startswith("HEALTHCHECK"))
IGNORE = context.IGNORE.read_text()
ENTRYPOINT = (context.FOLDER / "entrypoint.sh").read_text()
HEALTHCHECK = (context.FOLDER / "healthcheck").read_text()
TOOLS = (context.FOLDER / "tools.txt").read_text()
SCRIPTS = sorted([*context.FOLDER.glob("steps/*.sh"), context.FOLDER / "entrypoint.sh"])


def of_dockerfile(text: str) -> list[str]:
    return checks.lint(text) + checks.in_recipe(text)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        pytest.param(of_dockerfile, DOCKERFILE, id="Dockerfile"),
        pytest.param(checks.in_ignore, IGNORE, id="dockerignore"),
        pytest.param(checks.in_entrypoint, ENTRYPOINT, id="entrypoint"),
        pytest.param(checks.in_pins, TOOLS, id="tools"),
        *(pytest.param(checks.lint_shell, path.read_text(), id=path.name) for path in SCRIPTS),
    ],
)
def test_nothing_is_wrong(check: Callable[[str], list[str]], text: str) -> None:
    assert check(text) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        # the Dockerfile's own words
        ("USER 10001", "USRE 10001"),
        ("USER 10001:10001", "USER root"),
        ("HEALTHCHECK --interval", "HEALTHCHEK --interval"),
        ("HEALTHCHECK --interval", "HEALTHCHECK --intervall"),
        (HEALTH_LINE, ""),
        ("ENTRYPOINT [\"/usr", "ENTRYPOINT [\"/usr\" "),
        ("image.title", "image.titel"),
        ("image.licenses=\"Apache-2.0\"", "image.licenses=\"Apache 2\""),
        # what is installed
        ("python:3.11.14-slim-bookworm\n", "python:latest\n"),
        ("python:3.11.14-slim-bookworm\n", "python:3.11-slim\n"),
        ("tini=0.19.0-1*", "tini"),
        ("--no-install-recommends", "--no-instal-recommends"),
        # names that agree with others
        ("FROM base AS tools", "FROM base AS tool"),
        ("--from=dependencies", "--from=dependancies"),
        ("from=wheel,", "from=wheels,"),
        ("type=cache", "type=cahce"),
        ("id=pip,target", "id=pip,tagret"),
        ("source=deploy/docker/steps", "source=deploy/docker/step"),
        ("/steps/slim.sh", "/steps/slimm.sh"),
        ("COPY pyproject.toml constraints.txt", "COPY pyproject.toml constraint.txt"),
        ("COPY flows ./flows", "COPY flow ./flows"),
        ("deploy/docker/healthcheck", "deploy/docker/healtcheck"),
        ("ARG TORCH_INDEX=", "ARG TORCH_IDNEX="),
        ("\"${VARIANT}\" \\\n", "\"${VARAINT}\" \\\n"),
        ("ARG REVISION=unknown", "ARG REVISON=unknown"),
        ("ARG VERSION=0.1.0", "ARG VERSION=0.1.O"),
        ("PREFECT_HOME=", "PREFECT_HOEM="),
        ("PREFECT_SERVER_ANALYTICS_ENABLED", "PREFECT_SERVER_ANALYTIC_ENABLED"),
        ("DASK_TEMPORARY_DIRECTORY", "DASK_TEMPORARY_DIRECTORIES"),
        ("MPLCONFIGDIR", "MPLCONFIGDIRS"),
        ("DO_NOT_TRACK=1", "AWS_SECRET_ACCESS_KEY=1"),
    ],
)  # fmt: skip
def test_a_misspelling_in_the_dockerfile_is_found(right: str, wrong: str) -> None:
    assert right in DOCKERFILE
    assert of_dockerfile(DOCKERFILE.replace(right, wrong)) != []


@pytest.mark.parametrize(
    ("check", "text", "right", "wrong", "named"),
    [
        (checks.in_ignore, IGNORE, "!pyproject.toml", "!pyprojct.toml", "pyprojct.toml"),
        (checks.in_ignore, IGNORE, "!flows\n", "", "flows"),
        (checks.in_ignore, IGNORE, "!matcher\n", "!matcher\n!tests\n", "must not be sent"),
        (checks.in_ignore, IGNORE, "**/__pycache__\n", "", "__pycache__"),
        (checks.in_entrypoint, ENTRYPOINT, "SECRET_ACCESS_KEY\n", "SECRET_ACCES_KEY\n", "SECRET_ACCES_KEY"),
        (checks.in_entrypoint, ENTRYPOINT, "DATABASE_PASSWORD\n", "DATABASE_PASWORD\n", "DATABASE_PASWORD"),
        (checks.in_entrypoint, ENTRYPOINT, "_LISTEN_TOKEN\n", "_LISTN_TOKEN\n", "CROSSTIE_LISTN_TOKEN"),
        (checks.in_entrypoint, ENTRYPOINT, "known=", "knwon=", "known"),
        (checks.lint_shell, ENTRYPOINT, "\ndone\n\n", "\ndoen\n\n", "done"),
        (checks.lint_shell, ENTRYPOINT, "-r \"$file\"", "-r \"$fiel\"", "fiel"),
        (checks.in_pins, TOOLS, "cyclonedx-bom==", "cyclonedx-bmo==", "cyclonedx-bom"),
        (checks.in_pins, TOOLS, "lxml==", "lxml>=", "lxml"),
    ],
)  # fmt: skip
def test_a_misspelling_is_named(
    check: Callable[[str], list[str]], text: str, right: str, wrong: str, named: str
) -> None:
    assert right in text
    assert any(named in fault for fault in check(text.replace(right, wrong, 1)))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_misspelling_in_a_script_is_found(path: Path) -> None:
    """The name of a variable, where it is set: what reads it then reads nothing."""
    text = path.read_text()
    variable = re.search(r"^(\w+)=", text, re.MULTILINE)
    wrong = (
        text.replace("set -eu", "set -eu\nif", 1)
        if variable is None
        else text.replace(variable[0], "mispelt=", 1)
    )
    assert checks.lint_shell(wrong) != []


def test_the_health_check_is_python() -> None:
    compile(HEALTHCHECK, "healthcheck", "exec")
    with pytest.raises(SyntaxError):
        compile(HEALTHCHECK.replace("def fault", "dfe fault"), "healthcheck", "exec")


def test_tools_can_build_the_project() -> None:
    pinned = dict(line.split("==") for line in TOOLS.splitlines() if "==" in line)
    system = tomllib.loads((context.ROOT / "pyproject.toml").read_text())["build-system"]
    for line in system["requires"]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(pinned[wanted.name])


def test_the_image_is_sent_its_sources_and_nothing_else() -> None:
    sent = context.sent(IGNORE)
    assert {"src/crosstie/__main__.py", "flows/nightly.py", "matcher/shipped/crosstie.safetensors"} <= sent
    tops = {path.split("/")[0] for path in sent}
    assert tops == {
        "pyproject.toml",
        "constraints.txt",
        "README.md",
        "LICENSE",
        "src",
        "flows",
        "io",
        "matcher",
        "deploy",
    }
