"""What compose_box is told of a service, and how a command gets into a box that runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from ipaddress import IPv4Address
from pathlib import Path

from servers.compose_file import Service
from servers.compose_images import StandIn, seen

BOX = Path(__file__).with_name("compose_box.py")

ROOT_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETPCAP", "SETUID",
)  # fmt: skip
"""Of a service that drops none: of an engine's own set those that matter here."""


def write_plan(
    path: Path,
    name: str,
    service: Service,
    image: StandIn,
    *,
    addresses: Mapping[str, IPv4Address],
    gateway: IPv4Address,
) -> None:
    """Say what a box holds and starts; makes its volumes where they are new. No secret is in it."""
    place = path.with_suffix("")
    place.mkdir(parents=True, exist_ok=True)
    for mount in service.mounts:
        if mount.source is not None and not Path(mount.source).exists():
            Path(mount.source).mkdir(parents=True)
            os.chown(mount.source, *image.owned.get(mount.target, (0, 0)))
    entrypoint = service.entrypoint if service.entrypoint is not None else image.entrypoint
    uid, gid = (service.user or image.user).split(":")
    dropped = ROOT_CAPABILITIES if "ALL" in service.dropped else service.dropped
    own = "\n".join(f"{address} {name} {service.name}" for address in addresses.values())
    plan = {
        "hostname": name,
        "folder": str(place),
        "seen": seen(),
        "files": {target: str(here) for target, here in image.files.items()},
        "owned": image.owned,
        "texts": {
            "/etc/hosts": f"127.0.0.1 localhost\n{own}\n",
            "/etc/resolv.conf": f"nameserver {gateway}\n",
            "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
            "/etc/passwd": users(Path("/etc/passwd").read_text(encoding="utf-8")),
        },
        "mounts": [asdict(mount) for mount in service.mounts],
        "read_only": service.read_only,
        "uid": uid,
        "gid": gid,
        "capabilities": sorted({*ROOT_CAPABILITIES} - {*dropped} | {*service.added}),
        "no_new_privileges": service.no_new_privileges,
        "init": image.init,
        "workdir": image.workdir,
        "command": [*entrypoint, *(service.command or image.command)],
        "environment": {**image.environment, **service.environment},
    }
    path.write_text(json.dumps(plan, indent=1), encoding="utf-8")


def boxed(host: str, plan: Path) -> list[str]:
    """The command that starts a box in the network namespace called `host`."""
    new = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
    return ["ip", "netns", "exec", host, *new, sys.executable, "-I", str(BOX), str(plan)]


def users(passwd: str) -> str:
    """A file of users with that of the image."""
    return f"{passwd.rstrip()}\ncrosstie:x:10001:10001::/var/lib/crosstie:/usr/sbin/nologin\n"


def entering(pid: int, service: Service, image: StandIn, command: tuple[str, ...]) -> list[str]:
    """A command inside a service, as `exec` of an engine: its user, its declared environment, its network."""
    uid, gid = (service.user or image.user).split(":")
    environment = {**image.environment, **service.environment}
    return [
        "nsenter", f"--target={pid}", "--mount", "--pid", "--ipc", "--uts", "--net", "--",
        "env", "--ignore-environment", *(f"{name}={value}" for name, value in environment.items()),
        "setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--", *command,
    ]  # fmt: skip
