"""The cluster gives what one process gives, and says at once what it cannot do."""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster

from crosstie.codes import Kernel
from crosstie.config import load_settings
from crosstie.errors import SettingsError, UnreadableRasterError, WeightsError
from crosstie.flows.cluster.connect import GPU, OnCluster, connected, require_gpu
from crosstie.flows.cluster.workforce import look
from crosstie.flows.registration.load_matcher import load_matcher
from crosstie.flows.registration.pipeline import InProcess, register_plan
from crosstie.flows.registration.plan import TilePlan, plan_pair
from crosstie.io.products.aligned import AlignTask
from crosstie.io.products.drawing import DrawTask
from crosstie.io.products.mapping import Mapping
from crosstie.io.products.overview import Thumbnails
from crosstie.io.raster import open_pair
from crosstie.io.simulation.pairs import write_simulated_catalog
from crosstie.io.storage.s3 import FROM_ENVIRONMENT
from crosstie.io.storage.store import open_store
from crosstie.types import Registration

pytestmark = pytest.mark.server

SETTINGS = load_settings(
    options={
        "tiles.stride_px": 64,
        "tiles.coarse_spots": 4,
        "tiles.search_px": 16,
        "compute.threads": 1,
        "compute.chunk_px": 192,
        "compute.device": "cpu",
    }
)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with connected(SETTINGS.compute, partial(load_matcher, SETTINGS)) as client:
        yield client


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a simulated pair."""
    folder = tmp_path_factory.mktemp("simulated")
    return write_simulated_catalog(folder, scenes=1, size_px=384).parent / "place-000"


def planned(place: Path) -> TilePlan:
    return plan_pair(*open_pair(place / "s2_tci.tif", place / "s1_vh.tif"), SETTINGS)


def test_the_cluster_finds_what_one_process_finds(client: Client, place: Path) -> None:
    plan = planned(place)
    alone = register_plan(plan, InProcess(load_matcher(SETTINGS)), SETTINGS)
    together = register_plan(plan, OnCluster(client), SETTINGS)
    assert len(plan.tiles) == len(alone.points) > 10
    assert together.coarse == alone.coarse
    np.testing.assert_array_equal(together.points.row, alone.points.row)
    np.testing.assert_allclose(together.points.offset_m, alone.points.offset_m, rtol=0, atol=1e-3)
    assert together.estimate.verdict == alone.estimate.verdict


def test_a_raster_that_vanishes_is_an_error_of_its_pair_and_the_cluster_goes_on(
    client: Client, place: Path
) -> None:
    plan = planned(place)
    (place / "s1_vh.tif").rename(place / "away.tif")
    with pytest.raises(UnreadableRasterError, match=r"s1_vh\.tif"):
        register_plan(plan, OnCluster(client), SETTINGS)
    (place / "away.tif").rename(place / "s1_vh.tif")
    assert len(register_plan(plan, OnCluster(client), SETTINGS).points) == len(plan.tiles)


def aligned(place: Path, root: Path, name: str = "s1_vh.tif") -> AlignTask:
    """The secondary of a pair, moved by some metres, to be written under `root`."""
    grid = planned(place).reference.geobox
    return AlignTask(
        href=place / name,
        store=open_store(str(root)),
        key="pair/run/aligned.tif",
        grid=grid,
        mapping=Mapping(str(grid.crs), (1.0, 0.0, 12.5, 0.0, 1.0, -7.5)),
        resampling=Kernel.CUBIC,
        from_catalog=True,
        storage=FROM_ENVIRONMENT,
    )


def limit_files(size_bytes: int) -> int:
    """Let this process write no larger file: a worker that cannot write to the product root. Its own id."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    return os.getpid()


def test_a_worker_writes_the_pixels_that_this_process_would_write(
    client: Client, place: Path, tmp_path: Path
) -> None:
    here = aligned(place, tmp_path / "here").write()
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit_files(1000)  # this process could not
    try:
        there = OnCluster(client).align(aligned(place, tmp_path / "there"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert (there.size_bytes, there.sha256) == (here.size_bytes, here.sha256)
    assert there.size_bytes > 100_000
    assert [path.name for path in (tmp_path / "there").rglob("*") if path.is_file()] == ["aligned.tif"]


def test_a_worker_draws_the_pictures_that_this_process_would_draw(
    client: Client,
    place: Path,
    make_registration: Callable[..., Registration],
    recwarn: pytest.WarningsRecorder,
) -> None:
    plane = np.random.default_rng(0).random((1024, 1024), np.float32)
    registration = make_registration()
    assert registration.grid is not None
    grid = registration.grid.zoom_to((1024, 1024))
    # Four images, none of them twice: as much as a large scene has.
    images, detail = (Thumbnails(one, one[::-1].copy(), grid) for one in (plane, 1 - plane))
    task = DrawTask(registration, images, detail)
    there = OnCluster(client).draw(task)
    assert there == task.draw()
    assert there.overview.startswith(b"\x89PNG")
    assert there.report.frames
    assert not [str(said.message) for said in recwarn if "large graph" in str(said.message)]


def test_what_a_worker_cannot_write_this_process_writes(
    client: Client, place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = aligned(place, tmp_path / "here").write()
    assert os.getpid() not in client.run(limit_files, 1000).values()
    try:
        with caplog.at_level(logging.WARNING):
            there = OnCluster(client).align(aligned(place, tmp_path / "there"))
    finally:
        client.run(limit_files, resource.RLIM_INFINITY)
    assert there.sha256 == here.sha256
    assert "let the workers write to the product root" in caplog.text


def test_aligned_pixels_of_a_raster_that_is_gone_are_an_error_of_their_pair(
    client: Client, place: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnreadableRasterError, match=r"absent\.tif"):
        OnCluster(client).align(aligned(place, tmp_path, "absent.tif"))
    assert not list(tmp_path.rglob("*.tif"))


def test_the_cluster_listens_on_this_machine_only(client: Client) -> None:
    me = psutil.Process()
    listening = [
        connection.laddr.ip
        for process in [me, *me.children(recursive=True)]
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}


def test_one_worker_matches_and_another_reads(client: Client) -> None:
    seen = look(client)
    assert (seen.workers, seen.with_gpu, len(seen.readers)) == (2, 1, 1)


def test_a_scheduler_without_the_resource_is_refused_not_waited_for() -> None:
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
        pytest.raises(SettingsError, match=f"none of its 1 workers.*--resources {GPU}=1"),
    ):
        require_gpu(client, timeout_s=0.3)


def test_a_scheduler_that_is_not_there_is_bad_input() -> None:
    settings = load_settings(
        options={"compute.cluster": "tcp://127.0.0.1:9", "compute.worker_timeout_s": 0.5}
    )
    with pytest.raises(SettingsError, match=r"tcp://127\.0\.0\.1:9"), connected(settings.compute, int):
        pass


@pytest.mark.parametrize("cluster", ["remote", "http://127.0.0.1:8786", "tcp://127.0.0.1", "tcp://"])
def test_a_cluster_that_cannot_be_meant_is_bad_input(cluster: str) -> None:
    with pytest.raises(SettingsError, match=r"compute\.cluster"):
        load_settings(options={"compute.cluster": cluster})


def test_weights_that_are_missing_are_told_when_the_worker_loads_them(tmp_path: Path) -> None:
    settings = load_settings(options={"weights": tmp_path / "absent.safetensors", "compute.device": "cpu"})
    with (
        pytest.raises(WeightsError, match=r"absent\.safetensors"),
        connected(settings.compute, partial(load_matcher, settings)),
    ):
        pass
