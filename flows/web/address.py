"""Where a service listens."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from crosstie.errors import BadInputError


@dataclass(frozen=True, slots=True)
class Address:
    """Host and port of this machine."""

    host: str
    port: int
    """0: any free one, which is then said."""

    def __str__(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def bind(address: Address) -> tuple[socket.socket, Address]:
    """Take an address; the socket, and the address with the port that it got.

    Raises
    ------
    BadInputError : it is taken, or none of this machine's
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        bound = socket.create_server((address.host, address.port), family=family, backlog=256)
    except OSError as problem:
        raise BadInputError(
            f"cannot listen on {address} ({problem.strerror}); give another --host or --port"
        ) from None
    return bound, Address(address.host, bound.getsockname()[1])
