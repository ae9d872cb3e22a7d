"""What deploy/prefect.yaml declares: it fits the flows, deploys, keeps time, and an event starts a run."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from deploy.prefect_file import PLACES, faults
from notices import S1, S2
from servers.prefect_server import QUICK, QUIET, PrefectServer
from servers.process import LOOPBACK, ROOT, ServerError, answers, free_ports, running

FILE = ROOT / "deploy" / "prefect.yaml"
TEXT = FILE.read_text()
DECLARED: dict[str, dict[str, Any]] = {
    declared["name"]: declared for declared in yaml.safe_load(TEXT)["deployments"]
}
URLS = {
    "CROSSTIE_CATALOG_URL": "https://stac.example.org/v1",
    "CROSSTIE_PRODUCTS_URL": "s3://products",
}
NIGHT, WEEK = ("30 2 * * *", "UTC", True), ("0 6 * * 0", "UTC", False)


def test_nothing_is_wrong_in_the_file() -> None:
    assert faults(TEXT) == []
    assert list(DECLARED) == ["nightly", "backfill", "new-scene", "adjust", "retrain"]


@pytest.mark.parametrize(
    ("right", "wrong", "named"),
    [
        ("deployments:", "deployment:", "deployment"),
        ("schedules:", "shedules:", "shedules"),
        ("cron: \"30 2 * * *\"", "cron: \"30 2 * *\"", "30 2 * *"),
        ("timezone:", "time_zone:", "time_zone"),
        ("active: false", "activ: false", "activ"),
        ("concurrency_limit:", "concurency_limit:", "concurency_limit"),
        ("collision_strategy: ENQUEUE", "collision_strategy: ENQEUE", "ENQEUE"),
        ("work_pool:", "workpool:", "workpool"),
        ("work_queue_name:", "work_queue:", "work_queue"),
        ("tags:", "tag:", "tag"),
        ("triggers:", "trigger:", "trigger"),
        ("expect:", "expects:", "expects"),
        ("scene_id:", "scene:", "scene"),
        ("catalog: \"{{", "catlog: \"{{", "catlog"),
        ("$CROSSTIE_PRODUCTS_URL }}", "$CROSSTIE_PRODUCT_URL }}", "CROSSTIE_PRODUCT_URL"),
        ("crosstie.flows.nightly:nightly", "crosstie.flows.nightly:nigthly", "nigthly"),
        ("crosstie.flows.retrain", "crosstie.flow.retrain", "crosstie.flow"),
        ("name: new-scene", "name: new-scenes", "crosstie-new-scenes"),
        ("steps.run_shell_script", "steps.run_shel_script", "run_shel_script"),
        ("weights:", "weigths:", "weigths"),
    ],
)  # fmt: skip
def test_a_misspelling_is_named(right: str, wrong: str, named: str) -> None:
    assert right in TEXT
    found = faults(TEXT.replace(right, wrong))
    assert any(named in fault for fault in found), found


def test_places_are_variables_that_are_no_settings_by_accident() -> None:
    from crosstie.config import Settings

    assert set(URLS) == PLACES
    names = {variable.removeprefix("CROSSTIE_").lower() for variable in URLS}
    assert not names & set(Settings.model_fields)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A server on which everything is deployed, as the run-book says; no worker, so that nothing runs."""
    folder = tmp_path_factory.mktemp("servers")
    (port,) = free_ports(1)
    url = f"http://{LOOPBACK}:{port}/api"
    with running(
        "prefect-server",
        [ROOT / ".venv/bin/prefect", "server", "start", "--host", LOOPBACK, "--port", str(port), "--no-ui"],
        folder,
        environment={"PREFECT_API_URL": url, **QUIET, **QUICK, "PREFECT_HOME": str(folder)},
    ) as process:
        process.until(lambda: answers(f"{url}/health"), timeout_s=120)
        found = PrefectServer(url, folder, folder, process, process)
        found.ask("/work_pools/", {"name": "crosstie", "type": "process"})
        done = deploy(found, **URLS)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Warning" not in done.stdout
        yield found


def deploy(server: PrefectServer, **places: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / ".venv/bin/prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(FILE)],
        env={"PATH": os.environ["PATH"], "HOME": str(server.home), **server.environment, **places},
        cwd=server.home,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def deployed(server: PrefectServer, name: str) -> dict[str, Any]:
    found: dict[str, Any] = server.ask(f"/deployments/name/crosstie-{name}/{name}", method="GET")
    return found


def runs_of(server: PrefectServer, name: str) -> Any:
    mine = {"deployments": {"id": {"any_": [deployed(server, name)["id"]]}}}
    return server.ask("/flow_runs/filter", mine)


def until(found: Callable[[], Any], server: PrefectServer, timeout_s: float = 120) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (result := found()):
        assert time.monotonic() < deadline, server.server.tail()
        time.sleep(0.3)
    return result


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "limit", "strategy", "schedules", "queue", "tags"),
    [
        ("nightly", 1, "CANCEL_NEW", [NIGHT], "default", {"scheduled"}),
        ("backfill", 1, "ENQUEUE", [], "default", {"by-hand"}),
        ("new-scene", 4, "ENQUEUE", [], "default", {"on-arrival"}),
        ("adjust", 1, "ENQUEUE", [], "default", {"by-hand"}),
        ("retrain", 1, "CANCEL_NEW", [WEEK], "training", {"scheduled", "training"}),
    ],
)
def test_what_is_declared_is_on_the_server(
    server: PrefectServer,
    name: str,
    limit: int,
    strategy: str,
    schedules: list[tuple[str, str, bool]],
    queue: str,
    tags: set[str],
) -> None:
    found = deployed(server, name)
    assert (found["work_pool_name"], found["work_queue_name"]) == ("crosstie", queue)
    assert found["entrypoint"] == DECLARED[name]["entrypoint"]
    assert not found["pull_steps"]
    assert found["global_concurrency_limit"]["limit"] == limit
    assert found["concurrency_options"]["collision_strategy"] == strategy
    assert [
        (s["schedule"]["cron"], s["schedule"]["timezone"], s["active"]) for s in found["schedules"]
    ] == schedules
    assert set(found["tags"]) == {"crosstie"} | tags
    assert found["description"] == DECLARED[name]["description"]
    catalog = None if name == "adjust" else URLS["CROSSTIE_CATALOG_URL"]
    assert found["parameters"].get("catalog") == catalog
    products = "/var/lib/crosstie/training" if name == "retrain" else URLS["CROSSTIE_PRODUCTS_URL"]
    assert found["parameters"]["out"] == products
    assert found["enforce_parameter_schema"] is True


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("name", DECLARED)
def test_each_parameter_is_explained_where_it_is_asked_for(server: PrefectServer, name: str) -> None:
    """Prefect finds descriptions in Google's dialect of docstrings alone; of others it says nothing."""
    schema = deployed(server, name)["parameter_openapi_schema"]
    for parameter, about in schema["properties"].items():
        assert len(about.get("description", "")) > 20, parameter
    assert "{" in schema["properties"]["settings"]["description"]  # an example
    if name == "backfill":
        assert schema["properties"]["order"]["enum"] == ["newest", "oldest"]
        assert schema["properties"]["priority"]["maximum"] == 100


@pytest.mark.server
@pytest.mark.slow
def test_a_parameter_that_does_not_fit_starts_no_run(server: PrefectServer) -> None:
    path = f"/deployments/{deployed(server, 'backfill')['id']}/create_flow_run"
    for wrong in ({"order": "latest"}, {"priority": 101}, {"only_failed": "perhaps"}):
        with pytest.raises(ServerError, match=f" 409 .*|422 .*{next(iter(wrong))}"):
            server.ask(path, {"parameters": wrong})
    assert runs_of(server, "backfill") == []


@pytest.mark.server
@pytest.mark.slow
def test_the_night_is_scheduled_and_the_paused_week_is_not(server: PrefectServer) -> None:
    """A server can look healthy, show the cron and never make a run."""
    runs = until(lambda: runs_of(server, "nightly"), server)
    assert all(run["auto_scheduled"] and run["state_type"] == "SCHEDULED" for run in runs)
    assert all(run["expected_start_time"][11:16] == "02:30" for run in runs)
    # One look of the scheduler makes the runs of all deployments.
    assert runs_of(server, "retrain") == []


@pytest.mark.server
@pytest.mark.slow
def test_an_event_starts_a_run_with_the_scene_of_its_payload(server: PrefectServer) -> None:
    deployment = deployed(server, "new-scene")["id"]
    related = f"/automations/related-to/prefect.deployment.{deployment}"
    (automation,) = server.ask(related, method="GET")
    assert automation["name"] == "crosstie-scene-arrived"
    assert automation["enabled"] is True
    assert automation["trigger"]["expect"] == ["crosstie.scene.arrived"]
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    for n, (scene, name) in enumerate(((S2, "crosstie.scene.arrived"), (S1, "crosstie.scene.departed"))):
        resource = {"prefect.resource.id": f"crosstie.scene.{scene}"}
        event = {"occurred": now, "event": name, "resource": resource, "payload": {"id": scene},
                 "id": f"00000000-0000-4000-8000-{n:012}"}  # fmt: skip
        server.ask("/events", [event])
    (run,) = until(lambda: runs_of(server, "new-scene"), server)
    assert run["parameters"] == {
        "scene_id": S2,
        "catalog": URLS["CROSSTIE_CATALOG_URL"],
        "out": URLS["CROSSTIE_PRODUCTS_URL"],
        "settings": {},
    }


@pytest.mark.server
@pytest.mark.slow
def test_a_place_that_is_not_set_does_not_deploy(server: PrefectServer) -> None:
    done = deploy(server, CROSSTIE_CATALOG_URL="https://other.example.org")
    assert done.returncode != 0
    assert "CROSSTIE_PRODUCTS_URL: is not set" in done.stdout + done.stderr
    assert deployed(server, "nightly")["parameters"]["catalog"] == URLS["CROSSTIE_CATALOG_URL"]
