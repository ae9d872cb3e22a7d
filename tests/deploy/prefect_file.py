"""What is wrong in a prefect.yaml: keys that Prefect reads over without a word, values that fit no flow."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from prefect.cli.deploy._models import (
    ConcurrencyLimitSpec,
    DeploymentConfig,
    PrefectYamlModel,
    RawScheduleConfig,
    WorkPoolConfig,
)
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger
from prefect.utilities.importtools import import_object
from pydantic import BaseModel, ValidationError

ANCHORS = "definitions"
"""Top-level key that holds nothing but YAML anchors."""

VARIABLE = re.compile(r"\{\{ \$(\w+) \}\}")

PLACES = {"CROSSTIE_CATALOG_URL", "CROSSTIE_PRODUCTS_URL"}
"""Variables that whoever deploys sets."""


def faults(text: str) -> list[str]:
    """Faults of the text of a prefect.yaml; empty where it is well. Asks no server."""
    tree = yaml.safe_load(text)
    found = list(_strange(tree, PrefectYamlModel, "", but={ANCHORS}))
    for step in tree.get("build") or []:
        found += [f"build: there is no step {name!r}" for name in step if not _is_there(name)]
    found += [
        f"variable {name} is none of {sorted(PLACES)}"
        for name in VARIABLE.findall(text)
        if name not in PLACES
    ]
    for declared in tree.get("deployments") or []:
        found += _faults_of(declared)
    return found


def _faults_of(declared: Mapping[str, Any]) -> Iterator[str]:
    name = str(declared.get("name"))
    yield from _strange(declared, DeploymentConfig, name)
    yield from _strange(declared.get("work_pool", {}), WorkPoolConfig, f"{name}: work_pool")
    limit = declared.get("concurrency_limit", {})
    yield from _strange(limit, ConcurrencyLimitSpec, f"{name}: concurrency_limit")
    if limit.get("collision_strategy") not in {strategy.value for strategy in ConcurrencyLimitStrategy}:
        yield f"{name}: concurrency_limit: collision_strategy {limit.get('collision_strategy')!r} is none"
    for schedule in declared.get("schedules", ()):
        yield from _strange(schedule, RawScheduleConfig, f"{name}: schedules")
        try:
            CronSchedule(cron=schedule.get("cron"), timezone=schedule.get("timezone"))
        except ValidationError as problem:
            yield f"{name}: schedules: {problem}"
    for trigger in declared.get("triggers", ()):
        yield from _strange(trigger, DeploymentEventTrigger, f"{name}: triggers", but={"type"})
    yield from _misfits(name, declared)


def _strange(
    tree: Mapping[str, Any], model: type[BaseModel], where: str, but: frozenset[str] | set[str] = frozenset()
) -> Iterator[str]:
    """Keys that the model does not know: Prefect reads over them."""
    known = {field.alias or key for key, field in model.model_fields.items()} | but
    for key in tree:
        if key not in known:
            yield f"{where}: there is no {key!r}; there are {', '.join(sorted(known))}".lstrip(": ")


def _misfits(name: str, declared: Mapping[str, Any]) -> Iterator[str]:
    """What the flow does not take, or misses."""
    module, _, function = str(declared.get("entrypoint")).partition(":")
    try:
        flow = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as problem:
        yield f"{name}: entrypoint {declared.get('entrypoint')!r}: {problem}"
        return
    if flow.name != f"crosstie-{name}":
        yield f"{name}: its flow is called {flow.name}, not crosstie-{name}"
    signature = inspect.signature(flow.fn)
    given = set(declared.get("parameters", {}))
    for trigger in declared.get("triggers", ()):
        given |= set(trigger.get("parameters", {}))
    for parameter in sorted(given - set(signature.parameters)):
        yield f"{name}: its flow takes no {parameter!r}; it takes {', '.join(signature.parameters)}"
    needed = {key for key, about in signature.parameters.items() if about.default is inspect.Parameter.empty}
    # Of a scene, the listener says which: no parameter stands for it here.
    for parameter in sorted(needed - given):
        yield f"{name}: its flow needs {parameter!r}"


def _is_there(step: str) -> bool:
    try:
        import_object(step)
    except (ImportError, AttributeError):
        return False
    return True
