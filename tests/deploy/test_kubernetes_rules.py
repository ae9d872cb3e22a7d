"""What no schema says of the overlays: names meet, pods are locked down, nobody has a right too many."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml
from deploy.manifests import KUBERNETES, OVERLAYS, Manifest, made_for_a_run, of_kind, overlay, pods
from servers.process import ROOT

SECRETS = {
    "prefect-auth": {"auth-string"},
    "prefect-database": {"password", "connection-string"},
    "listener": {"token"},
    "site": {"token"},
}
"""Keys by secret, as README.md makes them; those of `object-store` are variables of the environment."""


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
