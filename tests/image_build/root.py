"""A root for a command: the system's programs and a Python, read only, and nothing else of this machine.

Linux namespaces through `unshare`, as an engine has them: mounts are seen by the command alone.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SYSTEM = ("bin", "sbin", "lib", "lib64", "lib32", "libx32")
"""Links into /usr where the system is merged, folders where not."""

ACCOUNTS = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "group": "root:x:0:\n",
    "shadow": "root:*:19000:0:99999:7:::\n",
    "gshadow": "root:*::\n",
}

SETTINGS = ("login.defs", "resolv.conf", "hosts", "nsswitch.conf", "ld.so.cache", "ld.so.conf")
"""Files of /etc that programs of the system read."""


class NamespacesMissingError(RuntimeError):
    """This machine, or this user, may not make namespaces; the message says what is needed."""


@dataclass(frozen=True, slots=True)
class Mount:
    source: Path
    target: str
    """Path inside."""
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Confinement:
    """How a service is run, where the build's own steps have all rights."""

    user: int
    group: int
    writable: tuple[str, ...]
    """Folders that stay writable while all else is read only."""


@dataclass(frozen=True, slots=True)
class Root:
    """A folder that is to be `/`."""

    path: Path
    mounts: tuple[Mount, ...] = field(default=())

    def command(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        cwd: str = "/",
        mounts: Sequence[Mount] = (),
        confined: Confinement | None = None,
    ) -> list[str]:
        """The command line that runs `command` inside; it dies with its caller."""
        lines = ["set -e"]
        lines += [_bind(self.path, self.path, writable=True)]
        lines += [_bind(Path("/usr"), self.path / "usr", writable=False)]
        for mount in (*_system(), *_python(), *self.mounts, *mounts):
            inside = self.path / mount.target.lstrip("/")
            lines.append(_bind(mount.source, inside, writable=mount.writable))
        lines.append(f"mount -t proc proc {self.path}/proc")
        lines.append(f"mount --rbind /dev {self.path}/dev")
        become = ""
        if confined is not None:
            for folder in confined.writable:
                inside = self.path / folder.lstrip("/")
                lines.append(f"mount --bind {inside} {inside}")
            lines.append(f"mount -o remount,bind,ro {self.path}")
            become = (
                f"setpriv --reuid {confined.user} --regid {confined.group} --clear-groups "
                "--no-new-privs --bounding-set=-all --inh-caps=-all "
            )
        variables = shlex.join(f"{name}={value}" for name, value in environment.items())
        inner = f"cd {shlex.quote(cwd)} && exec {become}{shlex.join(command)}"
        # By its place: the image's own PATH has no folder of the administrator's.
        chroot = shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin")
        lines.append(f"{chroot} {self.path} /usr/bin/env -i {variables} /bin/sh -c {shlex.quote(inner)}")
        # Not `exec`: who changes the user no longer dies with the parent. This shell does, and all inside.
        lines.append("exit $?")
        return [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"),
            *("/bin/sh", "-c", "\n".join(lines)),
        ]


def empty_root(path: Path) -> Root:
    """Lay out a root with the folders that mounts need and the accounts of a fresh system."""
    for folder in ("usr", "dev", "proc", "etc", "root", "opt", "var/lib", "run/secrets"):
        (path / folder).mkdir(parents=True)
    (path / "tmp").mkdir()
    (path / "tmp").chmod(0o1777)
    for name in SYSTEM:
        host = Path("/") / name
        if host.is_symlink():
            (path / name).symlink_to(host.readlink())
        elif host.is_dir():
            (path / name).mkdir()
    for name, text in ACCOUNTS.items():
        (path / "etc" / name).write_text(text)
    for name in SETTINGS:
        if (Path("/etc") / name).is_file():
            (path / "etc" / name).write_bytes((Path("/etc") / name).read_bytes())
    return Root(path, _certificates())


def check_namespaces() -> None:
    """
    Raises
    ------
    NamespacesMissingError : no root of one's own can be had here
    """
    if os.getuid() != 0:
        raise NamespacesMissingError(
            "roots of their own need the rights of root: run it in a container, or with sudo"
        )
    tried = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        raise NamespacesMissingError(f"unshare: {tried.stderr.strip()}; allow namespaces to this container")


def _bind(source: Path, target: Path, *, writable: bool) -> str:
    make = f"mkdir -p {target if source.is_dir() else target.parent}\n"
    if not source.is_dir():
        make += f"[ -e {target} ] || : > {target}\n"
    bound = f"mount --bind {shlex.quote(str(source))} {target}"
    return make + bound + ("" if writable else f"\nmount -o remount,bind,ro {target}")


def _system() -> list[Mount]:
    """Folders of the system outside /usr, where it is not merged."""
    folders = [Path("/") / name for name in SYSTEM]
    return [
        Mount(folder, f"/{folder.name}") for folder in folders if folder.is_dir() and not folder.is_symlink()
    ]


def _python() -> list[Mount]:
    """This Python, where the image has its own: under /usr/local. One of the system is in /usr already."""
    prefix = Path(sys.base_prefix).resolve()
    # At its own place, too: there it looks for its library, where it has one.
    return [] if prefix == Path("/usr") else [Mount(prefix, "/usr/local"), Mount(prefix, str(prefix))]


def _certificates() -> tuple[Mount, ...]:
    folders = [Path("/etc/ssl"), Path("/etc/alternatives")]
    return tuple(Mount(folder, str(folder)) for folder in folders if folder.is_dir())
