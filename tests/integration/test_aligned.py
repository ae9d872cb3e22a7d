"""A night with aligned pixels that is killed in the middle of an upload, and the next one that ends it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path

import yaml
from counting_proxy import counting
from integration.fleet import COARSE, PRODUCTS, Fleet, assert_all_three
from servers.process import ROOT

NAME = "killed-upload"


def nightly(fleet: Fleet, settings: Path, endpoint: str, home: Path) -> subprocess.Popen[str]:
    environment = {**fleet.objects.environment, "AWS_ENDPOINT_URL": endpoint, "PREFECT_HOME": str(home)}
    return subprocess.Popen(
        [ROOT / ".venv/bin/crosstie", "nightly", "--catalog", fleet.catalog,
         "--out", f"s3://{PRODUCTS}/{NAME}", "--config", settings],
        env=os.environ | environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def test_an_upload_that_is_killed_shows_nothing_half_written_and_the_next_night_ends_it(
    fleet: Fleet, tmp_path: Path
):
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump({**COARSE, "products": {"aligned": "reference-grid"}}))
    upstream = fleet.objects.environment["AWS_ENDPOINT_URL"]
    victims: list[subprocess.Popen[str]] = []
    uploads: list[str] = []

    def kill_in_second_upload(method: str, path: str, before: int) -> int | None:
        if method != "PUT" or not path.endswith("/aligned.tif"):
            return None
        uploads.append(path)
        if len(set(uploads)) < 2 or not victims:
            return None
        os.killpg(victims.pop().pid, signal.SIGKILL)
        return 503

    with counting(upstream, refuse=kill_in_second_upload) as proxy:
        run = nightly(fleet, settings, proxy.url, tmp_path / "first")
        victims.append(run)
        said, _ = run.communicate(timeout=500)
    assert run.returncode == -signal.SIGKILL, said
    half = uploads[-1].removeprefix(f"/{PRODUCTS}/{NAME}/").rpartition("/")[0]
    assert f"{half}/aligned.tif" not in fleet.keys(NAME)
    before = fleet.committed(NAME)
    assert half not in before
    hashes = {prefix: fleet.read(NAME, f"{prefix}/_COMMIT") for prefix in before}

    again = nightly(fleet, settings, upstream, tmp_path / "second")
    said, _ = again.communicate(timeout=500)
    assert again.returncode == 0, said
    assert_all_three(fleet, NAME)
    assert half in fleet.committed(NAME)
    for prefix in fleet.committed(NAME):
        commit = json.loads(fleet.read(NAME, f"{prefix}/_COMMIT"))
        assert prefix not in hashes or json.loads(hashes[prefix]) == commit
        aligned = fleet.read(NAME, f"{prefix}/aligned.tif")
        assert hashlib.sha256(aligned).hexdigest() == commit["files"]["aligned.tif"]["sha256"]
