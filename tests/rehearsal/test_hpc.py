"""The job of SLURM on this machine: a stand-in for `srun` starts the same commands, on no node and no GPU."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import psutil
import pytest
from servers.process import ROOT

from crosstie.io.simulation.pairs import write_simulated_catalog

JOB = ROOT / "deploy" / "hpc" / "crosstie.sbatch"

SRUN = r"""#!/bin/bash
# Starts as many copies of the command as there are tasks; ends them when it is told to.
echo "$*" >> "$STEPS"
while [[ ${1-} == --* ]]; do
    [[ $1 == --ntasks=* ]] && ntasks=${1#*=}
    shift
done
trap 'kill $(jobs -p) 2>/dev/null; wait; exit 0' TERM
for _ in $(seq "$ntasks"); do "$@" & done
wait
"""


def submit(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the job as a node of SLURM does, with what a user has exported."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "srun").write_text(SRUN)
    (programs / "srun").chmod(0o755)
    return subprocess.run(
        [JOB, *words],
        env={
            "PATH": f"{programs}:/usr/bin:/bin",
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "STEPS": str(folder / "steps"),
            "SLURM_JOB_ID": "17",
            "SLURM_SUBMIT_DIR": str(folder),
            "CROSSTIE_VENV": str(ROOT / ".venv"),
            "CROSSTIE_PRODUCTS_URL": str(folder / "products"),
            "OMP_NUM_THREADS": "1",
            "CROSSTIE_COMPUTE__THREADS": "1",
            **environment,
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.server
def test_a_job_registers_and_leaves_nothing_behind(tmp_path: Path) -> None:
    catalog = write_simulated_catalog(tmp_path / "scenes", scenes=1, size_px=384)
    done = submit(
        tmp_path,
        SLURM_NTASKS="3",
        SLURM_CPUS_PER_TASK="2",
        CROSSTIE_CATALOG_URL=str(catalog),
        CROSSTIE_SRUN_MATCHER="--gpus-per-task=1 --mem-per-gpu=8G",
        PREFECT_API_URL="http://127.0.0.1:9/api",  # of another set-up: the job brings its own
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (commit,) = (tmp_path / "products").glob("*/*/_COMMIT")
    assert json.loads((commit.parent / "correction.json").read_text())["verdict"] == "corrected"
    steps = (tmp_path / "steps").read_text().splitlines()
    assert [step.count("--ntasks=1") for step in steps] == [1, 1, 1]
    (matcher,) = [step for step in steps if "--resources GPU=1" in step]
    assert "--gpus-per-task=1 --mem-per-gpu=8G dask worker" in matcher
    assert all("--cpus-per-task=2" in step for step in steps)
    assert (
        sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".cross", "crosstie.")))
        == []
    )
    assert [process for process in psutil.process_iter() if _mine(process, tmp_path)] == []


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"SLURM_NTASKS": "2", "CROSSTIE_CATALOG_URL": "catalog.json"}, "2 tasks are too few"),
        ({"SLURM_NTASKS": "3"}, "CROSSTIE_CATALOG_URL: is not set"),
    ],
)
def test_what_cannot_go_well_does_not_start(tmp_path: Path, environment: dict[str, str], said: str) -> None:
    done = submit(tmp_path, **environment)
    assert done.returncode != 0
    assert said in done.stderr
    assert not (tmp_path / "steps").exists()


def _mine(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.pid != os.getpid() and str(folder) in " ".join(process.cmdline())
    except psutil.Error:  # gone, or of somebody else
        return False
