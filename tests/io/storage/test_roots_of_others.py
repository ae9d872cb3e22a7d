"""Product roots as people write them and leave them: slips of the pen, foreign names, odd variables."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from chaos.wire import Wire, WireFault, faulty_wire
from pydantic import TypeAdapter, ValidationError
from s3_server import s3_server

from crosstie.errors import StoreError
from crosstie.io.archive.claims import take
from crosstie.io.catalog.query import SceneQuery
from crosstie.io.storage.root_layout import ProductKey
from crosstie.io.storage.s3 import S3Options
from crosstie.io.storage.store import Store, open_store


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "the product root is empty"),
        ("  ", "the product root is empty"),
        ("s3:/bucket/products", r"two slashes lack, s3://bucket/products"),
        ("s3:bucket/products", r"two slashes lack, s3://bucket/products"),
        ("file:/data/products", r"two slashes lack, file:///data/products"),
        ("https:/host/x", "two slashes lack"),
        ("file://tmp/products", "folder of another machine"),
        ("s3://", "names no bucket"),
        ("s3a://bucket/products", "write a folder"),
        ("s3://bucket/products?versionId=1", "holds '[?]'"),
        ("s3://bucket/a/../b", r"leads up by '\.\.'"),
        ("~nobody-of-this-name/x", "no such home folder"),
    ],
)
def test_a_slip_of_the_pen_is_no_root(written: str, said: str):
    with pytest.raises(StoreError, match=said) as caught:
        open_store(written)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("~/products", "file://{home}/products"),
        ("~", "file://{home}"),
        ("./s3:/odd", "file://{here}/s3%3A/odd"),
        ("C/products", "file://{here}/C/products"),
        ("s3://bucket//a/./b/", "s3://bucket/a/b"),
        ("S3://bucket/", "s3://bucket"),
    ],
)
def test_what_a_root_means(written: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert open_store(written).url == meant.format(home="/home/me", here=tmp_path)


def test_names_that_others_left_on_a_disk_are_passed_over(tmp_path: Path):
    store = open_store(str(tmp_path))
    for key in ("a/b/_COMMIT", "_index/corrections.parquet"):
        store.put(key, b"x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    (tmp_path / "new\nline").write_text("x")
    (tmp_path / os.fsdecode(b"bad\xff")).mkdir()
    (tmp_path / "half.json#1").write_text("x")
    (tmp_path / "x#?%.txt").write_text("x")
    assert list(store.list()) == ["_index/corrections.parquet", "a/b/_COMMIT", "x#?%.txt"]
    assert list(store.list("a")) == ["a/b/_COMMIT"]
    assert list(store.list("nothing")) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "lost+found").mkdir(mode=0)
    (tmp_path / "x").write_text("x")
    with caplog.at_level(logging.WARNING):
        assert list(open_store(str(tmp_path)).list()) == ["x"]
    assert "lost+found" in caplog.text


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path):
    open_store(str(tmp_path / "there")).put("a/b/_COMMIT", b"x")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "there" / "a")
    assert list(open_store(str(tmp_path / "root")).list()) == ["linked/b/_COMMIT"]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with s3_server("bucket") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server.client


@pytest.mark.server
@pytest.mark.parametrize("stray", ["notes//readme.txt", "../x", "a/./b", "./x", "//"])
def test_keys_that_no_path_can_be_are_passed_over(stray: str, bucket: Any):
    store = open_store("s3://bucket/products")
    for key in ("a/b/_COMMIT", "z/b/_COMMIT"):
        store.put(key, b"x")
    for key in (stray, "", "a/", "ä ö#/x y.txt"):
        bucket.put_object(Bucket="bucket", Key=f"products/{key}", Body=b"x")
    found = [key for key in store.list() if key.endswith("_COMMIT")]
    assert found == ["a/b/_COMMIT", "z/b/_COMMIT"]
    assert list(store.list("z")) == ["z/b/_COMMIT"]
    assert len(list(store.each_key())) == len(set(store.each_key()))


@pytest.mark.server
@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_endpoint_is_unset(empty: str, bucket: Any, monkeypatch: pytest.MonkeyPatch):
    address = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", empty)
    store = open_store("s3://bucket/unset")
    store.put("a", b"x")
    assert list(store.list()) == ["a"]
    assert os.environ["AWS_ENDPOINT_URL"] == address


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AWS_ENDPOINT_URL", "127.0.0.1:9000", "endpoint must be https://host"),
        ("AWS_ENDPOINT_URL_S3", "http://host:9000/bucket", "endpoint must be https://host"),
        ("AWS_SECRET_ACCESS_KEY", "secret\n", "AWS_SECRET_ACCESS_KEY begins or ends with a space"),
        ("AWS_ACCESS_KEY_ID", " key", "AWS_ACCESS_KEY_ID begins or ends with a space"),
    ],
)
def test_a_variable_that_cannot_be_right_is_named_without_its_value(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
):
    for variable, usual in {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "word"}.items():
        monkeypatch.setenv(variable, usual)
    monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match=said) as caught:
        open_store("s3://bucket/products")
    assert "secret\n" not in str(caught.value)


@pytest.fixture
def conflicting(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Store, Wire]]:
    """A bucket behind a wire that answers as S3 does while two requests create one object."""
    monkeypatch.setattr("crosstie.io.storage.store.CONFLICT_WAITS_S", (0.0, 0.0))
    with s3_server("bucket") as server, faulty_wire(server.url) as wire:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield open_store("s3://bucket/products", S3Options(endpoint=wire.url)), wire


def test_a_conflict_of_two_requests_is_tried_again(conflicting: tuple[Store, Wire]):
    store, wire = conflicting
    wire.fault = WireFault("409", ("CREATE",), at=1, times=2)
    assert store.create("a/_COMMIT", b"x")
    assert wire.struck == 2
    assert not store.create("a/_COMMIT", b"y")
    assert store.get("a/_COMMIT") == b"x"


def test_a_conflict_that_stays_is_no_object(conflicting: tuple[Store, Wire]):
    store, wire = conflicting
    wire.fault = WireFault("409", ("CREATE",), at=1, times=1000)
    with pytest.raises(StoreError, match="409"):
        store.create("b/_COMMIT", b"x")
    with pytest.raises(StoreError, match="409"):
        take(store, ProductKey("pair", "run"), lease_s=60)
    store.put("c", b"x")
    assert not store.create("c", b"y"), "whoever won the conflict has created it"


@pytest.mark.parametrize("written", [20250601, "20250601", "2025-06-01"])
def test_a_date_of_a_file_is_the_day_that_is_written(written: object):
    query = TypeAdapter(SceneQuery).validate_python({"start_utc": written})
    assert query.start_utc == date(2025, 6, 1)


@pytest.mark.parametrize("written", [1748736000, "1748736000", 2025, "06/01/2025"])
def test_a_number_that_is_no_date_is_refused(written: object):
    with pytest.raises(ValidationError, match="must be a date"):
        TypeAdapter(SceneQuery).validate_python({"start_utc": written})
