"""The listener over real HTTP, before a real Prefect server: once a scene, and nothing told to strangers."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from notices import JSON, NAMES, S1, S2, event_bridge, filer_event, item, minio_event, s3_event, sns
from servers.prefect_server import PrefectServer, prefect_server
from servers.process import Child, free_ports, running
from typer.testing import CliRunner

from crosstie.cli import app

if TYPE_CHECKING:  # Prefect reads its environment when it is imported, which other tests set up
    from crosstie.flows.listen.start_run import RunStarter, Started

T = TypeVar("T")

pytestmark = [pytest.mark.server, pytest.mark.slow]

TOKEN = "t0ken-of-callers-0123456789"
KEY = "k3y-of-signatures-0123456789"
PATIENCE_S = 300.0
"""A busy machine is no fault of the code, seconds."""

BEARER = {"Authorization": f"Bearer {TOKEN}"}


@dataclass(frozen=True)
class Listener:
    """A running `crosstie listen`."""

    url: str
    log: Path
    child: Child

    def post(self, message: object, headers: dict[str, str] = BEARER, **more: Any) -> httpx.Response:
        if isinstance(message, bytes | str):
            more["content"] = message
            headers = {"Content-Type": "application/json", **headers}
        else:
            more["json"] = message
        return httpx.post(f"{self.url}/scenes", headers=headers, timeout=PATIENCE_S, **more)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A server with the deployment that the listener starts; its flow is somebody else's matter."""
    with prefect_server(tmp_path_factory.mktemp("servers")) as found:
        flow = found.ask("/flows/", {"name": "crosstie-new-scene"})
        found.ask("/deployments/", {"name": "new-scene", "flow_id": flow["id"]})
        yield found


@contextmanager
def listening(server: PrefectServer, folder: Path, *options: str, **environment: str) -> Iterator[Listener]:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "crosstie", "listen", "--port", "0", "--catalog", "catalog.json"]
    given = {
        "CROSSTIE_LISTEN_TOKEN": TOKEN,
        "CROSSTIE_TILES__SIZE_PX": "128",
        "CROSSTIE_LISTEN__PREFECT_TIMEOUT_S": "240",
        **server.environment,
    }
    with running(
        "listen", [*command, "--out", "s3://products", *options], folder, environment=given | environment
    ) as child:
        child.until(lambda: "listening on" in child.tail(), timeout_s=PATIENCE_S)
        found = re.search(r"listening on (http://[^/]+)/scenes", child.log.read_text())
        assert found is not None
        yield Listener(found[1], child.log, child)


@pytest.fixture(scope="module")
def listener(server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    config = tmp_path_factory.mktemp("config") / "settings.yaml"
    config.write_text("listen:\n  signature_env: KEY_OF_SIGNATURES\n  max_body_bytes: 20000\n")
    folder = tmp_path_factory.mktemp("listener")
    with listening(server, folder, "--config", str(config), KEY_OF_SIGNATURES=KEY) as found:
        yield found


def runs(server: PrefectServer, scene_id: str) -> list[dict[str, Any]]:
    asked = {"flow_runs": {"name": {"any_": [scene_id]}}}
    found: list[dict[str, Any]] = server.ask("/flow_runs/filter", asked)
    return found


def scene(number: int) -> str:
    """A scene of which nothing has been heard."""
    return f"S2A_MSIL1C_20201104T183541_N0209_R027_T11SLT_20201105T{number:06d}"


def test_ten_notices_in_two_forms_start_one_run(server: PrefectServer, listener: Listener) -> None:
    messages = [s3_event(f"scenes/{S2}.SAFE/manifest.safe"), item(S2)] * 5
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(listener.post, messages))
    assert {answer.status_code for answer in answers} == {202}
    bodies = [answer.json() for answer in answers]
    (run,) = runs(server, S2)
    assert {body["flow_run_id"] for body in bodies} == {run["id"]}
    assert sorted(body["duplicate"] for body in bodies) == [False] + [True] * 9
    assert all(run["id"] in body["flow_run_url"] for body in bodies)


def test_a_run_is_told_what_the_listener_was_told_and_no_more(
    server: PrefectServer, listener: Listener
) -> None:
    message = item(scene(1)) | {"catalog": "evil", "out": "s3://evil", "settings": {"weights": "evil"}}
    assert listener.post(message).status_code == 202
    (run,) = runs(server, scene(1))
    assert run["parameters"] == {
        "scene_id": scene(1),
        "catalog": str(listener.log.parent / "catalog.json"),
        "out": "s3://products",
        "settings": {"tiles": {"size_px": 128}},
    }


def test_a_listener_that_starts_again_starts_nothing_again(server: PrefectServer, tmp_path: Path) -> None:
    found = []
    for name in ("before", "after"):
        with listening(server, tmp_path / name, "--catalog", f"{tmp_path}/c.json") as listener:
            found.append((name, listener.post(item(scene(2))).json()))
    assert [body["duplicate"] for _, body in found] == [False, True]
    assert len(runs(server, scene(2))) == 1


@pytest.mark.parametrize("form", [s3_event, minio_event, event_bridge, filer_event])
def test_every_form_of_a_scene_is_the_same_scene(
    server: PrefectServer, listener: Listener, form: Any
) -> None:
    answer = listener.post(form(f"in box/{scene(3)}/visual.tif"))
    assert (answer.status_code, answer.json()["scene_id"]) == (202, scene(3))
    assert len(runs(server, scene(3))) == 1


def test_an_sns_message_is_opened(server: PrefectServer, listener: Listener) -> None:
    answer = listener.post(
        json.dumps(sns(s3_event(f"{scene(4)}/a.tif"))),
        {**BEARER, "Content-Type": "text/plain; charset=UTF-8", "x-amz-sns-message-type": "Notification"},
    )
    assert (answer.status_code, answer.json()["scene_id"]) == (202, scene(4))


def test_several_records_have_several_answers(listener: Listener) -> None:
    records = [s3_event(key)["Records"][0] for key in (f"{scene(5)}/a.tif", f"{S1}/b.tif", "readme.txt")]
    answer = listener.post({"Records": records})
    assert answer.status_code == 202
    assert [body.get("scene_id") for body in answer.json()] == [scene(5), S1, None]
    assert "error" in answer.json()[-1]


def test_a_test_event_is_good_and_starts_nothing(listener: Listener) -> None:
    answer = listener.post({"Service": "Amazon S3", "Event": "s3:TestEvent"})
    assert (answer.status_code, answer.json()) == (200, {"ignored": 1})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": TOKEN},
        {"Authorization": "Basic !"},
        {"X-Crosstie-Signature": "sha256=00"},
        {"X-Crosstie-Signature": b"sha256=\xc3\xa9"},
        {"X-Crosstie-Signature": "sha256=00", "X-Crosstie-Timestamp": "x"},
        {"X-Crosstie-Signature": b"sha256=\xc3\xa9", "X-Crosstie-Timestamp": "1796000000"},
    ],
)
def test_strangers_are_sent_away(server: PrefectServer, listener: Listener, headers: dict[str, Any]) -> None:
    answer = listener.post(item(scene(6)), headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert not runs(server, scene(6))


def test_an_empty_body_of_a_stranger_is_401_too(listener: Listener) -> None:
    assert listener.post(b"", {}).status_code == 401


@pytest.mark.parametrize("headers", [BEARER, {"Authorization": httpx.BasicAuth("sns", TOKEN)._auth_header}])
def test_the_token_admits(listener: Listener, headers: dict[str, str]) -> None:
    assert listener.post(item(scene(7)), headers).status_code == 202


def signed(body: bytes, at_s: float, *, signs_time: bool = True) -> dict[str, str]:
    said = str(int(at_s))
    text = said.encode() + b"." + body if signs_time else body
    digest = hmac.new(KEY.encode(), text, hashlib.sha256).hexdigest()
    return {"X-Crosstie-Timestamp": said, "X-Crosstie-Signature": f"sha256={digest}"}


def test_a_signature_admits_the_body_that_it_signs(listener: Listener) -> None:
    body = json.dumps(item(scene(8))).encode()
    signature = signed(body, time.time())
    assert listener.post(body, signature).status_code == 202
    assert listener.post(body.replace(b"11SLT", b"11SLU"), signature).status_code == 401


def test_a_recorded_message_is_of_no_use(listener: Listener) -> None:
    body = json.dumps(item(scene(9))).encode()
    signature = signed(body, time.time())
    assert listener.post(body, signature).status_code == 202
    again = listener.post(body, signature)
    assert again.status_code == 401
    assert "received before" in again.json()["error"]
    later = signature | {"X-Crosstie-Timestamp": str(int(time.time()) + 100)}
    assert listener.post(body, later).status_code == 401
    assert listener.post(body, {name: signature[name] for name in [*signature][1:]}).status_code == 401
    assert listener.post(body, signed(body, time.time(), signs_time=False)).status_code == 401
    for off_s in (-310, 310):
        assert listener.post(body, signed(body, time.time() + off_s)).status_code == 401
    assert listener.post(body, signed(body, time.time() - 100)).status_code == 202


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/scenes", 405),
        ("PUT", "/scenes", 405),
        ("POST", "/health", 405),
        ("POST", "/scenes/", 404),
        ("GET", "/", 404),
    ],
)
def test_other_doors_are_shut(listener: Listener, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, listener.url + path, headers=BEARER, timeout=PATIENCE_S)
    assert answer.status_code == status
    assert "error" in answer.json()


@pytest.mark.parametrize(
    "message",
    [
        {},
        [],
        "{",
        "null",
        {"Records": []},
        s3_event("readme.txt"),
        item("../../x"),
        item(S2, "landsat"),
        sns("{"),
    ],
)
def test_what_names_no_scene_is_422_with_a_reason(listener: Listener, message: Any) -> None:
    answer = listener.post(message)
    assert answer.status_code == 422
    assert len(answer.json()["error"]) > 20


def test_what_is_no_json_by_its_own_word_is_415(listener: Listener) -> None:
    for headers in (
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Encoding": "gzip", "Content-Type": "application/json"},
    ):
        assert listener.post(b"{}", BEARER | headers).status_code == 415


@pytest.mark.parametrize("size", [20_001, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_long_body_is_413_whether_or_not_it_says_so(listener: Listener, size: int, chunked: bool) -> None:
    body = b" " * size
    content: Any = iter([body[:9000], body[9000:]]) if chunked else body
    answer = httpx.post(
        f"{listener.url}/scenes",
        content=content,
        headers=BEARER | {"Content-Type": "application/json"},
        timeout=PATIENCE_S,
    )
    assert answer.status_code == 413
    assert "20000 bytes" in answer.json()["error"]


def test_the_longest_body_is_taken(listener: Listener) -> None:
    text = json.dumps(item(scene(9)))
    assert listener.post(text + " " * (20_000 - len(text))).status_code == 202


def test_it_says_how_it_is_without_a_token(listener: Listener) -> None:
    assert httpx.get(f"{listener.url}/health", timeout=PATIENCE_S).json() == {"status": "ok"}
    ready = httpx.get(f"{listener.url}/ready", timeout=PATIENCE_S)
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(message=st.dictionaries(NAMES, JSON) | JSON, wrapped=st.booleans())
def test_no_message_breaks_it(listener: Listener, message: Any, wrapped: bool) -> None:
    answer = listener.post(json.dumps(sns(json.dumps(message)) if wrapped else message))
    assert answer.status_code in {200, 202, 422}
    assert TOKEN not in answer.text


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    body=st.binary(max_size=300),
    headers=st.dictionaries(
        st.sampled_from(
            ["Authorization", "Content-Type", "X-Crosstie-Signature", "Content-Encoding", "Origin"]
        ),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40),
    ),
)
def test_no_request_breaks_it(listener: Listener, body: bytes, headers: dict[str, str]) -> None:
    answer = httpx.post(f"{listener.url}/scenes", content=body, headers=headers, timeout=PATIENCE_S)
    assert 400 <= answer.status_code < 500
    assert not {TOKEN, KEY} & set(re.split(r"\W+", answer.text))


def test_the_log_has_scenes_and_nothing_that_a_sender_makes_up(listener: Listener) -> None:
    planted = "PLANTED-0123"
    httpx.post(f"{listener.url}/scenes?token={TOKEN}", json=item(planted), headers=BEARER, timeout=PATIENCE_S)
    httpx.post(
        f"{listener.url}/{planted}", headers={"Authorization": f"Bearer {planted}"}, timeout=PATIENCE_S
    )
    listener.post(item(scene(10)) | {"title": planted, "assets": {planted: {}}})
    listener.post(s3_event(f"{planted}/{scene(11)}/{planted}"))
    with socket.create_connection(("127.0.0.1", int(listener.url.rpartition(":")[2]))) as raw:
        raw.sendall(f"{planted} / HTTP/9\r\n\r\n".encode())
        raw.recv(1000)
    log = listener.log.read_text()
    assert re.search(rf"POST /scenes 202 \d+ ms {scene(11)}\n", log)
    for secret in (planted, TOKEN, KEY):
        assert secret not in log


def test_too_many_at_once_are_asked_to_come_again(server: PrefectServer, tmp_path: Path) -> None:
    with (
        listening(server, tmp_path, CROSSTIE_LISTEN__MAX_REQUESTS="1") as listener,
        socket.create_connection(("127.0.0.1", int(listener.url.rpartition(":")[2]))) as slow,
    ):
        slow.sendall(
            f"POST /scenes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{".encode()
        )
        answers = [listener.post(item(scene(12)))]
        while answers[-1].status_code == 202:  # the slow one is not in yet
            answers.append(listener.post(item(scene(12))))
        assert answers[-1].status_code == 503
        assert int(answers[-1].headers["Retry-After"]) > 0
        assert httpx.get(f"{listener.url}/health", timeout=PATIENCE_S).status_code == 200
        slow.sendall(b"}")
        assert b"422" in slow.recv(1000).partition(b"\r\n")[0]
        assert listener.post(item(scene(12))).status_code == 202


def test_a_body_that_does_not_come_is_not_waited_for(server: PrefectServer, tmp_path: Path) -> None:
    with (
        listening(server, tmp_path, CROSSTIE_LISTEN__BODY_TIMEOUT_S="0.2") as listener,
        socket.create_connection(("127.0.0.1", int(listener.url.rpartition(":")[2])), timeout=120) as slow,
    ):
        slow.sendall(
            f"POST /scenes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Content-Length: 9\r\n\r\n".encode()
        )
        assert b" 408 " in slow.recv(1000).partition(b"\r\n")[0]


# --- Prefect ------------------------------------------------------------------------------------------------


def with_starter(url: str, act: Callable[[RunStarter], Awaitable[T]], dedupe_s: float = 3600.0) -> T:
    """Do something with a starter of runs at an API."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    from crosstie.flows.listen.start_run import RunStarter

    async def run() -> T:
        async with get_client() as client:
            where = {"catalog": "c", "out": "o", "settings": {}}
            return await act(RunStarter(client, "crosstie-new-scene/new-scene", where, dedupe_s, 60.0))

    with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 8}):
        return asyncio.run(run())


def test_two_notices_meet_across_the_border_of_a_stretch(server: PrefectServer) -> None:
    async def act(starter: RunStarter) -> tuple[str, Started]:
        before = starter._keys(scene(20), datetime.now(UTC), back=1)[0]
        deployment = await starter.client.read_deployment_by_name(starter.deployment)
        run = await starter.client.create_flow_run_from_deployment(deployment.id, idempotency_key=before)
        return str(run.id), await starter.start(scene(20))

    run_id, started = with_starter(server.url, act, dedupe_s=7200)
    assert (started.flow_run_id, started.duplicate) == (run_id, True)


def test_a_scene_is_started_again_when_its_time_is_over(server: PrefectServer) -> None:
    async def act(starter: RunStarter) -> list[Started]:
        found = [await starter.start(scene(21))]
        while found[-1].flow_run_id == found[0].flow_run_id:
            found.append(await starter.start(scene(21)))
        return found

    *_, last = with_starter(server.url, act, dedupe_s=2)
    assert not last.duplicate


def test_a_run_that_failed_is_no_reason_to_start_none(server: PrefectServer) -> None:
    from crosstie.flows.listen.start_run import MOST_ATTEMPTS

    def end(started: Started, state: str) -> None:
        server.ask(f"/flow_runs/{started.flow_run_id}/set_state", {"state": {"type": state}, "force": True})

    async def act(starter: RunStarter) -> list[Started]:
        found = [await starter.start(scene(30))]
        for state in ("RUNNING", "FAILED", "COMPLETED"):
            end(found[-1], state)
            found.append(await starter.start(scene(30)))
        for _ in range(MOST_ATTEMPTS):
            end(found[-1], "CRASHED")
            found.append(await starter.start(scene(30)))
        return found

    found = with_starter(server.url, act)
    assert [started.duplicate for started in found[:4]] == [False, True, False, True]
    assert len({started.flow_run_id for started in found}) == len(runs(server, scene(30))) == MOST_ATTEMPTS


def test_the_same_scene_for_other_products_is_another_run(server: PrefectServer) -> None:
    async def act(starter: RunStarter) -> list[Started]:
        other = replace(starter, parameters={**starter.parameters, "out": "elsewhere"})
        return [await starter.start(scene(22)), await other.start(scene(22))]

    assert [started.duplicate for started in with_starter(server.url, act)] == [False, False]


def test_a_burst_asks_prefect_once_and_a_failure_is_not_kept(server: PrefectServer) -> None:
    from crosstie.flows.listen.start_run import BurstGuard, PrefectUnavailableError, RunStarter

    asked: list[str] = []

    class Counting(RunStarter):
        async def start(self, scene_id: str) -> Started:
            asked.append(scene_id)
            await asyncio.sleep(0)
            if len(asked) == 1:
                raise PrefectUnavailableError("not now")
            return await super().start(scene_id)

    async def act(starter: RunStarter) -> list[Started]:
        fields = (starter.client, starter.deployment, starter.parameters, starter.dedupe_s, starter.timeout_s)
        guard = BurstGuard(Counting(*fields), most=2)
        with pytest.raises(PrefectUnavailableError):
            await guard.start(scene(23))
        burst = list(await asyncio.gather(*(guard.start(scene(23)) for _ in range(5))))
        for number in range(24, 28):
            await guard.start(scene(number))
        assert len(guard._asked) <= 3
        return burst

    burst = with_starter(server.url, act)
    assert sorted(started.duplicate for started in burst) == [False] + [True] * 4
    assert asked.count(scene(23)) == 2


def test_without_prefect_the_sender_is_asked_to_come_again() -> None:
    from crosstie.config import ListenSettings
    from crosstie.flows.listen.app import Service, make_listen_app
    from crosstie.flows.listen.sns import SnsDoor
    from crosstie.flows.web.access import Access
    from crosstie.io.events.notices import NoticeRules

    async def act(starter: RunStarter) -> list[httpx.Response]:
        rules = NoticeRules(optical_collections=("sentinel-2-l1c",))
        service = Service(ListenSettings(), Access(TOKEN.encode()), rules, starter, SnsDoor())
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(make_listen_app(service)), base_url="http://here", headers=BEARER
        ) as client:
            return [await client.post("/scenes", json=item()), await client.get("/ready")]

    (port,) = free_ports(1)
    for answer in with_starter(f"http://127.0.0.1:{port}/api", act):
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert "does not answer" in answer.json()["error"]


# --- The command --------------------------------------------------------------------------------------------


def refused(server: PrefectServer | None, tmp_path: Path, *options: str, **environment: str) -> str:
    """Last line of `crosstie listen` that must end with exit code 2."""
    given = {"PREFECT_HOME": str(tmp_path), **(server.environment if server else {}), **environment}
    command = [sys.executable, "-m", "crosstie", "listen", "--port", "0", "--catalog", "c.json", "--out", "p"]
    with running("refused", [*command, *options], tmp_path, environment=given) as child:
        assert child.wait(PATIENCE_S) == 2
    text = child.log.read_text()
    assert "Traceback" not in text
    return text


def test_without_a_server_it_says_how_to_get_one(tmp_path: Path) -> None:
    assert "PREFECT_API_URL is not set" in refused(None, tmp_path, CROSSTIE_LISTEN_TOKEN=TOKEN)


def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    url = f"http://user:geheim@127.0.0.1:{port}/api"
    text = refused(None, tmp_path, CROSSTIE_LISTEN_TOKEN=TOKEN, PREFECT_API_URL=url)
    assert f"http://127.0.0.1:{port}/api" in text
    assert "geheim" not in text


def test_a_deployment_that_is_missing_is_named(server: PrefectServer, tmp_path: Path) -> None:
    text = refused(
        server, tmp_path, CROSSTIE_LISTEN_TOKEN=TOKEN, CROSSTIE_LISTEN__DEPLOYMENT="crosstie-new-scene/absent"
    )
    assert "no deployment crosstie-new-scene/absent" in text
    assert "prefect deploy" in text


def test_without_a_secret_it_does_not_start(server: PrefectServer, tmp_path: Path) -> None:
    assert "CROSSTIE_LISTEN_TOKEN is not set" in refused(server, tmp_path, CROSSTIE_LISTEN_TOKEN=" ")
    missing = {"CROSSTIE_LISTEN_TOKEN": TOKEN, "CROSSTIE_LISTEN__SIGNATURE_ENV": "NOT_THERE"}
    assert "NOT_THERE is not set" in refused(server, tmp_path, **missing)
    assert "other machines" in refused(server, tmp_path, "--insecure", "--host", "0.0.0.0")


def test_a_secret_in_an_address_would_be_kept_by_prefect(server: PrefectServer, tmp_path: Path) -> None:
    text = refused(
        server, tmp_path, "--catalog", "https://me:geheim@stac.example.org", CROSSTIE_LISTEN_TOKEN=TOKEN
    )
    assert "holds a user, password" in text
    assert "geheim" not in text


def test_insecure_is_for_this_machine_and_not_for_its_web_pages(
    server: PrefectServer, tmp_path: Path
) -> None:
    with listening(server, tmp_path, "--insecure", CROSSTIE_LISTEN_TOKEN="") as listener:
        assert listener.post(item(scene(13)), {}).status_code == 202
        assert listener.post(item(scene(13)), {"Origin": "https://evil.example.org"}).status_code == 403


def test_help_teaches() -> None:
    text = CliRunner().invoke(app, ["listen", "--help"]).stdout
    for word in ("curl", "MinIO", "SeaweedFS", "sns subscribe", "CROSSTIE_LISTEN_TOKEN", "401", "503"):
        assert word in text
