"""Networks of a compose file: a bridge each, addresses of services, a name server, published ports."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import cast

ADDRESSES = IPv4Network("192.0.2.0/24")
"""Kept for documents (RFC 5737): no machine has them, and they are seen inside these namespaces alone."""

SUBNET_BITS = 27
"""Thirty machines a network."""

NEW_NETWORK, NEW_MOUNTS = 0x40000000, 0x00020000
"""Of Linux's unshare(2)."""

NAMESPACES = "/run/netns"
"""Where `ip netns` keeps its names."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """One network: a switch, and the host that its services call their gateway."""

    name: str
    device: str
    subnet: IPv4Network

    @property
    def gateway(self) -> IPv4Address:
        return self.subnet[1]


def leave_networks() -> None:
    """Give this process, and what it starts, network devices and mounts of its own.

    Raises
    ------
    OSError : it may not
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_NETWORK | NEW_MOUNTS) != 0:
        raise OSError(ctypes.get_errno(), "no namespaces of its own")
    private, recursive = 1 << 18, 16384
    Path(NAMESPACES).mkdir(parents=True, exist_ok=True)
    for source, target, kind, flags in (
        (b"none", b"/", b"none", private | recursive),
        (b"tmpfs", NAMESPACES.encode(), b"tmpfs", 0),
    ):
        if libc.mount(source, target, kind, ctypes.c_ulong(flags), b"") != 0:
            raise OSError(ctypes.get_errno(), "mount", target.decode())


def make_bridges(names: tuple[str, ...]) -> dict[str, Bridge]:
    subnets = list(ADDRESSES.subnets(new_prefix=SUBNET_BITS))
    bridges = {name: Bridge(name, f"net{n}", subnets[n]) for n, name in enumerate(names)}
    lines = ["link set lo up"]
    for bridge in bridges.values():
        lines += [
            f"link add name {bridge.device} type bridge",
            f"addr add {bridge.gateway}/{SUBNET_BITS} dev {bridge.device}",
            f"link set {bridge.device} up",
        ]
    _ip(lines)
    return bridges


def attach(host: str, number: int, bridges: list[Bridge]) -> dict[str, IPv4Address]:
    """Make a network namespace called `host` with one device in each network; its address by network.

    Parameters
    ----------
    number : of the host, from 0; none else has it
    """
    addresses = {bridge.name: bridge.subnet[2 + number] for bridge in bridges}
    _ip([f"netns add {host}"])
    outside, inside = [], ["link set lo up"]
    for n, bridge in enumerate(bridges):
        device = f"v{number}x{n}"
        outside += [
            f"link add name {device} type veth peer name eth{n} netns {host}",
            f"link set {device} master {bridge.device} up",
        ]
        inside += [f"addr add {addresses[bridge.name]}/{SUBNET_BITS} dev eth{n}", f"link set eth{n} up"]
    inside.append(f"route add default via {bridges[0].gateway}")
    _ip(outside)
    _ip(inside, "-netns", host)
    return addresses


def _ip(lines: list[str], *options: str) -> None:
    subprocess.run(
        ["ip", *options, "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True, timeout=30
    )


class NameServer(asyncio.DatagramProtocol):
    """Answers with the addresses of services, as the asking one sees them: RFC 1035, type A alone."""

    def __init__(self, lookup: Callable[[str, str], list[IPv4Address] | None]) -> None:
        self._lookup = lookup
        """Name, and address of who asks -> addresses; None where there is no such name."""
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        with contextlib.suppress(struct.error, IndexError, UnicodeDecodeError):  # no question at all
            self._transport.sendto(answered(data, lambda name: self._lookup(name, addr[0])), addr)


def answered(question: bytes, lookup: Callable[[str], list[IPv4Address] | None]) -> bytes:
    """The reply to a question of one name."""
    (identity,) = struct.unpack_from(">H", question)
    labels, at = [], 12
    while size := question[at]:
        labels.append(question[at + 1 : at + 1 + size].decode("ascii"))
        at += 1 + size
    kind, _ = struct.unpack_from(">HH", question, at + 1)
    found = lookup(".".join(labels).lower())
    a_record = 1
    addresses = found if found and kind == a_record else []
    no_such_name = 3 if found is None else 0
    header = struct.pack(">HHHHHH", identity, 0x8580 | no_such_name, 1, len(addresses), 0, 0)
    records = [struct.pack(">HHHIH4s", 0xC00C, a_record, 1, 1, 4, address.packed) for address in addresses]
    return header + question[12 : at + 5] + b"".join(records)


async def publish(listening: socket.socket, host: IPv4Address, port: int) -> asyncio.Server:
    """Lead connections of a socket of this machine to a service."""

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(str(host), port)
        except OSError:  # nobody listens there yet
            writer.close()
            return
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        far_writer.close()
        writer.close()

    return await asyncio.start_server(lead, sock=listening)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


def addresses_of(
    name: str, asking: str, hosts: Mapping[str, Mapping[str, IPv4Address]], services: Mapping[str, list[str]]
) -> list[IPv4Address] | None:
    """Addresses of a service in the networks that it shares with who asks; None where there are none.

    Parameters
    ----------
    hosts : addresses of each host by network
    services : hosts of each service
    """
    mine = next(
        (set(nets) for nets in hosts.values() if asking in map(str, nets.values())),
        set(),
    )
    found = services.get(name, [name])
    return [a for host in found for net, a in hosts.get(host, {}).items() if net in mine] or None
