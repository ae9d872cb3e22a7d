"""All servers at once with the real scenes on them, and what the tests ask of them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers.dask_cluster import DaskCluster, dask_cluster
from servers.pgstac import StacApi, pgstac
from servers.prefect_server import PrefectServer, prefect_server
from servers.process import LOOPBACK, ROOT, ServerMissingError, free_ports
from servers.seaweed import Notices, ObjectStore, client_of, seaweed
from stac_site import as_table

Json = dict[str, Any]

SECRETS = {
    "access key": "AKIAPLANTEDACCESSKEY",
    "secret key": "planted/aws+secret/key/wJalrXUtnFEMI",
    "Prefect password": "planted-prefect-password",
    "listener token": "planted-listener-token",
}
"""Told to servers and clients by their environment, and to be found nowhere else."""

PREFECT_USER = "tester"

SCENES, PRODUCTS, INCOMING = "scenes", "products", "incoming"
"""Buckets; of what comes into the last the server sends notices."""

COARSE: Json = {
    "grid": {"resolution_m": 40.0},
    "tiles": {"size_px": 128, "stride_px": 256, "coarse_max_offset_m": 0.0},
}
"""Scenes of 120 km in seconds: 9 to 40 tiles of 40 m pixels each, enough for a verdict on all three pairs."""

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass(frozen=True, slots=True)
class Fleet:
    """Prefect, Dask, S3 and a STAC API, with the real scenes in S3 and in the API."""

    folder: Path
    """Logs of all servers."""
    objects: ObjectStore
    listener_port: int
    """Where the server of objects sends its notices to; nobody listens there yet."""
    cluster: DaskCluster
    prefect: PrefectServer
    api: StacApi | None
    """None where PostgreSQL with PostGIS is not installed."""
    why_no_api: str
    items: list[Json]
    """STAC items of the scenes, hrefs in S3."""
    table: Path
    """The same items as stac-geoparquet."""

    @property
    def catalog(self) -> str:
        return str(self.table) if self.api is None else self.api.url

    @property
    def s2_items(self) -> dict[str, Json]:
        """Item of each Sentinel-2 scene by its tile, T14RNT say."""
        return {item["id"].split("_")[5]: item for item in self.items if item["id"].startswith("S2")}

    def start(self, name: str, parameters: Json) -> str:
        """Start a run of a deployment; returns its id."""
        path = f"/deployments/name/crosstie-{name}/{name}"
        deployment = self.prefect.ask(path, method="GET")["id"]
        run: str = self.prefect.ask(f"/deployments/{deployment}/create_flow_run", {"parameters": parameters})[
            "id"
        ]
        return run

    def finished(self, run_id: str, *, timeout_s: float = 600) -> Json:
        """The run, once it is over."""
        return self.until(
            lambda: (
                (run := self.prefect.ask(f"/flow_runs/{run_id}", method="GET"))["state_type"] in FINAL and run
            ),
            timeout_s=timeout_s,
        )

    def run(self, name: str, parameters: Json) -> Json:
        """Run a deployment to its end, which is to be a good one."""
        run = self.finished(self.start(name, parameters))
        assert run["state_type"] == "COMPLETED", "\n".join(
            [run["state"]["message"] or "", *self.log(run["id"])]
        )
        return run

    def log(self, run_id: str) -> list[str]:
        """Lines of a run's log, as the server has kept them."""
        found = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        lines = self.prefect.ask("/logs/filter", found)
        return [f"{logging.getLevelName(line['level'])} {line['message']}" for line in lines]

    def until(self, found: Callable[[], Any], *, timeout_s: float = 300) -> Any:
        """What `found` gives, once it is true.

        Raises
        ------
        TimeoutError : it took too long; the message ends with the worker's log
        """
        deadline = time.monotonic() + timeout_s
        while not (result := found()):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"not so after {timeout_s:g} s; the worker says:\n{self.prefect.worker.tail()}"
                )
            time.sleep(0.25)
        return result

    def keys(self, root: str) -> list[str]:
        """Keys of all objects below `root` in the bucket of products, relative to it."""
        pages = client_of(self.objects).get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=PRODUCTS, Prefix=f"{root}/")
        return [entry["Key"].removeprefix(f"{root}/") for page in found for entry in page.get("Contents", [])]

    def read(self, root: str, key: str) -> bytes:
        body: bytes = client_of(self.objects).get_object(Bucket=PRODUCTS, Key=f"{root}/{key}")["Body"].read()
        return body

    def committed(self, root: str) -> dict[str, Json]:
        """`correction.json` of each committed run below `root`, by its prefix."""
        done = [key.rpartition("/")[0] for key in self.keys(root) if key.endswith("/_COMMIT")]
        return {prefix: json.loads(self.read(root, f"{prefix}/correction.json")) for prefix in done}

    @property
    def environment(self) -> dict[str, str]:
        """What a user exports who works on these servers."""
        return {
            **self.prefect.environment,
            **self.objects.environment,
            **self.cluster.environment,
            "PREFECT_HOME": str(self.folder / "prefect-client"),
        }


@contextmanager
def fleet(folder: Path, scenes: Path) -> Iterator[Fleet]:
    """Start everything and load the scenes; all is gone when the block ends.

    Parameters
    ----------
    scenes : folder of the real scenes, with STAC items beside them
    """
    with ExitStack() as stack:
        (port,) = free_ports(1)
        address = f"http://{LOOPBACK}:{port}/scenes"
        objects = stack.enter_context(
            seaweed(
                folder,
                buckets=(SCENES, PRODUCTS, INCOMING),
                key=SECRETS["access key"],
                secret=SECRETS["secret key"],
                notices=Notices(INCOMING, address, SECRETS["listener token"]),
            )
        )
        cluster = stack.enter_context(dask_cluster(folder, environment=objects.environment))
        prefect = stack.enter_context(
            prefect_server(
                folder,
                auth=f"{PREFECT_USER}:{SECRETS['Prefect password']}",
                flow_environment={**objects.environment, **cluster.environment, **as_environment(COARSE)},
            )
        )
        api, why = None, ""
        try:
            api = stack.enter_context(pgstac(folder))
        except ServerMissingError as problem:
            if os.environ.get("CI") == "true":
                raise
            why = str(problem)
        items = upload(objects, scenes)
        if api is not None:
            names = ("sentinel-1-grd", "sentinel-2-l1c")
            api.load([json.loads((scenes / f"{name}.json").read_text()) for name in names], items)
        table = as_table(folder / "items.parquet", items)
        found = Fleet(folder, objects, port, cluster, prefect, api, why, items, table)
        deploy(found)
        yield found


def as_environment(settings: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    """Settings as variables of a worker's environment."""
    return {
        f"CROSSTIE_{group}__{name}".upper(): json.dumps(value)
        for group, values in settings.items()
        for name, value in values.items()
    }


def upload(objects: ObjectStore, scenes: Path) -> list[Json]:
    """Put the rasters into the bucket; their items, with hrefs that say so."""
    client = client_of(objects)
    items = []
    for path in sorted(scenes.glob("*/sentinel-*.json")):
        item = json.loads(path.read_text())
        for asset in item["assets"].values():
            raster = path.parent / asset["href"]
            key = f"{item['id']}/{raster.name}"
            client.upload_file(str(raster), SCENES, key)
            asset["href"] = f"s3://{SCENES}/{key}"
        items.append(item)
    return items


def deploy(fleet: Fleet) -> None:
    """Deploy what deploy/prefect.yaml declares, as its README says."""
    done = subprocess.run(
        [ROOT / ".venv/bin/prefect", "--no-prompt", "deploy", "--all",
         "--prefect-file", ROOT / "deploy/prefect.yaml"],
        env={
            **os.environ, **fleet.environment,
            "CROSSTIE_CATALOG_URL": fleet.catalog, "CROSSTIE_PRODUCTS_URL": f"s3://{PRODUCTS}/nightly",
        },
        cwd=fleet.folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    (fleet.folder / "deploy.log").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr


def assert_all_three(fleet: Fleet, root: str) -> None:
    """Products of all real pairs lie below `root`, complete, with what is known of these scenes."""
    committed = fleet.committed(root)
    found = {c["pair"]["reference"]["id"].split("_")[5]: c["verdict"] for c in committed.values()}
    assert found == {"T11SLT": "corrected", "T11SMT": "already_aligned", "T14RNT": "already_aligned"}
    assert len(committed) == 3
    keys = fleet.keys(root)
    for prefix, correction in committed.items():
        names = {key.removeprefix(f"{prefix}/") for key in keys if key.startswith(f"{prefix}/")}
        assert {"correction.json", "tie_points.parquet", "item.json", "report.html", "_COMMIT"} <= names
        assert not any(name.startswith(("_CLAIM", "_FAILED")) for name in names)
        assert correction["pair"]["secondary"]["href"].startswith(f"s3://{SCENES}/")
        if "T11SLT" in prefix:
            # this S1 scene is off to the east by 2 to 3 px of 10 m, as its labels say
            assert 10 < correction["offset_m"]["median_x"] < 45
