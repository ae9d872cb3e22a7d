"""From a notice of a new scene to its products: the listener, the deployment, the flow."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from integration.fleet import INCOMING, SECRETS, Fleet, assert_all_three
from notices import s3_event
from servers.process import LOOPBACK, answers, running
from servers.seaweed import client_of

TIMES = 5

ROOT = "scenes"
"""Below the bucket of products."""


@pytest.fixture
def listener(fleet: Fleet, tmp_path: Path) -> Iterator[str]:
    """Address of a running `crosstie listen`."""
    command = [
        sys.executable, "-m", "crosstie", "listen", "--port", str(fleet.listener_port),
        "--catalog", fleet.catalog, "--out", f"s3://products/{ROOT}",
    ]  # fmt: skip
    environment = {
        **fleet.environment,
        "CROSSTIE_LISTEN_TOKEN": SECRETS["listener token"],
        "CROSSTIE_LISTEN__PREFECT_TIMEOUT_S": "240",  # a busy machine is no fault of the code
    }
    url = f"http://{LOOPBACK}:{fleet.listener_port}"
    with running("listen", command, fleet.folder, environment=environment, cwd=tmp_path) as child:
        child.until(lambda: answers(f"{url}/health"), timeout_s=300)
        yield url


def test_ten_notices_of_a_scene_start_one_run_and_yield_one_product(fleet: Fleet, listener: str):
    scenes = fleet.s2_items
    # of one scene the server of objects sends notices, of the others somebody else
    arrived = scenes["T14RNT"]["id"]
    for n in range(TIMES):
        client_of(fleet.objects).put_object(Bucket=INCOMING, Key=f"{arrived}/part-{n}.tif", Body=b"pixels")
    for _ in range(TIMES):
        for tile in ("T11SLT", "T11SMT"):
            item = scenes[tile]
            assert post(listener, s3_event(f"{item['id']}/s2_tci.tif")).status_code == 202
            assert post(listener, item).status_code == 202
    ids = {item["id"] for item in scenes.values()}
    fleet.until(lambda: ids <= {run["name"] for run in runs(fleet)})
    for run in runs(fleet):
        over = fleet.finished(run["id"])
        assert over["state_type"] == "COMPLETED", fleet.log(run["id"])
    for item in scenes.values():  # also when all is done
        assert post(listener, item).json()["duplicate"] is True
    assert sorted(run["name"] for run in runs(fleet)) == sorted(ids)
    assert_all_three(fleet, ROOT)


def post(url: str, message: object) -> httpx.Response:
    bearer = {"Authorization": f"Bearer {SECRETS['listener token']}"}
    return httpx.post(f"{url}/scenes", json=message, headers=bearer, timeout=300)


def runs(fleet: Fleet) -> list[dict[str, Any]]:
    """Runs that write below `ROOT`."""
    found = fleet.prefect.ask("/flow_runs/filter", {"flows": {"name": {"any_": ["crosstie-new-scene"]}}})
    return [run for run in found if run["parameters"].get("out") == f"s3://products/{ROOT}"]
