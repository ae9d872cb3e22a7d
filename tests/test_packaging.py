"""What is delivered is what was written: a wheel made from the sdist works away from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from crosstie.io.simulation.pairs import write_simulated_catalog

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from an unpacked sdist, as an index would serve it, with what is installed here."""
    folder = tmp_path_factory.mktemp("dist")
    # without --wheel or --sdist, build makes the wheel from the sdist
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment that holds the wheel, and sees the dependencies but not the checkout."""
    folder = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # A path file adds the folder alone: the editable crosstie in there is found by another path file, which
    # is not read from here.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


def test_the_wheel_holds_the_linked_folders_and_the_weights(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "io/raster/__init__.py",
        "flows/runs/__init__.py",
        "matcher/matching.py",
        "flows/nightly.py",
        "estimation/verdict.py",
        "py.typed",
    ):
        assert f"crosstie/{name}" in names
    assert any(name.startswith("crosstie/matcher/") and name.endswith(".safetensors") for name in names)
    assert not [name for name in names if name.startswith(("tests", "io/", "matcher/", "flows/"))]
    assert [name for name in names if name.endswith("/LICENSE")]


def test_the_wheel_registers_a_pair_far_from_the_checkout(elsewhere: Path, tmp_path: Path) -> None:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CROSSTIE_"))
    }

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(str, command)), cwd=tmp_path, env=clean, capture_output=True, text=True
        )

    where = run(elsewhere, "-c", "import crosstie.io, crosstie.matcher; print(crosstie.io.__file__)")
    assert where.returncode == 0, where.stderr
    assert str(elsewhere.parent.parent) in where.stdout
    crosstie = elsewhere.parent / "crosstie"
    assert run(crosstie, "--help").returncode == 0
    place = write_simulated_catalog(tmp_path / "scenes", scenes=1, size_px=384).parent / "place-000"
    done = run(crosstie, "register", place / "s2_tci.tif", place / "s1_vh.tif", "--out", "out", "--json")
    assert done.returncode in (0, 3), done.stderr
    assert json.loads(done.stdout)["tie_points"]["matched"] > 10
    assert len(list((tmp_path / "out").rglob("_COMMIT"))) == 1
