"""A compose file as an engine reads it: variables put in, references followed, nothing left out unsaid."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]

VARIABLE = re.compile(
    r"\$(?:\$|(?P<plain>[A-Za-z_]\w*)|\{(?P<name>\w+)(?:(?P<how>:?[-?])(?P<rest>[^}]*))?\})"
)

NOT_DONE = {
    "logging": "every process writes to a file",
    "mem_limit": "no memory is kept from a process",
    "pull_policy": "no image is pulled",
    "shm_size": "/dev/shm is the machine's",
    "stop_grace_period": "all have the same time to stop",
}
"""Keys of a service that its processes do without, and why; any other one that is not known is an error."""

DONE = {
    "cap_add", "cap_drop", "command", "configs", "depends_on", "deploy", "entrypoint", "environment",
    "healthcheck", "image", "networks", "ports", "profiles", "read_only", "restart", "secrets",
    "security_opt", "tmpfs", "user", "volumes",
}  # fmt: skip


class ComposeError(ValueError):
    """The file asks for what is not there, or not known."""


@dataclass(frozen=True, slots=True)
class Mount:
    """What a process finds at a path."""

    target: str
    source: str | None
    """A path of this machine; None: an empty place in memory."""
    read_only: bool = False
    options: str = ""
    """Of a place in memory: mode=…,uid=…,gid=…"""


@dataclass(frozen=True, slots=True)
class Check:
    """How a service is asked whether it is well."""

    command: tuple[str, ...]
    interval_s: float
    timeout_s: float
    retries: int
    start_period_s: float
    start_interval_s: float


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a service that this machine offers as its own."""

    host: str
    published: int
    target: int


@dataclass(frozen=True, slots=True)
class Service:
    """One service, as it is to be started."""

    name: str
    image: str
    entrypoint: tuple[str, ...] | None
    """None: the image's own."""
    command: tuple[str, ...]
    environment: Mapping[str, str]
    user: str | None
    """uid:gid; None: the image's own."""
    mounts: tuple[Mount, ...]
    networks: tuple[str, ...]
    ports: tuple[Port, ...]
    needs: Mapping[str, str]
    """Condition by service: service_started, service_healthy or service_completed_successfully."""
    check: Check | None
    restart: str
    replicas: int
    read_only: bool
    dropped: tuple[str, ...]
    added: tuple[str, ...]
    """Capabilities, in capitals and without CAP_."""
    no_new_privileges: bool


def read_compose(
    path: Path, variables: Mapping[str, str], *, volumes: Path, profiles: frozenset[str] = frozenset()
) -> dict[str, Service]:
    """Services of a compose file that the profiles start, by name, in the file's order.

    Parameters
    ----------
    variables : what `.env` and the environment say
    volumes : folder in which named volumes are kept

    Raises
    ------
    ComposeError : a variable that is asked for is not set; a name that nothing has; a key that is not known
    """
    tree = interpolated(yaml.safe_load(path.read_text(encoding="utf-8")), variables)
    reader = _Reader(tree, path.parent.resolve(), volumes)
    wanted = {
        name: service
        for name, service in tree["services"].items()
        if not service.get("profiles") or profiles & set(service["profiles"])
    }
    found = {name: reader.service(name, service) for name, service in wanted.items()}
    for service in found.values():
        for other in service.needs:
            if other not in found:
                raise ComposeError(f"service {service.name} depends on {other!r}, which is not started")
    return found


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    """The same tree with its variables put in.

    Raises
    ------
    ComposeError : one has no value and no default
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
    raise ComposeError(f"{name} {found['rest'] or 'is not set'}")


@dataclass(frozen=True, slots=True)
class _Reader:
    tree: Json
    folder: Path
    """Of the compose file: relative paths begin there."""
    volumes: Path

    def service(self, name: str, given: Json) -> Service:
        unknown = sorted(given.keys() - DONE - NOT_DONE.keys())
        if unknown:
            raise ComposeError(f"service {name}: nothing here knows what {', '.join(unknown)} asks for")
        if isinstance(given["networks"], dict) and any(given["networks"].values()):
            raise ComposeError(f"service {name}: aliases and addresses in networks are not made here")
        options = [str(option).replace("=", ":") for option in given.get("security_opt", [])]
        if set(options) - {"no-new-privileges:true"}:
            raise ComposeError(f"service {name}: security_opt {options} is not known here")
        return Service(
            name=name,
            image=given["image"],
            entrypoint=_words(given["entrypoint"]) if "entrypoint" in given else None,
            command=_words(given.get("command", [])),
            environment={key: _text(value) for key, value in given.get("environment", {}).items()},
            user=given.get("user"),
            mounts=tuple(self._mounts(name, given)),
            networks=tuple(self._known("networks", network, name) for network in given["networks"]),
            ports=tuple(_port(text) for text in given.get("ports", [])),
            needs={other: how["condition"] for other, how in given.get("depends_on", {}).items()},
            check=_check(given["healthcheck"]) if "healthcheck" in given else None,
            restart=str(given.get("restart", "no")),
            replicas=int(given.get("deploy", {}).get("replicas", 1)),
            read_only=bool(given.get("read_only", False)),
            dropped=tuple(given.get("cap_drop", [])),
            added=tuple(given.get("cap_add", [])),
            no_new_privileges=bool(options),
        )

    def _mounts(self, name: str, given: Json) -> list[Mount]:
        found = []
        for text in given.get("tmpfs", []):
            target, options = _split(text, 2)
            found.append(Mount(target, None, options=options))
        for text in given.get("volumes", []):
            source, target, mode = _split(text, 3)
            if source.startswith(("/", ".")):
                place = (self.folder / source).resolve()
                if not place.exists():
                    raise ComposeError(f"service {name}: {place}, which is to be {target}, does not exist")
            else:
                place = self.volumes / self._known("volumes", source, name)
            found.append(Mount(target, str(place), read_only=mode == "ro"))
        for secret in given.get("secrets", []):
            source = self._file("secrets", secret, name)
            found.append(Mount(f"/run/secrets/{secret}", source, read_only=True))
        found.extend(
            Mount(config["target"], self._file("configs", config["source"], name), read_only=True)
            for config in given.get("configs", [])
        )
        return found

    def _file(self, kind: str, key: str, service: str) -> str:
        self._known(kind, key, service)
        path = (self.folder / self.tree[kind][key]["file"]).resolve()
        if not path.is_file():
            raise ComposeError(f"{kind} {key} of service {service}: there is no file {path}")
        return str(path)

    def _known(self, kind: str, key: str, service: str) -> str:
        if key not in self.tree.get(kind, {}):
            raise ComposeError(f"service {service}: there are no {kind} called {key!r}")
        return key


def _words(given: str | list[str]) -> tuple[str, ...]:
    return tuple(shlex.split(given) if isinstance(given, str) else map(str, given))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ComposeError(f"environment: {value!r} is no text; put it in quotes")
    return value


def _split(text: str, count: int) -> list[str]:
    parts = text.split(":", count - 1)
    return parts + [""] * (count - len(parts))


def _port(text: str) -> Port:
    host, published, target = text.split(":")
    return Port(host, int(published), int(target))


def _check(given: Json) -> Check:
    how, *command = given["test"]
    if how != "CMD":
        raise ComposeError(f"healthcheck: {how} is not known here; use CMD")
    return Check(
        command=tuple(command),
        interval_s=seconds(given["interval"]),
        timeout_s=seconds(given["timeout"]),
        retries=int(given["retries"]),
        start_period_s=seconds(given["start_period"]),
        start_interval_s=seconds(given["start_interval"]),
    )


def seconds(text: str) -> float:
    """`1m30s` in seconds."""
    found = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text)
    if not found or not text:
        raise ComposeError(f"{text!r} is no time; write 90s or 1m30s")
    return 60.0 * int(found[1] or 0) + float(found[2] or 0)
