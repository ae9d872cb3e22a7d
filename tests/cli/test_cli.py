"""The command line as a user meets it: what it prints, where, and with which exit code."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import rasterio
import typer
import yaml
from affine import Affine
from typer.testing import CliRunner, Result

from crosstie.cli import app

PROGRAM = typer.main.get_command(app)

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


def test_a_run_that_plans_loads_neither_torch_nor_a_server() -> None:
    """Each costs every run seconds of start; workers load torch, and a process of its own is the server."""
    planning = (
        "import sys; from crosstie.config import load_settings;"
        "from crosstie.flows.registration.load_matcher import weights_sha256;"
        "from crosstie.flows import nightly, backfill, new_scene; from crosstie.flows.runs import own_server;"
        "weights_sha256(load_settings());"
    )
    loaded = python(
        planning + "print([n for n in ('torch', 'prefect.server.api.server') if n in sys.modules])"
    )
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


def test_a_pair_that_is_done_is_told_and_not_computed_again(tmp_path: Path) -> None:
    here = write_raster(tmp_path / "s2_tci.tif")
    there = write_raster(tmp_path / "s1_vh.tif", east_m=650_000.0)
    given = ("register", here, there, "--out", tmp_path / "out")
    assert crosstie(*given).exit_code == 3
    (record,) = (tmp_path / "out").rglob("correction.json")
    before = record.read_bytes()
    again = crosstie(*given)
    assert again.exit_code == 3  # the verdict is what it was
    assert again.stdout.startswith("Already done on 20")
    assert "--force does it again" in again.stdout
    assert "share no valid pixels" in again.stdout
    assert str(record.parent / "report.html") in again.stdout
    assert json.loads(crosstie(*given, "--json").stdout) == json.loads(before)
    assert record.read_bytes() == before
    other = crosstie(*given, "--config", _settings(tmp_path, "tiles:\n  search_px: 20\n"))
    assert not other.stdout.startswith("Already done")
    forced = crosstie(*given, "--force")
    assert forced.exit_code == 3
    assert not forced.stdout.startswith("Already done")
    assert record.read_bytes() != before


def _settings(folder: Path, text: str) -> Path:
    path = folder / "crosstie.yaml"
    path.write_text(text)
    return path


RUNS = ("pairs", "nightly", "backfill", "new-scene", "status")


@pytest.mark.parametrize("name", ["--orbit", "--track", "--platform", "--product", "--weights", "--json"])
def test_an_option_is_the_same_wherever_it_is(name: str) -> None:
    told = {command: options_of(command)[name] for command in RUNS}
    assert len(set(told.values())) == 1, told


def test_runs_share_limit_and_dry_run_too() -> None:
    for name in ("--limit", "--dry-run"):
        told = {options_of(command)[name] for command in ("nightly", "backfill", "new-scene")}
        assert len(told) == 1
    assert options_of("pairs")["--limit"] == options_of("nightly")["--limit"]


def test_json_means_one_thing_and_takes_no_value() -> None:
    told = {options_of(command).get("--json") for command in PROGRAM.commands}
    (one,) = told - {None}
    assert one is not None
    assert one[0] is True


def options_of(command: str) -> dict[str, tuple[bool, str]]:
    """What each option of a command is: whether it is a flag, and what its help says."""
    return {
        name: (bool(getattr(option, "is_flag", False)), str(getattr(option, "help", "")))
        for option in PROGRAM.commands[command].params
        for name in option.opts
    }


@pytest.mark.parametrize("command", sorted(PROGRAM.commands))
def test_the_help_fills_its_lines_at_80_columns(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line ends where the next word has no room, or where a paragraph ends; no choice is cut in two."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    lines = crosstie(command, "--help").stdout.splitlines()
    text = [line.rstrip() for line in lines[: next(n for n, line in enumerate(lines) if line[:1] == "╭")]]
    assert max(map(len, lines)) <= 80
    for line, after in itertools.pairwise(text):
        if line and after:
            assert len(line) + 1 + len(after.split()[0]) > 79, f"{line!r} has room for {after.split()[0]!r}"
    for row in lines:
        cells = row.replace("│", " ").split()
        assert all(cell.endswith(">") for cell in cells if cell[0] == "<" and "|" in cell), row


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--bbox", "100,10,101,11"), "the catalog has no scene in that area"),
        (("--start", "2030-01-01"), "the catalog has no scene at that time"),
        (("--bbox", "100,10,101,11", "--end", "2020-01-01"), "no scene in that area at that time"),
    ],
)
def test_pairs_says_that_nothing_is_there(catalog: Path, arguments: tuple[str, ...], said: str) -> None:
    result = crosstie("pairs", "--catalog", catalog, *arguments)
    assert result.exit_code == 0
    assert said in result.stdout
    assert "0 pairs, 0 to do" in result.stdout


def test_one_is_one(catalog: Path) -> None:
    result = crosstie("pairs", "--catalog", catalog, "--limit", "1")
    assert "1 pair, 1 to do; 0 scenes left out" in result.stdout


def test_pairs_as_json_is_the_plan(catalog: Path, tmp_path: Path) -> None:
    given = ("pairs", "--catalog", catalog, "--json")
    plan = json.loads(crosstie(*given, "--out", tmp_path / "out").stdout)
    assert plan["schema"] == "crosstie/plan/1"
    assert [pair["done"] for pair in plan["pairs"]] == [False, False]
    assert all(pair["pair_key"] == f"{pair['reference']}__{pair['secondary']}" for pair in plan["pairs"])
    strict = json.loads(crosstie(*given, "--max-days", "1").stdout)
    assert strict["pairs"] == []
    assert {left["rule"] for left in strict["left_out"]} == {"time gap"}
    refused = crosstie(*given, "--format", "geojson")
    assert (refused.exit_code, "leave --format and --to out" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("backfill",), "give --start"),
        (("backfill", "--start", "2025-06-01", "--code", "bug"), "set only_failed"),
        (("nightly", "--weights", "absent.safetensors"), "absent.safetensors"),
        (("new-scene", "X", "--max-days", "-1"), "max_days"),
        (("nightly", "--catalog", "absent.json"), "absent.json"),
    ],
)
def test_a_run_checks_what_it_is_given_before_it_asks_for_a_server(
    catalog: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    """The server that is named is dead, and would be told first if it had been asked first."""
    done = run_with_a_dead_server(*arguments, catalog=catalog, out=tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (("nightly",), 2),
        (("nightly", "--limit", "1"), 1),
        (("backfill", "--start", "2025-06-01", "--end", "2025-06-30"), 2),
        (("backfill", "--start", "2025-06-01", "--end", "2025-06-30", "--limit", "1"), 1),
        (("new-scene", "SIM_S2_20250604T103000_000"), 1),
        (("nightly", "--orbit", "ascending"), 0),
    ],
)
def test_a_dry_run_needs_no_server_and_writes_nothing(
    catalog: Path, tmp_path: Path, arguments: tuple[str, ...], count: int
) -> None:
    given = (*arguments, "--dry-run", "--json")
    done = run_with_a_dead_server(*given, catalog=catalog, out=tmp_path / "out")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    pairs = plan["pairs"] if "pairs" in plan else range(sum(part["to_do"] for part in plan["periods"]))
    assert len(pairs) == count
    assert not (tmp_path / "out").exists()


def run_with_a_dead_server(
    command: str, *more: str, catalog: Path, out: Path
) -> subprocess.CompletedProcess[str]:
    places = [] if "--catalog" in more else ["--catalog", str(catalog)]
    return subprocess.run(
        [sys.executable, "-m", "crosstie", command, *more, *places, "--out", str(out)],
        env=os.environ | {"PREFECT_API_URL": "http://127.0.0.1:9/api"},
        capture_output=True,
        text=True,
        check=False,
    )


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
