"""What is wrong with the files that Prometheus and Grafana read; each check returns sentences."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from enum import EnumType
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args, get_type_hints

import jsonschema
import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.runtime import panelcfg_config
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from servers.process import ROOT

PROMETHEUS, GRAFANA = ROOT / "deploy" / "prometheus", ROOT / "deploy" / "grafana"

RUNBOOK = ROOT / "deploy" / "README.md"

LABELS = {
    *("answer", "code", "device", "flow", "instance", "job", "kind"),
    *("le", "outcome", "reason", "role", "state", "step", "verdict"),
}
"""Of our figures, and those that Prometheus adds."""

UNITS = frozenset(["Bps", "bytes", "ops", "percentunit", "reqps", "s", "short"])
"""Of Grafana's, those that are in use: it takes any other text for a suffix."""

UNTYPED = frozenset({"row", "alertlist"})
"""Panels whose options Grafana's schema leaves open."""

OTHERS = {
    "up",
    "process_resident_memory_bytes",
    "dask_scheduler_tasks",
    "dask_scheduler_workers",
    "dask_worker_memory_bytes",
}
"""Figures of other programs that we show; a test of a run fetches those of Dask."""

NO_METRIC = {
    *(
        "and",
        "or",
        "unless",
        "on",
        "ignoring",
        "by",
        "without",
        "group_left",
        "group_right",
        "offset",
        "bool",
    ),
    *("sum", "max", "min", "avg", "count", "abs", "absent"),
}
"""Words of PromQL that may stand apart from a bracket."""


def promtool() -> str:
    """Path of promtool.

    Skips where it is missing, which in CI is a failure.
    """
    found = shutil.which("promtool")
    if found is None:
        text = "promtool is missing: `make promtool` installs it, or `sudo apt-get install prometheus`"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(text)
    return found


def said_by_promtool(*arguments: str | Path) -> list[str]:
    """What promtool complains about; nothing where it is content."""
    done = subprocess.run([promtool(), *map(str, arguments)], capture_output=True, text=True)
    if done.returncode == 0:
        return []
    return [" ".join((done.stdout + done.stderr).split())]


@cache
def exported() -> frozenset[str]:
    """Names of all series that our processes export, as Prometheus sees them."""
    from crosstie.flows.cluster import worker_tasks as on_worker
    from crosstie.flows.listen.metrics import LISTENER
    from crosstie.flows.observe import gdal_requests as network
    from crosstie.flows.observe.run_metrics import RUN
    from crosstie.flows.site.metrics import registry_of
    from crosstie.flows.site.watch import Watch
    from crosstie.io.storage.store import open_store

    assert on_worker, network  # they put theirs into the registry of the process
    with TemporaryDirectory() as folder:
        watch = Watch(open_store(folder), every_s=3600)
        watch.look()
        registries: list[CollectorRegistry] = [RUN, LISTENER, REGISTRY, registry_of(watch)]
        return frozenset(
            name
            for registry in registries
            for family in text_string_to_metric_families(generate_latest(registry).decode())
            for name in _series(family.name, family.type)
            if name.startswith("crosstie_")
        )


def _series(name: str, kind: str) -> Iterable[str]:
    if kind == "counter":
        return [f"{name}_total"]
    return [f"{name}_{part}" for part in ("bucket", "sum", "count")] if kind == "histogram" else [name]


def expression_faults(expression: str, known: Iterable[str]) -> list[str]:
    """Figures and labels of a PromQL expression that nobody exports."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"\"", bare))
    groups = r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)"
    labels |= {label.strip() for group in re.findall(groups, bare) for label in group.split(",")} - {""}
    bare = re.sub(groups, " ", re.sub(r"\{[^}]*\}|\[[^]]*\]", " ", bare))
    words = re.findall(r"(?<![\w$.])([A-Za-z_:][\w:]*)\b(?!\s*\()", bare)
    wrong = [f"no such figure: {word}" for word in words if word not in {*known, *NO_METRIC}]
    return wrong + [f"no such label: {label}" for label in sorted(labels - LABELS)]


def rule_faults(path: Path, runbook: str) -> list[str]:
    """Faults of a file of alarms."""
    faults = said_by_promtool("check", "rules", "--lint=all", "--lint-fatal", path)
    if faults:
        return faults
    rules = [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
    known = {*exported(), *OTHERS, *(rule["record"] for rule in rules if "record" in rule)}
    headings = set(re.findall(r"^### (\w+)$", runbook, re.MULTILINE))
    for rule in rules:
        name = rule.get("alert") or rule["record"]
        faults += [f"{name}: {fault}" for fault in expression_faults(rule["expr"], known)]
        if "alert" not in rule:
            continue
        said = rule.get("annotations", {})
        if set(said) != {"summary", "description", "runbook_url"}:
            faults.append(f"{name}: has the annotations {sorted(said)}")
        if not said.get("runbook_url", "").endswith(f"}}}}#{name.lower()}"):
            faults.append(f"{name}: its link does not lead to its heading")
        if rule.get("labels", {}).get("severity") not in {"warning", "critical"}:
            faults.append(f"{name}: has no severity")
        if name not in headings:
            faults.append(f"{name}: deploy/README.md has no heading `### {name}`")
    return faults


def scrape_faults(path: Path, services: Mapping[str, Any]) -> list[str]:
    """Faults of Prometheus' settings: what it cannot read, and what no service of compose answers.

    Parameters
    ----------
    services : of the compose file, by name
    """
    faults = said_by_promtool("check", "config", path)
    if faults:
        return faults
    for job in yaml.safe_load(path.read_text())["scrape_configs"]:
        if not job["job_name"].startswith("crosstie-"):
            faults.append(f"{job['job_name']}: alarms go by jobs that begin with crosstie-")
        for target in (target for some in job["static_configs"] for target in some["targets"]):
            host, _, port = target.partition(":")
            if host not in services:
                faults.append(f"{target}: compose.yaml has no service {host}")
            elif not _speaks_at(services[host], int(port)):
                faults.append(f"{target}: the service {host} of compose.yaml does not speak of port {port}")
    return faults


def _speaks_at(service: Mapping[str, Any], port: int) -> bool:
    first = str(service.get("environment", {}).get("CROSSTIE_OBSERVE__METRICS_PORT", ""))
    if first.isdigit() and int(first) <= port < int(first) + 10:
        return True
    return re.search(rf"\b{port}\b", json.dumps([service.get("command"), service.get("ports")])) is not None


def dashboard_faults(text: str) -> list[str]:
    """Faults of a dashboard: keys and values that Grafana's schema does not know, figures nobody exports."""
    plugins.register_default_plugins()
    given = json.loads(text)
    try:
        dashboard = Dashboard.from_json(given)
        understood = json.loads(JSONEncoder().encode(dashboard))
    except (KeyError, TypeError, ValueError) as problem:
        return [f"Grafana's schema: {problem!r}"]
    faults = [*_lost(given, understood, "dashboard"), *_unknown_words(dashboard)]
    known = {*exported(), *OTHERS}
    for panel in given.get("panels", []):
        where = f"panel {panel.get('title')!r}"
        if panelcfg_config(panel.get("type", "")) is None and panel.get("type") not in UNTYPED:
            faults.append(f"{where}: Grafana has no panel of type {panel.get('type')!r}")
        asked = [part["datasource"] for part in [panel, *panel.get("targets", [])] if "datasource" in part]
        if any(source != {"type": "prometheus", "uid": "${datasource}"} for source in asked):
            faults.append(f"{where}: asks another than the Prometheus that is chosen at the top")
        unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit")
        if unit is not None and unit not in UNITS:
            faults.append(f"{where}: no such unit: {unit}")
        for target in panel.get("targets", []):
            if target["datasource"] != {"type": "prometheus", "uid": "${datasource}"}:
                faults.append(
                    f"{where}: asks {target['datasource']}, not the Prometheus that is chosen above"
                )
            faults += [f"{where}: {fault}" for fault in expression_faults(target["expr"], known)]
            labels = set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")))
            faults += [f"{where}: no such label: {label}" for label in sorted(labels - LABELS)]
    return faults + _queries_faults(given)


def _lost(given: Any, understood: Any, where: str) -> Iterable[str]:
    """What a round trip through Grafana's schema loses or changes; defaults that it adds are no fault."""
    if isinstance(given, dict) and isinstance(understood, dict):
        for key, value in given.items():
            if key not in understood:
                yield f"{where}: Grafana's schema knows no {key!r}"
            else:
                yield from _lost(value, understood[key], f"{where}.{key}")
    elif isinstance(given, list) and isinstance(understood, list) and len(given) == len(understood):
        for n, (one, other) in enumerate(zip(given, understood, strict=True)):
            yield from _lost(one, other, f"{where}[{n}]")
    elif given != understood:
        yield f"{where}: {given!r} is {understood!r} by Grafana's schema"


def _unknown_words(understood: Any) -> Iterable[str]:
    """Words that are none of those which Grafana's schema has for a key: reading it does not check them."""
    if isinstance(understood, list):
        for part in understood:
            yield from _unknown_words(part)
    elif isinstance(understood, dict):
        yield from _unknown_words(list(understood.values()))
    elif type(understood).__module__.startswith("grafana_foundation_sdk."):
        hints = get_type_hints(type(understood))
        for name, value in vars(understood).items():
            kinds = [
                kind for kind in (hints.get(name), *get_args(hints.get(name))) if isinstance(kind, EnumType)
            ]
            if (
                kinds
                and value is not None
                and value not in {member.value for kind in kinds for member in kind}
            ):
                yield f"Grafana's schema knows no {name} {value!r}"
            yield from _unknown_words(value)


def _queries_faults(dashboard: Mapping[str, Any]) -> list[str]:
    """What promtool says of the queries, taken for rules."""
    queries = [target["expr"] for panel in dashboard.get("panels", []) for target in panel.get("targets", [])]
    rules = [
        {"record": f"query:{n}", "expr": query.replace("$__rate_interval", "1m")}
        for n, query in enumerate(queries)
    ]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "queries.yaml"
        path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
        return said_by_promtool("check", "rules", path)


PROVISIONED: dict[str, dict[str, Any]] = {
    "datasources": {
        "name": {"type": "string"},
        "uid": {"const": "prometheus"},
        "type": {"const": "prometheus"},
        "access": {"const": "proxy"},
        "url": {"const": "http://prometheus:9090"},
        "isDefault": {"type": "boolean"},
        "editable": {"type": "boolean"},
        "jsonData": {
            "properties": {"timeInterval": {"type": "string", "pattern": "^[0-9]+s$"}},
            "additionalProperties": False,
        },
    },
    "dashboards": {
        "name": {"type": "string"},
        "type": {"const": "file"},
        "allowUiUpdates": {"type": "boolean"},
        "options": {
            "properties": {"path": {"const": "/etc/grafana/dashboards"}},
            "additionalProperties": False,
            "required": ["path"],
        },
    },
}
"""Grafana publishes no schema of these files: what we use of its documentation, and nothing else."""


def provisioning_faults(text: str, kind: str) -> list[str]:
    """Faults of a file that tells Grafana of data sources or dashboards."""
    lists = {"datasources": "datasources", "dashboards": "providers"}[kind]
    properties = PROVISIONED[kind]
    schema = {
        "properties": {
            "apiVersion": {"const": 1},
            lists: {
                "type": "array",
                "minItems": 1,
                "items": {
                    "properties": properties,
                    "required": list(properties),
                    "additionalProperties": False,
                },
            },
        },
        "required": ["apiVersion", lists],
        "additionalProperties": False,
    }
    return [
        f"{error.json_path}: {error.message}"
        for error in jsonschema.Draft202012Validator(schema).iter_errors(yaml.safe_load(text))
    ]
