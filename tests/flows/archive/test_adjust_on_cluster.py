"""Places solved by the workers of a Dask cluster: the same bytes, and none is lost with a worker."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import dask
import numpy as np
import pytest
from distributed import Client
from measured_archive import MeasuredArchive
from servers.dask_cluster import DaskCluster, dask_cluster

from crosstie.config import ComputeSettings
from crosstie.errors import SettingsError
from crosstie.flows.archive.adjusting import adjust_archive
from crosstie.flows.archive.solving import AdjustOptions
from crosstie.flows.archive.workers import PlaceSolver, place_solver
from crosstie.io.adjusted.layout import ADJUSTED
from crosstie.io.storage.store import Store, open_store

pytestmark = [pytest.mark.server, pytest.mark.slow]

TILES = ("31UFS", "31UGS", "31UHS")


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("on-cluster") / "products"
    archive = MeasuredArchive(open_store(str(folder)), np.random.default_rng(0))
    for tile in TILES:
        archive.place(tile, optical=3, sar=5)
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with dask_cluster(tmp_path_factory.mktemp("dask"), workers=("reader-0", "reader-1")) as cluster:
        yield cluster


def adjusted(products: Path, root: Path, solver: PlaceSolver) -> dict[str, bytes | None]:
    """Every file that adjusting a copy of the archive writes."""
    shutil.copytree(products, root)
    store: Store = open_store(str(root))
    outcomes = list(adjust_archive(store, AdjustOptions(), solver=solver))
    assert [(one.place, one.action) for one in outcomes] == [(f"T{tile}", "solved") for tile in TILES]
    return {key: store.get(key) for key in store.list(ADJUSTED)}


def tasks_seen(address: str) -> int:
    """Places that the workers have solved."""
    with Client(address, set_as_default=False) as client:
        seen: dict[str, int] = client.run_on_scheduler(
            lambda dask_scheduler: {
                name: prefix.state_counts["memory"] for name, prefix in dask_scheduler.task_prefixes.items()
            }
        )
    return seen.get("solve_place", 0)


def test_workers_solve_the_places_to_the_same_bytes_and_a_cluster_that_dies_loses_none(
    products: Path,
    cluster: DaskCluster,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = adjusted(products, tmp_path / "here", PlaceSolver())
    compute = ComputeSettings(cluster=cluster.address)
    with place_solver(compute) as solver:
        assert adjusted(products, tmp_path / "there", solver) == here
    assert tasks_seen(cluster.address) == len(TILES)
    caplog.set_level(logging.WARNING)
    with place_solver(compute) as solver:
        for name in list(cluster.workers):
            cluster.kill(name)
        assert adjusted(products, tmp_path / "alone", solver) == here
    assert caplog.text.count("it is solved here") == len(TILES)
    caplog.clear()
    impatient = {"distributed.comm.timeouts.connect": "2s"}
    with dask.config.set(impatient), place_solver(compute) as solver:
        cluster.scheduler.kill()
        assert adjusted(products, tmp_path / "left", solver) == here
    assert "it is solved here" in caplog.text


def test_without_an_address_places_are_solved_in_this_process() -> None:
    for name in ("local", "kubernetes"):
        with place_solver(ComputeSettings(cluster=name)) as solver:
            assert solver == PlaceSolver()


def test_an_address_where_nothing_answers_is_said() -> None:
    compute = ComputeSettings(cluster="tcp://127.0.0.1:9", worker_timeout_s=0.5)
    with pytest.raises(SettingsError, match=r"tcp://127\.0\.0\.1:9"), place_solver(compute):
        pass
