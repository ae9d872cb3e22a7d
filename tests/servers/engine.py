"""podman with a storage of its own: images and containers of the tests, which end with them."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from servers.process import ROOT, ServerError, ServerMissingError, running

IMAGES = ROOT / "build" / "images"
"""Where install-engine.sh puts the trees that stand in for images of others."""

SETTINGS = """\
[containers]
# a proxy is for the outside; the services speak to each other
http_proxy = false
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{folder}/state"
volume_path = "{folder}/volumes"
[network]
network_config_dir = "{folder}/networks"
"""

STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{folder}/storage"
runroot = "{folder}/run"
"""

NAME_SERVER = Path("/run/containers/networks/aardvark-dns")
"""A file for each network with its names, and the number of the process; the same for all engines of root."""

MOST = 16_384
"""Files and processes of a container; what podman asks for by itself, a million, not every machine gives."""

SHOWN = 4000
"""Characters of what a command has said, when it fails."""


@dataclass(frozen=True, slots=True)
class Engine:
    """podman, told where its storage is."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            # caches of builds, too
            "TMPDIR": str(self.folder / "tmp"),
            # systemd would ask for the health of a container every few seconds; the tests ask themselves
            "DISABLE_HC_SYSTEMD": "true",
        }

    def run(self, *words: str | Path, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command of podman to its end."""
        return subprocess.run(
            ["podman", *map(str, words)], env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip

    def ask(self, *words: str | Path, timeout_s: float = 120) -> str:
        """What a command of podman prints.

        Raises
        ------
        ServerError : it fails; the message is the end of its words
        """
        done = self.run(*words, timeout_s=timeout_s)
        if done.returncode != 0:
            said = (done.stdout + done.stderr)[-SHOWN:]
            raise ServerError(f"podman {words[0]} ends with {done.returncode}:\n{said}")
        return done.stdout.strip()

    def take(self, tree: str, name: str) -> None:
        """Make an image of a tree in `build/images`.

        Raises
        ------
        ServerMissingError : it is not there
        """
        path = IMAGES / f"{tree}.tar"
        if not path.is_file():
            raise ServerMissingError(f"{path} is missing; tests/servers/install-engine.sh makes it")
        self.ask("import", "--quiet", path, name)


def why_not() -> str:
    """What is missing here to run containers; empty where nothing is."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "containers of the tests take root on Linux"
    missing = [name for name in ("podman", "runc", "iptables") if shutil.which(name) is None]
    return f"{', '.join(missing)} missing; tests/servers/install-engine.sh installs it" if missing else ""


@contextmanager
def engine() -> Iterator[Engine]:
    """An engine without an image, until the block ends; all it has started and stored ends with it.

    Raises
    ------
    ServerMissingError : there is none here, or it cannot run a container
    """
    if problem := why_not():
        raise ServerMissingError(problem)
    # Not below pytest's folder: sockets need short paths, and pytest keeps its folders for a while.
    folder = Path(tempfile.mkdtemp(prefix="crosstie-engine."))
    for name in ("tmp", "state", "networks", "volumes"):
        (folder / name).mkdir()
    files, processes = (
        resource.getrlimit(kind)[1] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
    )
    settings = SETTINGS.format(folder=folder, files=_at_most(files), processes=_at_most(processes))
    (folder / "containers.conf").write_text(settings)
    (folder / "storage.conf").write_text(STORAGE.format(folder=folder))
    made = Engine(folder)
    # It ends what the engine has where this process dies.
    command = [sys.executable, "-m", "servers.engine", folder]
    with running(
        "engine", command, folder, environment={"PYTHONPATH": str(ROOT / "tests")}, belongings=folder
    ):
        try:
            yield made
        finally:
            end(folder)
            shutil.rmtree(folder / "storage")  # several GB: longer than the other's patience


def _at_most(limit: int) -> int:
    """A limit of this process, which its containers may not raise."""
    return MOST if limit == resource.RLIM_INFINITY else min(limit, MOST)


def end(folder: Path) -> None:
    """Remove all containers of an engine, with what is mounted for them."""
    one = Engine(folder)
    networks = {path.stem for path in (folder / "networks").glob("*.json")}
    one.run("rm", "--all", "--force", "--time", "0")
    one.run("network", "prune", "--force")
    one.run("image", "unmount", "--all", "--force")
    _end_name_server(networks)
    for path in sorted(_mounted(folder), reverse=True):
        subprocess.run(["umount", path], check=False)


def _end_name_server(networks: Collection[str]) -> None:
    """End what answers for the names in networks; root's engines share it, so only if it serves no others."""
    for name in networks:
        (NAME_SERVER / name).unlink(missing_ok=True)
    served = {path.name for path in NAME_SERVER.glob("*")}
    if served == {"aardvark.pid"}:
        with contextlib.suppress(ValueError, psutil.Error):
            process = psutil.Process(int((NAME_SERVER / "aardvark.pid").read_text()))
            if process.name() == "aardvark-dns":
                process.kill()


def _mounted(folder: Path) -> list[str]:
    places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [place for place in places if Path(place).is_relative_to(folder)]


def main() -> None:
    """Wait until told to end, then end what the engine in a folder has."""
    told = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, told)
    signal.sigwait(told)
    if Path(sys.argv[1]).is_dir():
        end(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
