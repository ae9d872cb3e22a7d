"""The address on which a service listens."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from crosstie.errors import BadInputError

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
"""Names of this machine that only its own programs reach it by."""


@dataclass(frozen=True, slots=True)
class Address:
    """Host and port of this machine."""

    host: str
    port: int
    """0: any free one."""

    def __str__(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def bind(address: Address) -> tuple[socket.socket, Address]:
    """Listen on an address.

    Returns
    -------
    socket.socket
        Listening.
    Address
        With the port that was taken.

    Raises
    ------
    BadInputError
        The address is in use, or is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        bound = socket.create_server((address.host, address.port), family=family, backlog=256)
    except OSError as problem:
        raise BadInputError(
            f"cannot listen on {address} ({problem.strerror}); give another --host or --port"
        ) from None
    return bound, Address(address.host, bound.getsockname()[1])
