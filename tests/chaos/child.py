"""The processes that faults are injected into: each does one ordinary piece of work on an archive."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import obstore
from chaos.material import NEW, files_of, material

from crosstie.errors import CrosstieError
from crosstie.io.archive import claims
from crosstie.io.archive.claims import ClaimLostError, Held, take
from crosstie.io.archive.failures import forget_failure
from crosstie.io.archive.index import index_committed, update_index
from crosstie.io.archive.leftovers import remove_leftovers
from crosstie.io.archive.listing import list_archive
from crosstie.io.archive.verify import verify_archive
from crosstie.io.products import write
from crosstie.io.products.keys import is_committed
from crosstie.io.products.product import open_product
from crosstie.io.storage import publication
from crosstie.io.storage.commit import damage_of
from crosstie.io.storage.publication import Publication
from crosstie.io.storage.s3 import S3Options
from crosstie.io.storage.store import Store, open_store

PATIENCE_S = 25.0
"""Longest wait for the claim of another."""

OPERATIONS = ("put", "get", "head", "delete", "rename", "copy", "list")
NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Hook:
    """What happens to a process at its n-th operation on files, or after a time."""

    action: str
    """`kill`, `term`, `stop`, `locked` (it may no longer write); `…-after` the operation."""
    at: int


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work."""

    role: str
    root: str
    storage: S3Options
    writer: int = 0
    large: bool = False
    claimed: bool = True
    """Whether the writer claims the pair first; without, several are sure to write at once."""
    lease_s: float = 1.0
    clock_s: float = 0.0
    """How much the clock is ahead, seconds."""
    hook: Hook | None = None
    alarm_s: float | None = None
    """Killed after this time, wherever it is."""
    largest_file_bytes: int | None = None
    as_nobody: bool = False
    without: str | None = None
    """A guard that is taken out, see `GUARDS`."""


def work(job: Job, answer: Connection) -> None:
    """Do a job and send how it ended: (outcome, what it says)."""
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _prepare(job)
    try:
        found = ROLES[job.role](job, open_store(job.root, job.storage))
        said = (found, "")
    except ClaimLostError as problem:
        said = ("claim lost", str(problem))
    except CrosstieError as problem:
        said = ("told why", str(problem))
    except AssertionError as problem:
        said = ("VIOLATION", str(problem))
    except Exception:  # noqa: BLE001 - an error that is not ours is what is looked for
        said = ("VIOLATION", traceback.format_exc())
    answer.send(said)


def _write(job: Job, store: Store) -> str:
    claim: Any = None
    until = time.monotonic() + PATIENCE_S
    while job.claimed and (claim is None or isinstance(claim, Held)):
        if time.monotonic() > until:
            return "waited in vain"
        if isinstance(claim, Held):
            time.sleep(0.1)
        claim = take(store, NEW, lease_s=job.lease_s)
    if claim is None:
        return _written(job, store)
    with claim:
        return _written(job, store)


def _written(job: Job, store: Store) -> str:
    if is_committed(store, *NEW):
        found = "done before"
    else:
        write.render = lambda *_, **__: files_of(NEW, job.writer, large=job.large)  # type: ignore[assignment]
        write.write_products(store, material()[NEW, job.writer].registration, thumbnails=None)
        forget_failure(store, *NEW)
        found = "done"
    index_committed(store, [NEW])
    return found


def _index(job: Job, store: Store) -> str:
    update_index(store)
    return "done"


def _verify(job: Job, store: Store) -> str:
    list(verify_archive(store, repair=True))
    return "done"


def _gc(job: Job, store: Store) -> str:
    list(remove_leftovers(store, older_than=timedelta(seconds=-5)))
    return "done"


def _read(job: Job, store: Store) -> str:
    """Read what is committed, as often as two seconds allow; all of it must be whole and stay so."""
    until, seen = time.monotonic() + 2.0, False
    while time.monotonic() < until:
        committed = list_archive(store).committed
        assert not seen or NEW in committed, "a committed run is no longer committed"
        for product in committed:
            harm = [str(damage) for damage in damage_of(store, product) if damage.harms]
            assert not harm, f"a reader sees {product} committed and not whole: {harm}"
            open_product(store.url_of(product.prefix), storage=job.storage)
        seen = seen or NEW in committed
        time.sleep(0.02)
    return "done"


ROLES: dict[str, Callable[[Job, Store], str]] = {
    "write": _write,
    "index": _index,
    "verify": _verify,
    "gc": _gc,
    "read": _read,
}


class _Blind:
    """A store that never sees an object when it looks for one."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def exists(self, key: str) -> bool:
        return False


def _without_look_for_commit() -> None:
    begin = Publication.__init__

    def blind(self: Any, store: Any, product: Any) -> None:
        begin(self, _Blind(store), product)  # type: ignore[arg-type]

    Publication.__init__ = blind  # type: ignore[method-assign]


def _without_look_at_files() -> None:
    publication.damage_in = lambda *_: None  # type: ignore[attr-defined]


def _without_choice() -> None:
    def own(self: Any) -> Any:
        self._store.create(self._product.writer, b"{}")
        self._is_chosen = True
        return self._writer, self._files

    Publication._chosen = own  # type: ignore[method-assign]
    Publication._is_still = lambda *_: True  # type: ignore[method-assign]


GUARDS: dict[str, Callable[[], None]] = {
    "commit": _without_look_for_commit,
    "files": _without_look_at_files,
    "choice": _without_choice,
}
"""What can be taken out of the commit protocol: the look for a commit, the look whether a file that could not
be moved is there, the choice of one writer."""


def _prepare(job: Job) -> None:
    if job.without is not None:
        GUARDS[job.without]()
    if job.clock_s:
        _shift_clock(job.clock_s)
    if job.largest_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job.largest_file_bytes, resource.RLIM_INFINITY))
    if job.hook is not None:
        _hang_in(job, job.hook)
    if job.as_nobody and os.getuid() == 0:
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
    if job.alarm_s is not None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process where it is
        signal.setitimer(signal.ITIMER_REAL, job.alarm_s)


def _shift_clock(ahead_s: float) -> None:
    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=ahead_s)

    claims.datetime = Shifted  # type: ignore[misc]


def _hang_in(job: Job, hook: Hook) -> None:
    """Count the operations of the store, and act at the n-th."""
    count = 0

    def act() -> None:
        name = hook.action.removesuffix("-after")
        if name == "locked":
            for folder, _, _ in os.walk(job.root):
                Path(folder).chmod(0o555)
            return
        signals = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "stop": signal.SIGSTOP}
        os.kill(os.getpid(), signals[name])

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            mine = count == hook.at
            if mine and not hook.action.endswith("-after"):
                act()
            found = operation(*args, **more)
            if mine and hook.action.endswith("-after"):
                act()
            return found

        return call

    for name in OPERATIONS:
        setattr(obstore, name, counted(getattr(obstore, name)))


if "CROSSTIE_CHAOS_MATERIAL" in os.environ:  # in the process that the others are forked from
    material()
