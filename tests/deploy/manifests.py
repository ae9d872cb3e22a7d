"""Manifests of deploy/kubernetes/ as kubectl makes them, and what Kubernetes and operators say of them."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from dask_operator import schema_of, validate
from servers.process import ROOT

from crosstie.config import ComputeSettings
from crosstie.flows.cluster.kubernetes import cluster_spec, matcher_group

KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("local", "cpu", "gpu", "gpu-per-run")

VERSIONS = ("1.31", "1.34")
"""Of Kubernetes: the oldest that is meant, and a recent one."""

MONITOR_KEYS = {
    "ServiceMonitor": {"selector", "endpoints"},
    "PodMonitor": {"selector", "podMetricsEndpoints"},
}
"""What we use of the Prometheus operator's resources, whose schemas no package on an index has."""
ENDPOINT_KEYS = {"port", "path", "interval", "scrapeTimeout", "relabelings"}

Manifest = dict[str, Any]


def kubectl() -> str:
    """Path of the program; without it the tests are skipped, but not in CI."""
    found = shutil.which("kubectl")
    if found is None:
        why = "needs kubectl, for its kustomize: https://kubernetes.io/docs/tasks/tools/"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return found


def built(overlay: Path) -> list[Manifest]:
    """What `kubectl apply -k` would send.

    Raises
    ------
    ValueError : kustomize takes exception to a file; the message is its own
    """
    done = subprocess.run([kubectl(), "kustomize", overlay], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(done.stderr)
    return [manifest for manifest in yaml.load_all(done.stdout, yaml.CSafeLoader) if manifest]


def faults(manifests: list[Manifest], operator: zipfile.ZipFile, *, version: str) -> Iterator[str]:
    """What Kubernetes, the Dask operator or the Prometheus operator would not know or not take."""
    for manifest in manifests:
        kind, version_of_kind = manifest["kind"], manifest.get("apiVersion", "no API")
        group = version_of_kind.partition("/")[0]
        name = f"{kind} {manifest['metadata']['name']}"
        try:
            if group == "kubernetes.dask.org":
                validate(manifest, schema_of(operator, kind))
                # Kubernetes' own part, which the schema leaves open.
                odd = manifest.keys() ^ {"apiVersion", "kind", "metadata", "spec"}
                yield from (f"{name}: {key} is missing or not known" for key in odd)
            elif group == "monitoring.coreos.com":
                yield from (f"{name}: {fault}" for fault in _faults_of_monitor(manifest))
            elif group == "no API":
                yield f"{name}: no apiVersion"
            else:
                kubernetes_validate.validate(manifest, version, strict=True)
        except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as problem:
            yield f"{name}: {'.'.join(map(str, problem.path))}: {problem.message}"
        except (KeyError, kubernetes_validate.SchemaNotFoundError):
            yield f"{name}: no such kind in {version_of_kind}"


def _faults_of_monitor(manifest: Manifest) -> Iterator[str]:
    kind, spec = manifest["kind"], manifest["spec"]
    if kind not in MONITOR_KEYS:
        yield "no such kind"
        return
    yield from (f"{key} is not known" for key in spec.keys() - MONITOR_KEYS[kind])
    yield from (f"{key} is missing" for key in MONITOR_KEYS[kind] - spec.keys())
    for endpoint in spec.get("endpoints", []) + spec.get("podMetricsEndpoints", []):
        yield from (f"{key} of an endpoint is not known" for key in endpoint.keys() - ENDPOINT_KEYS)


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Pods that come of the manifests, `{metadata, spec}` by name; with the labels of the Dask operator."""
    found: dict[str, Manifest] = {}
    for manifest in manifests:
        kind, name, spec = manifest["kind"], manifest["metadata"]["name"], manifest.get("spec")
        if kind in {"Deployment", "StatefulSet", "Job"}:
            found[name] = spec["template"]
        elif kind == "DaskCluster":
            found[f"{name}-scheduler"] = _dask_pod(spec["scheduler"], name, "scheduler")
            found[f"{name}-default"] = _dask_pod(spec["worker"], name, "worker", f"{name}-default")
        elif kind == "DaskWorkerGroup":
            found[name] = _dask_pod(spec["worker"], spec["cluster"], "worker", name)
    return found


def _dask_pod(described: Manifest, cluster: str, component: str, group: str | None = None) -> Manifest:
    labels = {"dask.org/cluster-name": cluster, "dask.org/component": component}
    if group:
        labels["dask.org/workergroup-name"] = group
    return {
        "metadata": {"labels": described["metadata"]["labels"] | labels},
        "spec": described["spec"],
    }


@functools.cache
def overlay(name: str) -> list[Manifest]:
    """Manifests of an overlay by its name."""
    return built(KUBERNETES / "overlays" / name)


def of_kind(name: str, kind: str) -> dict[str, Manifest]:
    return {found["metadata"]["name"]: found for found in overlay(name) if found["kind"] == kind}


def containers(name: str) -> dict[str, Manifest]:
    return {pod: described["spec"]["containers"][0] for pod, described in pods(overlay(name)).items()}


def made_for_a_run() -> dict[str, Manifest]:
    """Pods that `compute.cluster = kubernetes` asks for."""
    compute = ComputeSettings(cluster="kubernetes", image="crosstie:0.1.0", env_secret="object-store")
    spec = cluster_spec(compute, name="crosstie-run")["spec"]
    return {"scheduler": spec["scheduler"], "reader": spec["worker"], "matcher": matcher_group(compute)}
