"""Who works on a pair: a claim in the store, so that of runs that race for a pair one does the work.

`<pair_key>/<run_key>/_CLAIM.<n>` says until when its owner is to be left alone; the owner renews it as long
as it lives. Where it has run out, or its owner is seen to be dead, `_CLAIM.<n + 1>` may be created: whoever
creates it is the next owner, and an earlier one that finds it has lost the pair. Any store that creates an
object once will do. `_COMMIT` alone says what is done; readers need not know of claims.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from crosstie.errors import CrosstieError, StoreError

if TYPE_CHECKING:
    from crosstie.io.storage.store import Store

CLAIM = "_CLAIM."

BEATS = 3
"""Renewals in the time that a claim holds: two may fail before it runs out."""

PATIENCE_S = 30
"""Longest wait for a renewal under way, seconds: the store's own patience."""

_PROCESSES = Path("/proc")


class ClaimLostError(CrosstieError):
    """The claim ran out, and another run may have taken the pair over: nothing more is to be written."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process as another one on the same machine can look it up."""

    host: str
    """Machine, its start and its list of processes: only there the number means this process."""
    pid: int
    started: str
    """In ticks since the machine started: numbers are given out again. Empty where that is not known."""

    @classmethod
    def current(cls) -> Self:
        pid = os.getpid()
        return cls(_host(), pid, _start_of(pid) or "")

    @property
    def is_dead(self) -> bool:
        """Whether it is sure to have ended; of another machine's processes nothing is sure."""
        return bool(self.started) and self.host == _host() and _start_of(self.pid) != self.started


@dataclass(frozen=True, slots=True)
class Held:
    """A claim of another run."""

    owner: str
    expires_utc: datetime


class Claim:
    """A pair that is ours. As a context it renews itself in a thread, and is given back at the end."""

    def __init__(self, store: Store, prefix: str, number: int, *, lease_s: float) -> None:
        self._store = store
        self._prefix = prefix
        self._number = number
        self._lease = timedelta(seconds=lease_s)
        self._process = Process.current()
        self._owner = f"{self._process.host}:{self._process.pid}:{uuid.uuid4().hex[:12]}"
        self._expires_utc = datetime.now(UTC) + self._lease
        self._taken = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"claim {prefix}", daemon=True)

    @property
    def key(self) -> str:
        return f"{self._prefix}/{CLAIM}{self._number}"

    @property
    def expires_utc(self) -> datetime:
        """When it runs out, unless it is renewed."""
        return self._expires_utc

    @property
    def lost(self) -> bool:
        """Whether somebody else may work on the pair by now."""
        return self._taken or datetime.now(UTC) >= self._expires_utc

    def check(self) -> None:
        """Do nothing as long as the pair is ours.

        Raises
        ------
        ClaimLostError : it is not any more
        """
        if self.lost:
            raise ClaimLostError(f"{self._store.url_of(self._prefix)}: another run has taken this pair over")

    def create(self) -> bool:
        """Write the claim; False where somebody else was faster.

        Raises
        ------
        StoreError : the store cannot be written
        """
        return self._store.create(self.key, self._body())

    def renew(self) -> None:
        """Say that the owner lives, unless the pair is another's by now.

        Raises
        ------
        StoreError : the store cannot be reached; the claim still holds until it runs out
        """
        # Looked at first: one that slept too long must not write over its successor's claim.
        if self.lost or _owner_of(self._store.get(self.key)) != self._owner:
            self._taken = True
            return
        later = datetime.now(UTC) + self._lease
        self._store.put(self.key, self._body(later))
        # Looked at last: who takes over creates first and looks afterwards.
        self._taken = max(_numbers(self._store, self._prefix), default=0) > self._number
        self._expires_utc = later

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(PATIENCE_S)  # or a late renewal would write what is deleted here
        if self.lost:
            return
        with suppress(StoreError):  # what cannot be deleted runs out
            for number in range(self._number, 0, -1):
                self._store.delete(f"{self._prefix}/{CLAIM}{number}")

    def _beat(self) -> None:
        while not self._over.wait(self._lease.total_seconds() / BEATS) and not self.lost:
            try:
                self.renew()
            except StoreError:
                continue  # tried again at the next beat; `lost` knows when it is too late

    def _body(self, expires_utc: datetime | None = None) -> bytes:
        return json.dumps(
            {
                "owner": self._owner,
                "expires_utc": (expires_utc or self._expires_utc).isoformat(),
                "host": self._process.host,
                "pid": self._process.pid,
                "started": self._process.started,
            }
        ).encode()


def take(store: Store, prefix: str, *, lease_s: float) -> Claim | Held:
    """Claim the run of a pair, or say who holds it.

    Parameters
    ----------
    prefix : `<pair_key>/<run_key>`
    lease_s : how long the claim holds without being renewed, seconds

    Raises
    ------
    StoreError : the store cannot be read or written
    """
    number = 1
    while True:
        claim = Claim(store, prefix, number, lease_s=lease_s)
        if claim.create():
            return claim
        number = max(_numbers(store, prefix), default=0)
        body = store.get(f"{prefix}/{CLAIM}{number}") if number else None
        if body is None:
            number = 1  # given back this moment
            continue
        held = _alive(body)
        if held is not None:
            return held
        number += 1


def standing_claim(store: Store, prefix: str) -> Held | None:
    """Who works on the run of a pair now; None where nobody does.

    Raises
    ------
    StoreError : the store cannot be read
    """
    number = max(_numbers(store, prefix), default=0)
    body = store.get(f"{prefix}/{CLAIM}{number}") if number else None
    return None if body is None else _alive(body)


def _numbers(store: Store, prefix: str) -> list[int]:
    names = (key.rpartition("/")[2] for key in store.list(prefix))
    return [
        int(name[len(CLAIM) :]) for name in names if name.startswith(CLAIM) and name[len(CLAIM) :].isdigit()
    ]


def _owner_of(body: bytes | None) -> str | None:
    owner = _read(body or b"").get("owner")
    return owner if isinstance(owner, str) else None


def _alive(body: bytes) -> Held | None:
    """The claim, where it still holds and its owner is not seen to be dead."""
    said = _read(body)
    try:
        expires = datetime.fromisoformat(said["expires_utc"])
        process = Process(str(said.get("host", "")), int(said.get("pid", 0)), str(said.get("started", "")))
        held = Held(str(said["owner"]), expires)
        over = expires <= datetime.now(UTC)
    except (KeyError, TypeError, ValueError):
        return None  # not ours to understand, so it protects nobody
    return None if over or process.is_dead else held


def _read(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


@cache
def _host() -> str:
    """Name of the machine, with what tells a restart and a container's own list of processes from others."""
    parts = [socket.gethostname()]
    boot = _PROCESSES / "sys/kernel/random/boot_id"
    if boot.exists():
        parts += [boot.read_text().strip()[:8], str((_PROCESSES / "self/ns/pid").readlink())]
    return "/".join(parts)


def _start_of(pid: int) -> str | None:
    """When a process started, in ticks; None where it has ended, or where the system does not say."""
    try:
        fields = (_PROCESSES / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, started = fields[0], fields[19]  # proc(5): fields 3 and 22
    return None if state in "ZX" else started
