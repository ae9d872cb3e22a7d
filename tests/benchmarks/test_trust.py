"""`benchmarks/trust.py`: it counts what it says, and goes on where it was stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def trust(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import trust

    return trust


def row(verdict: str, hazard: str = "none", **more: Any) -> dict[str, Any]:
    same = {"size_px": 512, "true_px": 0.0, "error_ground_px": 0.1, "error_sensor_px": 0.1}
    return {"verdict": verdict, "hazard": hazard, **same, **more}


def test_false_corrections_are_those_that_leave_more_than_a_pixel(trust: Any) -> None:
    rows = [row("corrected"), row("corrected", error_ground_px=1.5, error_sensor_px=0.2), row("unreliable")]
    found = trust.part(rows)
    assert (found["false_corrections_ground"], found["false_corrections_sensor"]) == (0.5, 0.0)
    assert trust.part([row("unreliable")])["false_corrections_ground"] is None


def test_an_unrelated_pair_that_is_accepted_is_told(trust: Any) -> None:
    rows = [row("already_aligned", "unrelated"), row("unreliable", "unrelated")]
    assert trust.part(rows)["unrelated_accepted"] == 1


def test_false_aligned_are_off_by_more_than_a_pixel(trust: Any) -> None:
    rows = [row("already_aligned", true_px=value) for value in (0.0, 0.9, 1.1, 3.0)]
    assert trust.part(rows)["false_aligned"] == 0.5


def test_ellipses_count_corners(trust: Any) -> None:
    rows = [row("corrected", applied_ground=[1.0, 5.9, 6.1, 0.0], fitted_ground=[7.0, 7.0, 7.0, 1.0])]
    found = trust.part(rows)
    assert (found["ellipse_applied_ground"], found["ellipse_fitted_ground"]) == (0.75, 0.25)


def test_power_is_the_share_corrected_by_how_far_scenes_are_off(trust: Any) -> None:
    rows = [row("already_aligned"), row("corrected", true_px=3.0), row("unreliable", true_px=3.5)]
    first, second = trust.power(rows)
    assert (first["corrected"], second["corrected"], second["scenes"]) == (0.0, 0.5, 2)


def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    def run(scenes: int) -> str:
        command = [sys.executable, ROOT / "benchmarks/trust.py", "--out", tmp_path, "--scenes", str(scenes)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout

    run(2)
    path = tmp_path / "tie_points.jsonl"
    first = path.read_text().splitlines()
    assert [json.loads(line)["index"] for line in first] == [0, 1]
    path.write_text("\n".join(first[1:]) + "\n")
    assert "| all | 3 |" in run(3)
    lines = path.read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [1, 0, 2]
    assert lines[1] == first[0]
    assert json.loads((tmp_path / "trust.json").read_text())["tie_points"]["all"]["scenes"] == 3
    assert (tmp_path / "trust.png").read_bytes().startswith(b"\x89PNG")
