"""Dask on Kubernetes through its operator: pods that read, and pods with a GPU each that hold the network."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from crosstie.errors import SettingsError
from crosstie.flows.cluster.scaling import KeepMatchers, readers_wanted
from crosstie.flows.cluster.worker_tasks import GPU, WORKER_ENVIRONMENT

if TYPE_CHECKING:
    from distributed import Scheduler

    from crosstie.config import ComputeSettings

MATCHERS = "matchers"
"""Name of the worker group with GPUs; the operator calls the other group `default`."""

READER_NEEDS = {"cpu": "1", "memory": "2Gi"}
MATCHER_NEEDS = {"cpu": "2", "memory": "8Gi", "nvidia.com/gpu": "1"}
SCHEDULER_NEEDS = {"cpu": "1", "memory": "1Gi"}
"""Requests and limits of a pod; measured figures are in deploy/kubernetes/README.md."""

SCHEDULER_PORTS = {"tcp-comm": 8786, "http-dashboard": 8787}
WORKER_PORTS = {"tcp-comm": 8789, "http-dashboard": 8788}
"""Fixed, so that network policies can name them. The operator finds those of a scheduler by these names."""

USER = 10001
"""User and group of the image."""

SCHEDULER_ENVIRONMENT = {
    # Otherwise an idle matcher takes windows from a reader and fetches again what the reader has fetched.
    "DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING": "False",
}

SCRATCH = {"tmp": "/tmp", "state": "/var/lib/crosstie"}  # noqa: S108
"""Folders that a pod may write to; its root file system is read-only."""


def dask_setup(scheduler: Scheduler) -> None:
    """Let a scheduler tell the operator how many readers it needs; for its option `--preload`.

    The operator sets the number of readers to Dask's estimate for all workers. That estimate includes
    matching and is never below the number of busy workers, so readers would be added again and again up to
    the maximum. To scale down, the operator closes workers that the scheduler names, of any kind; matchers
    are kept from that.
    """
    scheduler.add_plugin(KeepMatchersOfPods())

    async def adaptive_target() -> int:
        return readers_wanted(scheduler)

    scheduler.handlers["adaptive_target"] = adaptive_target


class KeepMatchersOfPods(KeepMatchers):
    """`KeepMatchers` by another name: a run registers its own, and the scheduler warns of duplicates."""

    name = "crosstie-keep-matchers-of-pods"


@contextmanager
def kubernetes_cluster(compute: ComputeSettings) -> Iterator[Any]:
    """Let the operator make a cluster in the namespace of the current context; it ends with the block.

    Raises
    ------
    SettingsError
        The extra is not installed, no image is set, or Kubernetes or its operator does not answer.
    """
    name = f"crosstie-{uuid.uuid4().hex[:8]}"
    spec = cluster_spec(compute, name=name)
    try:
        from dask_kubernetes.operator import KubeCluster
    except ImportError as problem:
        raise SettingsError(
            "setting compute.cluster = 'kubernetes' needs a package that is not installed "
            f"({problem}); pip install dask-kubernetes"
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
    SettingsError
        No image is set.
    """
    readers = _workers(compute, compute.readers, needs=READER_NEEDS)
    readers["metadata"] = _labels("dask-reader")
    if compute.env_secret is not None:
        # Only readers open files.
        readers["spec"]["containers"][0]["envFrom"] = [{"secretRef": {"name": compute.env_secret}}]
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {"name": name},
        "spec": {
            "worker": readers,
            "scheduler": _scheduler(compute, cluster=name),
        },
    }


def matcher_group(compute: ComputeSettings) -> dict[str, Any]:
    """Describe the matchers: the `worker` of a `DaskWorkerGroup` of the operator."""
    workers = _workers(compute, compute.matchers, "--resources", f"{GPU}=1", needs=MATCHER_NEEDS)
    workers["metadata"] = _labels("dask-matcher")
    # Nodes with GPUs usually refuse pods that need none.
    gpus_kept = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    workers["spec"]["tolerations"] = [gpus_kept]
    return workers


def _workers(compute: ComputeSettings, count: int, *options: str, needs: dict[str, str]) -> dict[str, Any]:
    # The operator sets DASK_WORKER_NAME and DASK_SCHEDULER_ADDRESS. Memory is the pod's limit, and it is
    # Kubernetes that starts a worker again.
    command = ["dask", "worker", "--name", "$(DASK_WORKER_NAME)", "--nthreads", "1", "--no-nanny"]
    limits = ["--memory-limit", "0", "--local-directory", f"{SCRATCH['state']}/dask"]
    ports = [
        *("--worker-port", str(WORKER_PORTS["tcp-comm"])),
        *("--dashboard-address", f":{WORKER_PORTS['http-dashboard']}"),
    ]
    container = _container(
        compute, "worker", [*command, *limits, *ports, *options], WORKER_PORTS, needs=needs
    )
    container["env"] = _variables(
        WORKER_ENVIRONMENT | {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"}
    )
    # A worker may spend long in one library call; that is no reason to restart it.
    container["livenessProbe"] = _healthy(periodSeconds=30, failureThreshold=10, timeoutSeconds=10)
    return {"replicas": count, "spec": _pod(container)}


def _scheduler(compute: ComputeSettings, *, cluster: str) -> dict[str, Any]:
    command = ["dask", "scheduler", "--host", "0.0.0.0", "--preload", __name__]  # noqa: S104
    container = _container(compute, "scheduler", command, SCHEDULER_PORTS, needs=SCHEDULER_NEEDS)
    container["env"] = _variables(SCHEDULER_ENVIRONMENT)
    container["readinessProbe"] = _healthy(periodSeconds=5)
    container["livenessProbe"] = _healthy(periodSeconds=20, initialDelaySeconds=15)
    service = {
        "type": "ClusterIP",
        "selector": {"dask.org/cluster-name": cluster, "dask.org/component": "scheduler"},
        "ports": [
            {"name": name, "port": port, "targetPort": name, "protocol": "TCP"}
            for name, port in SCHEDULER_PORTS.items()
        ],
    }
    return {"metadata": _labels("dask-scheduler"), "spec": _pod(container), "service": service}


def _labels(name: str) -> dict[str, Any]:
    """Labels that tell readers from matchers; the network policies of deploy/kubernetes/ select by them."""
    return {"labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "crosstie"}}


def _pod(container: dict[str, Any]) -> dict[str, Any]:
    """Describe a pod that meets the `restricted` standard; no pod talks to Kubernetes."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": name, "emptyDir": {}} for name in SCRATCH],
    }


def _container(
    compute: ComputeSettings, name: str, command: list[str], ports: dict[str, int], *, needs: dict[str, str]
) -> dict[str, Any]:
    if compute.image is None:
        raise SettingsError(
            "setting compute.image: compute.cluster = 'kubernetes' needs a container image with this version "
            "of crosstie in it"
        )
    return {
        "name": name,
        "image": compute.image,
        "args": command,
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports.items()],
        "resources": {"limits": needs, "requests": needs},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in SCRATCH.items()],
    }


def _healthy(**how: int) -> dict[str, Any]:
    return {"httpGet": {"port": "http-dashboard", "path": "/health"}} | how


def _variables(environment: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in environment.items()]
