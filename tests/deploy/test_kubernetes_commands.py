"""The overlays' commands, settings and variables are ones that the programs take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import dask.config
import pytest
import typer
import yaml
from deploy.compose_words import prefect_names
from deploy.manifests import OVERLAYS, containers, made_for_a_run, of_kind
from distributed.cli.dask_scheduler import main as dask_scheduler
from distributed.cli.dask_worker import main as dask_worker
from servers.process import ROOT

from crosstie.cli.app import app
from crosstie.config import each_setting, load_settings
from crosstie.flows.cluster.kubernetes import WORKER_PORTS
from crosstie.flows.cluster.worker_tasks import WORKER_ENVIRONMENT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_settings_are_understood(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        key: value
        for found in of_kind(name, "ConfigMap").values()
        for key, value in found["data"].items()
        if key.startswith("CROSSTIE_") and not key.endswith(("_CATALOG_URL", "_PRODUCTS_URL"))
    }
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    settings = load_settings()
    changed = settings.model_dump() != load_settings_without(monkeypatch, given).model_dump()
    assert changed
    compute = settings.compute
    assert (compute.cluster == "kubernetes") == (name == "gpu-per-run")
    assert compute.device == ("cuda" if name.startswith("gpu") else "cpu")
    autoscalers = of_kind(name, "DaskAutoscaler").values()
    assert [found["spec"]["maximum"] for found in autoscalers] == (
        [compute.adaptive_max] if name in {"cpu", "gpu"} else []
    )
    if name == "cpu":
        limits = containers(name)["dask-matcher"]["resources"]["limits"]
        assert limits["cpu"] == str(compute.threads)
    ports = {port["containerPort"] for port in containers(name)["prefect-worker"]["ports"]}
    assert settings.observe.metrics_port in ports


def load_settings_without(monkeypatch: pytest.MonkeyPatch, names: dict[str, str]) -> Any:
    with monkeypatch.context() as bare:
        for name in names:
            bare.delenv(name)
        return load_settings()


@pytest.mark.parametrize("name", OVERLAYS)
def test_commands_are_understood(name: str) -> None:
    for container in containers(name).values():
        program, *args = container.get("args", [""])
        if program == "crosstie":
            command = typer.main.get_command(app)
            command.commands[args[0]].make_context(args[0], args[1:])  # type: ignore[attr-defined]
        elif program == "dask":
            command = {"scheduler": dask_scheduler, "worker": dask_worker}[args[0]]
            command.make_context(args[0], args[1:])
    for pod in made_for_a_run().values():
        _, role, *args = pod["spec"]["containers"][0]["args"]
        {"scheduler": dask_scheduler, "worker": dask_worker}[role].make_context(role, args)


ONLY_HERE = re.compile(
    r"--limit=\d+|--preload|crosstie\.flows\.cluster\.kubernetes|--worker-port=8789|--name=.*"
)


@pytest.mark.parametrize(
    ("pod", "service"),
    [("prefect-server", "prefect-server"), ("prefect-worker", "prefect-worker"), ("deploy", "deploy"),
     ("dask-scheduler", "dask-scheduler"), ("dask-default", "dask-reader"), ("dask-matcher", "dask-matcher"),
     ("listener", "listener"), ("site", "site"), ("postgres", "postgres"), ("s3", "s3")],
)  # fmt: skip
def test_commands_are_those_of_compose(pod: str, service: str) -> None:
    """Those are what the rehearsal starts; the images that are not ours are the same."""
    here, there = containers("local")[pod], COMPOSE[service]
    if "image" in there and not there["image"].startswith("${"):
        assert here["image"] == there["image"]
        return
    args = [arg for arg in here["args"] if not ONLY_HERE.fullmatch(arg)]
    ours, theirs = (
        {word for arg in command for word in re.sub(r"(--catalog|--out)=.*", r"\1", arg).split()}
        for command in (args, there["command"])
    )
    assert ours == theirs


@pytest.mark.parametrize("name", ["local", "cpu", "gpu"])
def test_dask_workers_are_as_those_of_a_run(name: str) -> None:
    for pod, container in containers(name).items():
        if container.get("args", [])[:2] != ["dask", "worker"]:
            continue
        environment = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert environment.items() >= WORKER_ENVIRONMENT.items()
        assert {port["name"]: port["containerPort"] for port in container["ports"]} == WORKER_PORTS
        reads = pod == "dask-default"
        assert ("--resources=GPU=1" not in container["args"]) == reads
        assert ("envFrom" in container) == reads  # the keys of the store


def test_probes_ask_for_what_the_services_answer() -> None:
    routes = {
        "listener": (ROOT / "flows" / "listen" / "app.py").read_text(),
        "site": (ROOT / "flows" / "site" / "app.py").read_text(),
    }
    for pod, code in routes.items():
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert f'Route("{containers("cpu")[pod][probe]["httpGet"]["path"]}"' in code


def test_variables_are_ones_that_somebody_reads() -> None:
    known = set(prefect_names())
    known |= {
        "CROSSTIE_SITE_TOKEN",
        "DO_NOT_TRACK",
        "NVIDIA_DRIVER_CAPABILITIES",
        "POSTGRES_DB",
        "POSTGRES_USER",
    }
    known |= {"POSTGRES_PASSWORD", "POSTGRES_INITDB_ARGS", "PGDATA", "AWS_REGION", "AWS_ENDPOINT_URL"}
    known |= {
        f"DASK_{key.replace('.', '__').replace('-', '_').upper()}" for key in dask_keys(dask.config.config)
    }
    known |= WORKER_ENVIRONMENT.keys()
    known |= {
        f"CROSSTIE_{setting.name.replace('.', '__').upper()}" for setting in each_setting(load_settings())
    }
    known.add(str(load_settings().listen.token_env))
    known |= set(re.findall(r"\$(CROSSTIE_\w+)", (ROOT / "deploy" / "prefect.yaml").read_text()))
    for name in OVERLAYS:
        given = {key for found in of_kind(name, "ConfigMap").values() for key in found["data"]}
        for container in containers(name).values():
            given |= {variable["name"] for variable in container.get("env", [])}
        assert given <= known, given - known


def dask_keys(part: dict[str, Any], above: str = "") -> Iterator[str]:
    for key, value in part.items():
        yield f"{above}{key}"
        if isinstance(value, dict):
            yield from dask_keys(value, f"{above}{key}.")


@pytest.mark.parametrize("name", OVERLAYS)
def test_addresses_lead_somewhere(name: str) -> None:
    known = {
        (service, port["port"])
        for service, found in of_kind(name, "Service").items()
        for port in found["spec"]["ports"]
    }
    # The operator makes the one Service, the chart the other.
    known |= {(f"{cluster}-scheduler", 8786) for cluster in of_kind(name, "DaskCluster")}
    known |= {("prefect-server", 4200)}
    values = [value for found in of_kind(name, "ConfigMap").values() for value in found["data"].values()]
    values += [arg for container in containers(name).values() for arg in container.get("args", [])]
    for value in values:
        for host, port in re.findall(r"(?:tcp|http)://([a-z0-9-]+):(\d+)", value):
            assert (host, int(port)) in known, value


@pytest.mark.parametrize(
    ("pod", "service"),
    [("prefect-server", "prefect-server"), ("prefect-worker", "prefect-worker"),
     ("dask-scheduler", "dask-scheduler"), ("dask-default", "dask-reader"), ("dask-matcher", "dask-matcher"),
     ("listener", "listener"), ("site", "site")],
)  # fmt: skip
def test_probes_are_those_of_compose(pod: str, service: str) -> None:
    container = containers("local")[pod]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    probes = [container[kind]["httpGet"] for kind in container if kind.endswith("Probe")]
    asked = {f"http://127.0.0.1:{ports[probe['port']]}{probe['path']}" for probe in probes}
    theirs = COMPOSE[service]["healthcheck"]["test"][-1]
    assert theirs in asked
    # Kubernetes asks two questions of those that answer two.
    assert {url.rpartition("/")[2] for url in asked - {theirs}} <= {"ready", "health"}


def test_the_store_is_asked_as_in_compose() -> None:
    script = (ROOT / "deploy" / "compose" / "s3-health.sh").read_text()
    ours, theirs = (
        re.findall(r"^ *ask .*", text, re.MULTILINE)
        for text in (containers("local")["s3"]["readinessProbe"]["exec"]["command"][-1], script)
    )
    assert len(theirs) == 3
    assert ours == theirs
