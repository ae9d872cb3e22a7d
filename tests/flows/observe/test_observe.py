"""What a process says of itself: lines of a log, figures of a run, and nothing that is secret."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import textwrap
import threading
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import httpx
import pytest
from prometheus_client import generate_latest
from servers.process import LOOPBACK, free_ports

from crosstie.config import ObserveSettings
from crosstie.errors import NoWorkerError
from crosstie.flows.observe.context import bind_context, log_context
from crosstie.flows.observe.json_lines import JsonLines
from crosstie.flows.observe.run_metrics import PAIRS, RUN, UNDER_WAY, UnderWay
from crosstie.flows.observe.worker_metrics import GpuMemory
from crosstie.flows.runs.failure_codes import FailureCause
from crosstie.flows.runs.outcome import Outcome
from crosstie.flows.runs.pair import PairFailedError
from crosstie.flows.runs.pairs import _may_help
from crosstie.flows.runs.record import note
from crosstie.io.simulation.pairs import write_simulated_catalog

PATIENCE_S = 60.0


def line_of(message: str, *given: object, **record: Any) -> dict[str, Any]:
    made = logging.getLogger("crosstie.test").makeRecord(
        "crosstie.test",
        logging.WARNING,
        "file.py",
        1,
        message,
        given,
        record.pop("exc_info", None),
        extra=record,
    )
    text = JsonLines().format(made)
    assert "\n" not in text
    return dict(json.loads(text))


def test_a_line_says_what_it_is_about() -> None:
    with bind_context(flow="nightly", flow_run_id="f1"), bind_context(pair_key="a__b"):
        line = line_of(
            "%d tiles", 12, verdict="unreliable", reasons=["water"], seconds=8.5, raster="not told"
        )
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "WARNING",
        "logger": "crosstie.test",
        "message": "12 tiles",
        "pair_key": "a__b",
        "flow": "nightly",
        "flow_run_id": "f1",
        "verdict": "unreliable",
        "reasons": ["water"],
        "seconds": 8.5,
    }
    assert log_context() == {}


def test_what_prefect_says_of_a_record_goes_before_the_context() -> None:
    with bind_context(flow_run_id="of the context"):
        assert line_of("x", flow_run_id="of the record")["flow_run_id"] == "of the record"


def test_no_line_tells_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSTIE_LISTEN_TOKEN", "opensesame")
    try:
        raise ValueError("token opensesame at https://me:pw@example.org/x.tif?X-Amz-Signature=abc")
    except ValueError:
        line = line_of("asked with opensesame,\nfor s3://k:sss@bucket/x", exc_info=sys.exc_info())
    text = json.dumps(line)
    assert "ValueError" in line["exception"]
    assert "example.org/x.tif" in line["exception"]
    for secret in ("opensesame", "pw@", "abc", "sss"):
        assert secret not in text


def run_python(script: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_every_line_of_a_process_is_json_and_none_is_doubled(tmp_path: Path) -> None:
    script = f"""
        import logging, sys
        loud = logging.getLogger("loud")
        loud.propagate = False
        loud.addHandler(logging.StreamHandler(sys.stdout))
        elsewhere = logging.FileHandler({str(tmp_path / "elsewhere.log")!r})
        logging.getLogger("kept").addHandler(elsewhere)
        from crosstie.flows.observe.json_lines import write_log_as
        write_log_as("text")
        loud.warning("as it was")
        for _ in range(2):
            write_log_as("json")
        loud.handlers[0].setLevel("ERROR")  # as Dask does to its own
        loud.warning("not told")
        loud.error("one")
        logging.getLogger("other").warning("two")
        logging.getLogger("crosstie.run").info("three")
        logging.getLogger("kept").warning("four")
    """
    out, err = run_python(script).communicate(timeout=PATIENCE_S)
    assert out == "as it was\n"
    assert [json.loads(line)["message"] for line in err.splitlines()] == ["one", "two", "three", "four"]
    assert (tmp_path / "elsewhere.log").read_text() == "four\n"


def test_a_pair_that_is_over_is_counted_and_put_on_record(caplog: pytest.LogCaptureFixture) -> None:
    def count(verdict: str, reason: str) -> float:
        labels = {"flow": "t", "verdict": verdict, "reason": reason}
        return RUN.get_sample_value("crosstie_pairs_total", labels) or 0

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(JsonLines().format(record)))

    lines: list[dict[str, Any]] = []
    handler, log = Lines(), logging.getLogger("crosstie.flows.runs.record")
    with caplog.at_level(logging.INFO, logger=log.name):
        log.addHandler(handler)
        try:
            note("t", Outcome("a__b", "unreliable", ("water", "no_texture"), seconds=8.5))
            note("t", Outcome("c__d", "unreliable", ("water",)))
            note("t", Outcome("e__f", "corrected", ()))
            note("t", Outcome.failure("g__h", code="time_limit", message="…"))
            note("t", Outcome("i__j", "corrected", (), already_done=True))
            note("t", Outcome.elsewhere("k__l", until_utc=datetime(2026, 1, 2, tzinfo=UTC)))
        finally:
            log.removeHandler(handler)
    assert count("unreliable", "water") == 2
    assert count("corrected", "") == 1
    assert count("failed", "time_limit") == 1
    PAIRS.clear()
    assert [line["pair_key"] for line in lines] == ["a__b", "c__d", "e__f", "g__h"]
    first = lines[0]
    assert first["message"] == "a__b: unreliable, water, no_texture"
    assert (first["verdict"], first["reasons"], first["seconds"]) == (
        "unreliable",
        ["water", "no_texture"],
        8.5,
    )


class Ended(NamedTuple):
    """The state of a task that ended with a problem."""

    problem: BaseException

    def result(self, *, raise_on_failure: bool) -> BaseException:
        return self.problem


@pytest.mark.parametrize("again", [True, False])
def test_a_pair_that_is_tried_again_is_counted(again: bool) -> None:
    def count() -> float:
        return RUN.get_sample_value("crosstie_retries_total", {"kind": "pair"}) or 0

    before = count()
    problem = PairFailedError(FailureCause("connection", "gone", again))
    assert _may_help(None, None, Ended(problem)) is again
    assert count() - before == again


class Walk:
    def __init__(self, waiting: int, under_way: int) -> None:
        self._depth = waiting, under_way

    def depth(self) -> tuple[int, int]:
        return self._depth


class Force:
    """The workers of a cluster; a scheduler that is gone raises."""

    def __init__(self, readers: int, matchers: int | None) -> None:
        self._seen = SimpleNamespace(readers="r" * readers, matchers="m" * (matchers or 0))
        self._gone = matchers is None

    def seen(self, *, max_age_s: float) -> SimpleNamespace:
        if self._gone:
            raise NoWorkerError("gone")
        return self._seen


def test_what_is_under_way_is_summed_over_pairs_and_forgotten_with_them() -> None:
    under_way = UnderWay()

    def told() -> dict[str, float]:
        return {
            next(iter(sample.labels.values())): sample.value
            for family in under_way.collect()
            for sample in family.samples
        }

    one, two = Walk(5, 2), Walk(7, 4)
    with under_way.working(Force(3, 0)), under_way.walking(one):  # type: ignore[arg-type]
        with under_way.walking(two):
            assert told() == {"waiting": 12, "under_way": 6, "reader": 3, "matcher": 0}
        assert told() == {"waiting": 5, "under_way": 2, "reader": 3, "matcher": 0}
    # Without a cluster nothing is said of workers: 0 matchers would be an alarm.
    assert told() == {"waiting": 0, "under_way": 0}
    with under_way.working(Force(1, None)):  # type: ignore[arg-type]
        assert told() == {"waiting": 0, "under_way": 0}


def test_a_walk_that_nobody_holds_is_not_held_by_its_figures() -> None:
    with pytest.raises(ZeroDivisionError), UNDER_WAY.walking(Walk(1, 1)):
        raise ZeroDivisionError
    assert b'crosstie_windows{state="waiting"} 0.0' in generate_latest(RUN)


SERVING = """
    import sys
    from crosstie.config import ObserveSettings
    from crosstie.flows.observe.run_metrics import RETRIES
    from crosstie.flows.observe.run_server import serve_run
    observe = ObserveSettings(metrics_port={port}, linger_s={linger})
    print(serve_run(observe), serve_run(observe), flush=True)
    sys.stdin.readline()
    RETRIES.labels("pair").inc(3)
"""


def test_a_run_takes_the_next_free_port_and_waits_until_its_last_figures_are_fetched() -> None:
    port = free_port_with_another_after_it()
    first, second = (
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SERVING.format(port=port, linger=600))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    )
    runs = [first, second]
    try:
        ports = []
        for run in runs:
            assert run.stdout is not None
            one, again = map(int, run.stdout.readline().split())
            assert one == again
            ports.append(one)
        assert sorted(ports) == [port, port + 1]
        url = f"http://{LOOPBACK}:{ports[0]}/metrics"
        assert 'crosstie_retries_total{kind="pair"} 0.0' in httpx.get(url, timeout=PATIENCE_S).text
        assert first.stdin is not None
        first.stdin.write("end\n")
        first.stdin.flush()
        told = ""
        while 'crosstie_retries_total{kind="pair"} 3.0' not in told:
            assert first.poll() is None, "ended, its last figures unread"
            told = httpx.get(url, timeout=PATIENCE_S).text
        assert first.wait(PATIENCE_S) == 0
    finally:
        for run in runs:
            run.kill()
            run.communicate()


def free_port_with_another_after_it() -> int:
    while True:
        (port,) = free_ports(1)
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, port + 1)) != 0:
                return port


def test_a_run_without_a_free_port_goes_on_and_says_so() -> None:
    script = """
        import socket
        from crosstie.config import ObserveSettings
        from crosstie.flows.observe.run_server import serve_run
        print(serve_run(ObserveSettings()))
        print(serve_run(ObserveSettings(metrics_port=9101, metrics_host="192.0.2.1")))
    """
    out, err = run_python(script).communicate(timeout=PATIENCE_S)
    assert out.split() == ["None", "None"]
    assert "192.0.2.1:9101 to 9110" in err
    assert "observe.metrics_port" in err


def test_settings_hold_ten_ports() -> None:
    assert ObserveSettings(metrics_port=65_526).metrics_port == 65_526
    with pytest.raises(ValueError, match="65526"):
        ObserveSettings(metrics_port=65_527)


class Cuda:
    """Two GPUs, of which this process uses the second: asking the first would take memory on it."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 2

    def memory_reserved(self, device: int) -> int:
        return (0, 30)[device]

    def memory_allocated(self, device: int) -> int:
        return (0, 20)[device]

    def max_memory_allocated(self, device: int) -> int:
        return (0, 25)[device]

    def mem_get_info(self, device: int) -> tuple[int, int]:
        assert device == 1, "CUDA would be started on a GPU that is not ours"
        return 60, 100


def test_memory_of_the_gpu_in_use_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=Cuda()))
    samples = [sample for family in GpuMemory().collect() for sample in family.samples]
    assert {sample.labels["device"] for sample in samples} == {"1"}
    assert {sample.labels["kind"]: sample.value for sample in samples} == {
        "allocated": 20, "reserved": 30, "peak": 25, "used": 40, "total": 100,
    }  # fmt: skip


def test_a_worker_without_torch_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert not [sample for family in GpuMemory().collect() for sample in family.samples]
    assert "torch" not in sys.modules


class Ranged(BaseHTTPRequestHandler):
    """Serves one file, whole or in part, and counts."""

    body = b""
    asked, ranged, sent = 0, 0, 0

    def do_GET(self) -> None:
        part = self.headers.get("Range")
        first, last = (
            (int(n) for n in part.removeprefix("bytes=").split("-")) if part else (0, len(self.body))
        )
        answer = self.body[first : last + 1]
        self.send_response(206 if part else 200)
        if part:
            self.send_header("Content-Range", f"bytes {first}-{first + len(answer) - 1}/{len(self.body)}")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        Ranged.asked += 1
        Ranged.sent += len(answer)
        Ranged.ranged += len(answer) if part else 0
        with suppress(OSError):  # GDAL hangs up on a whole file
            self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


FETCHING = """
    from crosstie.flows.observe.gdal_requests import Fetches, count_fetches, fetched
    assert fetched() is None, "nothing of GDAL is here to be asked"
    assert not list(Fetches().collect())
    count_fetches()
    from odc.geo.geobox import GeoBox
    from crosstie.io.raster import open_source, read_plane
    source = open_source("{url}/s1_vh.tif")
    read_plane(source, GeoBox(source.shape, source.affine, source.crs))
    print(*[sample.value for family in Fetches().collect() for sample in family.samples])
"""


def test_what_gdal_fetches_is_what_the_server_sent(tmp_path: Path) -> None:
    place = write_simulated_catalog(tmp_path, scenes=1, size_px=384).parent / "place-000"
    Ranged.body = (place / "s1_vh.tif").read_bytes()
    server = ThreadingHTTPServer((LOOPBACK, 0), Ranged)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        out, err = run_python(FETCHING.format(url=f"http://{LOOPBACK}:{server.server_port}")).communicate(
            timeout=PATIENCE_S
        )
    finally:
        server.shutdown()
        server.server_close()
    assert out, err
    requests, size = map(float, out.split())
    assert requests == Ranged.asked > 1
    assert len(Ranged.body) / 2 < Ranged.ranged <= size <= Ranged.sent


TRACING = """
    import json
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from crosstie.flows.observe.context import log_context, bind_context
    from crosstie.flows.observe.tracing import continued, trace_context, step

    with bind_context(pair_key="a__b"), step("unseen"):
        assert trace_context() == {"pair_key": "a__b"}, "nobody traces: nothing is sent along but the pair"
        with continued("unseen", trace_context()):
            assert log_context()["pair_key"] == "a__b"

    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    with bind_context(pair_key="a__b"), step("measure"):
        sent = json.loads(json.dumps(trace_context()))
    with continued("read window", sent):  # as in another process: outside the span, and later
        assert log_context()["pair_key"] == "a__b"
    window, measure = sorted(spans.get_finished_spans(), key=lambda span: span.name, reverse=True)
    assert (measure.name, window.name) == ("measure", "read window")
    assert window.parent.span_id == measure.context.span_id
    assert window.context.trace_id == measure.context.trace_id
    assert dict(measure.attributes) == dict(window.attributes) == {"crosstie.pair_key": "a__b"}
    print("well")
"""


def test_a_span_goes_on_in_the_worker_that_does_the_window() -> None:
    out, err = run_python(TRACING).communicate(timeout=PATIENCE_S)
    assert out == "well\n", err
