"""Commands and variables of a compose file, held against the programs that will read them."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import click
import cyclopts
import dask
import distributed  # noqa: F401 - brings the defaults of its settings
import typer
from distributed.cli import dask_scheduler, dask_worker
from prefect.cli._app import _app as prefect_app
from prefect.settings import Settings as PrefectSettings
from pydantic import ValidationError

from crosstie.cli import app
from crosstie.config import load_settings
from crosstie.errors import SettingsError

ROOT = Path(__file__).resolve().parent.parent.parent

Json = dict[str, Any]

USAGE_ERRORS = (click.UsageError, typer.BadParameter.__bases__[0])
"""Of click, and of the copy of it that typer may bring."""

CROSSTIE = typer.main.get_command(app)

DASK = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}

OTHERS = {
    "DASK_TEMPORARY_DIRECTORY", "HOME", "AWS_ENDPOINT_URL", "AWS_REGION",
    "PREFECT_LOGGING_FORMATTERS_JSON_CLASS",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER",
    "CROSSTIE_CATALOG_URL", "CROSSTIE_PRODUCTS_URL", "MALLOC_ARENA_MAX",
    "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "OMP_WAIT_POLICY", "POSTGRES_DB", "POSTGRES_USER",
    "POSTGRES_PASSWORD_FILE", "POSTGRES_INITDB_ARGS", "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES",
    "GF_ANALYTICS_CHECK_FOR_UPDATES", "GF_ANALYTICS_REPORTING_ENABLED", "GF_PLUGINS_PREINSTALL_DISABLED",
    "GF_SECURITY_ADMIN_PASSWORD__FILE",
}  # fmt: skip
"""Variables of programs that cannot be asked here: as their documentation has them."""

FLAGS = {
    "mini": {
        "-dir": "/data", "-ip": "s3", "-ip.bind": "0.0.0.0", "-s3.port": "8333",
        "-s3.autoCreateBucket": "false",
        "-s3.config": "/tmp/s3.json",
        "-bucket": "scenes,products", "-master.telemetry": "false", "-master.volumeSizeLimitMB": "1024",
        "-admin.ui": "false", "-webdav": "false", "-metricsPort": "9327",
    },
    "prometheus": {
        "--config.file": "/etc/prometheus/prometheus.yml", "--storage.tsdb.path": "/prometheus",
        "--storage.tsdb.retention.time": "30d",
    },
}  # fmt: skip
"""Options of programs that are not of this environment; the rehearsal starts them with what is used here."""

WELL = {
    "postgres": "pg_isready --quiet --host=127.0.0.1 --username=prefect --dbname=prefect",
    "s3": "/bin/sh /etc/crosstie/s3-health.sh scenes,products",
    "prefect-server": "healthcheck http://127.0.0.1:4200/api/ready",
    "prefect-worker": "healthcheck http://127.0.0.1:8080/health",
    "dask-scheduler": "healthcheck http://127.0.0.1:8787/health",
    "dask-reader": "healthcheck http://127.0.0.1:8788/health",
    "dask-matcher": "healthcheck http://127.0.0.1:8788/health",
    "dask-matcher-gpu": "healthcheck http://127.0.0.1:8788/health",
    "listener": "healthcheck http://127.0.0.1:8090/health",
    "site": "healthcheck http://127.0.0.1:8091/healthz",
    "prometheus": "wget -q -O /dev/null http://127.0.0.1:9090/-/ready",
    "grafana": "wget -q -O /dev/null http://127.0.0.1:3000/api/health",
}
"""How each is asked; all but Grafana are asked so in the rehearsal."""

AGREED = {
    "--pool": "crosstie", "--type": "process", "--resources": "GPU=1", "--host": "0.0.0.0",
    "--prefect-file": "/opt/crosstie/deploy/prefect.yaml", "create": "crosstie",
    "worker": "tcp://dask-scheduler:8786",
}  # fmt: skip
"""What stands after a word of a command, where another service or the image must have the same."""

WORDS = {
    "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "OMP_WAIT_POLICY": "PASSIVE", "POSTGRES_DB": "prefect", "POSTGRES_USER": "prefect",
    "POSTGRES_INITDB_ARGS": "--auth-host=scram-sha-256 --auth-local=trust",
    "PREFECT_SERVER_DATABASE_DRIVER": "postgresql+asyncpg", "PREFECT_SERVER_DATABASE_HOST": "postgres",
    "PREFECT_SERVER_DATABASE_NAME": "prefect", "PREFECT_SERVER_DATABASE_USER": "prefect",
    "PREFECT_SERVER_DATABASE_PORT": "5432", "PREFECT_WORKER_WEBSERVER_HOST": "0.0.0.0",
    "PREFECT_WORKER_WEBSERVER_PORT": "8080", "CROSSTIE_OBSERVE__METRICS_HOST": "0.0.0.0",
    "PREFECT_SERVER_UI_STATIC_DIRECTORY": "/tmp/prefect-ui", "HOME": "/tmp", "PREFECT_HOME": "/tmp/prefect",
    "DASK_TEMPORARY_DIRECTORY": "/tmp/dask",
    "PREFECT_LOGGING_FORMATTERS_JSON_CLASS": "crosstie.flows.observe.json_lines.JsonLines",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER": "json",
    "DASK_DISTRIBUTED__WORKER__PRELOAD": '["crosstie.flows.cluster.preload"]',
    "DASK_DISTRIBUTED__SCHEDULER__PRELOAD": '["crosstie.flows.cluster.preload"]',
    "PREFECT_API_URL": "http://prefect-server:4200/api",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING": "False", "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
    "GF_ANALYTICS_CHECK_FOR_UPDATES": "false", "GF_ANALYTICS_REPORTING_ENABLED": "false",
    "GF_PLUGINS_PREINSTALL_DISABLED": "true",
}  # fmt: skip
"""Values that no program would refuse before it is too late: what must agree with other services."""

SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|AUTH_STRING|ACCESS_KEY|SIGNATURE|API_KEY")


@cache
def by_file() -> frozenset[str]:
    """Names that the image's entrypoint takes from files."""
    text = (ROOT / "deploy" / "docker" / "entrypoint.sh").read_text(encoding="utf-8")
    (names,) = re.findall(r'^known="\n(.*?)^"', text, re.MULTILINE | re.DOTALL)
    return frozenset(names.split())


@cache
def prefect_names() -> frozenset[str]:
    """Variables that Prefect reads."""
    return frozenset(_leaves(PrefectSettings))


def _leaves(model: Any) -> Iterator[str]:
    prefix = model.model_config.get("env_prefix") or ""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and hasattr(inner, "model_fields"):
            yield from _leaves(inner)
        else:
            yield f"{prefix}{name}".upper()


def environment_faults(service: Json) -> Iterator[str]:
    """Variables that nothing reads, values that are refused, secrets in the open."""
    environment: Mapping[str, str] = service.get("environment", {})
    ours = service["image"].startswith("crosstie:")
    mounted = set(service.get("secrets", []))
    read = set()
    for name, value in environment.items():
        if value.startswith("/run/secrets/"):
            secret = value.removeprefix("/run/secrets/")
            read.add(secret)
            if secret not in mounted:
                yield f"{name}: the secret {secret!r} is not mounted"
            if ours and name.removesuffix("_FILE") not in by_file():
                yield f"{name}: the image's entrypoint does not know it"
        elif SECRET.search(name):
            yield f"{name}: a secret in the open; give it as a file"
        if not _known(name):
            yield f"variable {name}: nothing reads it"
        if name in WORDS and value != WORDS[name]:
            yield f"{name} must be {WORDS[name]!r}, is {value!r}"
    if service["image"].startswith("chrislusf/seaweedfs:"):
        script = (ROOT / "deploy" / "compose" / "s3-entrypoint.sh").read_text(encoding="utf-8")
        read |= set(re.findall(r"/run/secrets/(\w+)\)", script))
    for secret in sorted(mounted ^ read):
        yield f"secret {secret!r} is mounted and not read, or read and not mounted"
    yield from value_faults(environment)


def _known(name: str) -> bool:
    if name in OTHERS:
        return True
    plain = name.removesuffix("_FILE")
    if plain in by_file() and name != plain:
        return True
    if name.startswith("DASK_"):
        key = name.removeprefix("DASK_").lower().replace("__", ".").replace("_", "-")
        return dask.config.get(key, None) is not None
    # those of crosstie are asked by their values
    return name in prefect_names() or (name.startswith("CROSSTIE_") and "__" in name)


def value_faults(environment: Mapping[str, str]) -> Iterator[str]:
    """What crosstie's and Prefect's own settings say of values."""
    ours = {
        name: value for name, value in environment.items() if name.startswith("CROSSTIE_") and "__" in name
    }
    theirs = {name: value for name, value in environment.items() if name in prefect_names()}
    yield from _refused_values(frozenset((ours | theirs).items()))


@cache
def _refused_values(given: frozenset[tuple[str, str]]) -> tuple[str, ...]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("CROSSTIE_", "PREFECT_"))
    }
    found = []
    with mock.patch.dict(os.environ, {**clean, **dict(given)}, clear=True):
        try:
            load_settings(None)
        except SettingsError as problem:
            found.append(str(problem))
        try:
            PrefectSettings()
        except ValidationError as problem:
            found.append(str(problem))
    return tuple(found)


def command_faults(name: str, service: Json) -> Iterator[str]:
    """Commands that their programs would refuse."""
    command = service.get("command", [])
    if command[:2] == ["sh", "-c"]:
        for part in command[2].split("&&"):
            yield from _refused(name, shlex.split(part))
    elif command:
        yield from _refused(name, command)
    elif name not in {"postgres", "grafana"}:
        yield "has no command"
    if "entrypoint" in service:
        inside = [volume.split(":")[1] for volume in service.get("volumes", []) if ".sh:" in volume]
        if service["entrypoint"] not in [["/bin/sh", script] for script in inside]:
            yield f"entrypoint {service['entrypoint']} must be the shell with one of {inside}"
    asked = service.get("healthcheck", {}).get("test")
    if asked is not None and asked != ["CMD", *WELL[name].split()]:
        yield f"healthcheck must be {WELL[name]!r}, is {asked}"


def _refused(name: str, command: list[str]) -> Iterator[str]:
    program, *arguments = command
    try:
        if program == "crosstie":
            parent = typer.Context(CROSSTIE, info_name="crosstie")
            CROSSTIE.commands[arguments[0]].make_context(arguments[0], arguments[1:], parent=parent)
        elif program == "dask":
            DASK[arguments[0]].make_context(arguments[0], arguments[1:])
        elif program == "prefect":
            words = [word for word in arguments if word != "--no-prompt"]
            prefect_app.parse_args(words, exit_on_error=False, print_error=False)
        else:
            yield from _strange_flags(name, command)
    except KeyError:
        yield f"{program} has no command {arguments[0]!r}"
    except (*USAGE_ERRORS, cyclopts.CycloptsError) as problem:
        yield f"{program}: {problem}"
    words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--") else [word])]
    for word, following in pairwise(words):
        wanted = AGREED.get(word)
        if wanted is not None and following not in {wanted, "start"}:
            yield f"{program}: {wanted} must stand after {word}, not {following}"


def _strange_flags(name: str, command: list[str]) -> Iterator[str]:
    # prometheus and weed are named by their images' entrypoints
    program, flags = ("prometheus", command) if name == "prometheus" else (command[0], command[1:])
    if program not in FLAGS:
        yield f"there is no program {program!r}"
        return
    for word in flags:
        flag, _, value = word.partition("=")
        if flag not in FLAGS[program]:
            yield f"{program} has no option {flag!r}"
        elif value != FLAGS[program][flag]:
            yield f"{program}: {flag} must be {FLAGS[program][flag]}, is {value}"
