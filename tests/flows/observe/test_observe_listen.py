"""What the listener tells Prometheus: notices by answer, scenes started, and nothing of what was sent."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import httpx
from notices import S2

from crosstie.config import ListenSettings
from crosstie.flows.listen.app import Service, make_listen_app
from crosstie.flows.listen.metrics import LISTENER
from crosstie.flows.listen.sns import SnsDoor
from crosstie.flows.listen.start_run import PrefectUnavailableError, Started
from crosstie.flows.web.access import Access
from crosstie.io.events.notices import NoticeRules
from crosstie.io.scenes.ids import SceneIds

TOKEN = "opensesame"


class Starter(SimpleNamespace):
    """Starts nothing; Prefect is away for as long as `away` says."""

    away = False
    dedupe_s = 86_400.0

    async def start(self, scene_id: str) -> Started:
        if self.away:
            raise PrefectUnavailableError("away")
        return Started(scene_id, "run", "http://prefect/run", duplicate=False)


def listener(starter: Starter) -> httpx.AsyncClient:
    settings = ListenSettings()
    rules = NoticeRules(SceneIds(None), sar_collections=("s1",), optical_collections=("s2",))
    access = Access(token=TOKEN.encode(), key=None)
    app = make_listen_app(Service(settings, access, rules, starter, SnsDoor()))  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://listener")


def figure(name: str, **labels: str) -> float:
    return LISTENER.get_sample_value(name, labels) or 0


def notice() -> dict[str, object]:
    return {"type": "Feature", "id": S2, "collection": "s2"}


def test_notices_are_counted_by_answer_and_scenes_by_whether_a_run_was_there() -> None:
    async def answers() -> list[int]:
        starter, known = Starter(), {"Authorization": f"Bearer {TOKEN}"}
        async with listener(starter) as client:
            starter.away = True
            replies = [await client.post("/scenes", json=notice(), headers=known)]
            starter.away = False
            replies += [await client.post("/scenes", json=notice(), headers=known) for _ in range(2)]
            return [reply.status_code for reply in [*replies, await client.post("/scenes", json=notice())]]

    kinds = {"202": "direct", "503": "direct", "401": ""}
    before = {
        answer: figure("crosstie_notices_total", kind=kind, answer=answer) for answer, kind in kinds.items()
    }
    outcomes = {what: figure("crosstie_scenes_total", outcome=what) for what in ("started", "duplicate")}
    assert asyncio.run(answers()) == [503, 202, 202, 401]
    grown = {
        answer: figure("crosstie_notices_total", kind=kind, answer=answer) - before[answer]
        for answer, kind in kinds.items()
    }
    assert grown == {"202": 2, "503": 1, "401": 1}
    for what, count in outcomes.items():
        assert figure("crosstie_scenes_total", outcome=what) - count == 1


def test_the_figures_ask_for_no_token_and_tell_nothing_of_a_notice() -> None:
    async def figures() -> httpx.Response:
        async with listener(Starter()) as client:
            await client.post("/scenes", json=notice(), headers={"Authorization": "Bearer wrongwrong"})
            return await client.get("/metrics")

    reply = asyncio.run(figures())
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain; version=")
    assert "crosstie_notices_total" in reply.text
    for said in (S2, TOKEN, "wrongwrong", "127.0.0.1"):
        assert said not in reply.text


def test_other_paths_are_no_notices() -> None:
    async def replies() -> list[httpx.Response]:
        async with listener(Starter()) as client:
            return [await client.get(path) for path in ("/healthz", "/health", "/nowhere")]

    before = LISTENER.get_sample_value("crosstie_notice_seconds_count")
    healthz, health, nowhere = asyncio.run(replies())
    assert healthz.json() == health.json() == {"status": "ok"}
    assert nowhere.status_code == 404
    assert LISTENER.get_sample_value("crosstie_notice_seconds_count") == before
