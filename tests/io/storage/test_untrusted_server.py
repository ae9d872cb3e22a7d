"""A server whose certificate is not trusted is asked once: asking again would change nothing."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import pytest
from tls_server import make_certificates

from crosstie.errors import CrosstieError, StoreError, UnreadableRasterError
from crosstie.io.catalog.search import find_scenes
from crosstie.io.raster.gdal import IMAGE_DRIVERS, opened
from crosstie.io.storage.store import open_store


@dataclass
class Door:
    """Where TLS is offered and nothing else, with a certificate that nobody trusts."""

    url: str
    knocks: int = 0
    """Connections so far."""


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    _, certificate, key = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))
    found = Door(f"https://127.0.0.1:{listener.getsockname()[1]}")

    def serve() -> None:
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            found.knocks += 1
            try:
                context.wrap_socket(caller, server_side=True).recv(1)
            except OSError:
                caller.close()

    Thread(target=serve, daemon=True).start()
    for name, value in (("ENDPOINT_URL", found.url), ("ACCESS_KEY_ID", "me"), ("SECRET_ACCESS_KEY", "mine")):
        monkeypatch.setenv(f"AWS_{name}", value)
    yield found
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def refusal(problem: pytest.ExceptionInfo[CrosstieError]) -> str:
    text = str(problem.value)
    assert "is of an authority that is not trusted here; give its file as storage.ca_file" in text
    return text


def test_a_root_is_refused_at_once_at_every_request(door: Door) -> None:
    store = open_store("s3://archive/products")
    assert door.knocks == 0
    for n, ask in enumerate((store.get, store.exists, lambda key: list(store.list(key))), start=1):
        with pytest.raises(StoreError) as problem:
            ask("_index/corrections.parquet")
        assert "s3://archive/products" in refusal(problem)
        assert door.knocks == n


def test_of_a_server_that_does_not_answer_the_certificate_is_not_the_matter(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://127.0.0.1:9")
    monkeypatch.setattr("crosstie.io.storage.store._RETRY", {"max_retries": 1})
    with pytest.raises(StoreError) as problem:
        open_store("s3://archive/products").get("x")
    assert door.knocks == 0
    assert "storage.ca_file" not in str(problem.value)


@pytest.mark.parametrize(
    "root", ["{url}/catalog.json", "{url}/", "s3://archive/catalog.json", "s3://archive/items.parquet"]
)
def test_a_catalog_is_refused_at_once(door: Door, root: str) -> None:
    with pytest.raises(CrosstieError) as problem:
        find_scenes(root.format(url=door.url))
    refusal(problem)
    assert door.knocks == 1


@pytest.mark.parametrize("href", ["s3://archive/scene.tif", "{url}/scene.tif"])
def test_a_raster_is_refused_for_that_reason(door: Door, href: str) -> None:
    href = href.format(url=door.url)
    with pytest.raises(UnreadableRasterError) as problem, opened(href, drivers=IMAGE_DRIVERS):
        pass
    assert refusal(problem).startswith(href)
