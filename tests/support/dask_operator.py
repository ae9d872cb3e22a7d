"""The Dask operator's own schemas and chart, out of its wheel; its many libraries are not installed."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

OPERATOR = "dask-kubernetes==2026.3.0"
CHART = "dask_kubernetes/operator/deployment/helm/dask-kubernetes-operator"


def operator_wheel(folder: Path) -> zipfile.ZipFile:
    """Fetch the wheel into a folder; one that is there already is taken."""
    name, _, version = OPERATOR.partition("==")
    wheel = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    if not wheel.is_file():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        limits = ["--disable-pip-version-check", "--timeout", "10", "--retries", "0"]
        done = subprocess.run([*command, *limits, "-d", folder, OPERATOR], capture_output=True, text=True)
        if not wheel.is_file():
            why = f"needs an index of packages, for `pip download {OPERATOR}`: {done.stderr[-300:]}"
            if os.environ.get("CI"):
                pytest.fail(why)
            pytest.skip(why)
    return zipfile.ZipFile(wheel)


@functools.cache
def schema_of(wheel: zipfile.ZipFile, kind: str) -> dict[str, Any]:
    """Schema of a kind of resource, `DaskCluster` say, as the operator registers it with Kubernetes.

    Raises
    ------
    KeyError : it registers no such kind
    """
    definition = yaml.load(wheel.read(f"{CHART}/crds/{kind.lower()}.yaml"), yaml.CSafeLoader)
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
    """Hold a resource against its schema.

    Raises
    ------
    jsonschema.ValidationError : it has what the schema does not know, or lacks what it asks for
    """
    schema = schema | {"additionalProperties": True}  # apiVersion, kind, metadata: Kubernetes' own
    jsonschema.validate(resource, schema, cls=jsonschema.Draft4Validator)
