"""Starts and keeps the processes of a compose file, as root: `python -m servers.compose_engine FOLDER`.

It begins with what the services wait for, asks each after its health, starts again what ends, as the file
says, and writes how they are to `state.json` in the folder, until it is told to stop. `servers.compose` has
written the plan there, and reads the state.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import psutil

from servers.compose_file import Check, Mount, Port, Service
from servers.compose_images import StandIn, stand_in
from servers.compose_network import (
    NameServer,
    addresses_of,
    attach,
    leave_networks,
    make_bridges,
    publish,
)
from servers.compose_plan import boxed, entering, write_plan

STOP_S = 10.0
"""How long a service may take to stop."""

AGAIN_S = 1.0
"""Wait before a service that has ended is started again."""

Json = dict[str, Any]


@dataclass(slots=True)
class Instance:
    """One process tree: a service, or one of its replicas."""

    name: str
    service: Service
    image: StandIn
    addresses: Mapping[str, IPv4Address]
    state: str = "waiting"
    """waiting, running, healthy, unhealthy, ended"""
    pid: int | None = None
    """First process, as this machine counts."""
    code: int | None = None
    """With which it ended last."""
    starts: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    services = [service_of(given) for given in json.loads((folder / "plan.json").read_text())]
    listening = {
        (service.name, port.target): socket.create_server((port.host, port.published))
        for service in services
        for port in service.ports
    }
    leave_networks()
    asyncio.run(Engine(folder, services).run(listening))


def service_of(given: Json) -> Service:
    """What `asdict` has made of a service, from JSON."""
    check = given["check"]
    return Service(
        **{
            **given,
            "mounts": tuple(Mount(**mount) for mount in given["mounts"]),
            "ports": tuple(Port(**port) for port in given["ports"]),
            "check": check and Check(**{**check, "command": tuple(check["command"])}),
        }
    )


class Engine:
    def __init__(self, folder: Path, services: list[Service]) -> None:
        self._folder = folder
        networks = tuple(dict.fromkeys(net for service in services for net in service.networks))
        self._bridges = make_bridges(networks)
        self.instances: dict[str, Instance] = {}
        for service in services:
            for n in range(service.replicas):
                name = f"{service.name}-{n + 1}"
                bridges = [self._bridges[net] for net in service.networks]
                addresses = attach(name, len(self.instances), bridges)
                self.instances[name] = Instance(name, service, stand_in(service.image), addresses)

    async def run(self, listening: Mapping[tuple[str, int], socket.socket]) -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        await loop.create_datagram_endpoint(
            lambda: NameServer(self._lookup), local_addr=("0.0.0.0", 53), family=socket.AF_INET
        )
        for (service, port), sock in listening.items():
            first = self._of(service)[0]
            await publish(sock, next(iter(first.addresses.values())), port)
        self._write()
        keepers = [asyncio.create_task(self._keep(instance)) for instance in self.instances.values()]
        waiting = asyncio.create_task(stopped.wait())
        # a keeper ends by a fault of this program alone: for all to see
        await asyncio.wait([waiting, *keepers], return_when=asyncio.FIRST_COMPLETED)
        for keeper in keepers:
            keeper.cancel()
        results = await asyncio.gather(*keepers, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _of(self, service: str) -> list[Instance]:
        return [instance for instance in self.instances.values() if instance.service.name == service]

    def _lookup(self, name: str, asking: str) -> list[IPv4Address] | None:
        hosts = {instance.name: instance.addresses for instance in self.instances.values()}
        services: dict[str, list[str]] = {}
        for instance in self.instances.values():
            services.setdefault(instance.service.name, []).append(instance.name)
        return addresses_of(name, asking, hosts, services)

    async def _keep(self, instance: Instance) -> None:
        """Start it when what it needs is there, and again, as its policy says."""
        for service, condition in instance.service.needs.items():
            for other in self._of(service):
                await self._until(other, condition)
        policy, _, most = instance.service.restart.partition(":")
        while True:
            instance.code = await self._run_once(instance)
            again = policy in {"always", "unless-stopped"} or (
                policy == "on-failure" and instance.code != 0 and instance.starts <= int(most or 10**9)
            )
            if not again:
                await asyncio.Event().wait()
            await asyncio.sleep(AGAIN_S)

    async def _until(self, other: Instance, condition: str) -> None:
        met = {
            "service_started": lambda: other.starts > 0,
            "service_healthy": lambda: other.state == "healthy",
            "service_completed_successfully": lambda: other.state == "ended" and other.code == 0,
        }[condition]
        while not met():
            other.changed.clear()
            await other.changed.wait()

    async def _run_once(self, instance: Instance) -> int:
        plan = self._folder / "boxes" / f"{instance.name}.json"
        gateway = self._bridges[instance.service.networks[0]].gateway
        write_plan(
            plan,
            instance.name,
            instance.service,
            instance.image,
            addresses=instance.addresses,
            gateway=gateway,
        )
        with (self._folder / f"{instance.name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *boxed(instance.name, plan), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        instance.starts += 1
        self._tell(instance, "running", pid=None)
        asking = asyncio.create_task(self._ask(instance, process.pid))
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await _stop(process)
            raise
        finally:
            asking.cancel()
        self._tell(instance, "ended", code=code)
        return code

    async def _ask(self, instance: Instance, guard: int) -> None:
        """Ask a service after its health, often until it is well, then as the file says."""
        while (pid := _first_process(guard)) is None:
            await asyncio.sleep(0.05)
        self._tell(instance, instance.state, pid=pid)
        check = instance.service.check
        if check is None:
            return
        begun, failures = time.monotonic(), 0
        while True:
            well = instance.state == "healthy"
            starting = not well and time.monotonic() - begun < check.start_period_s
            await asyncio.sleep(check.start_interval_s if starting else check.interval_s)
            code = await _within(
                entering(pid, instance.service, instance.image, check.command), check.timeout_s
            )
            failures = 0 if code == 0 else failures + (not starting)
            if code == 0 and not well:
                self._tell(instance, "healthy")
            elif failures >= check.retries:
                self._tell(instance, "unhealthy")

    def _tell(self, instance: Instance, state: str, **news: int | None) -> None:
        instance.state = state
        for name, value in news.items():
            setattr(instance, name, value)
        instance.changed.set()
        self._write()

    def _write(self) -> None:
        known = {
            instance.name: {
                "service": instance.service.name,
                "state": instance.state,
                "pid": instance.pid,
                "code": instance.code,
                "starts": instance.starts,
                "addresses": {net: str(address) for net, address in instance.addresses.items()},
            }
            for instance in self.instances.values()
        }
        new = self._folder / "state.new"
        new.write_text(json.dumps(known, indent=1), encoding="utf-8")
        new.replace(self._folder / "state.json")


async def _within(command: list[str], timeout_s: float) -> int:
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        return await asyncio.wait_for(process.wait(), timeout_s)
    except (TimeoutError, asyncio.CancelledError) as problem:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        if isinstance(problem, asyncio.CancelledError):
            raise
        return 1


def _first_process(guard: int) -> int | None:
    """The process that `unshare` has started: number 1 of its namespace."""
    try:
        children = psutil.Process(guard).children()
    except psutil.NoSuchProcess:
        return None
    return children[0].pid if children else None


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Ask the first process of a service to end, and kill all of them when it has had its time."""
    first = _first_process(process.pid)
    if first is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(first, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


if __name__ == "__main__":
    main()
