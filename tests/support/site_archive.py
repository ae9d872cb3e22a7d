"""An archive for the tests of the site: every verdict, failures, a claim, logs of runs."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
from committed_runs import commit, write_secondary

from crosstie.io.archive.failures import Failure, record_failure
from crosstie.io.archive.run_log import RunLog, begin
from crosstie.io.storage.store import open_store
from crosstie.types import Reason, VerdictCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.applications import Starlette

    from crosstie.io.storage.store import Store
    from crosstie.types import Registration

S2 = "S2B_MSIL1C_20250602T103629_N0511_R008_T31UFS_20250602T124233"
S1 = "S1A_IW_GRDH_1SDV_20250601T172417_20250601T172442_059449_07611C_0D2A"
SEA = "S1A_IW_GRDH_1SDV_20250603T053412_20250603T053437_059471_0761D8_C4E1"
FLAT = "S1C_IW_GRDH_1SDV_20250604T172502_20250604T172527_002618_00572B_9B30"
EVIL = "S1<script>alert(1)</script>&\"'"
"""A scene that a catalog may well call so."""

OLD, NEW = "a" * 16, "b" * 16

HERE = "http://127.0.0.1"

NIGHT = datetime(2026, 1, 3, 2, 0, tzinfo=UTC)


def filled(folder: Path, make: Callable[..., Registration]) -> Store:
    """A store in a folder, with a pair of each verdict, of which one twice; and what else an archive has."""
    store = open_store(str(folder / "products"))
    secondary = (write_secondary(folder),)
    corrected = make(secondary_hrefs=secondary)
    aligned = make(secondary_hrefs=secondary, code=VerdictCode.ALREADY_ALIGNED)
    unsure = make(
        secondary_hrefs=secondary, code=VerdictCode.UNRELIABLE, reasons=(Reason.WATER, Reason.NO_TEXTURE), n=0
    )
    commit(store, unsure, reference_id=S2, secondary_id=S1, run_key=OLD)
    commit(store, corrected, reference_id=S2, secondary_id=S1, run_key=NEW, hours=1)
    commit(store, aligned, reference_id=S2, secondary_id=FLAT, run_key=NEW, hours=2)
    commit(store, unsure, reference_id=S2, secondary_id=SEA, run_key=NEW, hours=3)
    commit(store, corrected, reference_id="S2<b>", secondary_id=EVIL, run_key=NEW, hours=-1)
    for number, code in enumerate(("time_limit", "unreadable_raster", "unreadable_raster")):
        fail(store, f"S1A_FAILED_{number}", code, hours=number)
    run_out = {"owner": "gone:1", "expires_utc": "2026-01-01T00:00:00+00:00"}
    store.put(f"S2__S1A_LOST/{NEW}/_CLAIM.1", json.dumps(run_out).encode())
    held = {"owner": "here:1", "expires_utc": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    store.put(f"S2__S1A_NOW/{NEW}/_CLAIM.1", json.dumps(held).encode())
    log_runs(store)
    return store


def fail(store: Store, secondary_id: str, code: str, *, hours: float = 0) -> None:
    when = (NIGHT + timedelta(hours=hours)).isoformat()
    text = f"s3://scenes/{secondary_id}.tif: cannot be read <i>here</i>"
    record_failure(
        store, Failure(f"S2__{secondary_id}", NEW, "S2", secondary_id, code, text, when, attempts=2)
    )


def log_runs(store: Store) -> None:
    """Three nights: one complete, one that left something, one that has not ended; and a backfill."""
    whole = RunLog(
        flow="nightly", started_utc="", scope="s", ended_utc="", pairs=5, already_done=1,
        verdicts={"corrected": 3, "unreliable": 1, "failed": 1}, failures={"time_limit": 1},
    )  # fmt: skip
    for night, (ended, complete) in enumerate([(True, True), (True, False), (False, False)]):
        _log(store, whole, "nightly", NIGHT + timedelta(days=night), ended=ended, complete=complete)
    _log(store, whole, "backfill", NIGHT - timedelta(days=9), ended=True, complete=True)


def _log(store: Store, like: RunLog, flow: str, started: datetime, *, ended: bool, complete: bool) -> None:
    log = begin(store, flow, scope="s", asked={}, started=started)
    if not ended:
        return
    done = dataclasses.replace(
        like, flow=flow, started_utc=log.started_utc, complete=complete,
        ended_utc=(started + timedelta(minutes=5)).isoformat(timespec="seconds"),
    )  # fmt: skip
    body = {"schema": "crosstie/run/1", **dataclasses.asdict(done)}
    store.put(done.key, json.dumps(body).encode())


@dataclasses.dataclass(frozen=True)
class Site:
    """The application, asked as a browser asks it, without a socket."""

    app: Starlette
    base_url: str = HERE

    def request(self, method: str, address: str, **more: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url=self.base_url) as client:
                return await client.request(method, address, **more)

        return asyncio.run(ask())

    def get(self, address: str, **more: Any) -> httpx.Response:
        return self.request("GET", address, **more)

    def head(self, address: str) -> httpx.Response:
        return self.request("HEAD", address)
