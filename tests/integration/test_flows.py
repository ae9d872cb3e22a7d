"""The three flows as deployments: from a STAC API and S3 through Prefect and Dask to products in S3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from distributed import Client
from integration.fleet import Fleet, assert_all_three


def test_a_schedule_fires_and_the_night_is_registered(fleet: Fleet):
    deployment = fleet.prefect.ask("/deployments/name/crosstie-nightly/nightly", method="GET")
    soon = datetime.now(UTC) + timedelta(seconds=5)
    schedule = {"interval": 120, "anchor_date": soon.isoformat(), "timezone": "UTC"}
    made = fleet.prefect.ask(
        f"/deployments/{deployment['id']}/schedules", [{"active": True, "schedule": schedule}]
    )
    wanted = {
        "flow_runs": {
            "deployment_id": {"any_": [deployment["id"]]},
            "state": {"type": {"any_": ["COMPLETED"]}},
        }
    }
    ended = {"state": {"type": {"any_": ["FAILED", "CRASHED"]}}}

    def completed() -> Any:
        broken = fleet.prefect.ask("/flow_runs/filter", {"flow_runs": wanted["flow_runs"] | ended})
        assert not broken, fleet.log(broken[0]["id"])
        return fleet.prefect.ask("/flow_runs/filter", wanted)

    (run,) = fleet.until(completed, timeout_s=600)
    fleet.prefect.ask(f"/deployments/{deployment['id']}/schedules/{made[0]['id']}", method="DELETE")
    assert run["auto_scheduled"] is True
    assert_all_three(fleet, "nightly")


@pytest.fixture
def two_matchers(fleet: Fleet) -> Iterator[Client]:
    """A second matching worker; as many as at first when the test is over."""
    fleet.cluster.start("matcher-1")
    with Client(fleet.cluster.address, timeout=120) as client:
        yield client
    for name in ("matcher-0", "matcher-1"):
        if name in fleet.cluster.workers:
            fleet.cluster.kill(name)
    fleet.cluster.start("matcher-0")


def busy(client: Client, name: str) -> bool:
    """Whether tiles are being matched by a worker this moment."""
    known = client.scheduler_info(n_workers=-1)["workers"]
    address = next((address for address, about in known.items() if about["name"] == name), None)
    return address is not None and bool(client.processing().get(address))


def test_a_backfill_whose_matching_worker_is_killed_goes_on_with_the_other(
    fleet: Fleet, two_matchers: Client
):
    run_id = fleet.start(
        "backfill",
        {
            "catalog": fleet.catalog,
            "out": "s3://products/backfill",
            "settings": {"catalog": {"start_utc": "2020-10-01", "end_utc": "2020-12-31"}},
        },
    )
    fleet.until(lambda: busy(two_matchers, "matcher-0") and busy(two_matchers, "matcher-1"))
    fleet.cluster.kill("matcher-0")
    run = fleet.finished(run_id)
    assert run["state_type"] == "COMPLETED", fleet.log(run_id)
    assert_all_three(fleet, "backfill")


def test_without_a_matching_worker_a_pair_fails_with_a_reason_and_is_done_when_one_is_back(
    fleet: Fleet, two_matchers: Client
):
    parameters = {
        "scene_id": fleet.s2_items["T11SLT"]["id"],
        "catalog": fleet.catalog,
        "out": "s3://products/lost",
        "settings": {"compute": {"gpu_wait_s": 3.0}, "runs": {"retries": 0}},
    }
    run_id = fleet.start("new-scene", parameters)
    fleet.until(lambda: busy(two_matchers, "matcher-0") or busy(two_matchers, "matcher-1"))
    for name in ("matcher-0", "matcher-1"):
        fleet.cluster.kill(name)
    run = fleet.finished(run_id)
    assert run["state_type"] in {"COMPLETED", "FAILED"}
    assert fleet.committed("lost") == {}
    (key,) = [key for key in fleet.keys("lost") if key.endswith("/_FAILED.json")]
    failure = json.loads(fleet.read("lost", key))
    assert failure["code"] == "no_gpu_worker"
    assert "GPU" in failure["message"]
    assert "pairs under way wait for one for up to 3 s" in fleet.prefect.worker.log.read_text()

    fleet.cluster.start("matcher-2")
    try:
        fleet.run("new-scene", parameters)
    finally:
        fleet.cluster.kill("matcher-2")
    assert len(fleet.committed("lost")) == 1
    assert not [key for key in fleet.keys("lost") if "_FAILED" in key]
