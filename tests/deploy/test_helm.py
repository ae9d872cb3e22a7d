"""Values for charts of others: every key is one that the chart reads. No chart was rendered here.

The operator's chart is in its wheel. Prefect's charts are in no index: their keys were read where they are
documented (prefect-helm, 2025). Keys that have gone since, `helm install` refuses by the charts' schemas.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from dask_operator import CHART, OPERATOR, operator_wheel
from servers.process import ROOT

from crosstie.flows.cluster.kubernetes import USER

HELM = ROOT / "deploy" / "helm"

PREFECT_PINNED = next(
    line.partition("==")[2].strip()
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line.startswith("prefect==")
)

SECURITY = {
    "runAsUser": int, "runAsNonRoot": bool, "readOnlyRootFilesystem": bool, "allowPrivilegeEscalation": bool,
    "capabilities": {"drop": list},
}  # fmt: skip
POD_SECURITY = {"runAsUser": int, "runAsNonRoot": bool, "fsGroup": int, "seccompProfile": {"type": str}}
RESOURCES = {"requests": {"cpu": str, "memory": str}, "limits": {"cpu": str, "memory": str}}
PROBE = {
    "enabled": bool,
    "config": {
        "initialDelaySeconds": int, "periodSeconds": int, "timeoutSeconds": int, "failureThreshold": int,
        "successThreshold": int,
    },
}  # fmt: skip
IMAGE = {"repository": str, "prefectTag": str, "pullPolicy": str}
ENABLED = {"enabled": bool}
BASIC_AUTH = {"enabled": bool, "existingSecret": str}
CREATE = {"create": bool, "name": str}

KNOWN: dict[str, dict[str, Any]] = {
    "prefect-server.yaml": {
        "fullnameOverride": str,
        "global": {"prefect": {"image": IMAGE, "env": list}},
        "server": {
            "replicaCount": int, "basicAuth": BASIC_AUTH, "uiConfig": {"prefectUiApiUrl": str},
            "resources": RESOURCES, "livenessProbe": PROBE, "readinessProbe": PROBE,
            "containerSecurityContext": SECURITY, "podSecurityContext": POD_SECURITY,
        },
        "migrations": ENABLED,
        "backgroundServices": {"runAsSeparateDeployment": bool},
        "secret": CREATE,
        "postgresql": ENABLED, "sqlite": ENABLED, "redis": ENABLED, "ingress": ENABLED,
    },
    "prefect-worker.yaml": {
        "fullnameOverride": str,
        "worker": {
            "apiConfig": str, "selfHostedServerApiConfig": {"apiUrl": str}, "basicAuth": BASIC_AUTH,
            "clusterUid": str, "image": IMAGE,
            "config": {"workPool": str, "type": str, "installPolicy": str, "limit": int, "name": str},
            "resources": RESOURCES, "containerSecurityContext": SECURITY, "podSecurityContext": POD_SECURITY,
            "initContainer": {"containerSecurityContext": SECURITY},
        },
        "role": {"create": bool}, "rolebinding": {"create": bool}, "serviceAccount": CREATE,
    },
}  # fmt: skip


def faults(values: dict[str, Any], known: dict[str, Any], place: str = "") -> Iterator[str]:
    """Keys that the chart does not read, and values of another type."""
    for key, value in values.items():
        here = f"{place}{key}"
        if key not in known:
            yield f"{here} is not known"
        elif isinstance(known[key], dict):
            if isinstance(value, dict):
                yield from faults(value, known[key], f"{here}.")
            else:
                yield f"{here} holds values of its own"
        elif not isinstance(value, known[key]):
            yield f"{here} is no {known[key].__name__}"


def types_of(values: dict[str, Any]) -> dict[str, Any]:
    """Keys of a chart's own values; what is empty there takes anything."""
    return {
        key: types_of(value) if isinstance(value, dict) and value
        else type(value) if value not in ({}, None)
        else object
        for key, value in values.items()
    }  # fmt: skip


@pytest.fixture(scope="module")
def known(pytestconfig: pytest.Config) -> dict[str, dict[str, Any]]:
    wheel: zipfile.ZipFile = operator_wheel(pytestconfig.cache.mkdir("dask-operator"))
    return KNOWN | {"dask-operator.yaml": types_of(yaml.safe_load(wheel.read(f"{CHART}/values.yaml")))}


PLANTED = {
    "dask-operator.yaml": ("cluster:", "clusters:"),
    "prefect-server.yaml": ("existingSecret:", "existingSecrets:"),
    "prefect-worker.yaml": ("workPool:", "workpool:"),
}


@pytest.mark.parametrize("file", PLANTED)
def test_every_key_is_known_and_a_misspelt_one_is_not(file: str, known: dict[str, dict[str, Any]]) -> None:
    text = (HELM / file).read_text()
    assert list(faults(yaml.safe_load(text), known[file])) == []
    word, misspelt = PLANTED[file]
    (fault,) = faults(yaml.safe_load(text.replace(word, misspelt, 1)), known[file])
    assert misspelt.rstrip(":") in fault


def test_no_file_is_left_out() -> None:
    assert {path.name for path in HELM.iterdir()} == PLANTED.keys() | {"job-template.json"}


def test_versions_are_those_that_are_tested() -> None:
    version = OPERATOR.partition("==")[2]
    assert f"--version {version}" in (HELM / "dask-operator.yaml").read_text()
    server, worker = (
        yaml.safe_load((HELM / f"prefect-{part}.yaml").read_text()) for part in ("server", "worker")
    )
    assert server["global"]["prefect"]["image"]["prefectTag"].startswith(f"{PREFECT_PINNED}-")
    assert worker["worker"]["image"]["prefectTag"].startswith(f"{PREFECT_PINNED}-")


def test_no_secret_is_a_value() -> None:
    for path in HELM.iterdir():
        lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
        assert "password" not in "\n".join(lines).lower().replace("user:password", "")


# The template of the Jobs, beside Prefect's own for work pools of this type.
VIEWS = files("prefect.server.api.collections_data").joinpath("views/aggregate-worker-metadata.json")
PREFECTS: dict[str, Any] = json.loads(VIEWS.read_text())["prefect-kubernetes"]["kubernetes"]
PREFECTS_JOB: dict[str, Any] = PREFECTS["default_base_job_configuration"]


def template_faults(text: str) -> Iterator[str]:
    """What Prefect or Kubernetes would not take of a template."""
    template = json.loads(text)
    job, variables = template["job_configuration"], template["variables"]
    theirs = PREFECTS_JOB["job_configuration"].keys()
    yield from (f"{key} is not known" for key in job.keys() - theirs)
    yield from (f"{key} is missing" for key in theirs - job.keys())
    declared = variables["properties"].keys()
    yield from (
        f"variable {name} is not known" for name in declared - PREFECTS_JOB["variables"]["properties"].keys()
    )
    jsonschema.Draft202012Validator.check_schema(variables)
    values = {name: about.get("default") for name, about in variables["properties"].items()}
    # As Prefect sets them for a run.
    values |= {
        "name": "run",
        "labels": {"prefect.io/flow-run-id": "0"},
        "command": ["prefect", "flow-run", "execute"],
    }
    missing: set[str] = set()
    manifest = filled(job["job_manifest"], values, missing)
    filled({key: value for key, value in job.items() if key != "job_manifest"}, values, missing)
    yield from (f"variable {name} is not declared" for name in missing)
    try:
        kubernetes_validate.validate(manifest, "1.31", strict=True)
    except kubernetes_validate.ValidationError as problem:
        yield problem.message


def filled(part: Any, values: dict[str, Any], missing: set[str]) -> Any:
    """A template with its `{{ variables }}` replaced by their values."""
    if isinstance(part, dict):
        return {key: filled(value, values, missing) for key, value in part.items()}
    if isinstance(part, list):
        return [filled(value, values, missing) for value in part]
    if not (isinstance(part, str) and "{{" in part):
        return part
    name = part.partition("{{")[2].partition("}}")[0].strip()
    if name not in values:
        missing.add(name)
        return part
    whole = part == f"{{{{ {name} }}}}"
    return values[name] if whole else part.replace(f"{{{{ {name} }}}}", str(values[name]))


TEMPLATE = HELM / "job-template.json"


def test_the_template_of_the_jobs_is_taken() -> None:
    assert list(template_faults(TEMPLATE.read_text())) == []


@pytest.mark.parametrize(
    ("word", "misspelt"),
    [
        ('"readOnlyRootFilesystem"', '"readOnlyRootFileSystem"'),
        ("{{ cpu_request }}", "{{ cpu_requests }}"),
        ('"stream_output": "', '"stream_outputs": "'),
        ('"finished_job_ttl": {', '"finished_job_ttls": {'),
        ('"secretKeyRef"', '"secretkeyRef"'),
    ],
)
def test_a_misspelling_in_the_template_is_found(word: str, misspelt: str) -> None:
    text = TEMPLATE.read_text()
    assert word in text
    assert list(template_faults(text.replace(word, misspelt, 1)))


def test_pods_of_the_jobs_are_locked_down() -> None:
    job = json.loads(TEMPLATE.read_text())["job_configuration"]["job_manifest"]
    spec = job["spec"]["template"]["spec"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert spec["automountServiceAccountToken"] is False
    (container,) = spec["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
