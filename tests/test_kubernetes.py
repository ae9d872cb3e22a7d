"""What is asked of the Dask operator is what its resources allow. Nothing here was run on a Kubernetes."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from typing import Any

import jsonschema
import pytest
import yaml

from crosstie.config import load_settings
from crosstie.errors import SettingsError
from crosstie.flows.cluster import connected
from crosstie.flows.kubernetes import cluster_spec, matcher_group

OPERATOR = "dask-kubernetes==2026.3.0"
CRDS = "dask_kubernetes/operator/deployment/helm/dask-kubernetes-operator/crds"

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
def operator(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The operator's wheel, for the schemas in it; its many libraries are not installed."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    limits = ["--disable-pip-version-check", "--timeout", "10", "--retries", "0"]
    done = subprocess.run([*command, *limits, "-d", folder, OPERATOR], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if not wheels:
        pytest.skip(f"needs an index of packages, for `pip download {OPERATOR}`: {done.stderr[-300:]}")
    return zipfile.ZipFile(wheels[0])


def schema_of(operator: zipfile.ZipFile, kind: str) -> dict[str, Any]:
    definition = yaml.safe_load(operator.read(f"{CRDS}/{kind}.yaml"))
    schema: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return closed(schema)


def closed(schema: Any) -> Any:
    """Refuse what the schema does not know: Kubernetes would drop it without a word."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: closed(part) for name, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and isinstance(schema.get("type"), str):
        schema.setdefault("additionalProperties", False)
    if schema.pop("x-kubernetes-int-or-string", False):
        schema.pop("type", None)
    return schema


def validate(resource: dict[str, Any], schema: dict[str, Any]) -> None:
    schema = schema | {"additionalProperties": True}  # apiVersion, kind, metadata: Kubernetes' own
    jsonschema.validate(resource, schema, cls=jsonschema.Draft4Validator)


def test_the_operator_knows_all_that_it_is_asked_for(operator: zipfile.ZipFile) -> None:
    validate(cluster_spec(COMPUTE, name="crosstie-test"), schema_of(operator, "daskcluster"))
    group = {"spec": {"cluster": "crosstie-test", "worker": matcher_group(COMPUTE)}}
    schema = schema_of(operator, "daskworkergroup")
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
        assert container["envFrom"] == [{"secretRef": {"name": "object-store"}}]
        assert container["args"][container["args"].index("--nthreads") + 1] == "1"


def test_an_image_is_asked_for() -> None:
    compute = COMPUTE.model_copy(update={"image": None})
    with pytest.raises(SettingsError, match=r"compute\.image"), connected(compute, int):
        pass


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_kubernetes", None)
    with pytest.raises(SettingsError, match=r"pip install 'crosstie\[kubernetes\]'"), connected(COMPUTE, int):
        pass
