"""`crosstie site` as it is started: over S3, with a token, and in a real browser."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import site_archive
from browser import find_browser, looked_at
from committed_runs import copy_run, recommit
from numpy.typing import NDArray
from PIL import Image
from s3_server import s3_server
from servers.process import Child, running
from site_archive import EVIL, NEW, S1, S2
from typer.testing import CliRunner

from crosstie.cli import app
from crosstie.io.storage.href import local_path
from crosstie.io.storage.store import Store, open_store
from crosstie.types import Registration, pair_key

pytestmark = [pytest.mark.server, pytest.mark.slow]

TOKEN = "t0ken-of-readers-0123456789"
SECRET = "kept-to-myself-0123456789"
PATIENCE_S = 300.0
"""A busy machine is no fault of the code, seconds."""

RUN = pair_key(S2, S1), NEW
MAGENTA, GREEN, BUTTON = (255, 0, 255), (0, 255, 0), (15, 118, 110)


@dataclass(frozen=True)
class Served:
    url: str
    child: Child

    def get(self, address: str, **headers: str) -> httpx.Response:
        return httpx.get(f"{self.url}{address}", headers=headers, timeout=PATIENCE_S)


@contextmanager
def serving(out: str, folder: Path, *options: str, **environment: str) -> Iterator[Served]:
    command = [sys.executable, "-m", "crosstie", "site", "--out", out, "--port", "0", *options]
    with running("site", command, folder, environment=environment) as child:
        child.until(lambda: "committed runs, read" in child.tail(), timeout_s=PATIENCE_S)
        found = re.search(r" at (http://[^/]+)/", child.log.read_text())
        assert found is not None
        yield Served(found[1], child)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, make_registration: Callable[..., Registration]) -> Store:
    return site_archive.filled(tmp_path_factory.mktemp("site"), make_registration)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Environment of clients of an S3 server with one bucket, `products`."""
    with s3_server("products", secret=SECRET) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server.environment


def test_over_s3_with_a_token_it_shows_the_same_and_tells_no_secret(
    store: Store, s3: dict[str, str], tmp_path: Path
) -> None:
    bucket = open_store("s3://products/archive")
    for key in store.list():
        bucket.put(key, store.get(key) or b"")
    environment = {**s3, "CROSSTIE_SITE_TOKEN": TOKEN, "CROSSTIE_OBSERVE__LOG_FORMAT": "json"}
    with serving("s3://products/archive", tmp_path, "--host", "0.0.0.0", **environment) as site:
        here = Served(site.url.replace("0.0.0.0", "127.0.0.1"), site.child)
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert here.get("/").status_code == 401
        text = here.get("/", **bearer).text
        assert S1 in text
        assert "s3://products/archive" in text
        for name in ("report.html", "tie_points.parquet"):
            answer = here.get(f"/runs/{RUN[0]}/{RUN[1]}/{name}", **bearer)
            assert answer.content == store.get(f"{RUN[0]}/{RUN[1]}/{name}")
        assert "crosstie_archive_in_progress 1.0" in here.get("/metrics").text
        assert here.get("/healthz").json()["status"] == "ok"
        here.get(f"/failures?scene={SECRET}&token={TOKEN}")
        os.kill(site.child.pid, signal.SIGTERM)
        assert site.child.wait(60) in {0, 256 - signal.SIGTERM}  # as its guard tells it
    log = site.child.log.read_text()
    assert TOKEN not in log
    assert SECRET not in log
    assert "Traceback" not in log
    lines = [json.loads(line) for line in log.splitlines()]
    assert {line["level"] for line in lines} == {"INFO"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--out", "p", "--host", "0.0.0.0"], "CROSSTIE_SITE_TOKEN holds no token"),
        (["--out", "p", "--host", "0.0.0.0", "--token-env", "OTHER"], "OTHER holds no token"),
        (["--out", "ftp://p"], "ftp://p"),
        (["--out", ".", "--host", "192.0.2.1", "--open"], "192.0.2.1"),
        (["--out", "not/there"], "not/there"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_exit_code_2(options: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["site", *options, "--port", "0"])
    assert result.exit_code == 2
    assert result.output.startswith("error: ")
    assert result.output.count("\n") == 1
    assert said in result.output


def test_it_starts_without_prefect_cluster_and_torch() -> None:
    """It is to be small, and to need no server."""
    names = "('prefect', 'distributed', 'torch')"
    code = f"import sys, crosstie.flows.site.serve; print([n for n in {names} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_teaches() -> None:
    text = " ".join(CliRunner().invoke(app, ["site", "--help"]).stdout.split())
    for word in ("/healthz", "/metrics", "CROSSTIE_SITE_TOKEN", "--open", "Bearer"):
        assert word in text


# --- In a browser -------------------------------------------------------------------------------------------


@pytest.fixture
def browser() -> str:
    return find_browser()


def pixels(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> int:
    return int((np.abs(picture.astype(int) - colour).max(axis=2) <= 12).sum())


def test_a_browser_shows_style_and_pictures_and_runs_nothing(
    store: Store, browser: str, tmp_path: Path
) -> None:
    shutil.copytree(str(local_path(store.url)), tmp_path / "products")
    archive = open_store(str(tmp_path / "products"))
    run = "/".join(copy_run(archive, RUN, "S1A_MAGENTA"))
    body = io.BytesIO()
    Image.new("RGB", (800, 800), MAGENTA).save(body, "PNG")
    archive.put(f"{run}/overview.png", body.getvalue())
    archive.put(
        f"{run}/report.html",
        b"<body style='background:#f0f'><script>document.body.style.background='#0f0'</script>"
        b"<img src=x onerror=\"document.body.style.background='#0f0'\"><h1>text</h1>",
    )
    recommit(archive, tuple(run.split("/")))
    with serving(archive.url, tmp_path) as site:
        home, complaints = looked_at(browser, f"{site.url}/?scene=S1", tmp_path)
        assert complaints == ""
        assert pixels(home, MAGENTA) > 150 * 150  # the thumbnail
        assert pixels(home, BUTTON) > 1000  # the style sheet
        phone, complaints = looked_at(browser, f"{site.url}/failures", tmp_path, width_px=420)
        assert complaints == ""
        assert pixels(phone, BUTTON) > 1000
        report, complaints = looked_at(browser, f"{site.url}/runs/{run}/report.html", tmp_path)
        assert pixels(report, MAGENTA) > report.shape[0] * report.shape[1] / 2
        assert pixels(report, GREEN) == 0
        assert "script" in complaints  # it wanted to, and was told no
        real, complaints = looked_at(
            browser, f"{site.url}/runs/{pair_key('S2<b>', EVIL)}/{NEW}/report.html", tmp_path
        )
        assert complaints == ""
        assert pixels(real, BUTTON) > 10_000  # the header in the colour of its verdict
