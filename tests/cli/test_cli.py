"""The command line as a user meets it: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine
from typer.testing import CliRunner, Result

from crosstie.cli import app

COMMANDS = ["register", "apply", "pairs", "nightly", "config", "doctor", "simulate", "evaluate"]


def crosstie(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def write_raster(
    path: Path, *, east_m: float = 600_000.0, crs: str | None = "EPSG:32632", size: int = 160
) -> Path:
    noise = np.random.default_rng(1).integers(1, 255, (1, size, size), dtype=np.uint8)
    transform = Affine(10, 0, east_m, 0, -10, 5_300_000) if crs else Affine.identity()
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": size, "width": size}
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform) as raster:
        raster.write(noise)
    return path


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Printed by `crosstie simulate`."""
    folder = tmp_path_factory.mktemp("simulated")
    result = crosstie("simulate", folder, "--scenes", "2", "--size-px", "128")
    assert result.exit_code == 0, result.output
    return Path(result.stdout.strip())


def test_importing_crosstie_and_asking_for_help_loads_no_engine() -> None:
    heavy = "{'torch', 'rasterio', 'prefect', 'distributed', 'geopandas', 'matplotlib'}"
    loaded = python(f"import sys, crosstie, crosstie.cli; print(sorted({heavy} & set(sys.modules)))")
    assert loaded == "[]"


def test_the_package_offers_what_it_promises() -> None:
    shown = python("import crosstie; print(*[getattr(crosstie, n).__name__ for n in crosstie.__all__])")
    names = (
        "Product RegisterResult Settings apply crosstie.errors load_settings open open_store read_adjusted"
        " read_index register crosstie.types"
    )
    assert shown == names
    with pytest.raises(subprocess.CalledProcessError):
        python("import crosstie; crosstie.regsiter")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(command: str) -> None:
    result = crosstie(command, "--help")
    assert result.exit_code == 0
    assert f"Example: crosstie {command}" in " ".join(result.stdout.replace("│", " ").split())


@pytest.mark.parametrize("case", ["missing", "text", "no place", "truncated"])
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(tmp_path: Path, case: str) -> None:
    good, bad = write_raster(tmp_path / "s2_tci.tif"), tmp_path / "s1_vh.tif"
    if case == "text":
        bad.write_text("not a raster")
    elif case == "no place":
        with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
            write_raster(bad, crs=None)
    elif case == "truncated":
        whole = write_raster(tmp_path / "whole.tif", size=600).read_bytes()
        bad.write_bytes(whole[: len(whole) // 2])
    result = crosstie("register", good, bad, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "s1_vh.tif" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("--start", "yesterday"), ("--start", "yesterday", "2025-06-01")),
        (("--bbox", "1,2,3"), ("--bbox", "1,2,3", "WEST,SOUTH,EAST,NORTH")),
        (("--bbox", "1,60,2,50"), ("bbox", "60")),
        (("--max-days", "-3"), ("max_days", "-3")),
        (("--config", "absent.yaml"), ("absent.yaml",)),
        (("--start", "2025-06-02", "--end", "2025-06-01"), ("before it begins",)),
    ],
)
def test_a_wrong_option_is_named(catalog: Path, arguments: tuple[str, ...], names: tuple[str, ...]) -> None:
    result = crosstie("pairs", "--catalog", catalog, *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for name in names:
        assert name in result.stderr


def test_two_places_are_unreliable_with_a_reason_a_report_and_exit_code_3(tmp_path: Path) -> None:
    here = write_raster(tmp_path / "s2_tci.tif")
    there = write_raster(tmp_path / "s1_vh.tif", east_m=650_000.0)
    result = crosstie("register", here, there, "--out", tmp_path / "out")
    assert result.exit_code == 3, result.output
    assert "share no valid pixels" in result.stdout
    assert "no_overlap" in result.stdout
    (report,) = (tmp_path / "out").rglob("report.html")
    assert str(report) in result.stdout


def test_json_is_all_that_goes_to_stdout(tmp_path: Path) -> None:
    here = write_raster(tmp_path / "s2_tci.tif")
    there = write_raster(tmp_path / "s1_vh.tif", east_m=650_000.0)
    result = crosstie("register", here, there, "--out", tmp_path / "out", "--json")
    correction = json.loads(result.stdout)
    assert correction["schema"] == "crosstie/correction/1"
    assert correction["verdict"] == "unreliable"
    (written,) = (tmp_path / "out").rglob("correction.json")
    assert json.loads(written.read_text()) == correction


def test_pairs_shows_what_would_be_done_and_what_not(catalog: Path, tmp_path: Path) -> None:
    result = crosstie("pairs", "--catalog", catalog, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("SIM_S2") == 2
    assert "2 pairs, 2 to do; 0 scenes left out" in result.stdout
    assert not (tmp_path / "out").exists()
    strict = crosstie("pairs", "--catalog", catalog, "--max-days", "1")
    assert strict.stdout.count("left out: SIM_") == 4
    assert "max_days is 1" in strict.stdout


def test_pairs_as_geojson_is_nothing_but_geojson(catalog: Path) -> None:
    result = crosstie("pairs", "--catalog", catalog, "--format", "geojson", "--limit", "1")
    (feature,) = json.loads(result.stdout)["features"]
    assert feature["properties"]["overlap_pct"] == pytest.approx(100)
    assert feature["geometry"]["type"] == "Polygon"


def test_config_prints_what_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "crosstie.yaml"
    path.write_text("tiles:\n  size_px: 96\n  search_px: 20\n")
    monkeypatch.setenv("CROSSTIE_TILES__SEARCH_PX", "24")
    tiles = yaml.safe_load(crosstie("config", "--config", path).stdout)["tiles"]
    assert (tiles["size_px"], tiles["search_px"]) == (96, 24)


def test_doctor_is_content_here_and_says_what_to_do_elsewhere(catalog: Path, tmp_path: Path) -> None:
    well = crosstie("doctor", "--catalog", catalog, "--out", tmp_path)
    assert well.exit_code == 0, well.output
    for subject in ("python", "gdal", "torch", "prefect", "weights", "device", "disk", "catalog"):
        assert f"ok       {subject}: " in well.stdout
    config = tmp_path / "crosstie.yaml"
    config.write_text("weights: absent.safetensors\n")
    ill = crosstie("doctor", "--config", config, "--catalog", tmp_path / "absent.json")
    assert ill.exit_code == 3
    assert ill.stdout.count("problem  ") == ill.stdout.count("-> ") == 2


@pytest.mark.parametrize("command", ["status", "index", "site"])
def test_a_root_that_is_not_there_is_no_empty_archive(command: str, tmp_path: Path):
    said = crosstie(command, "--out", tmp_path / "misspelt")
    assert (said.exit_code, said.output.count("\n")) == (2, 1)
    assert f"there is no folder {tmp_path / 'misspelt'}" in said.output


def test_the_version_is_that_of_the_package():
    said = crosstie("--version")
    assert (said.exit_code, said.output.strip()) == (0, f"crosstie {version('crosstie')}")
