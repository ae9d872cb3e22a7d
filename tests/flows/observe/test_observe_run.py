"""Work on real Dask processes as Prometheus and a collector of logs see it: the run, and its workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import pytest
from fleet_runs import OPTIONS
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from servers.process import LOOPBACK, ROOT, answers, free_ports, running

from crosstie.config import load_settings
from crosstie.flows.cluster.connect import connected
from crosstie.flows.cluster.workforce import workforce_of
from crosstie.flows.discovery.pairs import find_pairs
from crosstie.flows.observe.context import bind_context
from crosstie.flows.observe.run_metrics import RUN, UNDER_WAY
from crosstie.flows.registration.load_matcher import load_matcher, weights_sha256
from crosstie.flows.runs.pair import PairBatch, PairFailedError, register_pair
from crosstie.flows.runs.progress import _RUN_LISTENER
from crosstie.io.simulation.pairs import write_simulated_catalog

pytestmark = pytest.mark.server

PATIENCE_S = 600.0

PRELOAD = '["crosstie.flows.cluster.preload"]'

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[(name, frozenset(labels.items()))]


def fetched(port: int) -> Samples:
    reply = httpx.get(f"http://{LOOPBACK}:{port}/metrics", timeout=PATIENCE_S)
    reply.raise_for_status()
    return samples(reply.text)


@dataclass(frozen=True)
class Night:
    """What was seen of a pair that registers and one whose secondary is damaged."""

    before: Samples
    """Figures of the run before, ..."""
    under_way: list[Samples]
    """... while windows came back, ..."""
    after: Samples
    """... and when all was over."""
    reader: Samples
    matcher: Samples
    scheduler: Samples
    keys: list[str]
    reader_log: str
    reader_lines: list[dict[str, Any]]
    failed: str


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    folder = tmp_path_factory.mktemp("night")
    catalog = write_simulated_catalog(folder / "scenes", scenes=2, size_px=192)
    broken = folder / "scenes" / "place-001" / "s1_vh.tif"
    with broken.open("r+b") as file:  # the header stays, the pixels after it do not
        file.seek(600)
        file.write(b"\xff" * 600)
    scheduler_port, scheduler_http, reader_http, matcher_http = free_ports(4)
    dask = ROOT / ".venv" / "bin" / "dask"
    address = f"tcp://{LOOPBACK}:{scheduler_port}"
    environment = {
        "CROSSTIE_OBSERVE__LOG_FORMAT": "json",
        "DASK_LOGGING__DISTRIBUTED": "info",
        # As everywhere: an idle matcher would take windows from the reader.
        "DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING": "False",
        "DASK_DISTRIBUTED__WORKER__PRELOAD": PRELOAD,
        "DASK_DISTRIBUTED__SCHEDULER__PRELOAD": PRELOAD,
        "OMP_NUM_THREADS": "1",
    }
    worker = [dask, "worker", address, "--nthreads", "1", "--no-nanny", "--memory-limit", "0",
              "--host", LOOPBACK, "--dashboard-address"]  # fmt: skip
    with (
        running(
            "scheduler",
            [dask, "scheduler", "--host", LOOPBACK, "--port", str(scheduler_port),
             "--dashboard-address", f"{LOOPBACK}:{scheduler_http}"],
            folder, environment=environment,
        ) as scheduler,
        running(
            "reader", [*worker, f"{LOOPBACK}:{reader_http}"], folder, environment=environment
        ) as reader,
        running(
            "matcher", [*worker, f"{LOOPBACK}:{matcher_http}", "--resources", "GPU=1"], folder,
            environment=environment,
        ) as matcher,
    ):  # fmt: skip
        for child, port in ((scheduler, scheduler_http), (reader, reader_http), (matcher, matcher_http)):
            child.until(lambda port=port: answers(f"http://{LOOPBACK}:{port}/metrics"), timeout_s=PATIENCE_S)
        scheduler.until(lambda: workers_known(fetched(scheduler_http)) == 2, timeout_s=PATIENCE_S)
        assert value(fetched(matcher_http), "crosstie_tiles_total") == 0, "there before the first tile"
        settings = load_settings(
            options={**OPTIONS, "compute.cluster": address, "compute.worker_timeout_s": PATIENCE_S,
                     "tiles.size_px": 64, "tiles.stride_px": 16, "compute.chunk_px": 64}
        )  # fmt: skip
        pairs = sorted(find_pairs(str(catalog), settings), key=lambda pair: "001" in pair.key)
        batch = PairBatch(str(folder / "out"), settings, weights_sha256(settings))
        before = samples(generate_latest(RUN).decode())
        under_way: list[Samples] = []
        failed = ""
        with (
            connected(settings.compute, partial(load_matcher, settings)) as client,
            UNDER_WAY.working(workforce_of(client)),
            bind_context(flow="nightly", flow_run_id="f1"),
        ):
            with hearing(under_way):
                register_pair(pairs[0], batch)
            try:
                register_pair(pairs[1], batch)
            except PairFailedError as problem:
                failed = problem.cause.code
            after = samples(generate_latest(RUN).decode())
        yield Night(
            before=before,
            under_way=under_way,
            after=after,
            reader=fetched(reader_http),
            matcher=fetched(matcher_http),
            scheduler=fetched(scheduler_http),
            keys=[pair.key for pair in pairs],
            reader_log=(text := reader.log.read_text()),
            # Dask writes a few lines before it loads anything of ours.
            reader_lines=[json.loads(line) for line in text.splitlines() if line.startswith("{")],
            failed=failed,
        )


def workers_known(figures: Samples) -> float:
    return sum(count for (name, _), count in figures.items() if name == "dask_scheduler_workers")


class Hearing:
    """Fetches the figures of the run each time that windows have come back."""

    def __init__(self, heard: list[Samples]) -> None:
        self._heard = heard

    def tiles(self, pair: str, done: int, planned: int) -> None:
        self._heard.append(samples(generate_latest(RUN).decode()))

    def phase(self, pair: str, phase: object) -> None: ...

    def finished(self, pair: str, text: str) -> None: ...

    def run(self, tally: object) -> None: ...


@contextmanager
def hearing(heard: list[Samples]) -> Iterator[None]:
    token = _RUN_LISTENER.set(Hearing(heard))
    try:
        yield
    finally:
        _RUN_LISTENER.reset(token)


def grown(night: Night, name: str, **labels: str) -> float:
    return value(night.after, name, **labels) - value(night.before, name, **labels)


def test_tiles_and_windows_of_the_run_are_those_of_its_matcher(night: Night) -> None:
    assert night.failed == "unreadable_raster"
    tiles = value(night.matcher, "crosstie_tiles_total")
    assert grown(night, "crosstie_run_tiles_total") == tiles > 20
    fine = value(night.matcher, "crosstie_match_seconds_count", step="fine")
    coarse = value(night.matcher, "crosstie_match_seconds_count", step="coarse")
    assert grown(night, "crosstie_windows_done_total") == fine + coarse
    assert fine >= 4
    assert coarse >= 1


def test_the_queue_empties_while_the_workers_are_there(night: Night) -> None:
    # The first time it is told how many tiles there are: none is under way yet.
    waiting = [value(seen, "crosstie_windows", state="waiting") for seen in night.under_way[1:]]
    assert waiting[0] > waiting[-1] == 0
    assert waiting == sorted(waiting, reverse=True)
    assert any(value(seen, "crosstie_windows", state="under_way") > 0 for seen in night.under_way)
    for state in ("waiting", "under_way"):
        assert value(night.after, "crosstie_windows", state=state) == 0
    for role in ("reader", "matcher"):
        assert value(night.under_way[-1], "crosstie_workers", role=role) == 1
        assert ("crosstie_workers", frozenset({("role", role)})) not in night.before


def test_the_reader_counts_what_it_read_and_the_matcher_reads_nothing(night: Night) -> None:
    # Both images of the pair that registered at least once, float32.
    assert value(night.reader, "crosstie_read_bytes_total") > 2 * 4 * 192**2
    windows = value(night.matcher, "crosstie_match_seconds_count", step="fine")
    assert value(night.reader, "crosstie_read_seconds_count") > windows
    assert value(night.matcher, "crosstie_read_bytes_total") == 0
    assert value(night.reader, "crosstie_tiles_total") == 0
    assert value(night.reader, "crosstie_fetched_bytes_total") == 0, "the rasters lie on this machine"


def test_dask_serves_what_the_dashboard_shows_of_it(night: Night) -> None:
    assert {"dask_scheduler_workers", "dask_scheduler_tasks"} <= {name for name, _ in night.scheduler}
    assert "dask_worker_memory_bytes" in {name for name, _ in night.reader}


def test_workers_write_json_from_their_start_and_say_whose_file_is_broken(night: Night) -> None:
    said = [line["message"] for line in night.reader_lines]
    assert any("Registered to" in message for message in said), night.reader_log
    about = [line for line in night.reader_lines if "pair_key" in line]
    assert {line["pair_key"] for line in about} == {night.keys[1]}
    assert all("s1_vh.tif" in line["message"] for line in about)
    assert {(line["flow"], line["flow_run_id"]) for line in about} == {("nightly", "f1")}
