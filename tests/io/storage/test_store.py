from __future__ import annotations

import hashlib
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from s3_server import S3Server, s3_server

from crosstie.errors import StoreError
from crosstie.io.storage.href import local_path, product_href, public_href
from crosstie.io.storage.store import MULTIPART_BYTES, Store, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "kept-to-myself"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server("products", secret=SECRET) as server:
        yield server


@pytest.fixture
def on_s3(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.server)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "file":
        return open_store(f"file://{tmp_path}/new%20root")
    request.getfixturevalue("on_s3")
    return open_store(f"s3://products/{tmp_path.name}/some root")


def test_what_is_put_comes_back_and_the_rest_is_none(store: Store):
    assert store.get("a/b.bin") is None
    assert not store.exists("a/b.bin")
    assert list(store.list()) == []
    store.put("a/b.bin", b"\x00one")
    store.put("a/b.bin", b"two")
    store.put("ab/c.txt", b"")
    assert store.get("a/b.bin") == b"two"
    assert store.get("ab/c.txt") == b""
    assert store.exists("a/b.bin")
    assert not store.exists("a")
    assert list(store.list()) == ["a/b.bin", "ab/c.txt"]
    assert list(store.list("a")) == ["a/b.bin"]  # whole path parts: `ab/` is another folder


def test_what_is_deleted_is_gone_and_may_be_created_again(store: Store):
    store.delete("pair/run/_CLAIM.1")  # nothing there, nothing wrong
    assert store.create("pair/run/_CLAIM.1", b"mine")
    store.put("pair/run/other", b"stays")
    store.delete("pair/run/_CLAIM.1")
    store.delete("pair/run/_CLAIM.1")
    assert store.get("pair/run/_CLAIM.1") is None
    assert list(store.list()) == ["pair/run/other"]
    assert store.create("pair/run/_CLAIM.1", b"again")


def test_a_large_object_comes_back_whole(store: Store):
    body = bytes(range(256)) * (4 * MULTIPART_BYTES // 1024 + 7)
    assert len(body) > MULTIPART_BYTES
    store.put("large.bin", b"an older one")
    store.put("large.bin", body)
    assert store.get("large.bin") == body
    assert list(store.list()) == ["large.bin"]  # nothing of the parts is left


def test_a_file_made_in_scratch_is_put_whole_and_told_by_its_hash(store: Store):
    body = bytes(range(256)) * (4 * MULTIPART_BYTES // 1024 + 7)
    store.put("a pair/run/big.tif", b"an older one")
    with store.scratch("a pair/run/big.tif") as folder:
        (folder / "left.over").write_bytes(b"of the work")
        (folder / "made.tif").write_bytes(body)
        stored = store.put_file("a pair/run/big.tif", folder / "made.tif")
    assert store.get("a pair/run/big.tif") == body
    assert (stored.size_bytes, stored.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert stored.url == store.url_of("a pair/run/big.tif")
    assert not folder.exists()
    assert list(store.list()) == ["a pair/run/big.tif"]


def test_work_that_fails_leaves_the_older_file_as_it_was(store: Store):
    store.put("a/big.tif", b"older")
    with pytest.raises(ZeroDivisionError), store.scratch("a/big.tif") as folder:  # noqa: PT012
        (folder / "made.tif").write_bytes(b"half")
        raise ZeroDivisionError
    assert store.get("a/big.tif") == b"older"
    assert list(store.list()) == ["a/big.tif"]


def test_a_store_travels_by_its_address_alone(store: Store):
    store.put("a", b"1")
    again = pickle.loads(pickle.dumps(store))
    assert again == store
    assert again.get("a") == b"1"
    assert SECRET.encode() not in pickle.dumps(store)


def test_of_sixteen_who_create_one_wins_and_its_bytes_stay(store: Store):
    start = threading.Barrier(16)

    def race(runner: int) -> bool:
        start.wait()
        return store.create("pair/run/_COMMIT", f"runner {runner}".encode())

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(race, range(16)))
    assert won.count(True) == 1
    assert store.get("pair/run/_COMMIT") == f"runner {won.index(True)}".encode()
    assert not store.create("pair/run/_COMMIT", b"late")


def test_a_folder_appears_with_the_first_write_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    store = open_store("deep/root")
    assert store.url == f"{tmp_path.as_uri()}/deep/root"
    assert store.get("x") is None
    assert not (tmp_path / "deep").exists()
    store.put("x", b"1")
    assert (tmp_path / "deep/root/x").read_bytes() == b"1"
    assert [p.name for p in (tmp_path / "deep/root").iterdir()] == ["x"]  # no temporary file is left


def test_a_root_that_is_a_file_is_told_by_name(tmp_path: Path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StoreError, match=r"cannot write x in file://.*/taken: .*choose another root"):
        open_store(str(tmp_path / "taken")).put("x", b"1")


@pytest.mark.server
@pytest.mark.usefixtures("on_s3")
def test_a_missing_bucket_is_told_without_the_secret():
    store = open_store(f"s3://me:{SECRET}@nobody-made-this/prefix")
    assert store.url == "s3://nobody-made-this/prefix"
    for action in (lambda: store.put("x", b"1"), lambda: store.get("x"), lambda: list(store.list())):
        with pytest.raises(StoreError, match=r"s3://nobody-made-this/prefix.*the bucket exists") as caught:
            action()
        assert SECRET not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.server
def test_https_is_not_downgraded(monkeypatch: pytest.MonkeyPatch, s3: S3Server):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url.replace("http://", "https://"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setattr("crosstie.io.storage.store._RETRY", {"max_retries": 1})
    with pytest.raises(StoreError, match="cannot write x in s3://products"):
        open_store("s3://products").put("x", b"1")


@pytest.mark.parametrize("url", ["ftp://host/x", "s3://", "gs://bucket/x"])
def test_other_roots_are_refused_with_what_to_write_instead(url: str):
    with pytest.raises(StoreError, match="s3://BUCKET/PREFIX"):
        open_store(url)


@pytest.mark.parametrize(
    ("href", "public"),
    [
        ("https://me:pw@host:8080/a.tif", "https://host:8080/a.tif"),
        ("https://h/a.tif?X-Amz-Signature=1&X-Amz-Credential=2&v=3", "https://h/a.tif?v=3"),
        ("https://h/a.tif?sv=2&st=1&se=3&sr=c&sp=rl&skoid=9&sktid=8&sig=abc%3D", "https://h/a.tif"),
        ("https://h/a.tif?AWSAccessKeyId=1&Signature=2&Expires=3", "https://h/a.tif"),
        ("https://h/a?access_token=1&api_key=3&item=S1A&bands=vv", "https://h/a?item=S1A&bands=vv"),
        ("/vsicurl/https://me:pw@h/a.tif?token=1", "/vsicurl/https://h/a.tif"),
        ("s3://key:secret@bucket/a b/c.tif", "s3://bucket/a b/c.tif"),
        ("/data/odd?sig=1@x.tif", "/data/odd?sig=1@x.tif"),  # a file may be called so
    ],
)
def test_a_public_href_keeps_the_way_and_drops_the_keys(href: str, public: str):
    assert public_href(href) == public
    assert public_href(public) == public


def test_local_hrefs_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert product_href("s1.tif") == str(tmp_path / "s1.tif")
    assert product_href("/vsis3/b/s1.tif") == "/vsis3/b/s1.tif"
    assert local_path("file:///a%20b/c.tif") == Path("/a b/c.tif")
    assert local_path("https://h/c.tif") is None
