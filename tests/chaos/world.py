"""One injection: an archive with one committed run, a fault, and what must hold of the archive afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any

from chaos.child import NOBODY, Hook, Job, work
from chaos.kinds import Injection, Kind
from chaos.material import KEPT, NEW, WRITERS, files_of, material
from chaos.wire import Wire, faulty_wire

from crosstie.errors import StoreError
from crosstie.io.archive.claims import Held, standing_claim, take
from crosstie.io.archive.failures import DAMAGED, read_failure
from crosstie.io.archive.index import index_committed, read_index, survey, update_index
from crosstie.io.archive.leftovers import remove_leftovers
from crosstie.io.archive.listing import list_archive
from crosstie.io.archive.verify import verify_archive
from crosstie.io.products import write
from crosstie.io.products.product import open_product
from crosstie.io.storage.commit import FileFacts, damage_of, encode_commit, read_commit
from crosstie.io.storage.root_layout import INDEX, ProductKey
from crosstie.io.storage.s3 import S3Options
from crosstie.io.storage.store import Store, open_store
from crosstie.types import Registration

HANG_S = 90.0
"""A process that has not ended by then hangs."""

DISK = "size=64m"
"""Of a disk of its own, before and after it is full."""

LAST_WRITER = WRITERS - 1
EARLIER_WRITER = WRITERS - 2
ENDS = ("kill", "term")
_NO_HOOK = Hook("", 0)
ENDED_BY_SIGNAL = {-signal.SIGKILL, -signal.SIGALRM, -signal.SIGTERM, 143}

FOREIGN = {
    "README.txt": b"about this bucket",
    f"{NEW.prefix}/notes.txt": b"looked at it",
    f"{KEPT.prefix}/notes.txt": b"looked at it",
    "scenes/S1A/scene.tif": b"II*\0",
    "_index/parts/readme.md": b"rows",
    "_old/backup.json": b"{}",
}


@dataclass(frozen=True, slots=True)
class Services:
    """What all worlds share."""

    s3_url: str
    bucket: str
    folder: Path
    context: ForkServerContext


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an injection ended."""

    kind: str
    place: str
    seed: str
    said: str
    """Of the process that the fault was for: `done`, `told why`, `killed`, …"""
    struck: bool
    """Whether the fault came to pass."""
    violation: str = ""
    """What does not hold; empty where all does."""


class Violation(AssertionError):  # noqa: N818
    """The archive is not as it must be."""


def inject(kind: Kind, seed: str, services: Services, *, without: str | None = None) -> Outcome:
    """Draw a fault of a kind, let it happen in an archive of its own, and check the archive.

    Parameters
    ----------
    without : str, optional
        Guard that is taken out of the writers, see `child.GUARDS`.
    """
    rng = Random(seed)
    place = rng.choice(kind.places)
    injection = kind.draw(rng, place)
    with _root(services, place, seed, injection) as root:
        world = _World(services, place, root)
        said, struck = "", False
        try:
            world.fill(injection)
            said, struck = world.happen(injection, without)
            world.check()
            world.goes_on()
        except Violation as problem:
            return Outcome(kind.name, place, seed, said, struck, f"{injection}: {problem}")
        except Exception as problem:  # noqa: BLE001 - the archive cannot even be read
            return Outcome(kind.name, place, seed, said, struck, f"{injection}: {problem!r}")
    return Outcome(kind.name, place, seed, said, struck)


@contextmanager
def _root(services: Services, place: str, seed: str, injection: Injection) -> Iterator[str]:
    name = f"world-{seed.replace('/', '-')}"
    if place == "s3":
        yield f"s3://{services.bucket}/{name}"
        store = open_store(f"s3://{services.bucket}/{name}", S3Options(endpoint=services.s3_url))
        store.delete_folder("")
        return
    folder = services.folder / name
    folder.mkdir()
    try:
        if injection.free_bytes is not None:
            subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(folder)], check=True)
        yield str(folder)
    finally:
        if injection.free_bytes is not None:
            subprocess.run(["umount", "-l", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


class _World:
    def __init__(self, services: Services, place: str, root: str) -> None:
        self.services = services
        self.is_s3 = place == "s3"
        self.root = root
        self.storage = S3Options(endpoint=services.s3_url) if self.is_s3 else S3Options()
        self.store = open_store(root, self.storage)
        self.kept: dict[str, bytes] = {}
        self.new: dict[str, bytes] | None = None
        self.overtook = False

    # What is there before.

    def fill(self, injection: Injection) -> None:
        _commit(self.store, KEPT, writer=0)
        index_committed(self.store, [KEPT])
        self.kept = self._files_of(KEPT)
        for name in injection.before:
            PREPARATIONS[name](self.store)
        if injection.free_bytes is not None:
            disk = os.statvfs(self.root)
            size = (disk.f_blocks - disk.f_bfree) * disk.f_frsize + injection.free_bytes
            subprocess.run(["mount", "-o", f"remount,size={size}", self.root], check=True)
        if injection.job.get("as_nobody"):
            for folder, _, names in os.walk(self.root):
                for path in (Path(folder), *(Path(folder) / name for name in names)):
                    os.chown(path, NOBODY, NOBODY)
                Path(folder).chmod(0o555 if injection.read_only else 0o755)

    # The fault.

    def happen(self, injection: Injection, without: str | None) -> tuple[str, bool]:
        """Let the fault happen; return how its process ended, and whether the fault came to pass."""
        usual = Job(injection.role, self.root, self.storage, writer=1, without=without)
        with ExitStack() as stack:
            wire = stack.enter_context(faulty_wire(self.services.s3_url)) if self.is_s3 else Wire()
            wire.fault = injection.wire
            storage = S3Options(endpoint=wire.url) if self.is_s3 else self.storage
            first = self._start(replace(usual, storage=storage, **injection.job))
            wire.client_is(first.pid)
            rest = [self._start(replace(usual, **{"role": role, **job})) for role, job in injection.others]
            if injection.overtaken:
                self._overtake(first, wire, replace(usual, writer=2, claimed=injection.job["claimed"]))
            said = first.result()
            for other in rest:
                self._must_not_be(other.result())
        if injection.job.get("as_nobody"):
            for folder, _, _ in os.walk(self.root):
                Path(folder).chmod(0o755)
        if injection.free_bytes is not None:
            subprocess.run(["mount", "-o", "remount," + DISK, self.root], check=True)
        self._must_not_be(said)
        return said[0], self._has_struck(injection, wire, said[0])

    def _has_struck(self, injection: Injection, wire: Wire, said: str) -> bool:
        if injection.overtaken:
            return self.overtook
        if injection.wire is not None:
            return wire.struck > 0
        if injection.free_bytes is not None or "largest_file_bytes" in injection.job:
            return said == "told why"
        signalled = "alarm_s" in injection.job or injection.job.get("hook", _NO_HOOK).action[:4] in ENDS
        return said == "killed" or not signalled

    def _overtake(self, first: _Running, wire: Wire, job: Job) -> None:
        """Let another writer do the work while the first one is stopped, and let that one go on."""
        while first.is_alive() and not _is_stopped(first.pid):
            time.sleep(0.01)
        try:
            if first.is_alive():
                self.overtook = True
                self._must_not_be(self._start(job).result())
                self.check()
        finally:
            with suppress(ProcessLookupError):
                os.kill(first.pid, signal.SIGCONT)
            wire.resumed.set()

    def _start(self, job: Job) -> _Running:
        here, there = self.services.context.Pipe(duplex=False)
        process = self.services.context.Process(target=work, args=(job, there))
        process.start()
        there.close()
        return _Running(process, here)

    @staticmethod
    def _must_not_be(said: tuple[str, str]) -> None:
        if said[0] in ("VIOLATION", "waited in vain"):
            raise Violation(f"{said[0]}: {said[1]}")

    # What must hold.

    def check(self) -> None:
        """Check that what was committed is so, and nothing else can be read."""
        committed = list_archive(self.store).committed
        _must(KEPT in committed, "the run that was committed before is no longer so")
        _must(self._files_of(KEPT) == self.kept, "the run that was committed before has changed")
        if NEW in committed:
            harm = [str(damage) for damage in damage_of(self.store, NEW) if damage.harms]
            _must(not harm, f"committed and not whole: {harm}")
            found = self._files_of(NEW)
            _must(self.new is None or found == self.new, "a committed run has changed")
            _must(_writers_of(self.store), "the committed files are not those of one writer")
            self.new = found
        else:
            _must(self.new is None, "a committed run is lost")
            try:
                open_product(self.store.url_of(NEW.prefix), storage=self.storage)
            except StoreError:
                pass
            else:
                raise Violation("an uncommitted product can be opened")
        for table in (read_index(self.store), survey(self.store, committed)):
            rows = _runs_in(table)
            _must(set(rows) <= committed, f"the index holds what is not committed: {rows}")
            _must(len(set(rows)) == len(rows), f"the index holds a run twice: {rows}")

    def goes_on(self) -> None:
        """Write the run, where it is not committed, and clean up: everything must be as if nothing was."""
        self._write()
        self.check()
        _must(self.new is not None, "the next writer has not committed")
        update = update_index(self.store)
        rows = _runs_in(read_index(self.store))
        _must(sorted(rows) == sorted([KEPT, NEW]), f"the index holds {rows}")
        _must(not update.unreadable, f"not indexed: {update.unreadable}")
        harm = [found for found in verify_archive(self.store) if any(one.harms for one in found.damage)]
        _must(not harm, f"verify finds {harm}")
        for product in (KEPT, NEW):
            record = read_failure(self.store, *product)
            _must(record is None or record.code != DAMAGED, f"{product} is recorded as damaged, and is whole")
        foreign = {key: self.store.get(key) for key in FOREIGN if self.store.exists(key)}
        self._wait_for_claims()
        list(remove_leftovers(self.store, older_than=timedelta(seconds=-5)))
        self.check()
        _must(all(self.store.get(key) == body for key, body in foreign.items()), "gc took a foreign file")
        own = {f"{product.prefix}/{name}" for product in (KEPT, NEW) for name in self._files_of(product)}
        left = [key for key in self.store.list() if key not in own | foreign.keys() and key != INDEX]
        left = [key for key in left if not key.startswith("_index/parts/")]
        _must(not left, f"gc leaves {left}")

    def _wait_for_claims(self) -> None:
        """An owner whose renewal came too late leaves its claim, which holds for a lease more."""
        until = time.monotonic() + 10.0
        while (claim := standing_claim(self.store, NEW)) is not None:
            _must(time.monotonic() < until, f"{claim} does not run out")
            time.sleep(0.1)

    def _write(self) -> None:
        until = time.monotonic() + 20.0
        while isinstance(claim := take(self.store, NEW, lease_s=1.0), Held):
            _must(time.monotonic() < until, f"the next writer waits for {claim}")
            time.sleep(0.1)
        with claim:
            write.write_products(self.store, material()[NEW, LAST_WRITER].registration, thumbnails=None)

    def _files_of(self, product: ProductKey) -> dict[str, bytes]:
        names = [*(read_commit(self.store, product) or ()), "_COMMIT"]
        return {name: self.store.get(product.file(name)) or b"" for name in names}


class _Running:
    """A process, and what it says at its end."""

    def __init__(self, process: BaseProcess, answer: Any) -> None:
        self._process = process
        self._answer = answer

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def result(self) -> tuple[str, str]:
        self._process.join(HANG_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
            raise Violation(f"a process hangs for more than {HANG_S:g} s")
        try:
            if self._answer.poll():
                said: tuple[str, str] = self._answer.recv()
                return said
        except (EOFError, OSError):
            pass
        finally:
            self._answer.close()
        if self._process.exitcode in ENDED_BY_SIGNAL:
            return "killed", ""
        raise Violation(f"a process ended with {self._process.exitcode} and did not say why")


@contextmanager
def rendered_files() -> Iterator[None]:
    """Let writers of this process write what is rendered already: rendering is not what is tried here."""

    def rendered(registration: Registration, **_: object) -> dict[str, bytes]:
        product = ProductKey(registration.pair_key, registration.run_key)
        return files_of(product, round(registration.provenance.seconds) - 1, large=False)

    before = write.render
    write.render = rendered  # type: ignore[assignment]
    try:
        yield
    finally:
        write.render = before


def _must(holds: object, otherwise: str) -> None:
    if not holds:
        raise Violation(otherwise)


def _is_stopped(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False


def _runs_in(table: Any) -> list[ProductKey]:
    rows = table.select(["pair_key", "run_key"]).to_pylist()
    return [ProductKey(row["pair_key"], row["run_key"]) for row in rows]


def _writers_of(store: Store) -> list[int]:
    """Writers whose files are those that are committed: one."""
    said = dict(read_commit(store, NEW) or {})
    return [
        writer
        for writer in range(WRITERS)
        for large in (False, True)
        if said == {name: FileFacts.of(b) for name, b in files_of(NEW, writer, large=large).items()}
    ]


def _commit(store: Store, product: ProductKey, *, writer: int) -> None:
    files = files_of(product, writer, large=False)
    for name, body in files.items():
        store.put(product.file(name), body)
    store.put(product.commit, encode_commit({name: FileFacts.of(body) for name, body in files.items()}))


def _half_written(store: Store) -> None:
    """As a writer leaves it that is killed while its files get their names."""
    files = files_of(NEW, EARLIER_WRITER, large=False)
    for number, (name, body) in enumerate(files.items()):
        store.put(NEW.file(name) if number % 2 else NEW.written_by("dead", name), body)
    listed = json.loads(encode_commit({name: FileFacts.of(body) for name, body in files.items()}))
    store.put(NEW.writer, json.dumps({"writer": "dead", **listed}).encode())


def _half_removed(store: Store) -> None:
    """As whoever cleans the root leaves it: a writer is chosen, and some of its files are gone."""
    _half_written(store)
    store.delete_folder(NEW.writing("dead"))


def _claim(body: dict[str, Any] | bytes) -> Any:
    said = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda store: store.put(NEW.claim(1), said)


_STRANGER = {"owner": "another", "lease_s": 1.0, "host": "elsewhere", "pid": 1, "started": "1"}

PREPARATIONS: dict[str, Any] = {
    "committed": lambda store: _commit(store, NEW, writer=EARLIER_WRITER),
    "half-written": _half_written,
    "half-removed": _half_removed,
    "claim run out": _claim({**_STRANGER, "expires_utc": "2026-01-01T00:00:00+00:00"}),
    "claim of the year 2200": _claim({**_STRANGER, "expires_utc": "2200-01-01T00:00:00+00:00"}),
    "claim without sense": _claim(b"\x00\xff"),
    "broken writer record": lambda store: store.put(NEW.writer, b'{"writer": 1, "files": []}'),
    "foreign files": lambda store: [store.put(key, body) for key, body in FOREIGN.items()],
}
