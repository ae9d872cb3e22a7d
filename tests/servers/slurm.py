"""A SLURM cluster of two nodes on this machine: munge, a controller and a daemon for each node."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from servers.process import LOOPBACK, Child, ServerMissingError, free_ports, running

NODES = ("n1", "n2")

ENDED = {"COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY"}

CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}({loopback})
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A job that is queued again waits until what it was started with has expired.
AuthInfo=socket={folder}/munge.socket,cred_expire=15
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
# Of the size that is declared, whatever this machine has.
SlurmdParameters=config_overrides
ReturnToService=2
# Seconds; begun, stopped and begun again sooner than on a cluster of many users.
KillWait=20
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
"""

NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr={loopback} Port={port} CPUs=4 RealMemory=16000 Gres=gpu:1\n"
)


@dataclass(frozen=True, slots=True)
class Slurm:
    """A cluster that takes jobs."""

    folder: Path
    nodes: Mapping[str, Child]

    @property
    def environment(self) -> dict[str, str]:
        """What its programs are told by."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def ask(self, *command: str | Path, check: bool = True, **options: object) -> str:
        """Output of one of its programs."""
        done = subprocess.run(
            [str(word) for word in command],
            env={**os.environ, **self.environment},
            capture_output=True, text=True, timeout=60, check=False, **options,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def job(self, name: str) -> dict[str, str]:
        """What the controller says of a job, or of a task of an array: 7_2."""
        told = self.ask("scontrol", "show", "job", "--oneliner", name)
        return dict(re.findall(r"(\w+)=(\S*)", told))

    def ended(self, name: str) -> bool:
        return self.job(name)["JobState"] in ENDED

    def processes(self, job_id: str) -> list[psutil.Process]:
        """All processes that run as part of a job of this cluster, those of its steps among them."""
        wanted = {"SLURM_JOB_ID": job_id, **self.environment}
        found = []
        for process in psutil.process_iter():
            try:
                if wanted.items() <= process.environ().items() and process.status() != "zombie":
                    found.append(process)
            except psutil.Error:  # gone, or of somebody else
                continue
        return found


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[Slurm]:
    """Start a cluster until the block ends.

    Raises
    ------
    ServerMissingError : SLURM or munge is not installed
    """
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # some users have no folder of daemons in theirs
    programs = {name: shutil.which(name, path=path) for name in ("munged", "slurmctld", "slurmd")}
    programs |= {name: shutil.which(name) for name in ("sbatch", "srun", "sinfo")}
    if missing := [name for name, path in programs.items() if path is None]:
        raise ServerMissingError(
            f"{', '.join(missing)} is missing; tests/servers/install-slurm.sh installs it"
        )
    _configure(folder)
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    with ExitStack() as stack:

        def start(name: str, *command: str) -> Child:
            line = [programs[command[0]], *command[1:]]
            return stack.enter_context(running(name, line, folder, environment=environment))

        key, socket_path = folder / "munge.key", folder / "munge.socket"
        # --force: it would rather have its files in folders that only root can write above, too.
        munged = start("munge", "munged", "--foreground", "--force",
                       f"--key-file={key}", f"--socket={socket_path}", f"--pid-file={folder}/munged.pid",
                       f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed")  # fmt: skip
        munged.until(socket_path.exists, timeout_s=30)
        controller = start("controller", "slurmctld", "-D")
        nodes = {name: start(name, "slurmd", "-D", "-N", name) for name in NODES}
        cluster = Slurm(folder, nodes)
        controller.until(
            lambda: cluster.ask("sinfo", "--noheader", "--format=%T", check=False).split() == ["idle"],
            timeout_s=60,
        )
        try:
            yield cluster
        finally:
            # The daemons of the nodes would end, and leave the steps of their jobs.
            cluster.ask("scancel", "--user", psutil.Process().username(), check=False)
            controller.until(
                lambda: not cluster.ask("squeue", "--noheader", check=False).strip(), timeout_s=60
            )


def _configure(folder: Path) -> None:
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))
    (folder / "state").mkdir()
    controller, *ports = free_ports(1 + len(NODES))
    where = {"host": socket.gethostname().partition(".")[0], "loopback": LOOPBACK, "folder": folder}
    text = CONFIGURATION.format(**where, controller=controller, user=psutil.Process().username())
    for name, port in zip(NODES, ports, strict=True):
        text += NODE.format(name=name, port=port, **where)
    text += "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n"
    (folder / "slurm.conf").write_text(text)
    # A device that is always there: what SLURM is asked for is placement, and nothing computes on it.
    (folder / "gres.conf").write_text("Name=gpu File=/dev/zero\n")
