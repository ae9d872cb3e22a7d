"""What is around a run: Prefect's server, profile and database, proxies, the home folder, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest

from crosstie.io.simulation.pairs import write_simulated_catalog

pytestmark = [pytest.mark.server, pytest.mark.slow]

DEAD = "http://127.0.0.1:9"
"""Nothing listens on the discard port."""

PROXIES = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), DEAD)


PATIENT = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "400"}
"""Its tables are made first."""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_simulated_catalog(tmp_path_factory.mktemp("archive"), scenes=1, size_px=256)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose Prefect has made its database."""
    return tmp_path_factory.mktemp("home")


def nightly(catalog: Path, out: Path, home: Path, **environment: str) -> subprocess.Popen[str]:
    keep = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    command = [sys.executable, "-m", "crosstie", "nightly", "--catalog", str(catalog), "--out", str(out)]
    return subprocess.Popen(
        command,
        env={**keep, "HOME": str(home), "OMP_NUM_THREADS": "1", **PATIENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that a shell runs in the background or under nohup ignore these, and so would the child.
        preexec_fn=lambda: [signal.signal(each, signal.SIG_DFL) for each in (signal.SIGINT, signal.SIGHUP)],
    )


def refused(process: subprocess.Popen[str]) -> str:
    """The one line of a run that was refused."""
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2, said
    assert len(said.splitlines()) == 1, said
    return said


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Quiet(*args, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"PREFECT_API_URL": f"{DEAD}/api"},
            "the Prefect server http://127.0.0.1:9/api (PREFECT_API_URL) does not",
        ),
        (
            {"PREFECT_API_URL": "127.0.0.1:4200"},
            "PREFECT_API_URL is 127.0.0.1:4200: write http://HOST:PORT/api",
        ),
        ({"PREFECT_API_URL": "http:///api"}, "does not answer"),
        ({"PREFECT_API_REQUEST_TIMEOUT": "soon"}, "Prefect cannot read its settings"),
        ({"PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"}, "Prefect has no server"),
        ({"PREFECT_HOME": "/proc/nowhere"}, "PREFECT_HOME is /proc/nowhere, which cannot be written"),
        (
            {"PREFECT_API_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:////nonexistent/x.db"},
            "its database is sqlite+aiosqlite:////nonexistent/x.db",
        ),
    ],
)
def test_prefect_that_cannot_be_used_is_told_in_one_line(
    environment: dict[str, str], said: str, catalog: Path, tmp_path: Path
):
    assert said in refused(nightly(catalog, tmp_path / "out", tmp_path, **environment))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("profiles.toml", 'active = "default"\n[profiles.def', "Prefect cannot read its settings (TOML"),
        (
            "profiles.toml",
            f'active = "x"\n[profiles.x]\nPREFECT_API_URL = "{DEAD}/api"\n',
            "api.url of the Prefect profile in",
        ),
        ("prefect.db", "garbage" * 1000, "file is not a database; its database is"),
    ],
)
def test_files_of_prefect_that_are_broken_are_named(
    name: str, content: str, said: str, catalog: Path, tmp_path: Path
):
    file = tmp_path / ".prefect" / name
    file.parent.mkdir()
    file.write_text(content)
    line = refused(nightly(catalog, tmp_path / "out", tmp_path))
    assert said in line
    assert str(file) in line


def test_a_server_that_is_no_prefect_is_told(catalog: Path, tmp_path: Path):
    with web_server(tmp_path) as url:
        line = refused(nightly(catalog, tmp_path / "out", tmp_path, PREFECT_API_URL=f"{url}/api"))
    assert "is no Prefect server: 404" in line


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"catalog": Path("/nothing/catalog.json")}, "cannot read the catalog /nothing/catalog.json"),
        ({"catalog": Path("/nothing/items.parquet")}, "there is no such file"),
        ({"out": Path("s3:/bucket/x")}, "two slashes lack"),
    ],
)
def test_what_is_given_is_checked_before_prefect_is_asked(
    given: dict[str, Path], said: str, catalog: Path, tmp_path: Path
):
    """A dead server would be told first if it had been asked first."""
    places = {"catalog": catalog, "out": tmp_path / "out"} | given
    assert said in refused(nightly(**places, home=tmp_path, PREFECT_API_URL=f"{DEAD}/api"))


@pytest.mark.parametrize("verbose", [False, True])
def test_dask_says_nothing_unless_it_is_asked_to(verbose: bool):
    """A heartbeat that is on its way when the cluster closes is an error of Dask's, now and then."""
    program = (
        f"from crosstie.flows.runs.prefect_env import prepare; prepare(verbose={verbose});"
        "import distributed, logging; logging.getLogger('distributed.worker').error('heartbeat')"
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith("DASK_")}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=plain, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0
    assert ("heartbeat" in ran.stdout + ran.stderr) is verbose


@pytest.mark.parametrize(
    "environment", [PROXIES, {"HOME": "/proc/nowhere"}, PROXIES | {"NO_PROXY": "example.com"}]
)
def test_a_run_needs_neither_a_proxy_nor_a_home(
    environment: dict[str, str], catalog: Path, home: Path, tmp_path: Path
):
    process = nightly(catalog, tmp_path / "out", home, **environment)
    out, said = process.communicate(timeout=500)
    assert process.returncode in (0, 3), said
    assert "1 pair" in out
    assert "distributed." not in said
    assert list((tmp_path / "out").glob("*/*/_COMMIT"))


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)],
)
def test_no_server_outlives_its_run(
    number: signal.Signals, code: int, catalog: Path, home: Path, tmp_path: Path
):
    process = nightly(catalog, tmp_path / "out", home)
    servers = _wait_for_servers(process.pid)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code, said
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(servers, timeout=60)
    assert alive == []


def _wait_for_servers(pid: int) -> list[psutil.Process]:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        children = psutil.Process(pid).children(recursive=True)
        servers = [child for child in children if _is_server(child)]
        if servers:
            return servers
        time.sleep(0.05)
    raise AssertionError("no server was started")


def _is_server(process: psutil.Process) -> bool:
    try:
        return "prefect.server.api.server:create_app" in process.cmdline()
    except psutil.Error:  # it has ended meanwhile
        return False
