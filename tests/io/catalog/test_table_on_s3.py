"""A table on S3 whose server is not there is asked for once, and the server is named."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError
from botocore.hooks import first_non_none_response
from s3_server import s3_server
from stac_site import as_table, stac_item

from crosstie.errors import CatalogError
from crosstie.io.catalog.search import find_scenes
from crosstie.io.storage.s3 import S3Options
from crosstie.io.storage.s3_session import sure_session


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "mine",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("host", ["127.0.0.1:1", "no-such-host.invalid"])
def test_a_server_that_is_not_there_is_named_in_one_line(host: str, monkeypatch: pytest.MonkeyPatch):
    asked: list[object] = []
    session = sure_session(None)
    session.register("before-send.s3", lambda **about: asked.append(about["request"].url) and None)
    monkeypatch.setattr("crosstie.io.catalog.stac_geoparquet.sure_session", lambda _profile: session)
    with pytest.raises(CatalogError) as refused:
        find_scenes("s3://bucket/items.parquet", storage=S3Options(endpoint=f"http://{host}"))
    assert len(asked) == 1
    said = str(refused.value)
    assert said.startswith("cannot read the catalog s3://bucket/items.parquet: ")
    assert f"http://{host}" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("problem", "again"),
    [
        (EndpointConnectionError(endpoint_url="x", error=ConnectionRefusedError(111, "refused")), False),
        (EndpointConnectionError(endpoint_url="x", error=socket.gaierror(socket.EAI_NONAME, "?")), False),
        (EndpointConnectionError(endpoint_url="x", error=socket.gaierror(socket.EAI_AGAIN, "?")), None),
        (EndpointConnectionError(endpoint_url="x", error=TimeoutError()), None),
        (ConnectionClosedError(endpoint_url="x", error=ConnectionResetError()), None),
        (None, None),
    ],
)
def test_what_may_pass_is_asked_again_as_usual(problem: Exception | None, again: bool | None):
    events = sure_session(None).get_component("event_emitter")
    told = {"caught_exception": problem, "attempts": 1, "response": None}
    answers = asyncio.run(events.emit("needs-retry.s3.GetObject", **told))
    assert first_non_none_response(answers) is again


def test_a_table_is_read_as_before(tmp_path: Path):
    table = as_table(tmp_path / "items.parquet", [stac_item("one"), stac_item("two")])
    with s3_server("tables") as server:
        for name in ("items.parquet", "parts/a.parquet"):
            server.client.upload_file(str(table), "tables", name)
        storage = S3Options(endpoint=server.url)
        for address in ("s3://tables/items.parquet", "s3://tables/parts.parquet"):
            if address.endswith("parts.parquet"):
                server.client.upload_file(str(table), "tables", "parts.parquet/0.parquet")
            assert [scene.id for scene in find_scenes(address, storage=storage)] == ["one", "two"]
