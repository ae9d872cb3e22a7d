"""`benchmarks/gpu.py` on a CPU: the code that an accelerator runs; it needs little beside torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

NOT_THERE = (
    "odc",
    "rasterio",
    "dask",
    "distributed",
    "prefect",
    "xarray",
    "geopandas",
    "pyproj",
    "shapely",
    "typer",
)
"""Of what crosstie installs, and a bare machine with torch has not."""

RUN = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({NOT_THERE!r}))  # their import raises
sys.argv = ["gpu.py", "--device", "cpu", "--side", "512", "--scene", "700"]
runpy.run_path("benchmarks/gpu.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def found() -> dict[str, list[dict[str, Any]]]:
    ran = subprocess.run([sys.executable, "-c", RUN], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr[-2000:]
    lines: dict[str, list[dict[str, Any]]] = {}
    for line in map(json.loads, ran.stdout.splitlines()):
        lines.setdefault(line["what"], []).append(line)
    return lines


def test_the_device_code_gives_the_offsets_of_the_cpu(found: dict[str, list[dict[str, Any]]]) -> None:
    fp32, bf16 = found["parity"]
    assert (fp32["precision"], bf16["precision"]) == ("fp32", "bf16")
    for line in (fp32, bf16):
        assert line["tiles"] == 25
        assert line["sure"] >= 20
        assert line["largest_px"] <= 0.02
    assert fp32["largest_px"] < bf16["largest_px"], "the precision was not changed at all"


def test_each_figure_is_there_and_can_be_true(found: dict[str, list[dict[str, Any]]]) -> None:
    assert [line["precision"] for line in found["features"]] == ["fp32", "bf16"]
    for line in found["features"]:
        assert line["share_of_roofline"] > 0
    memory, file = found["scene"]
    assert (memory["source"], file["source"]) == ("memory", "file")
    assert memory["tiles"] == file["tiles"] == 4 * 25, "four blocks of 512 px cover 700 px"
