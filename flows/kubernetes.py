"""Dask on Kubernetes, by its operator: pods that read, and pods with a GPU each that hold the network."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from crosstie.errors import SettingsError
from crosstie.flows.on_worker import GPU, WORKER_ENVIRONMENT

if TYPE_CHECKING:
    from crosstie.config import ComputeSettings

MATCHERS = "matchers"
"""Name of the group of workers with a GPU; the operator calls the other one `default`."""

READER_NEEDS = {"cpu": "1", "memory": "2Gi"}
MATCHER_NEEDS = {"cpu": "2", "memory": "8Gi", "nvidia.com/gpu": "1"}
"""What a pod asks for and may have: a window or two, and for a matcher the network and CUDA besides."""


@contextmanager
def kubernetes_cluster(compute: ComputeSettings) -> Iterator[Any]:
    """Have the operator make a cluster, in the namespace of the current context, until the block ends.

    Raises
    ------
    SettingsError : the extra is not installed, no image is set, or Kubernetes or its operator does not serve
    """
    name = f"crosstie-{uuid.uuid4().hex[:8]}"
    spec = cluster_spec(compute, name=name)
    try:
        from dask_kubernetes.operator import KubeCluster
    except ImportError as problem:
        raise SettingsError(
            "setting compute.cluster = 'kubernetes' needs an extra that is not installed "
            f"({problem}); pip install 'crosstie[kubernetes]'"
        ) from None
    try:
        cluster = KubeCluster(custom_cluster_spec=spec, quiet=True, shutdown_on_close=True)
    except (OSError, RuntimeError, ValueError) as problem:
        raise SettingsError(
            f"setting compute.cluster = 'kubernetes': no cluster could be made ({problem}); is there a "
            "Kubernetes context, and is the Dask operator installed?"
        ) from problem
    with cluster:
        cluster.add_worker_group(MATCHERS, custom_spec=matcher_group(compute))
        if compute.adaptive_max is not None:
            cluster.adapt(minimum=compute.readers, maximum=max(compute.readers, compute.adaptive_max))
        yield cluster


def cluster_spec(compute: ComputeSettings, *, name: str) -> dict[str, Any]:
    """Describe the scheduler and the readers: a `DaskCluster` of the operator.

    Raises
    ------
    SettingsError : no image is set
    """
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {"name": name},
        "spec": {
            "worker": _workers(compute, compute.readers, needs=READER_NEEDS),
            "scheduler": _scheduler(compute, cluster=name),
        },
    }


def matcher_group(compute: ComputeSettings) -> dict[str, Any]:
    """Describe the matchers: the `worker` of a `DaskWorkerGroup` of the operator."""
    return _workers(compute, compute.matchers, "--resources", f"{GPU}=1", needs=MATCHER_NEEDS)


def _workers(compute: ComputeSettings, count: int, *options: str, needs: dict[str, str]) -> dict[str, Any]:
    # The operator sets DASK_WORKER_NAME and DASK_SCHEDULER_ADDRESS. Memory is the pod's limit.
    command = ["dask", "worker", "--name", "$(DASK_WORKER_NAME)", "--nthreads", "1", "--memory-limit", "0"]
    container = _container(compute, "worker", [*command, "--no-dashboard", *options])
    container["resources"] = {"limits": needs, "requests": needs}
    return {"replicas": count, "spec": {"containers": [container]}}


def _scheduler(compute: ComputeSettings, *, cluster: str) -> dict[str, Any]:
    ports = {"tcp-comm": 8786, "http-dashboard": 8787}
    healthy = {"httpGet": {"port": "http-dashboard", "path": "/health"}, "periodSeconds": 5}
    container = _container(compute, "scheduler", ["dask", "scheduler", "--host", "0.0.0.0"])  # noqa: S104
    container |= {
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports.items()],
        "readinessProbe": healthy,
        "livenessProbe": healthy | {"initialDelaySeconds": 15, "periodSeconds": 20},
    }
    service = {
        "type": "ClusterIP",
        "selector": {"dask.org/cluster-name": cluster, "dask.org/component": "scheduler"},
        "ports": [
            {"name": name, "port": port, "targetPort": name, "protocol": "TCP"}
            for name, port in ports.items()
        ],
    }
    return {"spec": {"containers": [container]}, "service": service}


def _container(compute: ComputeSettings, name: str, command: list[str]) -> dict[str, Any]:
    if compute.image is None:
        raise SettingsError(
            "setting compute.image: compute.cluster = 'kubernetes' needs a container image with this version "
            "of crosstie in it"
        )
    container: dict[str, Any] = {
        "name": name,
        "image": compute.image,
        "args": command,
        "env": [{"name": key, "value": value} for key, value in WORKER_ENVIRONMENT.items()],
    }
    if compute.env_secret is not None:
        container["envFrom"] = [{"secretRef": {"name": compute.env_secret}}]
    return container
