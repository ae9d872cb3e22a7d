"""Connections that send nothing, or too slowly, make room for others: uvicorn has no limit for either.

A connection waits until its request has arrived up to the end of the headers, and again after each answer.
While it waits it has a time limit; and where too many wait, of one client or of all, the oldest is closed.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits for connections of one service."""

    header_s: float = 10.0
    """Longest time from the connection to the end of the headers, seconds."""
    idle_s: float = 15.0
    """Longest time between an answer and the next request on a connection, seconds."""
    stalled_s: float = 60.0
    """Longest time in which a client takes nothing of an answer, seconds."""
    waiting: int = 128
    """Number of connections that may wait at once."""
    waiting_each: int = 64
    """Number of connections of one client (its IP address) that may wait at once."""


@dataclass(slots=True)
class Waiting:
    """The connections of a service that wait for a request, oldest first."""

    limits: ConnectionLimits
    all: OrderedDict[QuickProtocol, None] = field(default_factory=OrderedDict)
    each: dict[str, OrderedDict[QuickProtocol, None]] = field(default_factory=dict)

    def add(self, connection: QuickProtocol) -> None:
        """Count a connection, and close the oldest if too many wait."""
        own = self.each.setdefault(connection.host, OrderedDict())
        self.all[connection] = own[connection] = None
        if len(own) > self.limits.waiting_each:
            next(iter(own)).give_up()
        elif len(self.all) > self.limits.waiting:
            next(iter(self.all)).give_up()

    def remove(self, connection: QuickProtocol) -> None:
        """Count a connection no more."""
        self.all.pop(connection, None)
        own = self.each.get(connection.host)
        if own is not None:
            own.pop(connection, None)
            if not own:
                del self.each[connection.host]


class QuickProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn, with limits for connections that wait."""

    waiting: Waiting
    """Of the service; set by `protocol_with`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.host = self.client[0] if self.client else ""
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._wait(self.waiting.limits.header_s)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._asked()

    def on_response_complete(self) -> None:
        if not self.transport.is_closing():
            self._wait(self.waiting.limits.idle_s)
        super().on_response_complete()  # may begin with a request that has come already
        if self.cycle is not None and not self.cycle.response_complete:
            self._asked()

    def connection_lost(self, exc: Exception | None) -> None:
        self._asked()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.waiting.limits.stalled_s, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def give_up(self) -> None:
        """Close the connection at once, without an answer."""
        self._asked()
        self.transport.abort()

    def _wait(self, seconds: float) -> None:
        self._asked()
        self._timer = self.loop.call_later(seconds, self.give_up)
        self.waiting.add(self)

    def _asked(self) -> None:
        """A request has come, or the connection is gone: it waits no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.waiting.remove(self)


def protocol_with(limits: ConnectionLimits) -> type[asyncio.Protocol]:
    """Make the protocol of one service, whose connections count together."""
    members: dict[str, Any] = {"waiting": Waiting(limits)}
    return type("ServiceProtocol", (QuickProtocol,), members)
