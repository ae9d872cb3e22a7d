"""A Dask scheduler and workers, each a process of its own, as they would run on other machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from servers.process import LOOPBACK, ROOT, Child, free_ports, listens, running

DASK = ROOT / ".venv" / "bin" / "dask"

READERS = ("reader-0", "reader-1")
MATCHERS = ("matcher-0",)

QUIET = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING": "False",
    "OMP_NUM_THREADS": "1",
    # The log tells when a worker is registered; a run of crosstie in the same process may have silenced it.
    "DASK_LOGGING__DISTRIBUTED": "info",
}


@dataclass(slots=True)
class DaskCluster:
    """A scheduler, and workers that come and go."""

    address: str
    """tcp://127.0.0.1:port"""
    scheduler: Child
    workers: dict[str, Child]
    """By name: `reader-0`, ..., `matcher-0`, ...; those called matcher offer the resource GPU."""
    _folder: Path
    _environment: Mapping[str, str] = field(repr=False)
    _stack: ExitStack = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """What a user of crosstie exports to work there."""
        return {"CROSSTIE_COMPUTE__CLUSTER": self.address}

    def start(self, *names: str) -> None:
        """Start workers and wait until the scheduler knows them."""
        before = {name: self._registrations(name) for name in names}
        for name in names:
            resources = ["--resources", "GPU=1"] if name.startswith("matcher") else []
            # no nanny: a worker that is killed stays dead, as a machine does
            command = [DASK, "worker", self.address, "--name", name, "--nthreads", "1", "--no-nanny",
                       "--no-dashboard", "--host", LOOPBACK, "--memory-limit", "0",
                       "--local-directory", self._folder / "dask-space", *resources]  # fmt: skip
            self.workers[name] = self._stack.enter_context(
                running(f"dask-{name}", command, self._folder, environment=self._environment)
            )
        for name in names:
            known = before[name]
            self.workers[name].until(lambda n=name, k=known: self._registrations(n) > k, timeout_s=240)

    def _registrations(self, name: str) -> int:
        log = self._folder / f"dask-{name}.log"
        return log.read_text(errors="replace").count("Registered to:") if log.is_file() else 0

    def kill(self, name: str) -> None:
        """End a worker at once, as a machine that loses its power does."""
        self.workers.pop(name).kill()


@contextmanager
def dask_cluster(
    folder: Path,
    *,
    workers: Sequence[str] = READERS + MATCHERS,
    environment: Mapping[str, str] | None = None,
) -> Iterator[DaskCluster]:
    """Run a scheduler and workers of one thread each until the block ends.

    Parameters
    ----------
    workers : their names; one that begins with `matcher` offers the resource GPU
    environment : what the workers see besides: credentials of the object store

    Raises
    ------
    ServerError : one of them does not start
    """
    from crosstie.flows.cluster.connect import WORKER_ENVIRONMENT

    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    with ExitStack() as stack:
        command = [DASK, "scheduler", "--host", LOOPBACK, "--port", str(port), "--no-dashboard", "--no-show"]
        scheduler = stack.enter_context(running("dask-scheduler", command, folder, environment=QUIET))
        scheduler.until(lambda: listens(port), timeout_s=240)
        cluster = DaskCluster(
            address=f"tcp://{LOOPBACK}:{port}",
            scheduler=scheduler,
            workers={},
            _folder=folder,
            _environment={**QUIET, **WORKER_ENVIRONMENT, **(environment or {})},
            _stack=stack,
        )
        cluster.start(*workers)
        yield cluster
