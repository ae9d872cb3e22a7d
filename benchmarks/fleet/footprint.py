"""Memory and processor time of each part while pairs are registered: what pods and services ask for.

    python benchmarks/fleet/footprint.py [--data ../shared/data/scenes] [--readers 2] [--limit N]

Each part is a process with the command of its pod, see flows/kubernetes.py; the flow brings a Prefect server
of its own, which is listed apart. Looked at five times a second: peak of the
memory (PSS: what processes share is counted once), and processor time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from servers.process import LOOPBACK, free_ports, listens, running

from crosstie.config import load_settings
from crosstie.flows.cluster.kubernetes import SCHEDULER_ENVIRONMENT, cluster_spec, matcher_group
from crosstie.flows.cluster.worker_tasks import WORKER_ENVIRONMENT

BIN = Path(sys.executable).parent
WORKER_POLL_S = 0.2


@dataclass(slots=True)
class Part:
    """What one part has taken so far."""

    peak_mib: float = 0.0
    seconds: dict[int, float] = field(default_factory=dict)
    """Processor time by process."""

    def look(self, processes: list[psutil.Process]) -> None:
        total = 0
        for process in processes:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss
                times = process.cpu_times()
                self.seconds[process.pid] = times.user + times.system
        self.peak_mib = max(self.peak_mib, total / 2**20)


def main() -> None:
    """Start the parts, run the flow on them, print what each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/scenes"))
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--limit", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        roots, address = start_cluster(stack, folder, readers=given.readers)
        command = [
            *(BIN / "crosstie", "nightly", "--catalog", (given.data / "catalog.json").resolve()),
            *("--out", folder / "products", "--limit", str(given.limit)),
        ]
        begin = time.monotonic()
        flow = subprocess.Popen(command, env=os.environ | {"CROSSTIE_COMPUTE__CLUSTER": address}, cwd=folder)
        parts = watch(flow, roots)
        seconds = time.monotonic() - begin
    print(f"\nexit code {flow.returncode} after {seconds:.0f} s")
    print(f"{'part':<14}{'peak MiB':>10}{'processor s':>14}")
    for part, taken in parts.items():
        print(f"{part:<14}{taken.peak_mib:>10.0f}{sum(taken.seconds.values()):>14.1f}")


def start_cluster(stack: ExitStack, folder: Path, *, readers: int) -> tuple[dict[str, psutil.Process], str]:
    """Start a scheduler, readers and a matcher by the commands of their pods."""
    compute = load_settings(options={"compute.image": "crosstie"}).compute
    spec = cluster_spec(compute, name="footprint")["spec"]
    (scheduler_port,) = free_ports(1)
    address = f"tcp://{LOOPBACK}:{scheduler_port}"
    here = ["--host", LOOPBACK, "--port", str(scheduler_port), "--dashboard-address", f"{LOOPBACK}:0"]
    children = {}
    scheduler = [*spec["scheduler"]["spec"]["containers"][0]["args"], *here]
    children["scheduler"] = stack.enter_context(
        running("scheduler", [BIN / "dask", *scheduler[1:]], folder, environment=SCHEDULER_ENVIRONMENT)
    )
    children["scheduler"].until(lambda: listens(scheduler_port), timeout_s=60)
    workers = {f"reader-{n}": spec["worker"] for n in range(readers)} | {"matcher": matcher_group(compute)}
    for name, worker in workers.items():
        (port,) = free_ports(1)
        args = worker["spec"]["containers"][0]["args"][1:]
        own = ["--host", LOOPBACK, "--worker-port", str(port)]
        environment = {
            **WORKER_ENVIRONMENT,
            "DASK_WORKER_NAME": name,
            "DASK_SCHEDULER_ADDRESS": address,
        }
        command = [BIN / "dask", *(arg.replace("$(DASK_WORKER_NAME)", name) for arg in args), *own]
        command += ["--dashboard-address", f"{LOOPBACK}:0", "--local-directory", folder / name]
        children[name] = stack.enter_context(running(name, command, folder, environment=environment))
    for name in workers:
        child = children[name]
        child.until(lambda log=child.log: "Registered to:" in log.read_text(errors="replace"), timeout_s=90)
    return {name: psutil.Process(child.pid) for name, child in children.items()}, address


def watch(flow: subprocess.Popen[bytes], roots: dict[str, psutil.Process]) -> dict[str, Part]:
    """Look at all processes until the flow ends."""
    parts = {name: Part() for name in [*roots, "flow", "prefect-server"]}
    while flow.poll() is None:
        for name, root in roots.items():
            parts[name].look(family(root))
        with suppress(psutil.NoSuchProcess):
            mine = family(psutil.Process(flow.pid))
            servers = [process for process in mine if is_server(process)]
            parts["flow"].look([process for process in mine if process not in servers])
            parts["prefect-server"].look(servers)
        time.sleep(WORKER_POLL_S)
    return parts


def family(root: psutil.Process) -> list[psutil.Process]:
    """List a process and all that it has started."""
    with suppress(psutil.NoSuchProcess):
        return [root, *root.children(recursive=True)]
    return []


def is_server(process: psutil.Process) -> bool:
    """Whether it is the Prefect server that the flow has brought."""
    with suppress(psutil.NoSuchProcess):
        return any("prefect.server" in word or word == "uvicorn" for word in process.cmdline())
    return False


if __name__ == "__main__":
    main()
