"""Flows on a Prefect server and Dask processes: small pairs, and catalogs of them to order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from servers.dask_cluster import dask_cluster

from crosstie.config import Settings, load_settings
from crosstie.flows.runs.prefect_env import prepare
from crosstie.io.archive.failures import Failure, read_failure
from crosstie.io.archive.listing import list_archive
from crosstie.io.simulation.pairs import write_simulated_catalog
from crosstie.io.storage.store import open_store

SIZE_PX = 192

OPTIONS: dict[str, object] = {
    "tiles.search_px": 16,
    "tiles.coarse_spots": 4,
    "compute.threads": 1,
    "compute.device": "cpu",
    "runs.retry_delay_s": 0.1,
}


@dataclass(frozen=True)
class Fleet:
    """Where a run works: a scheduler with a reader and a matcher, and a Prefect server."""

    cluster: str
    prefect: str

    def settings(self, **options: object) -> Settings:
        """Settings of a run there; `runs__retries=0` sets `runs.retries`."""
        given = {name.replace("__", "."): value for name, value in options.items()}
        return load_settings(options={**OPTIONS, "compute.cluster": self.cluster, **given})

    def start(self, *arguments: str | Path, **options: object) -> subprocess.Popen[str]:
        """Start `crosstie` as a process of its own."""
        given = {**OPTIONS, "compute.cluster": self.cluster}
        given |= {name.replace("__", "."): value for name, value in options.items()}
        variables = {
            f"CROSSTIE_{name.upper().replace('.', '__')}": str(value) for name, value in given.items()
        }
        return subprocess.Popen(
            [sys.executable, "-m", "crosstie", *map(str, arguments)],
            env={**os.environ, **variables, "PREFECT_API_URL": self.prefect},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@contextmanager
def fleet_of(folder: Path) -> Iterator[Fleet]:
    """Start the processes; the Prefect server is that of this process, and goes when it goes."""
    with pytest.MonkeyPatch.context() as patch, dask_cluster(folder / "dask", workers=WORKERS) as processes:
        patch.setenv("PREFECT_HOME", str(folder / "prefect"))
        patch.setenv("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "400")
        prepare(verbose=False)
        from prefect import get_client
        from prefect.server.api.server import SubprocessASGIServer

        with get_client(sync_client=True) as client:
            client.hello()
        yield Fleet(processes.address, f"{SubprocessASGIServer().address}/api")


WORKERS = ("reader-0", "matcher-0")


@dataclass(frozen=True)
class Archive:
    """Simulated scenes whose items can be written anew: a file of search results beside them."""

    folder: Path
    items: tuple[dict[str, Any], ...]
    """Reference and secondary of each place in turn, references of 2025-06-04 and every fifth day after."""

    @property
    def pairs(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        return list(zip(self.items[::2], self.items[1::2], strict=True))

    def write(self, name: str, items: Sequence[dict[str, Any]]) -> str:
        """Write a catalog of some items; returns its path."""
        path = self.folder / name
        path.write_text(json.dumps({"type": "FeatureCollection", "features": list(items)}))
        return str(path)


def write_archive(folder: Path, places: int) -> Archive:
    """Draw so many places; the last is under cloud."""
    catalog = write_simulated_catalog(folder, scenes=places, size_px=SIZE_PX)
    items = []
    for n in range(places):
        for name, asset in (("sentinel-2-l1c", "visual"), ("sentinel-1-grd", "vh")):
            path = catalog.parent / f"place-{n:03d}" / f"{name}.json"
            item = json.loads(path.read_text())
            item["links"] = []
            href = item["assets"][asset]["href"]
            item["assets"][asset]["href"] = f"./{path.parent.name}/{Path(href).name}"
            items.append(item)
    return Archive(catalog.parent, tuple(items))


def moved(item: dict[str, Any], *, name: str, by: timedelta) -> dict[str, Any]:
    """The same scene under another id, acquired earlier or later."""
    properties = dict(item["properties"])
    for key in ("datetime", "start_datetime", "end_datetime"):
        if properties.get(key):
            properties[key] = (datetime.fromisoformat(properties[key]) + by).isoformat()
    return {**item, "id": name, "properties": properties}


def commits(out: Path) -> dict[str, int]:
    """Committed pairs, and when their correction was written."""
    return {path.parent.parent.name: path.stat().st_mtime_ns for path in out.rglob("_COMMIT")}


def leftovers(out: Path, name: str) -> list[Path]:
    """Claims or failures that lie there."""
    return sorted(out.rglob(f"{name}*"))


def failures(out: Path) -> list[Failure]:
    """Failure records of an archive, every one of them readable."""
    store = open_store(str(out))
    found = [read_failure(store, *product) for product in sorted(list_archive(store).failed)]
    assert None not in found
    return [failure for failure in found if failure is not None]
