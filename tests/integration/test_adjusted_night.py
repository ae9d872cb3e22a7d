"""A night that adjusts, monitors and stacks its archive is killed on the way; the next one ends it."""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from counting_proxy import counting
from integration.fleet import PRODUCTS, Fleet, upload
from servers.process import ROOT
from servers.seaweed import client_of
from stac_site import as_table

from crosstie.io.simulation.pairs import write_simulated_catalog

OUT, STACK = "adjusted-night", "adjusted-stack"
FIRST, SECOND = "000-32632", "001-32614"
"""Places: what the id says, and the CRS."""

SETTINGS = {
    "tiles": {"stride_px": 64, "search_px": 16},
    "compute": {"threads": 1, "chunk_px": 192, "device": "cpu"},
    "pairing": {"graph": "network", "partners": 4},
    "nightly": {"look_back_days": None},
    "adjust": {
        "after_run": True,
        "scene_ids": r"_(?P<place>\d{3})$",
        "stack": f"s3://{PRODUCTS}/{STACK}",
    },
}


@dataclass(frozen=True)
class Night:
    """The servers, and two places of two dates of each sensor."""

    folder: Path
    fleet: Fleet
    items: list[dict[str, Any]]

    def start(self, catalog: Path, endpoint: str) -> subprocess.Popen[str]:
        settings = self.folder / "settings.yaml"
        settings.write_text(yaml.safe_dump(SETTINGS))
        servers = {**self.fleet.objects.environment, **self.fleet.prefect.environment}
        environment = {**servers, "AWS_ENDPOINT_URL": endpoint, "PREFECT_HOME": str(self.folder / "client")}
        return subprocess.Popen(
            [ROOT / ".venv/bin/crosstie", "nightly", "--catalog", catalog,
             "--out", f"s3://{PRODUCTS}/{OUT}", "--config", settings],
            env=os.environ | environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def state(self, prefix: str) -> dict[str, str]:
        """Digest of each object whose key begins so."""
        client = client_of(self.fleet.objects)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=PRODUCTS, Prefix=prefix)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {
            key: hashlib.sha256(client.get_object(Bucket=PRODUCTS, Key=key)["Body"].read()).hexdigest()
            for key in keys
        }

    def pairs(self) -> dict[str, str]:
        """Objects of the committed products of pairs."""
        found = self.state(f"{OUT}/SIM_")
        done = {key.rpartition("/")[0] for key in found if key.endswith("/_COMMIT")}
        return {key: digest for key, digest in found.items() if key.rpartition("/")[0] in done}

    def completed(self) -> int:
        """Runs of the flow that the server knows to have ended well."""
        wanted = {
            "flows": {"name": {"any_": ["crosstie-nightly"]}},
            "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
        }
        return len(self.fleet.prefect.ask("/flow_runs/filter", wanted))


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory, fleet: Fleet) -> Night:
    folder = tmp_path_factory.mktemp("night")
    # The last place of a simulated catalog lies under cloud.
    write_simulated_catalog(folder / "scenes", scenes=3, size_px=448)
    shutil.rmtree(folder / "scenes" / "place-002")
    uploaded = upload(fleet.objects, folder / "scenes")
    return Night(folder, fleet, [date for item in uploaded for date in (item, later(item, days=5))])


def later(item: dict[str, Any], *, days: int) -> dict[str, Any]:
    """The same scene, seen again: what each sensor shows is the same."""
    again = copy.deepcopy(item)
    times = [name for name, value in item["properties"].items() if name.endswith("datetime") and value]
    for name in times:
        when = datetime.fromisoformat(item["properties"][name]) + timedelta(days=days)
        again["properties"][name] = f"{when:%Y-%m-%dT%H:%M:%SZ}"
    sensor, place = item["id"].split("_")[1], item["id"].rpartition("_")[2]
    first = datetime.fromisoformat(min(again["properties"][name] for name in times))
    again["id"] = f"SIM_{sensor}_{first:%Y%m%dT%H%M%S}_{place}"
    return again


def test_a_night_that_is_killed_while_it_adjusts_is_ended_by_the_next_and_a_new_scene_moves_its_place_alone(
    night: Night,
) -> None:
    before = night.completed()
    catalog = as_table(night.folder / "items.parquet", night.items)
    upstream = night.fleet.objects.environment["AWS_ENDPOINT_URL"]
    victims: list[subprocess.Popen[str]] = []

    def kill_at_second_place(method: str, path: str, asked: int) -> int | None:
        del asked
        if method != "PUT" or f"/_adjusted/{SECOND}/" not in path:
            return None
        for victim in victims:
            os.killpg(victim.pid, signal.SIGKILL)
        victims.clear()
        return 503

    with counting(upstream, refuse=kill_at_second_place) as proxy:
        run = night.start(catalog, proxy.url)
        victims.append(run)
        said, _ = run.communicate(timeout=500)
    assert run.returncode == -signal.SIGKILL, said
    pairs, first = night.pairs(), night.state(f"{OUT}/_adjusted/{FIRST}/")
    assert len([key for key in pairs if key.endswith("/_COMMIT")]) == 4 * 2
    assert f"{OUT}/_adjusted/{FIRST}/scenes.parquet" in first
    assert not night.state(f"{OUT}/_adjusted/{SECOND}/scenes.parquet")
    assert not night.state(STACK)

    run = night.start(catalog, upstream)
    said, _ = run.communicate(timeout=500)
    assert run.returncode == 0, said
    assert night.pairs() == pairs  # nothing was done again
    assert night.state(f"{OUT}/_adjusted/{FIRST}/") == first
    assert night.state(f"{OUT}/_adjusted/{SECOND}/scenes.parquet")
    stack = night.state(STACK)
    assert len([key for key in stack if key.endswith(".tif")]) == 2 * 2
    assert len([key for key in stack if key.endswith(".json")]) == 2 * 2
    said = night.fleet.prefect.ask("/artifacts/crosstie-moved/latest", method="GET")["data"]
    assert "Nothing has moved." in said

    sar = next(item for item in night.items if item["id"].startswith("SIM_S1") and item["id"].endswith("001"))
    catalog = as_table(night.folder / "more.parquet", [*night.items, later(sar, days=12)])
    run = night.start(catalog, upstream)
    said, _ = run.communicate(timeout=500)
    assert run.returncode == 0, said
    grown = night.pairs()
    assert {key: digest for key, digest in grown.items() if key in pairs} == pairs
    assert len(grown) > len(pairs)
    assert night.state(f"{OUT}/_adjusted/{FIRST}/") == first
    now = night.state(STACK)
    here = f"{STACK}/{FIRST}/"
    assert {key: now[key] for key in now if key.startswith(here)} == {
        key: stack[key] for key in stack if key.startswith(here)
    }
    assert len([key for key in now if key.endswith(".tif")]) == 2 * 2 + 1
    assert night.completed() == before + 2
