"""Workers that die, come late or hold no network cost what they held, and nothing else."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest
from distributed import Client
from picture_reader import SETTINGS, Journal, PictureReader, loader, planned, with_compute
from servers.dask_cluster import DaskCluster, dask_cluster

from crosstie.errors import NoWorkerError, WeightsError, WorkerLostError
from crosstie.flows.cluster.connect import OnCluster, connected
from crosstie.flows.cluster.workforce import AHEAD, look
from crosstie.flows.registration.pipeline import InProcess, Progress, register_plan
from crosstie.flows.registration.plan import TilePlan
from crosstie.types import TiePoints

pytestmark = [pytest.mark.server, pytest.mark.slow]

TESTS = Path(__file__).resolve().parents[2]
PATHS = os.pathsep.join([str(TESTS), str(TESTS / "support")])
"""Where workers find what the tests send them."""


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """A scheduler and a reader; each test brings and takes its matchers."""
    folder = tmp_path_factory.mktemp("dask")
    with dask_cluster(folder, workers=["reader-0"], environment={"PYTHONPATH": PATHS}) as processes:
        yield processes


@pytest.fixture
def cluster(processes: DaskCluster) -> Iterator[DaskCluster]:
    yield processes
    for name in [name for name in processes.workers if name.startswith("matcher")]:
        processes.kill(name)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> TilePlan:
    plan = planned(tmp_path_factory.mktemp("pair"))
    assert len(plan.tiles) == 144
    return plan


@pytest.fixture(scope="module")
def undisturbed(plan: TilePlan, tmp_path_factory: pytest.TempPathFactory) -> TiePoints:
    """What one process finds that nobody kills."""
    matcher = PictureReader(tmp_path_factory.mktemp("journal") / "alone.jsonl")
    return register_plan(plan, InProcess(matcher), SETTINGS).points


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl")


def assert_same(found: TiePoints, expected: TiePoints) -> None:
    assert len(expected) == 144
    for column in ("row", "col", "xy_m", "offset_m", "sigma_m", "confidence"):
        np.testing.assert_array_equal(getattr(found, column), getattr(expected, column))


def after(tiles: int, act: Callable[[], object]) -> Progress:
    """Do something once, when so many tiles are done."""
    waiting = [act]

    def progress(done: int, total: int) -> None:
        del total
        if done >= tiles and waiting:
            waiting.pop()()

    return progress


def test_a_matching_worker_killed_mid_scene_costs_the_windows_that_it_had(
    cluster: DaskCluster, plan: TilePlan, undisturbed: TiePoints, journal: Journal
) -> None:
    cluster.start("matcher-0", "matcher-1")
    victim = cluster.workers["matcher-0"].pid
    settings = with_compute(cluster=cluster.address)
    with connected(settings.compute, loader(journal.path, seconds=0.1)) as client:
        measured = register_plan(
            plan, OnCluster(client), settings, progress=after(40, lambda: cluster.kill("matcher-0"))
        )
    assert_same(measured.points, undisturbed)
    assert len(journal.processes) == 2
    assert victim in journal.processes
    first: dict[float, int] = {}
    for window, process in journal.windows:
        first.setdefault(window, process)
    assert len(first) == 36
    assert journal.repeated  # it was in the middle of one
    assert {first[window] for window in journal.repeated} == {victim}
    assert len(journal.windows) - 36 <= AHEAD * 3


@pytest.mark.parametrize("everyone", [False, True], ids=["no matcher is left", "nobody is left"])
def test_the_scene_waits_for_workers_that_come_late_and_are_told_the_network(
    cluster: DaskCluster, plan: TilePlan, undisturbed: TiePoints, journal: Journal, everyone: bool
) -> None:
    cluster.start("matcher-0")
    settings = with_compute(cluster=cluster.address, gpu_wait_s=300.0)
    with connected(settings.compute, loader(journal.path, seconds=0.05)) as client:

        def replace() -> None:
            cluster.kill("matcher-0")
            if everyone:
                cluster.kill("reader-0")
            while look(client).workers if everyone else look(client).with_gpu:
                time.sleep(0.05)
            cluster.start(*["matcher-1", "reader-0"][: 1 + everyone])

        measured = register_plan(plan, OnCluster(client), settings, progress=after(40, replace))
    assert_same(measured.points, undisturbed)
    assert len(journal.processes) == 2


def test_a_worker_that_joins_is_used(cluster: DaskCluster, plan: TilePlan, journal: Journal) -> None:
    cluster.start("matcher-0")
    settings = with_compute(cluster=cluster.address)
    with connected(settings.compute, loader(journal.path, seconds=0.3)) as client:
        register_plan(
            plan, OnCluster(client), settings, progress=after(4, lambda: cluster.start("matcher-1"))
        )
    assert len(journal.processes) == 2
    assert not journal.repeated


def test_without_a_matching_worker_a_pair_warns_waits_and_fails_and_the_next_goes_on(
    cluster: DaskCluster,
    plan: TilePlan,
    undisturbed: TiePoints,
    journal: Journal,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster.start("matcher-0")
    settings = with_compute(cluster=cluster.address, gpu_wait_s=1.5)
    begin = time.monotonic()
    with connected(settings.compute, loader(journal.path, seconds=0.1)) as client:
        with caplog.at_level(logging.WARNING, "crosstie"), pytest.raises(NoWorkerError) as refused:
            register_plan(
                plan, OnCluster(client), settings, progress=after(40, lambda: cluster.kill("matcher-0"))
            )
        assert time.monotonic() - begin > 1.5
        message = str(refused.value)
        for part in ("GPU", "1 workers", "compute.gpu_wait_s", f"dask worker {cluster.address}"):
            assert part in message
        assert "wait for one for up to 1.5 s" in caplog.text
        assert not tasks_left(client)

        cluster.start("matcher-1")
        assert_same(register_plan(plan, OnCluster(client), settings).points, undisturbed)


def tasks_left(client: Client) -> bool:
    """Whether the scheduler still holds tasks, some time after nobody wants them."""
    deadline = time.monotonic() + 120
    while count := client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.05)
    return bool(count)


def test_a_worker_that_cannot_load_the_network_is_given_no_tile(
    cluster: DaskCluster, plan: TilePlan, undisturbed: TiePoints, journal: Journal, tmp_path: Path
) -> None:
    cluster.start("matcher-0")
    broken = tmp_path / "broken"
    settings = with_compute(cluster=cluster.address, gpu_wait_s=1.0)
    with connected(settings.compute, loader(journal.path, seconds=0.02, broken=broken)) as client:
        broken.touch()
        cluster.start("matcher-1")
        assert_same(register_plan(plan, OnCluster(client), settings).points, undisturbed)
        assert journal.loads == 2
        assert len(journal.processes) == 1
        cluster.kill("matcher-0")
        with pytest.raises(NoWorkerError, match="1 of them with it but without the network"):
            register_plan(plan, OnCluster(client), settings)


def test_where_no_worker_can_load_the_network_the_start_says_why(
    cluster: DaskCluster, journal: Journal, tmp_path: Path
) -> None:
    cluster.start("matcher-0")
    broken = tmp_path / "broken"
    broken.touch()
    settings = with_compute(cluster=cluster.address)
    with (
        pytest.raises(RuntimeError, match="no CUDA-capable device"),
        connected(settings.compute, loader(journal.path, broken=broken)),
    ):
        pass


def test_runs_with_the_same_weights_share_the_network_and_other_weights_are_refused(
    cluster: DaskCluster, plan: TilePlan, journal: Journal
) -> None:
    cluster.start("matcher-0")
    settings = with_compute(cluster=cluster.address)
    sha256 = PictureReader(journal.path).weights_sha256
    for _ in range(2):
        with connected(settings.compute, loader(journal.path), weights_sha256=sha256) as client:
            assert len(register_plan(plan, OnCluster(client), settings).points) == 144
    assert journal.loads == 1
    with (
        pytest.raises(WeightsError, match="ad" * 8),
        connected(settings.compute, loader(journal.path), weights_sha256="ad" * 32),
    ):
        pass


def test_pairs_share_one_client_and_what_may_be_under_way(
    cluster: DaskCluster, plan: TilePlan, undisturbed: TiePoints, journal: Journal
) -> None:
    cluster.start("matcher-0")
    settings = with_compute(cluster=cluster.address)
    pairs = 6
    under_way: list[int] = []
    with connected(settings.compute, loader(journal.path, seconds=0.02)) as client:
        begin = threading.Barrier(pairs)

        def note(done: int, total: int) -> None:
            del done, total
            under_way.append(sum(str(key).startswith("match_here") for key in list(client.futures)))

        def register(_: int) -> TiePoints:
            begin.wait(30)
            return register_plan(plan, OnCluster(Client.current()), settings, progress=note).points

        with ThreadPoolExecutor(pairs) as threads:
            found = list(threads.map(register, range(pairs)))
    for points in found:
        assert_same(points, undisturbed)
    # Two workers may have four; a pair alone has them all, and gives up its share window by window. The
    # margin is for results whose release is on its way.
    assert max(under_way) < 3 * AHEAD * pairs / 2


def test_a_scheduler_that_goes_is_an_error_of_the_pair(
    tmp_path: Path, plan: TilePlan, journal: Journal
) -> None:
    environment = {"PYTHONPATH": PATHS}
    with dask_cluster(tmp_path, workers=["reader-0", "matcher-0"], environment=environment) as cluster:
        settings = with_compute(cluster=cluster.address, worker_timeout_s=2.0)
        with connected(settings.compute, loader(journal.path, seconds=0.05)) as client:
            for _ in range(2):  # the pair that was under way, and the next one
                with pytest.raises(NoWorkerError, match=cluster.address):
                    register_plan(
                        plan, OnCluster(client), settings, progress=after(40, cluster.scheduler.kill)
                    )


def test_a_local_cluster_starts_its_dead_again(
    plan: TilePlan, undisturbed: TiePoints, journal: Journal
) -> None:
    settings = with_compute()
    with connected(settings.compute, loader(journal.path, seconds=0.05)) as client:
        process = client.run(os.getpid)
        matchers = look(client).readers, set(process) - set(look(client).readers)
        (reader,), (matcher,) = matchers

        def kill() -> None:
            psutil.Process(process[matcher]).kill()
            psutil.Process(process[reader]).kill()

        measured = register_plan(plan, OnCluster(client), settings, progress=after(40, kill))
    assert_same(measured.points, undisturbed)
    assert len(journal.processes) == 2


def test_a_window_that_kills_its_workers_is_an_error_of_its_pair_alone(
    plan: TilePlan, undisturbed: TiePoints, journal: Journal, tmp_path: Path
) -> None:
    # One window: of several, one that nobody suspects yet may kill the worker on which an innocent is tried.
    deadly = planned(tmp_path, seed=5, size_px=192, deadly=True)
    settings = with_compute()
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),  # of each of the two attempts
        connected(settings.compute, loader(journal.path, seconds=0.05)) as client,
        ThreadPoolExecutor(2) as pairs,
    ):
        healthy = pairs.submit(register_plan, plan, OnCluster(client), settings)
        with pytest.raises(WorkerLostError, match=r"window 1 of this pair: each of 4 workers"):
            register_plan(deadly, OnCluster(client), settings)
        assert_same(healthy.result(300).points, undisturbed)
