"""What is asked of the Dask operator is what its resources allow. Nothing here was run on a Kubernetes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from dask_operator import operator_wheel, schema_of, validate
from distributed import Client

from crosstie.config import load_settings
from crosstie.errors import SettingsError
from crosstie.flows.cluster.connect import connected
from crosstie.flows.cluster.kubernetes import cluster_spec, matcher_group

COMPUTE = load_settings(
    options={
        "compute.cluster": "kubernetes",
        "compute.image": "registry.example.org/crosstie:0.1.0",
        "compute.env_secret": "object-store",
        "compute.readers": 6,
        "compute.matchers": 2,
    }
).compute


@pytest.fixture(scope="module")
def operator(pytestconfig: pytest.Config) -> zipfile.ZipFile:
    return operator_wheel(pytestconfig.cache.mkdir("dask-operator"))


def test_the_operator_knows_all_that_it_is_asked_for(operator: zipfile.ZipFile) -> None:
    validate(cluster_spec(COMPUTE, name="crosstie-test"), schema_of(operator, "DaskCluster"))
    group = {"spec": {"cluster": "crosstie-test", "worker": matcher_group(COMPUTE)}}
    schema = schema_of(operator, "DaskWorkerGroup")
    validate(group, schema)
    group["spec"]["worker"]["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(jsonschema.ValidationError, match="resource"):
        validate(group, schema)


def test_matchers_have_a_gpu_each_and_offer_it_and_readers_have_none() -> None:
    spec = cluster_spec(COMPUTE, name="crosstie-test")["spec"]
    (reader,), (matcher,) = (
        workers["spec"]["containers"] for workers in (spec["worker"], matcher_group(COMPUTE))
    )
    assert spec["worker"]["replicas"] == 6
    assert matcher_group(COMPUTE)["replicas"] == 2
    assert matcher["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert matcher["args"][-2:] == ["--resources", "GPU=1"]
    assert "nvidia.com/gpu" not in str(reader)
    assert "GPU=1" not in reader["args"]
    for container in (reader, matcher):
        assert container["image"] == "registry.example.org/crosstie:0.1.0"
        assert container["args"][container["args"].index("--nthreads") + 1] == "1"


def test_readers_alone_get_the_keys_of_the_store() -> None:
    spec = cluster_spec(COMPUTE, name="crosstie-test")["spec"]
    (reader,) = spec["worker"]["spec"]["containers"]
    assert reader["envFrom"] == [{"secretRef": {"name": "object-store"}}]
    assert "object-store" not in str([spec["scheduler"], matcher_group(COMPUTE)])


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    """Address of a scheduler that was started as its pod is, with a reader and a matcher."""
    scheduler_file = tmp_path / "scheduler.json"
    here = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
    spec = cluster_spec(COMPUTE, name="crosstie-test")["spec"]
    commands = [
        [*args_of(spec["scheduler"]), *here, "--port", "0", "--scheduler-file", str(scheduler_file)],
        *(
            [*args_of(worker), *here, "--worker-port", "0", "--local-directory", str(tmp_path)]
            for worker in (spec["worker"], matcher_group(COMPUTE))
        ),
    ]
    running = []
    try:
        for name, (_, *args) in zip(("scheduler", "reader", "matcher"), commands, strict=True):
            address = json.loads(scheduler_file.read_text())["address"] if running else ""
            named = [arg.replace("$(DASK_WORKER_NAME)", name) for arg in args]
            running.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dask", *named],
                    env=os.environ | {"DASK_SCHEDULER_ADDRESS": address},
                    stderr=subprocess.DEVNULL,
                )
            )
            while not scheduler_file.is_file() or not scheduler_file.read_text().strip():
                assert running[0].poll() is None
                time.sleep(0.1)
        yield json.loads(scheduler_file.read_text())["address"]
    finally:
        for process in reversed(running):
            process.kill()
            process.wait()


def args_of(pod: dict[str, Any]) -> list[str]:
    args: list[str] = pod["spec"]["containers"][0]["args"]
    return args


@pytest.mark.server
def test_the_autoscaler_is_told_of_readers_alone(scheduler: str) -> None:
    with Client(scheduler, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=200)
        held = [client.submit(time.sleep, 60, pure=False, resources={"GPU": 1}) for _ in range(9)]
        while not any(client.processing().values()):
            time.sleep(0.05)
        # As the operator asks: nothing is to be read, and the busy matcher is not to be closed.
        assert asked(client, "adaptive_target") == 0
        assert list(asked(client, "workers_to_close", n=2, attribute="name")) == ["reader"]
        reads = [client.submit(time.sleep, 60, pure=False) for _ in range(5)]
        while asked(client, "adaptive_target") < 3:  # two windows ahead for each
            time.sleep(0.05)
        client.cancel(held + reads, force=True)


def asked(client: Client, operation: str, **arguments: Any) -> Any:
    return client.sync(getattr(client.scheduler, operation), **arguments)


def test_an_image_is_asked_for() -> None:
    compute = COMPUTE.model_copy(update={"image": None})
    with pytest.raises(SettingsError, match=r"compute\.image"), connected(compute, int):
        pass


def test_the_package_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_kubernetes", None)
    with pytest.raises(SettingsError, match=r"pip install dask-kubernetes$"), connected(COMPUTE, int):
        pass
