"""Every overlay is what Kubernetes and the Dask operator take, to the letter. None was run on a cluster."""

from __future__ import annotations

import functools
import shutil
import textwrap
import zipfile
from pathlib import Path

import pytest
import yaml
from dask_operator import operator_wheel
from deploy.manifests import KUBERNETES, OVERLAYS, VERSIONS, built, faults, pods

PLANTED = {
    "base/kustomization.yaml": ("resources:", "resource:", "cpu"),
    "base/restricted.yaml": ("readOnlyRootFilesystem:", "readOnlyRootFileSystem:", "cpu"),
    "base/namespace.yaml": ("metadata:", "metadat:", "cpu"),
    "base/service-accounts.yaml": ("automountServiceAccountToken:", "automountServiceAcountToken:", "cpu"),
    "base/deploy.yaml": ("backoffLimit:", "backofLimit:", "cpu"),
    "base/prefect-worker.yaml": ("livenessProbe:", "livenesProbe:", "cpu"),
    "base/dask.yaml": ("topologySpreadConstraints:", "topologySpreadConstraint:", "cpu"),
    "base/listener.yaml": ("containerPort:", "containerport:", "cpu"),
    "base/site.yaml": ("targetPort:", "targetport:", "cpu"),
    "base/disruption.yaml": ("minAvailable:", "minAvailible:", "cpu"),
    "base/network.yaml": ("policyTypes:", "policyType:", "cpu"),
    "components/matchers-cpu/kustomization.yaml": ("behavior:", "behaviour:", "cpu"),
    "components/matchers-cpu/matchers.yaml": ("replicas:", "replica:", "cpu"),
    "components/matchers-gpu/kustomization.yaml": ("literals:", "literal:", "gpu"),
    "components/matchers-gpu/matchers.yaml": ("tolerations:", "toleration:", "gpu"),
    "components/ingress/kustomization.yaml": ("resources:", "resource:", "gpu"),
    "components/ingress/ingress.yaml": ("ingressClassName:", "ingressclassName:", "gpu"),
    "components/ingress/network.yaml": ("namespaceSelector:", "namespacesSelector:", "gpu"),
    "components/servers/kustomization.yaml": ("resources:", "resource:", "local"),
    "components/servers/postgres.yaml": ("volumeClaimTemplates:", "volumeClaimTemplate:", "local"),
    "components/servers/s3.yaml": ("serviceName:", "servicename:", "local"),
    "components/servers/prefect-server.yaml": ("startupProbe:", "startUpProbe:", "local"),
    "components/servers/network.yaml": ("podSelector:", "podSelectors:", "local"),
    "components/monitoring/kustomization.yaml": ("resources:", "resource:", "all"),
    "components/monitoring/monitors.yaml": ("podMetricsEndpoints:", "podMetricEndpoints:", "all"),
    "components/monitoring/network.yaml": ("endPort:", "endport:", "all"),
    "components/job-per-run/kustomization.yaml": ("$patch: delete", "$patch: delet", "all"),
    "components/job-per-run/network.yaml": ("egress:", "egres:", "all"),
    "components/cluster-per-run/kustomization.yaml": ("op: replace", "op: replac", "gpu-per-run"),
    "components/cluster-per-run/rights.yaml": ("roleRef:", "roleref:", "gpu-per-run"),
    "components/cluster-per-run/network.yaml": ("policyTypes:", "policyType:", "gpu-per-run"),
    "overlays/local/kustomization.yaml": ("components:", "component:", "local"),
    "overlays/local/small.yaml": ("resources:", "resource:", "local"),
    "overlays/cpu/kustomization.yaml": ("images:", "image:", "cpu"),
    "overlays/gpu/kustomization.yaml": ("newName:", "newNames:", "gpu"),
    "overlays/gpu-per-run/kustomization.yaml": ("configMapGenerator:", "configMapGenerators:", "gpu-per-run"),
}
"""Of each file: what is misspelt, how, and an overlay that has the file."""


@pytest.fixture(scope="session")
def operator(pytestconfig: pytest.Config) -> zipfile.ZipFile:
    return operator_wheel(pytestconfig.cache.mkdir("dask-operator"))


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files, with one more overlay that has the components which no other has."""
    folder = tmp_path_factory.mktemp("kubernetes") / "kubernetes"
    shutil.copytree(KUBERNETES, folder)
    every = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "crosstie",
        "resources": ["../cpu"],
        "components": ["../../components/job-per-run", "../../components/monitoring"],
    }
    (folder / "overlays" / "all").mkdir()
    (folder / "overlays" / "all" / "kustomization.yaml").write_text(yaml.safe_dump(every))
    return folder


as_it_is = functools.cache(built)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", [*OVERLAYS, "all"])
def test_an_overlay_is_taken(overlay: str, version: str, tree: Path, operator: zipfile.ZipFile) -> None:
    manifests = as_it_is(tree / "overlays" / overlay)
    assert list(faults(manifests, operator, version=version)) == []
    assert len(manifests) > 30


def test_with_jobs_there_is_one_worker_and_one_pool(tree: Path) -> None:
    found = pods(as_it_is(tree / "overlays" / "all"))
    assert "prefect-worker" not in found  # the chart has it, and makes the pool
    assert "work-pool" not in str(found["deploy"])
    (container,) = found["deploy"]["spec"]["containers"]
    assert container["args"][-1] == "/opt/crosstie/deploy/prefect.yaml"


@pytest.mark.parametrize("file", PLANTED)
def test_a_misspelling_is_found(file: str, tree: Path, tmp_path: Path, operator: zipfile.ZipFile) -> None:
    word, misspelt, overlay = PLANTED[file]
    copy = tmp_path / "kubernetes"
    shutil.copytree(tree, copy)
    text = (copy / file).read_text()
    assert word in text
    (copy / file).write_text(text.replace(word, misspelt, 1))
    right = as_it_is(tree / "overlays" / overlay)
    try:
        changed = [manifest for manifest in built(copy / "overlays" / overlay) if manifest not in right]
        found = list(faults(changed, operator, version=VERSIONS[0]))
    except ValueError as problem:
        found = [str(problem)]
    assert found, f"{misspelt} in {file} passes"


def test_the_overlay_of_the_readme_sets_what_it_says(tree: Path, operator: zipfile.ZipFile) -> None:
    text = (KUBERNETES / "README.md").read_text()
    begin = text.index("apiVersion: kustomize.config.k8s.io")
    end = text.index("   An object store that is not Amazon's")
    block = textwrap.dedent(" " * 7 + text[begin : text.rindex("\n\n", begin, end)])
    mine = tree / "overlays" / "mine"
    mine.mkdir()
    own = block.replace("../crosstie/deploy/kubernetes/overlays/", "../")
    (mine / "kustomization.yaml").write_text(own)
    manifests = built(mine)
    assert list(faults(manifests, operator, version=VERSIONS[0])) == []
    data = {key: value for found in manifests for key, value in found.get("data", {}).items()}
    assert data["CROSSTIE_CATALOG_URL"] == "https://stac.mine.org"
    assert data["CROSSTIE_COMPUTE__DEVICE"] == "cuda"
    assert data["AWS_REGION"] == "eu-central-1"
    images = {pod["spec"]["containers"][0]["image"] for pod in pods(manifests).values()}
    assert images == {"registry.mine.org/crosstie:0.1.0", "registry.mine.org/crosstie:0.1.0-cuda"}
    hosts = {found["spec"]["rules"][0]["host"] for found in manifests if found["kind"] == "Ingress"}
    assert hosts == {"scenes.mine.org", "corrections.example.org"}


def test_no_file_is_left_out() -> None:
    files = {str(path.relative_to(KUBERNETES)) for path in KUBERNETES.rglob("*.yaml")}
    assert files == PLANTED.keys()
