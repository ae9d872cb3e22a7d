"""A backfill over real pixels with known errors, killed while it runs: the benchmark itself, made small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from servers.process import ROOT

PAIRS, KILLS = 12, 2


def test_a_backfill_that_is_killed_resumes_computes_nothing_twice_and_finds_the_known_errors(
    real_data: Path, tmp_path: Path
):
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [
            sys.executable, ROOT / "benchmarks/fleet/backfill.py", "--from", real_data / "scenes",
            "--pairs", str(PAIRS), "--kills", str(KILLS), "--folder", tmp_path / "work", "--json", figures,
        ],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    logs = "".join(path.read_text(errors="replace")[-2000:] for path in sorted(tmp_path.glob("work/*.log")))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    found = json.loads(figures.read_text())
    assert found["committed"] == PAIRS
    assert len(found["kills"]) == KILLS
    assert 0 < found["kills"][0] < PAIRS
    assert found["touched"] == 0
    assert found["verdicts"] == {"corrected": PAIRS}
    assert found["within_limit"] == 1.0
    assert found["left_px"]["max"] < 0.5
