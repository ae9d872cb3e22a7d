"""Who works on a pair: a claim in the store makes sure that one of several runs does the work.

`<pair_key>/<run_key>/_CLAIM.<n>` says how long it holds; its owner renews it while it works. When it has
expired, or its owner is known to be dead, any run may create `_CLAIM.<n + 1>`. The run that creates it is the
next owner; the earlier owner has lost the pair as soon as it finds it. This works in every store that can
create an object only once. `_COMMIT` alone says what is done, so readers need not know about claims.

Clocks of other machines may be wrong. A claim that would hold for longer than two leases is ignored, and an
owner knows by a clock that nobody sets how long its own claim holds. Where clocks differ so much that two
runs work on one pair, work is done twice, and nothing worse: see `storage.publication`.
"""

from __future__ import annotations

import json
import math
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from crosstie.errors import CrosstieError, StoreError
from crosstie.io.storage.root_layout import product_file

if TYPE_CHECKING:
    from crosstie.io.storage.root_layout import ProductKey
    from crosstie.io.storage.store import Store

RENEWALS_PER_LEASE = 3
"""Renewals in the time that a claim holds: two may fail before it expires."""

LONGEST_LEASE_S = 86_400.0
"""The longest lease that the settings allow, seconds: believed where nobody knows the lease of a claim."""

LEASES_BELIEVED = 2
"""A claim may expire so many leases from now, at most: one, and as much again for a clock that is ahead."""

PATIENCE_S = 30
"""Longest wait for a renewal that is under way, seconds: as long as the store itself waits."""

_PROCESSES = Path("/proc")


class ClaimLostError(CrosstieError):
    """The claim has expired, and another run may have taken the pair over: write nothing more."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process, in terms that another process on the same machine can check."""

    host: str
    """Machine, its boot and its process namespace: the number means this process only there."""
    pid: int
    started: str
    """Clock ticks since the machine started, because process numbers are reused. Empty where unknown."""

    @classmethod
    def current(cls) -> Self:
        pid = os.getpid()
        return cls(_host(), pid, _start_of(pid) or "")

    @property
    def is_dead(self) -> bool:
        """Whether it has certainly ended; nothing is certain about a process of another machine."""
        return bool(self.started) and self.host == _host() and _start_of(self.pid) != self.started


@dataclass(frozen=True, slots=True)
class ClaimRecord:
    """What a claim file says."""

    owner: str
    expires_utc: datetime
    process: Process
    lease_s: float = 0.0
    """Lease of the owner, seconds; 0 where an earlier version does not say."""

    @classmethod
    def parse(cls, body: bytes) -> Self | None:
        """Read a claim file; None where it makes no sense, and then it protects nobody."""
        try:
            said = dict(json.loads(body))
            expires = datetime.fromisoformat(said["expires_utc"])
            process = Process(
                str(said.get("host", "")), int(said.get("pid", 0)), str(said.get("started", ""))
            )
            owner = str(said["owner"])
            lease_s = float(said.get("lease_s", 0.0))
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
            return None
        if expires.tzinfo is None or not math.isfinite(lease_s):
            return None
        try:
            return cls(owner, expires.astimezone(UTC), process, lease_s)
        except OverflowError:  # in the year 1 or 9999, where no other zone has a date for it
            return None

    def encode(self) -> bytes:
        """Write it as `parse` reads it."""
        return json.dumps(
            {
                "owner": self.owner,
                "expires_utc": self.expires_utc.isoformat(),
                "lease_s": self.lease_s,
                "host": self.process.host,
                "pid": self.process.pid,
                "started": self.process.started,
            }
        ).encode()

    def holds(self, *, lease_s: float = LONGEST_LEASE_S) -> bool:
        """Whether it has not expired, can be believed, and its owner is not known to be dead.

        Parameters
        ----------
        lease_s : float, optional
            Lease of whoever asks, seconds.
        """
        left_s = (self.expires_utc - datetime.now(UTC)).total_seconds()
        believed_s = LEASES_BELIEVED * max(lease_s, min(self.lease_s, LONGEST_LEASE_S))
        return 0 < left_s <= believed_s and not self.process.is_dead


@dataclass(frozen=True, slots=True)
class Held:
    """A live claim of another run."""

    owner: str
    expires_utc: datetime


class Claim:
    """Our claim on a run of a pair. As a context it renews itself in a thread, and is deleted at the end."""

    def __init__(self, store: Store, product: ProductKey, number: int, *, lease_s: float) -> None:
        self._store = store
        self._product = product
        self._number = number
        self._lease = timedelta(seconds=lease_s)
        self._process = Process.current()
        self._owner = f"{self._process.host}:{self._process.pid}:{uuid.uuid4().hex[:12]}"
        self._expires_utc = datetime.now(UTC) + self._lease
        self._ends_s = time.monotonic() + lease_s
        self._taken = False
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=self._renew_until_over, name=f"claim {product.prefix}", daemon=True
        )

    @property
    def key(self) -> str:
        return self._product.claim(self._number)

    @property
    def expires_utc(self) -> datetime:
        """When it expires, unless it is renewed."""
        return self._expires_utc

    @property
    def lost(self) -> bool:
        """Whether somebody else may work on the pair by now."""
        # Both clocks: one may be set back, the other stands still while the machine sleeps.
        over = datetime.now(UTC) >= self._expires_utc or time.monotonic() >= self._ends_s
        return self._taken or over

    def check(self) -> None:
        """Raise an error unless the pair is still ours.

        Raises
        ------
        ClaimLostError
            Another run may work on the pair.
        """
        if self.lost:
            raise ClaimLostError(
                f"{self._store.url_of(self._product.prefix)}: another run has taken this pair over"
            )

    def create(self) -> bool:
        """Write the claim; False where another run was faster.

        Raises
        ------
        StoreError
            The store cannot be written.
        """
        return self._store.create(self.key, self._body(self._expires_utc))

    def renew(self) -> None:
        """Extend the claim, unless another run has taken the pair over.

        Raises
        ------
        StoreError
            The store cannot be reached. The claim still holds until it expires.
        """
        # Checked first: an owner that slept too long must not overwrite its successor's claim.
        if self.lost or self._stored_owner() != self._owner:
            self._taken = True
            return
        later = datetime.now(UTC) + self._lease
        ends_s = time.monotonic() + self._lease.total_seconds()
        self._store.put(self.key, self._body(later))
        # Checked last: a run that takes over creates its claim first and looks afterwards.
        self._taken = _newest_number(self._store, self._product) > self._number
        self._expires_utc, self._ends_s = later, ends_s

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(PATIENCE_S)  # a late renewal would write again what is deleted here
        if self.lost:
            return
        with suppress(StoreError):  # a claim that cannot be deleted expires
            for number in range(self._number, 0, -1):
                self._store.delete(self._product.claim(number))

    def _renew_until_over(self) -> None:
        while not self._over.wait(self._lease.total_seconds() / RENEWALS_PER_LEASE) and not self.lost:
            try:
                self.renew()
            except StoreError:
                continue  # tried again at the next renewal; `lost` knows when it is too late

    def _stored_owner(self) -> str | None:
        record = ClaimRecord.parse(self._store.get(self.key) or b"")
        return None if record is None else record.owner

    def _body(self, expires_utc: datetime) -> bytes:
        return ClaimRecord(self._owner, expires_utc, self._process, self._lease.total_seconds()).encode()


UNSEEN_WAITS_S = (0.0, 0.0, 0.1, 0.3, 1.0, 3.0)
"""Waits before a claim that the store refuses, and does not list, is tried again, seconds."""


def take(store: Store, product: ProductKey, *, lease_s: float) -> Claim | Held:
    """Claim a run of a pair, or say who holds it.

    Parameters
    ----------
    store : Store
    product : ProductKey
    lease_s : float
        How long the claim holds unless it is renewed, seconds.

    Raises
    ------
    StoreError
        The store cannot be read or written, or says that there is a claim and shows none.
    """
    number, waits_s = 1, iter(UNSEEN_WAITS_S)
    while True:
        claim = Claim(store, product, number, lease_s=lease_s)
        if claim.create():
            return claim
        number = _newest_number(store, product)
        body = store.get(product.claim(number)) if number else None
        if body is None:  # deleted this moment, or the store does not list it yet
            number, wait_s = 1, next(waits_s, None)
            if wait_s is None:
                raise StoreError(
                    f"{store.url_of(claim.key)}: the store says that it exists, and does not list it; "
                    "check that the store lists what it has just stored"
                )
            time.sleep(wait_s)
            continue
        record = ClaimRecord.parse(body)
        if record is not None and record.holds(lease_s=lease_s):
            return Held(record.owner, record.expires_utc)
        number += 1


def standing_claim(store: Store, product: ProductKey, *, lease_s: float = LONGEST_LEASE_S) -> Held | None:
    """Say who works on a run of a pair now; None where nobody does.

    Parameters
    ----------
    lease_s : float, optional
        Lease of whoever asks, seconds.

    Raises
    ------
    StoreError
        The store cannot be read.
    """
    body = newest_claim(store, product)
    record = None if body is None else ClaimRecord.parse(body)
    holds = record is not None and record.holds(lease_s=lease_s)
    return Held(record.owner, record.expires_utc) if record is not None and holds else None


def newest_claim(store: Store, product: ProductKey) -> bytes | None:
    """Read the newest claim file of a run of a pair, live or not; None where there is none.

    Raises
    ------
    StoreError
        The store cannot be read.
    """
    number = _newest_number(store, product)
    return store.get(product.claim(number)) if number else None


def _newest_number(store: Store, product: ProductKey) -> int:
    """Highest number among the claims on a run; 0 where there is none."""
    files = (product_file(key) for key in store.list(product.prefix))
    return max((file.claim_number or 0 for file in files if file is not None), default=0)


@cache
def _host() -> str:
    """Name of the machine, its boot and its process namespace: what a process number is valid in."""
    parts = [socket.gethostname()]
    boot = _PROCESSES / "sys/kernel/random/boot_id"
    if boot.exists():
        parts += [boot.read_text().strip()[:8], str((_PROCESSES / "self/ns/pid").readlink())]
    return "/".join(parts)


def _start_of(pid: int) -> str | None:
    """Clock tick at which a process started; None where it has ended, or the system does not say."""
    try:
        fields = (_PROCESSES / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, started = fields[0], fields[19]  # proc(5): fields 3 and 22
    return None if state in "ZX" else started
