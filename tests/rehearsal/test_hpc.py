"""The job of SLURM under SLURM: two nodes on this machine, and GPUs that are only counted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from servers.process import ROOT, ServerMissingError
from servers.slurm import Slurm, slurm_cluster

from crosstie.io.simulation.pairs import write_simulated_catalog

pytestmark = [pytest.mark.slow, pytest.mark.server]

JOB = ROOT / "deploy" / "hpc" / "crosstie.sbatch"

CLOUDED, KILLED, LATE = 1, 2, 3
"""Tasks of the array, by what becomes of them; the first ends by itself, with a pair that is not trusted."""

PERIODS = {
    CLOUDED: ("2025-06-13", "2025-06-20"),
    KILLED: ("2025-06-01", "2025-06-07"),
    LATE: ("2025-06-08", "2025-06-12"),
}

WHOLE = ("--start", "2025-06-01", "--end", "2025-06-20")

ALIKE = {"OMP_NUM_THREADS": "1", "CROSSTIE_COMPUTE__THREADS": "1", "CROSSTIE_TILES__STRIDE_PX": "64"}
"""Settings of all runs, with SLURM and without."""

PATIENCE_S = 1200.0


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    try:
        with slurm_cluster(tmp_path_factory.mktemp("slurm")) as cluster:
            yield cluster
    except ServerMissingError as problem:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(problem))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a user works: scenes, products, what was exported, and the logs of the jobs."""

    slurm: Slurm
    folder: Path

    @property
    def exported(self) -> dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "CROSSTIE_VENV": str(ROOT / ".venv"),
            "CROSSTIE_PRODUCTS_URL": str(self.folder / "products"),
            **ALIKE,
            "CROSSTIE_RUNS__CLAIM_S": "15",
            "PREFECT_API_URL": "http://127.0.0.1:9/api",  # of another set-up: the job brings its own
            **({"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}),
            **self.slurm.environment,
        }

    def submit(self, *options: str, job: Path = JOB, command: tuple[str, ...] = (), **exported: str) -> str:
        """Number of the job."""
        done = subprocess.run(
            ["sbatch", "--parsable", *options, job, *command],
            cwd=self.folder, env={**self.exported, **exported},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def job(self, name: str) -> dict[str, str]:
        return self.slurm.job(name)

    def log(self, name: str) -> str:
        path = Path(self.job(name)["StdOut"])
        return path.read_text() if path.is_file() else ""

    def until(self, met: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not met():
            assert time.monotonic() < deadline, f"{what}: {self.told()}"
            time.sleep(0.2)

    def ended(self, name: str) -> str:
        """State that a job has ended in."""
        self.until(lambda: self.slurm.ended(name), f"{name} has ended")
        return self.job(name)["JobState"]

    def told(self) -> str:
        logs = [f"--- {path.name}\n{path.read_text()[-3000:]}" for path in self.folder.glob("crosstie-*.log")]
        return "\n".join([self.slurm.ask("squeue"), *logs])

    def left(self) -> list[str]:
        """What jobs have put beside their logs and products."""
        return [path.name for path in self.folder.iterdir() if path.name.startswith((".cross", "crosstie."))]


@dataclass(frozen=True, slots=True)
class Walk:
    """An array of three tasks, and the job after it."""

    place: Place
    states: dict[int, str]
    """How each task has ended."""
    codes: dict[int, str]
    """Exit code of each, and the signal that ended it."""
    restarts: str
    """How often the killed one was queued again."""
    steps: dict[str, list[tuple[list[str], dict[str, str]]]]
    """Dask's processes of the killed task, by step: command line, environment."""
    log: str
    """Of the killed one."""
    waited: str
    """Why a job of the same name did not begin beside the array."""
    committed: dict[str, bytes]
    """Products when the array was over."""
    last: str
    """The job after it."""


@pytest.fixture(scope="module")
def place(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(slurm, tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def walk(place: Place) -> Walk:
    """Submitted; one task killed and queued again, one ended by its time limit; then all once more."""
    catalog = write_simulated_catalog(place.folder / "scenes", scenes=3, size_px=384)
    options = place.folder / "periods"
    options.write_text("".join(f"--start {start} --end {end}\n" for start, end in PERIODS.values()))
    given = {"CROSSTIE_CATALOG_URL": str(catalog), "CROSSTIE_ARRAY_OPTIONS": str(options)}
    array = place.submit(
        *("--dependency=", "--array=1-3", "--ntasks=3", "--cpus-per-task=1", "--gpus=1"),
        command=("backfill",), CROSSTIE_SRUN_MATCHER="--gpus-per-task=1", **given,
    )  # fmt: skip
    killed, late = f"{array}_{KILLED}", f"{array}_{LATE}"

    place.until(lambda: "tiles to match" in place.log(killed), "the first task matches")
    steps = steps_of(place.slurm.processes(place.job(killed)["JobId"]))
    place.slurm.ask("scontrol", "requeue", killed)

    place.until(lambda: "tiles to match" in place.log(late), "the task that will be late matches")
    for process in place.slurm.processes(place.job(late)["JobId"]):
        if "SLURM_PROCID" in process.environ() and process.environ().get("CUDA_VISIBLE_DEVICES"):
            process.send_signal(signal.SIGSTOP)  # the matcher does no more, as on a node that hangs
    place.slurm.ask("scontrol", "update", f"JobId={late}", "TimeLimit=1")

    without = run_without(place.folder)
    last = place.submit("--ntasks=3", "--cpus-per-task=1", command=("backfill", *WHOLE), **given)
    place.until(lambda: place.job(last)["Reason"] != "None", "the job after the array waits")
    waited = place.job(last)["Reason"]
    states = {task: place.ended(f"{array}_{task}") for task in PERIODS}
    codes = {task: place.job(f"{array}_{task}")["ExitCode"] for task in PERIODS}
    restarts, log = place.job(killed)["Restarts"], place.log(killed)
    committed = products(place.folder / "products")
    place.ended(last)
    assert without.wait(PATIENCE_S) == 3
    return Walk(place, states, codes, restarts, steps, log, waited, committed, last)


def run_without(folder: Path) -> subprocess.Popen[bytes]:
    """The same archive without SLURM; while a task of the array waits for its time limit."""
    return subprocess.Popen(
        [ROOT / ".venv" / "bin" / "crosstie", "backfill", *WHOLE,
         "--catalog", folder / "scenes" / "catalog.json", "--out", folder / "without"],
        env={**os.environ, **ALIKE}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def steps_of(processes: list[psutil.Process]) -> dict[str, list[tuple[list[str], dict[str, str]]]]:
    found: dict[str, list[tuple[list[str], dict[str, str]]]] = {}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            line, variables = process.cmdline(), process.environ()
            if "SLURM_PROCID" in variables and "dask" in " ".join(line[:2]):
                found.setdefault(variables["SLURM_STEP_ID"], []).append((line, variables))
    return found


def products(out: Path) -> dict[str, bytes]:
    """What the runs of an archive have found; the time of their making apart."""
    found = {}
    for path in sorted(out.glob("*/*/*")):
        if path.name == "correction.json":
            correction = json.loads(path.read_text())
            del correction["provenance"]["created_utc"], correction["provenance"]["seconds"]
            found[str(path.relative_to(out))] = json.dumps(correction).encode()
        elif path.name in {"tie_points.parquet", "corrected.vrt"}:
            found[str(path.relative_to(out))] = path.read_bytes()
    return found


def pairs(found: dict[str, bytes]) -> list[str]:
    return sorted({path.partition("__")[0][-3:] for path in found})


def test_each_task_of_the_array_does_its_own_part(walk: Walk) -> None:
    assert walk.states == {CLOUDED: "FAILED", KILLED: "COMPLETED", LATE: "TIMEOUT"}, walk.place.told()
    assert walk.codes[CLOUDED] == "3:0"  # of the command, as the page says
    assert pairs(walk.committed) == ["000", "002"]


def test_a_task_that_was_killed_is_queued_again_and_done(walk: Walk) -> None:
    assert walk.restarts == "1"
    assert walk.log.count("tiles to match") == 2  # the log has both attempts


def test_only_the_matcher_has_the_gpu(walk: Walk) -> None:
    kinds = {}
    for processes in walk.steps.values():
        line, variables = processes[0]
        words = " ".join(line)
        kind = "scheduler" if "dask scheduler" in words else "matcher" if "GPU=1" in words else "reader"
        kinds[kind] = variables
    assert kinds.keys() == {"scheduler", "reader", "matcher"}
    assert all(variables["SLURM_STEP_NUM_TASKS"] == "1" for variables in kinds.values())
    assert {kind for kind, variables in kinds.items() if variables.get("CUDA_VISIBLE_DEVICES")} == {"matcher"}


def test_what_was_cut_short_goes_on_when_it_is_submitted_again(walk: Walk) -> None:
    assert walk.waited == "Dependency"
    assert "3 pairs: 2 corrected, 1 unreliable; 2 of them were already done" in walk.place.log(walk.last)
    assert walk.place.job(walk.last)["ExitCode"] == "3:0"


def test_products_are_those_of_a_run_without_slurm(walk: Walk) -> None:
    folder = walk.place.folder
    expected = products(folder / "without")
    assert pairs(expected) == ["000", "001", "002"]
    assert products(folder / "products") == expected


def test_jobs_leave_nothing_behind(walk: Walk) -> None:
    assert walk.place.left() == []
    assert [process for process in psutil.process_iter() if _mine(process, walk.place.folder)] == []


CATALOG = {"CROSSTIE_CATALOG_URL": "catalog.json"}


@pytest.mark.parametrize(
    ("options", "exported", "said"),
    [
        (["--ntasks=2"], CATALOG, "2 tasks are too few"),
        (["--ntasks=3"], {}, "CROSSTIE_CATALOG_URL: is not set"),
        (["--ntasks=3", "--array=1"], CATALOG, "CROSSTIE_ARRAY_OPTIONS: is not set"),
        (
            ["--ntasks=3", "--array=9"],
            {**CATALOG, "CROSSTIE_ARRAY_OPTIONS": "/dev/null"},
            "no options in line 9",
        ),
    ],
)
def test_what_cannot_go_well_does_not_start(
    place: Place, options: list[str], exported: dict[str, str], said: str
) -> None:
    job = place.submit("--dependency=", "--cpus-per-task=1", *options, **exported)
    assert place.ended(job) == "FAILED"
    assert said in place.log(job)
    assert place.left() == []


def _mine(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.pid != os.getpid() and str(folder) in " ".join(process.cmdline())
    except psutil.Error:  # gone, or of somebody else
        return False
