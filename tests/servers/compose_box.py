"""Runs one command as a container would: `unshare --mount --pid --ipc --uts --fork compose_box.py PLAN`.

It is the first process of new namespaces. It builds a root folder that holds this machine's programs, the
checkout, and of all else only what the plan names; leaves the old one; gives up what the service may
not do; and becomes the command. Only root may do that. Nothing stays behind: the folders live in memory,
in a mount namespace of their own.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

NOSUID, NODEV, NOEXEC, READ_ONLY, REMOUNT, BIND, RECURSIVE, PRIVATE = 2, 4, 8, 1, 32, 4096, 16384, 1 << 18
"""Of Linux's mount(2)."""
DETACH = 2

OVERLAID = ("usr", "etc", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Folders of this machine that a service sees, with what its image adds; the others are new and empty."""

Json = dict[str, Any]

LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    given: Json = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    socket.sethostname(given["hostname"])
    root = built(Path(given["folder"]), given)
    os.chdir(root)
    (root / "old").mkdir()
    if LIBC.pivot_root(b".", b"old") != 0:
        raise fault("pivot_root", str(root))
    os.chdir("/")
    if LIBC.umount2(b"/old", DETACH) != 0:
        raise fault("umount", "/old")
    Path("/old").rmdir()
    if given["read_only"]:
        for place in (Path("/"), *(Path("/", name) for name in OVERLAID)):
            if place.is_dir() and not place.is_symlink():
                mount(None, place, flags=REMOUNT | BIND | READ_ONLY)
    os.chdir(given["workdir"])
    command, environment = limited(given), given["environment"]
    if given["init"]:
        sys.exit(first_process(command, environment))
    os.execvpe(command[0], command, environment)


def built(folder: Path, given: Json) -> Path:
    """The root folder, mounted below `folder`."""
    mount(None, Path("/"), flags=RECURSIVE | PRIVATE)
    mount("tmpfs", folder, kind="tmpfs", options="mode=755")
    root = folder / "root"
    root.mkdir()
    mount(str(root), root, flags=BIND)
    for name in OVERLAID:
        here, there = Path("/", name), root / name
        if here.is_symlink():
            there.symlink_to(here.readlink())
        elif here.is_dir():
            overlaid(folder, here, there)
    see(root, given["seen"])
    for name, mode in {"tmp": 0o1777, "run": 0o755, "var": 0o755, "home": 0o755, "root": 0o700}.items():
        if not (root / name).exists():  # this machine's Python may lie below one of them
            (root / name).mkdir()
            (root / name).chmod(mode)
    (root / "var" / "run").symlink_to("/run")
    machinery(root)
    for path, source in given["files"].items():
        bound(Path(source), root / path.lstrip("/"), read_only=True)
    for path, text in given["texts"].items():
        (root / path.lstrip("/")).write_text(text, encoding="utf-8")
    for path, (uid, gid) in given["owned"].items():
        place = root / path.lstrip("/")
        place.mkdir(parents=True, exist_ok=True)
        os.chown(place, uid, gid)
    for wanted in given["mounts"]:
        target = root / wanted["target"].lstrip("/")
        if wanted["source"] is None:
            target.mkdir(parents=True, exist_ok=True)
            options = wanted["options"] or "mode=1777"
            mount("tmpfs", target, kind="tmpfs", flags=NOSUID | NODEV | NOEXEC, options=options)
            # A checkout may lie below /tmp, and the program in it.
            see(root, [path for path in given["seen"] if Path(path).is_relative_to(wanted["target"])])
        else:
            bound(Path(wanted["source"]), target, read_only=wanted["read_only"])
    return root


def see(root: Path, paths: list[str]) -> None:
    """Let folders of this machine be seen where they are."""
    for path in paths:
        bound(Path(path), root / path.lstrip("/"), read_only=True)


def machinery(root: Path) -> None:
    """What the kernel gives: processes of this namespace alone, devices, the machine's description."""
    for name in ("proc", "dev", "sys"):
        (root / name).mkdir()
    mount("proc", root / "proc", kind="proc", flags=NOSUID | NODEV | NOEXEC)
    mount("/dev", root / "dev", flags=BIND | RECURSIVE)
    mount("tmpfs", root / "dev" / "shm", kind="tmpfs", flags=NOSUID | NODEV, options="mode=1777")
    bound(Path("/sys"), root / "sys", read_only=True)


def overlaid(folder: Path, here: Path, there: Path) -> None:
    upper, work = folder / f"{here.name}-upper", folder / f"{here.name}-work"
    for path in (upper, work, there):
        path.mkdir()
    mount("overlay", there, kind="overlay", options=f"lowerdir={here},upperdir={upper},workdir={work}")


def bound(source: Path, target: Path, *, read_only: bool) -> None:
    """Let `source`, a file or a folder, be seen at `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    mount(str(source), target, flags=BIND | RECURSIVE)
    if read_only:
        mount(None, target, flags=REMOUNT | BIND | READ_ONLY)


def mount(source: str | None, target: Path, *, kind: str = "none", flags: int = 0, options: str = "") -> None:
    done = LIBC.mount(
        (source or "none").encode(),
        str(target).encode(),
        kind.encode(),
        ctypes.c_ulong(flags),
        options.encode(),
    )
    if done != 0:
        raise fault(f"mount of {source or kind}", str(target))


def fault(what: str, where: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}", where)


def limited(given: Json) -> list[str]:
    """The command, as the user and with the capabilities of the service alone."""
    capabilities = ",".join(["-all", *(f"+{name.lower()}" for name in given["capabilities"])])
    command = ["setpriv", f"--reuid={given['uid']}", f"--regid={given['gid']}", "--clear-groups"]
    command += [f"--bounding-set={capabilities}", "--inh-caps=-all"]
    if given["no_new_privileges"]:
        command.append("--no-new-privs")
    return [*command, "--", *given["command"]]


def first_process(command: list[str], environment: dict[str, str]) -> int:
    """Start the command, pass on what it is told, bury orphans; returns its exit code, as a shell would."""
    child = os.posix_spawnp(command[0], command, environment, setpgroup=0)

    def pass_on(number: int, frame: object) -> None:
        del frame
        os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main()
