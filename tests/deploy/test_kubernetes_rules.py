"""What no schema says of the overlays: names meet, pods are locked down, commands and settings hold."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
import yaml
from deploy.manifests import KUBERNETES, OVERLAYS, Manifest, built, pods
from distributed.cli.dask_scheduler import main as dask_scheduler
from distributed.cli.dask_worker import main as dask_worker
from servers.process import ROOT

from crosstie.cli.app import app
from crosstie.config import ComputeSettings, load_settings
from crosstie.flows.kubernetes import WORKER_PORTS, cluster_spec, matcher_group
from crosstie.flows.on_worker import WORKER_ENVIRONMENT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]

SECRETS = {
    "prefect-auth": {"auth-string"},
    "prefect-database": {"password", "connection-string"},
    "listener": {"token"},
    "site": {"token"},
}
"""Keys by secret, as README.md makes them; those of `object-store` are variables of the environment."""

COMPUTE = ComputeSettings(cluster="kubernetes", image="crosstie:0.1.0", env_secret="object-store")


@functools.cache
def overlay(name: str) -> list[Manifest]:
    return built(KUBERNETES / "overlays" / name)


def of_kind(name: str, kind: str) -> dict[str, Manifest]:
    return {found["metadata"]["name"]: found for found in overlay(name) if found["kind"] == kind}


def containers(name: str) -> dict[str, Manifest]:
    return {pod: described["spec"]["containers"][0] for pod, described in pods(overlay(name)).items()}


def made_for_a_run() -> dict[str, Manifest]:
    """Pods that `compute.cluster = kubernetes` asks for."""
    spec = cluster_spec(COMPUTE, name="crosstie-run")["spec"]
    return {"scheduler": spec["scheduler"], "reader": spec["worker"], "matcher": matcher_group(COMPUTE)}


def unlocked(pod: Manifest) -> Iterator[str]:
    """What of a pod the `restricted` standard, or we, would not have."""
    spec = pod["spec"]
    whole = spec["securityContext"]
    if not (whole["runAsNonRoot"] and whole["runAsUser"] >= 999 and whole["runAsGroup"] >= 999):
        yield "may be root"
    if whole["seccompProfile"] != {"type": "RuntimeDefault"}:
        yield "may call anything of the kernel"
    if spec["automountServiceAccountToken"] is not False:
        yield "may speak to Kubernetes" if spec["automountServiceAccountToken"] else "may have a token"
    if spec["enableServiceLinks"]:
        yield "gets variables made up from Services"
    for container in spec["containers"] + spec.get("initContainers", []):
        if container["securityContext"] != {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }:
            yield f"container {container['name']} may too much"
        resources = container["resources"]
        if not (resources["requests"].keys() >= {"cpu", "memory"} and "memory" in resources["limits"]):
            yield f"container {container['name']} has no limits"
        named = resources["requests"].keys() | resources["limits"].keys()
        yield from (f"{name} is no resource" for name in named - {"cpu", "memory", "nvidia.com/gpu"})
        if not re.fullmatch(r"[a-z0-9./-]+:\d[\w.-]*", container["image"]):
            yield f"image {container['image']} is not pinned"
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"] for volume in spec.get("volumes", [])} | {"data"}
        yield from (f"volume {name} is not there" for name in mounts - volumes)


@pytest.mark.parametrize("name", OVERLAYS)
def test_pods_are_locked_down(name: str) -> None:
    found = {pod: list(unlocked(described)) for pod, described in pods(overlay(name)).items()}
    if name == "gpu-per-run":  # it asks the operator for the run's pods
        assert found.pop("prefect-worker") == ["may speak to Kubernetes"]
    assert {pod: faults for pod, faults in found.items() if faults} == {}
    assert found.keys() >= {"deploy", "listener", "site"}


def test_pods_of_a_run_are_locked_down_too() -> None:
    assert {pod: list(unlocked(described)) for pod, described in made_for_a_run().items()} == {
        "scheduler": [],
        "reader": [],
        "matcher": [],
    }


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_is_referred_to_is_there(name: str) -> None:
    labels = [pod["metadata"]["labels"] for pod in pods(overlay(name)).values()]
    if name == "gpu-per-run":
        labels += [pod["metadata"]["labels"] for pod in made_for_a_run().values()]
    maps, accounts = of_kind(name, "ConfigMap"), of_kind(name, "ServiceAccount")
    for pod in pods(overlay(name)).values():
        container = pod["spec"]["containers"][0]
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                assert source["configMapRef"]["name"] in maps
            else:
                assert source["secretRef"]["name"] == "object-store"
        for reference in (
            v["valueFrom"]["secretKeyRef"] for v in container.get("env", []) if "valueFrom" in v
        ):
            assert reference["key"] in SECRETS[reference["name"]]
        account = pod["spec"].get("serviceAccountName")
        assert account is None or account in accounts
        ports = {port["name"] for port in container.get("ports", [])}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container.get(probe, {}).get("httpGet", {}).get("port") in {None, *ports}
    services = of_kind(name, "Service")
    for service in services.values():
        assert any(service["spec"]["selector"].items() <= some.items() for some in labels)
    for ingress in of_kind(name, "Ingress").values():
        (rule,) = ingress["spec"]["rules"]
        assert rule["host"] in ingress["spec"]["tls"][0]["hosts"]
        backend = rule["http"]["paths"][0]["backend"]["service"]
        assert backend["port"]["name"] in {
            port["name"] for port in services[backend["name"]]["spec"]["ports"]
        }
    for budget in of_kind(name, "PodDisruptionBudget").values():
        assert any(budget["spec"]["selector"]["matchLabels"].items() <= some.items() for some in labels)
    clusters = of_kind(name, "DaskCluster")
    for kind in ("DaskWorkerGroup", "DaskAutoscaler"):
        assert all(found["spec"]["cluster"] in clusters for found in of_kind(name, kind).values())
    for binding in of_kind(name, "RoleBinding").values():
        assert binding["roleRef"]["name"] in of_kind(name, "Role")
        assert all(subject["name"] in accounts for subject in binding["subjects"])
    assert {found["metadata"].get("namespace") for found in overlay(name)} == {"crosstie", None}


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


ONLY_HERE = re.compile(r"--limit=\d+|--preload|crosstie\.flows\.kubernetes|--worker-port=8789|--name=.*")


@pytest.mark.parametrize(
    ("pod", "service"),
    [("prefect-server", "prefect-server"), ("prefect-worker", "prefect-worker"), ("deploy", "deploy"),
     ("dask-scheduler", "dask-scheduler"), ("dask-default", "dask-reader"), ("dask-matcher", "dask-matcher"),
     ("listener", "listener"), ("site", "site"), ("postgres", "postgres"), ("s3", "s3")],
)  # fmt: skip
def test_commands_are_those_of_compose(pod: str, service: str) -> None:
    """That process set is what is started by a test; the same images stand for what is not ours."""
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


def test_matchers_of_the_gpu_overlay_have_one_gpu_each() -> None:
    group = pods(overlay("gpu"))["dask-matcher-gpu"]["spec"]
    (container,) = group["containers"]
    for kind in ("requests", "limits"):
        assert container["resources"][kind]["nvidia.com/gpu"] == "1"
    assert container["image"].endswith("-cuda")
    assert group["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert group["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    others = [pod for pod in pods(overlay("gpu")) if pod != "dask-matcher-gpu"]
    assert not any("nvidia" in str(pods(overlay("gpu"))[pod]) for pod in others)


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


def test_rights_are_those_of_a_run_alone() -> None:
    assert not any(of_kind(name, "Role") for name in ("local", "cpu", "gpu"))
    assert not any(of_kind(name, "ClusterRole") for name in OVERLAYS)
    (role,) = of_kind("gpu-per-run", "Role").values()
    changeable = {
        resource
        for rule in role["rules"]
        for resource in rule["resources"]
        if {"create", "delete", "patch", "update", "*"} & set(rule["verbs"])
    }
    assert changeable == {"daskclusters", "daskworkergroups", "daskautoscalers"}


def test_monitors_find_what_they_ask_and_name_it_as_the_alarms_do() -> None:
    text = (KUBERNETES / "components" / "monitoring" / "monitors.yaml").read_text()
    prometheus = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    services = of_kind("cpu", "Service").values()
    for monitor in yaml.safe_load_all(text):
        spec = monitor["spec"]
        wanted = spec["selector"]["matchLabels"]
        if monitor["kind"] == "ServiceMonitor" and wanted != {"app.kubernetes.io/name": "dask-scheduler"}:
            ports = [
                s["spec"]["ports"] for s in services if wanted.items() <= s["metadata"]["labels"].items()
            ]
        else:  # of the scheduler the operator makes the Service, with its labels and ports
            ports = [
                pod["spec"]["containers"][0]["ports"]
                for pod in pods(overlay("cpu")).values()
                if wanted.items() <= pod["metadata"]["labels"].items()
            ]
        assert ports
        for endpoint in spec.get("endpoints", []) + spec.get("podMetricsEndpoints", []):
            assert all(endpoint["port"] in {port["name"] for port in found} for found in ports)
            (job,) = endpoint["relabelings"]
            assert job["targetLabel"] == "job"
            assert job["replacement"] in {scrape["job_name"] for scrape in prometheus["scrape_configs"]}
