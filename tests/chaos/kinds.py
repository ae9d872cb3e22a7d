"""The kinds of faults, each by name, and how one of a kind is drawn."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

from chaos.child import Hook
from chaos.wire import WireFault

S3, FOLDER = ("s3",), ("folder",)
BOTH = ("s3", "folder")

REQUESTS = {
    "GET": 3, "HEAD": 3, "PUT": 7, "CREATE": 4, "COPY": 6, "DELETE": 3, "LIST": 4,
    "BEGIN": 1, "PART": 2, "COMPLETE": 1,
}  # fmt: skip
"""About how many of each a writer sends."""

MOST_REQUESTS = 30
ALWAYS = 10**6


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault, and the work that goes on around it."""

    role: str = "write"
    """What the process does that the fault is for: a role of `child`."""
    job: dict[str, Any] = field(default_factory=dict)
    """Its job, where it is not as usual."""
    wire: WireFault | None = None
    before: tuple[str, ...] = ()
    """What is in the root already: names of `world.PREPARATIONS`."""
    others: tuple[tuple[str, dict[str, Any]], ...] = ()
    """Roles that work at the same time, with their jobs."""
    overtaken: bool = False
    """While the process is stopped another writes, until it has committed."""
    free_bytes: int | None = None
    """What is free on a disk of its own."""
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    places: tuple[str, ...]
    draw: Callable[[Random, str], Injection]


def _role(rng: Random) -> str:
    return rng.choice(("write", "write", "write", "write", "index", "verify", "gc"))


def _around(rng: Random, role: str) -> tuple[str, ...]:
    """What a run before may have left; readers of the archive are given something to find."""
    half = rng.choice(("half-written", "half-removed"))
    left = (half,) if rng.random() < 0.5 or role == "gc" else ()
    return ("committed",) if role in ("index", "verify") and rng.random() < 0.7 else left


def _wire(action: str, *operations: str, times: tuple[int, ...] = (1, 1, 1, 3, ALWAYS)) -> Callable[..., Any]:
    """A fault of requests of one of these kinds, or of any."""

    def draw(rng: Random, _: str) -> Injection:
        kind = rng.choice(operations) if operations else ""
        at = rng.randint(1, REQUESTS.get(kind, MOST_REQUESTS))
        fault = WireFault(action, (kind,) if kind else (), at, rng.choice(times))
        of_writers = {"PUT", "CREATE", "COPY", "BEGIN", "PART", "COMPLETE"}
        role = "write" if kind in of_writers else _role(rng)
        large = kind in {"BEGIN", "PART", "COMPLETE"}
        return Injection(role, {"large": large}, wire=fault, before=() if large else _around(rng, role))

    return draw


def _signal(name: str, *, role: str | None = None) -> Callable[..., Any]:
    """A signal before or after a request or an operation on files."""

    def draw(rng: Random, place: str) -> Injection:
        action, work = name + rng.choice(("", "-after")), role or _role(rng)
        at = rng.randint(1, MOST_REQUESTS if work == "write" else 12)
        before = _around(rng, work)
        if place == "s3":
            return Injection(work, wire=WireFault(action, (), at), before=before)
        return Injection(work, {"hook": Hook(action, at)}, before=before)

    return draw


def _alarm(rng: Random, _: str) -> Injection:
    role = _role(rng)
    return Injection(role, {"alarm_s": rng.uniform(0.001, 0.3)}, before=_around(rng, role))


def _stopped(claimed: bool) -> Callable[..., Any]:
    """A writer sleeps longer than its lease, at any step, and another does the work."""

    def draw(rng: Random, place: str) -> Injection:
        action, at = "stop" + rng.choice(("", "-after")), rng.randint(2, MOST_REQUESTS - 4)
        before = _around(rng, "write")
        if place == "s3":
            fault = WireFault(action, (), at)
            return Injection(job={"claimed": claimed}, wire=fault, overtaken=True, before=before)
        job = {"claimed": claimed, "hook": Hook(action, at)}
        return Injection(job=job, overtaken=True, before=before)

    return draw


def _clock(sign: int) -> Callable[..., Any]:
    def draw(rng: Random, _: str) -> Injection:
        ahead_s = sign * rng.choice((0.7, 5.0, 3600.0, 1e8))
        return Injection(job={"clock_s": ahead_s}, others=(("write", {"writer": 2}),))

    return draw


def _at_once(writers: int, *, claimed: bool) -> Callable[..., Any]:
    def draw(rng: Random, place: str) -> Injection:
        others = tuple(("write", {"writer": n, "claimed": claimed}) for n in range(2, writers + 1))
        late = WireFault("late", (rng.choice(("COPY", "CREATE", "HEAD", "GET")),), rng.randint(1, 4))
        wire = late if place == "s3" and rng.random() < 0.5 else None
        return Injection(job={"claimed": claimed}, others=others, wire=wire, before=_around(rng, "write"))

    return draw


def _beside(*roles: str, killed: bool = False) -> Callable[..., Any]:
    """Others work on the archive while a writer writes, or is killed."""

    def draw(rng: Random, place: str) -> Injection:
        before = _around(rng, "write")
        others = tuple((role, {}) for role in roles)
        if killed:
            drawn = _signal("kill", role="write")(rng, place)
            return Injection(job=drawn.job, wire=drawn.wire, others=others, before=before)
        job = {"claimed": rng.random() < 0.5}
        return Injection(job=job, others=others, before=before)

    return draw


def _found(*names: str) -> Callable[..., Any]:
    def draw(rng: Random, _: str) -> Injection:
        return Injection(_role(rng), before=(rng.choice(names),))

    return draw


def _full_disk(rng: Random, place: str) -> Injection:
    if not _can_mount():  # only an administrator can
        return _file_limit(rng, place)
    return Injection(free_bytes=rng.randrange(0, 50) * 4096, before=_around(rng, "write"))


@cache
def _can_mount() -> bool:
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
        if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            return False
        return subprocess.run(["umount", folder], check=False).returncode == 0


def _file_limit(rng: Random, _: str) -> Injection:
    role = _role(rng)
    limit = rng.choice((0, 100, 300, 700, 2000, 5000, 20_000))
    return Injection(role, {"largest_file_bytes": limit}, before=_around(rng, role))


def _read_only(rng: Random, _: str) -> Injection:
    role = _role(rng)
    return Injection(role, {"as_nobody": True}, read_only=True, before=_around(rng, role))


def _locked(rng: Random, _: str) -> Injection:
    hook = Hook("locked", rng.randint(2, MOST_REQUESTS - 4))
    return Injection(job={"as_nobody": True, "hook": hook}, before=_around(rng, "write"))


KINDS = (
    Kind("S3 answers 500", S3, _wire("500")),
    Kind("S3 answers 503", S3, _wire("503")),
    Kind("S3 answers 503 SlowDown", S3, _wire("SlowDown")),
    Kind("S3 answers 429", S3, _wire("429")),
    Kind("S3 answers 403 from the middle on", S3, _wire("403", times=(ALWAYS,))),
    Kind("S3 answers 403 to one request", S3, _wire("403", times=(1,))),
    Kind("404 to a read of what is there", S3, _wire("404", "GET", "HEAD", times=(1,))),
    Kind("409 to a conditional put", S3, _wire("409", "CREATE", times=(1, 2, ALWAYS))),
    Kind("412 to what was created this moment", S3, _wire("second-answer", "CREATE", times=(1, 2))),
    Kind("connection reset before the answer", S3, _wire("reset")),
    Kind("connection reset in the body", S3, _wire("half-reset", "GET", "LIST")),
    Kind("body ends too soon", S3, _wire("half", "GET", "LIST")),
    Kind("listing cut off", S3, _wire("cut", "LIST")),
    Kind("answer late", S3, _wire("late", times=(1, 2))),
    Kind("request delivered twice", S3, _wire("twice", times=(1, ALWAYS))),
    Kind("answer lost: PUT", S3, _wire("lost", "PUT")),
    Kind("answer lost: create if none", S3, _wire("lost", "CREATE")),
    Kind("answer lost: COPY", S3, _wire("lost", "COPY")),
    Kind("answer lost: DELETE", S3, _wire("lost", "DELETE")),
    Kind("answer lost: LIST", S3, _wire("lost", "LIST")),
    Kind("answer lost: GET and HEAD", S3, _wire("lost", "GET", "HEAD")),
    Kind("answer lost: begin of an upload in parts", S3, _wire("lost", "BEGIN")),
    Kind("answer lost: a part", S3, _wire("lost", "PART")),
    Kind("answer lost: end of an upload in parts", S3, _wire("lost", "COMPLETE")),
    Kind("500 in an upload in parts", S3, _wire("500", "BEGIN", "PART", "COMPLETE")),
    Kind("killed in an upload in parts", S3, _wire("kill", "BEGIN", "PART", "COMPLETE", times=(1,))),
    Kind("disk full", FOLDER, _full_disk),
    Kind("file larger than allowed", FOLDER, _file_limit),
    Kind("read-only folder", FOLDER, _read_only),
    Kind("permission lost in the middle", FOLDER, _locked),
    Kind("SIGTERM at an operation", BOTH, _signal("term")),
    Kind("SIGKILL at an operation", BOTH, _signal("kill")),
    Kind("SIGKILL of the index at an operation", BOTH, _signal("kill", role="index")),
    Kind("SIGKILL of verify --repair at an operation", BOTH, _signal("kill", role="verify")),
    Kind("SIGKILL of gc at an operation", BOTH, _signal("kill", role="gc")),
    Kind("killed at any moment", BOTH, _alarm),
    Kind("stopped longer than the lease", BOTH, _stopped(claimed=True)),
    Kind("stopped without a claim", BOTH, _stopped(claimed=False)),
    Kind("clock ahead", BOTH, _clock(+1)),
    Kind("clock behind", BOTH, _clock(-1)),
    Kind("two writers at once", BOTH, _at_once(2, claimed=True)),
    Kind("two writers at once without claims", BOTH, _at_once(2, claimed=False)),
    Kind("three writers at once without claims", BOTH, _at_once(3, claimed=False)),
    Kind("a reader during the write", BOTH, _beside("read")),
    Kind("a reader while the writer is killed", BOTH, _beside("read", killed=True)),
    Kind("index updated while the writer is killed", BOTH, _beside("index", "index", killed=True)),
    Kind("verify --repair during the write", BOTH, _beside("verify", "verify")),
    Kind("gc during the write", BOTH, _beside("gc", "gc")),
    Kind("stale claim", BOTH, _found("claim run out", "claim of the year 2200", "claim without sense")),
    Kind("foreign files", BOTH, _found("foreign files", "broken writer record", "half-written")),
)
