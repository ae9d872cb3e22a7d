"""What is wrong in a compose file: by its schema, within itself, by the programs that it names."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from deploy.compose_words import command_faults, environment_faults
from jsonschema.validators import validator_for

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLE = ROOT / "deploy" / "compose" / "env.example"

Json = dict[str, Any]

VARIABLE = re.compile(
    r"\$(?:\$|(?P<plain>[A-Za-z_]\w*)|\{(?P<name>\w+)(?:(?P<how>:?[-?])(?P<rest>[^}]*))?\})"
)

PORTS = {
    "postgres": {5432},
    "s3": {8333, 9327},
    "prefect-server": {4200},
    "deploy": set(),
    "prefect-worker": {8080, *range(9101, 9111)},
    "dask-scheduler": {8786, 8787},
    "dask-reader": {8788},
    "dask-matcher": {8788},
    "dask-matcher-gpu": {8788},
    "listener": {8090},
    "site": {8091},
    "prometheus": {9090},
    "grafana": {3000},
}
"""Services, and the ports at which each answers: as the tables of the documentation have them."""

PUBLISHED = {
    "s3": 8333, "prefect-server": 4200, "dask-scheduler": 8787, "listener": 8090, "site": 8091,
    "prometheus": 9090, "grafana": 3000,
}  # fmt: skip
"""What this machine offers as its own."""

IMAGES = {"postgres", "chrislusf/seaweedfs", "prom/prometheus", "grafana/grafana", "crosstie"}

PROFILES = {"dask-matcher-gpu": ["gpu"], "prometheus": ["monitoring"], "grafana": ["monitoring"]}

ENDS = {"deploy"}
"""Services that end by themselves."""

STORE_SCRIPTS = {"/etc/crosstie/s3-entrypoint.sh", "/etc/crosstie/s3-health.sh"}

HARDENED = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
}


def faults(text: str, folder: Path) -> list[str]:
    """Faults of the text of a compose file that lies in `folder`; empty where it is well."""
    variables = dict(example(EXAMPLE.read_text(encoding="utf-8")))
    raw = yaml.safe_load(text)
    tree = interpolated(raw, variables)
    found = [f"schema: {problem.json_path}: {problem.message}" for problem in schema().iter_errors(tree)]
    if found:  # the other checks take its form for granted
        return found
    found += variable_faults(raw, variables)
    found += anchor_faults(text)
    found += list(reference_faults(tree, folder))
    if tree["name"] != "crosstie":
        found.append(f"name {tree['name']!r}: volumes are called after it")
    aliased = {
        name: given["networks"]
        for name, given in tree["services"].items()
        if isinstance(given["networks"], dict)
    }
    if aliased != {"dask-matcher-gpu": {"work": {"aliases": ["dask-matcher"]}}}:
        found.append(f"networks: other names of services are {aliased}")
    if tree["networks"] != {"database": {"internal": True}, "work": {}, "reading": {}, "watching": {}}:
        found.append(f"networks are {tree['networks']}")
    if strange := sorted(tree["services"].keys() ^ PORTS.keys()):
        return [*found, f"services: {strange} are here alone, or in the documentation's tables alone"]
    for name, service in tree["services"].items():
        for fault in (
            *form_faults(name, service),
            *port_faults(name, service),
            *environment_faults(service),
            *command_faults(name, service),
        ):
            found.append(f"service {name}: {fault}")
    return found


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    """The same tree with its variables put in.

    Raises
    ------
    ValueError : one has no value and no default
    """
    if isinstance(value, dict):
        return {key: interpolated(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [interpolated(inner, variables) for inner in value]
    return VARIABLE.sub(lambda found: _value(found, variables), value) if isinstance(value, str) else value


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    name = found["name"] or found["plain"]
    if name is None:
        return "$"
    how, given = found["how"] or "", variables.get(name)
    if given is not None and not (given == "" and how.startswith(":")):
        return given
    if how.endswith("-"):
        return found["rest"]
    raise ValueError(f"{name} {found['rest'] or 'is not set'}")


@cache
def schema() -> Any:
    given = get_builtin_schema("vendor.compose-spec")
    return validator_for(given)(given)


def example(text: str) -> Iterator[tuple[str, str]]:
    """Variables of env.example and their values; a line that is commented out counts."""
    for line in text.splitlines():
        found = re.fullmatch(r"#?([A-Z][A-Z0-9_]*)=(\S*)", line.strip())
        if found:
            yield found[1], found[2]


def variable_faults(raw: Json, variables: Mapping[str, str]) -> list[str]:
    """Variables that one of compose.yaml and env.example has alone, or with another default."""
    used: set[tuple[str, str | None]] = set()
    for text in strings(raw):
        for match in VARIABLE.finditer(text):
            name = match["name"] or match["plain"]
            if name:
                used.add((name, match["rest"] if (match["how"] or "").endswith("-") else None))
    names = {name for name, _ in used}
    found = [f"variable {name} is not in env.example" for name in sorted(names - variables.keys())]
    found += [f"env.example: nothing uses {name}" for name in sorted(variables.keys() - names)]
    # a folder of the user's has an empty volume as its default
    defaults = {**variables, "CROSSTIE_SCENES": "scenes"}
    found += [
        f"variable {name}: the default is {default!r}, env.example says {defaults[name]!r}"
        for name, default in sorted(used, key=str)
        if default is not None and default != defaults.get(name, default)
    ]
    return found


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def anchor_faults(text: str) -> list[str]:
    """Anchors that nothing refers to, extensions that are not called as their anchors."""
    found = [
        f"anchor {name}: nothing refers to it"
        for name in re.findall(r"&([\w-]+)", text)
        if not re.search(rf"\*{name}\b(?!-)", text)
    ]
    pairs = re.findall(r"^x-([\w-]+): &([\w-]+)$", text, re.MULTILINE)
    return found + [f"x-{key}: its anchor is called {anchor}" for key, anchor in pairs if key != anchor]


def reference_faults(tree: Json, folder: Path) -> Iterator[str]:
    """Names that nothing has, and things that nothing names."""
    services = tree["services"]
    used: dict[str, set[str]] = {"networks": set(), "volumes": set(), "secrets": set()}
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            if other not in services:
                yield f"service {name}: depends on {other!r}, which is none"
            elif (how["condition"] == "service_completed_successfully") != (other in ENDS):
                yield f"service {name}: {other} does not meet {how['condition']}"
        used["networks"].update(service.get("networks", []))
        used["secrets"].update(service.get("secrets", []))
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                if not (folder / source).exists():
                    yield f"service {name}: there is no {source} beside the file"
            elif not source.startswith("/"):
                used["volumes"].add(source)
    used["volumes"].add("scenes")  # where CROSSTIE_SCENES names no folder
    for kind, names in used.items():
        for key in sorted(names - tree.get(kind, {}).keys()):
            yield f"{kind}: {key!r} is used, and not declared"
        for key in sorted(tree.get(kind, {}).keys() - names):
            yield f"{kind}: {key!r} is declared, and not used"
    for key, secret in tree["secrets"].items():
        if secret != {"file": f"./compose/secrets/{key}"}:
            yield f"secrets: {key}: must be a file of that name, is {secret}"


def form_faults(name: str, service: Json) -> Iterator[str]:
    """An image that is not pinned, a container that may do more than it needs."""
    repository, _, tag = service["image"].rpartition(":")
    if repository not in IMAGES:
        yield f"image {service['image']!r} is none of {', '.join(sorted(IMAGES))}"
    if not re.fullmatch(r"v?\d+\.\d+(\.\d+)?(-(cuda|bookworm))?", tag):
        yield f"image {service['image']!r} is not pinned to a version"
    if repository == "crosstie":
        version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        if tag.removesuffix("-cuda") != version or tag.endswith("-cuda") != name.endswith("-gpu"):
            yield f"image {service['image']!r} is not that of version {version}"
        if service.get("user") != "10001:10001" or service.get("pull_policy") != "never":
            yield "must run as 10001:10001, and its image be pulled from nowhere"
    for key, value in HARDENED.items():
        if service.get(key) != value:
            yield f"{key} must be {value}, is {service.get(key)}"
    if service.get("profiles", []) != PROFILES.get(name, []):
        yield f"profiles are {service.get('profiles')}"
    if not re.fullmatch(r"\d+[mg]", str(service.get("mem_limit"))):
        yield "has no mem_limit"
    if ("healthcheck" in service) == (name in ENDS):
        yield "has no healthcheck, or ends by itself and has one"
    if service.get("restart") != ("on-failure:5" if name in ENDS else "unless-stopped"):
        yield f"restart is {service.get('restart')!r}"
    logging = service.get("logging", {})
    if logging.get("driver") != "json-file" or logging.get("options", {}).keys() != {"max-size", "max-file"}:
        yield "its log may fill the disk"
    if not set(service.get("cap_add", [])) <= {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}:
        yield f"cap_add {service['cap_add']} is more than it needs"
    devices = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices")
    gpu = [{"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}]
    if devices != (gpu if name.endswith("-gpu") else None):
        yield f"devices are {devices}"
    for place in service.get("tmpfs", []):
        path, _, options = place.partition(":")
        if path not in {"/tmp", "/run/postgresql"}:
            yield f"tmpfs {path}: nothing writes there"
        for option in filter(None, options.split(",")):
            if not re.fullmatch(r"mode=[0-7]{4}", option):
                yield f"tmpfs {path}: {option!r} is no option of it"
    targets = [volume.split(":")[1] for volume in service.get("volumes", [])]
    for target in targets:
        if target not in {
            "/scenes", "/data", *STORE_SCRIPTS, "/var/lib/postgresql/data", "/prometheus",
            "/etc/prometheus", "/var/lib/grafana", "/etc/grafana/provisioning", "/etc/grafana/dashboards",
        }:  # fmt: skip
            yield f"volume {target}: nothing looks there"


def port_faults(name: str, service: Json) -> Iterator[str]:
    """Ports beside those of the table; names of services and their ports, wherever an address says them."""
    target = PUBLISHED.get(name)
    wanted = [f"127.0.0.1:{target}:{target}"] if target else []
    if service.get("ports", []) != wanted:
        yield f"ports must be {wanted}, are {service.get('ports', [])}"
    spoken = [*strings(service.get("command", [])), *strings(service.get("healthcheck", {}))]
    for text in [*spoken, *strings(service.get("environment", {}))]:
        for scheme, host, port in re.findall(r"\b(\w+)://([^/:]+):(\d+)", text):
            if scheme not in {"http", "tcp"}:
                yield f"{text}: {scheme} is spoken nowhere here"
            itself = host == "127.0.0.1"
            # the browser's address of Prefect is the published one
            owner = ("prefect-server" if port == "4200" else name) if itself else host
            if int(port) not in PORTS.get(owner, set()):
                yield f"{text}: {owner} does not answer there"
