"""The nightly flow with a real Prefect server and a real cluster: done once, and whole after a kill."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import psutil
import pytest
import rasterio
from affine import Affine

from crosstie.config import load_settings
from crosstie.errors import CatalogError
from crosstie.io.simulation.pairs import write_simulated_catalog

if TYPE_CHECKING:
    from crosstie.flows.runs.outcome import Outcome

pytestmark = [pytest.mark.server, pytest.mark.slow]

OPTIONS = {
    "tiles.stride_px": 64,
    "tiles.search_px": 16,
    "compute.threads": 1,
    "compute.chunk_px": 192,
    "compute.device": "cpu",
}
SETTINGS = load_settings(options=OPTIONS)
SIZE = 448

Run = Callable[..., list["Outcome"]]


@pytest.fixture(scope="module")
def run(prefect_home: Path) -> Run:
    from crosstie.flows.nightly import run_nightly

    return run_nightly


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three places: one to correct, one whose SAR file is cut short, one under cloud."""
    path = write_simulated_catalog(tmp_path_factory.mktemp("catalog"), scenes=3, size_px=SIZE)
    broken = path.parent / "place-001" / "s1_vh.tif"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 3])
    return path


@pytest.fixture(scope="module")
def first(run: Run, catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Outcome]]:
    """Products of an undisturbed run, and what it said."""
    out = tmp_path_factory.mktemp("out") / "products"
    return out, run(str(catalog), str(out), SETTINGS)


def test_every_pair_has_its_own_outcome(first: tuple[Path, list[Outcome]], catalog: Path) -> None:
    out, outcomes = first
    assert [outcome.verdict for outcome in outcomes] == ["corrected", "failed", "unreliable"]
    assert outcomes[1].reasons == ("unreadable_raster",)
    assert "place-001" in outcomes[1].explanation[0]
    assert "clouded" in outcomes[2].reasons
    assert [outcome.already_done for outcome in outcomes] == [False] * 3
    assert len(list(out.rglob("_COMMIT"))) == 2
    index = gpd.read_parquet(out / "_index" / "corrections.parquet")
    assert sorted(index["verdict"]) == ["corrected", "unreliable"]

    correction = read_correction(outcomes[0])
    truth = json.loads((catalog.parent / "truth.json").read_text())["pairs"][0]
    with rasterio.open(catalog.parent / "place-000" / "s1_vh.tif") as raster:
        middle = raster.transform @ (SIZE / 2, SIZE / 2)
    found, true = Affine(*correction["affine"]) @ middle, Affine(*truth["true_affine"]) @ middle
    assert math.dist(found, true) < 5  # half a pixel, on one small simulated scene


def read_correction(outcome: Outcome) -> dict[str, Any]:
    assert outcome.products is not None
    correction: dict[str, Any] = json.loads(
        Path(outcome.products.removeprefix("file://"), "correction.json").read_text()
    )
    return correction


def test_a_second_run_computes_nothing_that_is_done(
    run: Run, first: tuple[Path, list[Outcome]], catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, outcomes = first
    before = state(out)
    again = run(str(catalog), str(out), SETTINGS)
    assert [outcome.already_done for outcome in again] == [True, False, True]  # what failed is tried again
    assert [outcome.verdict for outcome in again] == [outcome.verdict for outcome in outcomes]
    assert state(out) == before


def test_other_settings_are_another_run_and_workers_draw_for_it(
    run: Run, first: tuple[Path, list[Outcome]], catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = first

    def drawn_here(*_: object, **__: object) -> bytes:
        raise AssertionError("drawn by the process that serves all pairs")

    monkeypatch.setattr("crosstie.io.products.drawing.overview_png", drawn_here)
    other = load_settings(options={**OPTIONS, "tiles.search_px": 15})
    (outcome,) = run(str(catalog), str(out), other, limit=1)
    assert (outcome.verdict, outcome.already_done) == ("corrected", False)
    assert len(list(out.rglob("_COMMIT"))) == 3


def test_aligned_pixels_are_written_once_where_they_are_asked_for(
    run: Run, catalog: Path, tmp_path: Path
) -> None:
    settings = load_settings(options={**OPTIONS, "products.aligned": "reference-grid"})
    out = tmp_path / "products"
    run(str(catalog), str(out), settings, limit=1)
    (path,) = out.rglob("aligned.tif")
    with rasterio.open(path) as aligned, rasterio.open(catalog.parent / "place-000" / "s2_tci.tif") as grid:
        assert (aligned.shape, aligned.transform, aligned.crs) == (grid.shape, grid.transform, grid.crs)
        assert aligned.read(1).any()
    before = state(out)
    (again,) = run(str(catalog), str(out), settings, limit=1)
    assert again.already_done
    assert state(out) == before


def test_a_catalog_that_is_not_there_is_bad_input(run: Run, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"absent\.json"):
        run(str(tmp_path / "absent.json"), str(tmp_path / "out"), SETTINGS)
    assert not (tmp_path / "out").exists()


def test_artifacts_tell_the_server(run: Run, first: tuple[Path, list[Outcome]]) -> None:
    from prefect.artifacts import Artifact

    from crosstie.flows.runs.run import NIGHTLY, progress_key, table_key

    table = Artifact.get(table_key(NIGHTLY))
    assert table is not None
    assert "verdict" in str(table.data)
    progress = Artifact.get(progress_key(NIGHTLY))
    assert progress is not None
    assert float(str(progress.data)) == 100


def test_a_killed_run_started_again_ends_with_the_same_products(
    run: Run, first: tuple[Path, list[Outcome]], catalog: Path, tmp_path: Path
) -> None:
    reference, _ = first
    out = tmp_path / "products"
    command = [sys.executable, "-m", "crosstie", "nightly", "--catalog", str(catalog), "--out", str(out)]
    settings = {f"CROSSTIE_{name.upper().replace('.', '__')}": str(value) for name, value in OPTIONS.items()}
    process = subprocess.Popen(
        command, env={**os.environ, **settings}, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    for line in process.stderr:  # a pair is planned: its windows are being read and matched
        if "tiles to match" in line:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    assert process.wait(10) == -signal.SIGKILL
    process.stderr.close()
    # Dask's workers see that they are orphans; Prefect's server, which is not ours to mend, does not.
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    unfinished = products(out)
    run(str(catalog), str(out), SETTINGS)
    assert unfinished.items() <= products(out).items()
    expected = {path: body for path, body in products(reference).items() if run_of(path) in runs(out)}
    assert products(out) == expected
    assert len(runs(out)) == 2


def run_of(path: str) -> str:
    """Key of the run in `<pair_key>/<run_key>/<file>`."""
    return path.split("/")[1]


def runs(out: Path) -> set[str]:
    return {path.parent.name for path in out.rglob("_COMMIT")}


def state(out: Path) -> dict[str, int]:
    """Every file of the pairs with the time of its last change; failures, which are tried again, apart."""
    files = (path for path in sorted(out.rglob("*")) if path.is_file() and "_runs" not in path.parts)
    return {str(path): path.stat().st_mtime_ns for path in files if path.name != "_FAILED.json"}


def products(out: Path) -> dict[str, bytes]:
    """Products that do not carry the time of their making, and the corrections without it."""
    found = {}
    for path in sorted(out.rglob("*")):
        key = str(path.relative_to(out))
        if path.name == "correction.json":
            correction = json.loads(path.read_text())
            del correction["provenance"]["created_utc"], correction["provenance"]["seconds"]
            found[key] = json.dumps(correction).encode()
        elif path.name in {"tie_points.parquet", "corrected.vrt"}:
            found[key] = path.read_bytes()
    return found
