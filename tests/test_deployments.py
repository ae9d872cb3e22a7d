"""What deploy/prefect.yaml declares: it fits the flows, deploys, keeps time, and an event starts a run."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from notices import S1, S2
from servers.prefect_server import PrefectServer, prefect_server
from servers.process import ServerError

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "deploy" / "prefect.yaml"
DECLARED: dict[str, dict[str, Any]] = {
    declared["name"]: declared for declared in yaml.safe_load(FILE.read_text())["deployments"]
}
PLACES = {
    "CROSSTIE_CATALOG_URL": "https://stac.example.org/v1",
    "CROSSTIE_PRODUCTS_URL": "s3://products",
}


def flow_of(name: str) -> Any:
    module, _, function = DECLARED[name]["entrypoint"].partition(":")
    return getattr(importlib.import_module(module), function)


def test_all_flows_are_declared() -> None:
    assert list(DECLARED) == ["nightly", "backfill", "new-scene", "retrain"]


@pytest.mark.parametrize("name", DECLARED)
def test_a_declaration_fits_its_flow(name: str) -> None:
    flow = flow_of(name)
    assert flow.name == f"crosstie-{name}"
    signature = inspect.signature(flow.fn)
    given = set(DECLARED[name]["parameters"])
    for trigger in DECLARED[name].get("triggers", ()):
        given |= set(trigger["parameters"])
    assert given <= set(signature.parameters)
    needed = {key for key, about in signature.parameters.items() if about.default is inspect.Parameter.empty}
    assert needed - given == ({"out"} if name == "retrain" else set())


def test_places_are_variables_that_are_no_settings_by_accident() -> None:
    from crosstie.config import Settings

    variables = set(re.findall(r"\{\{ \$(\w+) \}\}", FILE.read_text()))
    assert variables == set(PLACES)
    names = {variable.removeprefix("CROSSTIE_").lower() for variable in PLACES}
    assert not names & set(Settings.model_fields)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A server on which everything is deployed, as README.md says."""
    with prefect_server(tmp_path_factory.mktemp("servers")) as found:
        deploy(found)
        yield found


def deploy(server: PrefectServer) -> None:
    done = prefect_command(server, "deploy", "--all", "--prefect-file", str(FILE), **PLACES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stdout


def prefect_command(
    server: PrefectServer, *words: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / ".venv" / "bin" / "prefect", "--no-prompt", *words],
        env={"PATH": "/usr/bin:/bin", "HOME": str(server.home), **server.environment, **environment},
        cwd=server.home,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def asked(server: PrefectServer, path: str, body: object = None, method: str = "POST") -> Any:
    """Ask again while the server's database is locked, as Prefect's own clients do."""
    while True:
        try:
            return server.ask(path, body, method=method)
        except ServerError as problem:
            if " 503 " not in str(problem):
                raise


def until(found: Callable[[], Any], server: PrefectServer, timeout_s: float = 120) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (result := found()):
        assert time.monotonic() < deadline, server.server.tail()
        time.sleep(0.3)
    return result


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("name", DECLARED)
def test_what_is_declared_is_on_the_server(server: PrefectServer, name: str) -> None:
    found = asked(server, f"/deployments/name/crosstie-{name}/{name}", method="GET")
    assert found["work_pool_name"] == "crosstie"
    assert found["entrypoint"] == DECLARED[name]["entrypoint"]
    assert not found["pull_steps"]
    limit = DECLARED[name]["concurrency_limit"]
    assert found["global_concurrency_limit"]["limit"] == limit["limit"]
    assert found["concurrency_options"]["collision_strategy"] == limit["collision_strategy"]
    assert found["parameters"]["catalogue"] == PLACES["CROSSTIE_CATALOG_URL"]
    assert found["parameters"].get("out", PLACES["CROSSTIE_PRODUCTS_URL"]) == PLACES["CROSSTIE_PRODUCTS_URL"]
    schedules = [
        (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) for schedule in found["schedules"]
    ]
    assert schedules == [("30 2 * * *", "UTC")] * (name == "nightly")


@pytest.mark.server
@pytest.mark.slow
def test_the_nightly_run_is_scheduled(server: PrefectServer) -> None:
    """A server can look healthy, show the cron and never make a run."""
    deployment = asked(server, "/deployments/name/crosstie-nightly/nightly", method="GET")
    mine = {"deployments": {"id": {"any_": [deployment["id"]]}}}
    runs = until(lambda: asked(server, "/flow_runs/filter", mine), server)
    assert all(run["auto_scheduled"] and run["state_type"] == "SCHEDULED" for run in runs)
    assert all(run["expected_start_time"][11:16] == "02:30" for run in runs)


@pytest.mark.server
@pytest.mark.slow
def test_an_event_starts_a_run_with_the_scene_of_its_payload(server: PrefectServer) -> None:
    for scene_id, name in ((S2, "crosstie.scene.arrived"), (S1, "crosstie.scene.departed")):
        resource = f"crosstie.scene.{scene_id}"
        words = ["event", "emit", name, "--resource-id", resource, "--payload", f'{{"id": "{scene_id}"}}']
        done = prefect_command(server, *words)
        assert done.returncode == 0, done.stdout + done.stderr
    deployment = asked(server, "/deployments/name/crosstie-new-scene/new-scene", method="GET")
    mine = {"deployments": {"id": {"any_": [deployment["id"]]}}}
    (run,) = until(lambda: asked(server, "/flow_runs/filter", mine), server)
    assert run["parameters"] == {
        "scene_id": S2,
        "catalogue": PLACES["CROSSTIE_CATALOG_URL"],
        "out": PLACES["CROSSTIE_PRODUCTS_URL"],
        "settings": {},
    }


@pytest.mark.server
@pytest.mark.slow
def test_a_place_that_is_not_set_does_not_deploy(server: PrefectServer) -> None:
    done = prefect_command(
        server,
        "deploy",
        "--all",
        "--prefect-file",
        str(FILE),
        CROSSTIE_CATALOG_URL="https://other.example.org",
    )
    assert done.returncode != 0
    assert "CROSSTIE_PRODUCTS_URL: is not set" in done.stdout + done.stderr
    found = asked(server, "/deployments/name/crosstie-nightly/nightly", method="GET")
    assert found["parameters"]["catalogue"] == PLACES["CROSSTIE_CATALOG_URL"]
