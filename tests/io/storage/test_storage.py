"""One value reaches obstore, s3fs and GDAL alike, as a server sees it; and no secret leaves by it."""

from __future__ import annotations

import logging
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import rasterio
from affine import Affine
from counting_proxy import CountingProxy, counting
from pydantic import BaseModel, ConfigDict
from s3_server import s3_server

from crosstie.errors import BadInputError, StoreError, UnreadableRasterError
from crosstie.io.raster import open_source, read_plane
from crosstie.io.storage.s3 import S3Options, gdal_options, obstore_options, s3fs_options
from crosstie.io.storage.store import open_store

SECRET = "kept-to-myself"


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real S3 server on loopback whose bucket `scenes` holds one small raster, `a/vv.tif`."""
    path = tmp_path_factory.mktemp("raster") / "vv.tif"
    values = np.random.default_rng(1).gamma(4, 0.02, (1, 64, 64)).astype(np.float32)
    with rasterio.open(
        path, "w", driver="GTiff", height=64, width=64, count=1, dtype="float32", crs="EPSG:32614",
        transform=Affine(10, 0, 600_000, 0, -10, 3_300_000),
    ) as raster:  # fmt: skip
        raster.write(values)
    with s3_server("scenes", secret=SECRET) as server:
        server.client.upload_file(str(path), "scenes", "a/vv.tif", ExtraArgs={"ACL": "public-read"})
        yield server.url


@pytest.fixture
def proxy(upstream: str) -> Iterator[CountingProxy]:
    with counting(upstream) as counted:
        yield counted


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the person's own: neither variables nor profiles."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def through_obstore(storage: S3Options) -> bytes | None:
    return open_store("s3://scenes", storage).get("a/vv.tif")


def through_s3fs(storage: S3Options) -> bytes:
    with fsspec.open("s3://scenes/a/vv.tif", skip_instance_cache=True, **s3fs_options(storage)) as file:
        body: bytes = file.read()
    return body


def through_gdal(storage: S3Options) -> float:
    source = open_source("s3://scenes/a/vv.tif", storage=storage)
    return float(np.nanmean(read_plane(source, source.geobox)))


CLIENTS = pytest.mark.parametrize("read", [through_obstore, through_s3fs, through_gdal])

Read = Callable[[S3Options], object]


@pytest.mark.server
@pytest.mark.usefixtures("keys")
@CLIENTS
def test_endpoint_region_and_path_style_are_those_of_the_setting(read: Read, proxy: CountingProxy):
    assert read(S3Options(endpoint=proxy.url, region="eu-north-1"))
    assert proxy.log
    for passed in proxy.log:
        assert passed.path == "/scenes/a/vv.tif"  # the bucket stands in the path
        signed = passed.headers["authorization"]
        assert "Credential=from-the-environment/" in signed
        assert "/eu-north-1/s3/" in signed
        assert "x-amz-request-payer" not in passed.headers


@pytest.mark.server
@pytest.mark.usefixtures("keys")
@CLIENTS
def test_the_setting_wins_over_the_environment(
    read: Read, proxy: CountingProxy, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert read(S3Options(endpoint=proxy.url, region="eu-north-1"))
    assert all("/eu-north-1/s3/" in passed.headers["authorization"] for passed in proxy.log)


@pytest.mark.server
@pytest.mark.usefixtures("keys")
@CLIENTS
def test_the_environment_alone_is_enough(read: Read, proxy: CountingProxy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-south-1")
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    assert read(S3Options())
    assert all("/eu-south-1/s3/" in passed.headers["authorization"] for passed in proxy.log)
    assert all(passed.headers["x-amz-request-payer"] == "requester" for passed in proxy.log)


@pytest.mark.server
@pytest.mark.usefixtures("keys")
@CLIENTS
def test_anonymous_requests_carry_no_credentials(read: Read, proxy: CountingProxy):
    assert read(S3Options(endpoint=proxy.url, anonymous=True))
    assert proxy.log
    assert all("authorization" not in passed.headers for passed in proxy.log)


@pytest.mark.server
@pytest.mark.usefixtures("keys")
@CLIENTS
def test_requester_pays_is_said_at_every_request(read: Read, proxy: CountingProxy):
    assert read(S3Options(endpoint=proxy.url, requester_pays=True))
    assert proxy.log
    assert all(passed.headers["x-amz-request-payer"] == "requester" for passed in proxy.log)


@pytest.mark.server
@pytest.mark.usefixtures("keys")
@CLIENTS
def test_a_profile_wins_over_the_keys_of_the_environment(
    read: Read, proxy: CountingProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-other-keys")
    (tmp_path / "credentials").write_text(
        f"[archive]\naws_access_key_id = from-the-profile\naws_secret_access_key = {SECRET}\n"
    )
    (tmp_path / "config").write_text(f"[profile archive]\nregion = eu-west-3\nendpoint_url = {proxy.url}\n")
    assert read(S3Options(profile="archive"))
    for passed in proxy.log:
        assert "Credential=from-the-profile/" in passed.headers["authorization"]
        assert "/eu-west-3/s3/" in passed.headers["authorization"]
        assert "x-amz-security-token" not in passed.headers


@pytest.mark.server
@CLIENTS
def test_without_keys_the_default_profile_is_asked(
    read: Read, proxy: CountingProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = of-default\naws_secret_access_key = x\n"
        "aws_session_token = its-token\n"
        "[other]\naws_access_key_id = of-other\naws_secret_access_key = x\n"
    )
    assert read(S3Options(endpoint=proxy.url))
    assert all("Credential=of-default/" in passed.headers["authorization"] for passed in proxy.log)
    assert all(passed.headers["x-amz-security-token"] == "its-token" for passed in proxy.log)
    proxy.log.clear()
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert read(S3Options(endpoint=proxy.url))
    assert all("Credential=of-other/" in passed.headers["authorization"] for passed in proxy.log)


@pytest.mark.parametrize("read", [through_obstore, through_gdal])
def test_a_profile_that_is_not_there_or_empty_is_told_by_name(read: Read, tmp_path: Path):
    (tmp_path / "config").write_text("[profile empty]\nregion = eu-west-3\n")
    with pytest.raises(StoreError, match=r"no profile 'absent'.*AWS_CONFIG_FILE"):
        read(S3Options(profile="absent"))
    with pytest.raises(StoreError, match=r"'empty'.*aws_access_key_id"):
        read(S3Options(profile="empty", endpoint="http://127.0.0.1:9"))


def test_a_bucket_in_the_host_is_asked_for_in_each_client_s_way():
    storage = S3Options(endpoint="https://s3.example.org:8443", path_style=False)
    assert obstore_options(storage, "scenes")["endpoint"] == "https://scenes.s3.example.org:8443"
    assert obstore_options(storage, "scenes")["virtual_hosted_style_request"]
    assert s3fs_options(storage)["config_kwargs"] == {"s3": {"addressing_style": "virtual"}}
    assert gdal_options(storage)["AWS_S3_ENDPOINT"] == "s3.example.org:8443"
    assert gdal_options(storage)["AWS_VIRTUAL_HOSTING"]
    assert gdal_options(storage)["AWS_HTTPS"] == "YES"
    assert gdal_options(S3Options())["AWS_VIRTUAL_HOSTING"]  # AWS itself


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("127.0.0.1:9000", "must be https://"),
        ("s3://bucket", "must be https://"),
        ("http://host/path", "must be https://"),
        (f"http://me:{SECRET}@host", "must not hold a user, a password"),
        (f"https://host?token={SECRET}", "must not hold a user, a password"),
    ],
)
def test_an_endpoint_that_is_none_is_refused(endpoint: str, reason: str):
    with pytest.raises(ValueError, match=reason) as caught:
        S3Options(endpoint=endpoint)
    assert SECRET not in str(caught.value)


class Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    storage: S3Options


def test_it_is_a_group_of_settings():
    given = {"endpoint": "http://h:1", "requester_pays": True}
    assert Group(storage=given).storage == S3Options("http://h:1", requester_pays=True)
    with pytest.raises(ValueError, match="endpont"):
        Group(storage={"endpont": "http://h:1"})
    with pytest.raises(ValueError, match="exclude each other"):
        Group(storage={"profile": "archive", "anonymous": True})


@pytest.mark.server
def test_a_planted_secret_is_nowhere_to_be_seen(
    proxy: CountingProxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Neither in a repr nor in a pickle, neither in a log nor in what is raised."""
    caplog.set_level(logging.DEBUG)
    (tmp_path / "credentials").write_text(
        f"[archive]\naws_access_key_id = AKIAPLANTED\naws_secret_access_key = {SECRET}\n"
        f"aws_session_token = token-{SECRET}\n"
    )
    storage = S3Options(endpoint=proxy.url, profile="archive")
    store = open_store("s3://scenes", storage)
    source = open_source("s3://scenes/a/vv.tif", storage=storage)
    read_plane(source, source.geobox)
    assert store.get("a/vv.tif")
    raised = []
    for fails in (
        lambda: open_store("s3://absent", storage).put("x", b"1"),
        lambda: open_source("s3://scenes/none.tif", storage=storage),
    ):
        with pytest.raises(BadInputError) as caught:
            fails()
        raised.append(f"{caught.value!r} {caught.value.__cause__!r}")
    for shown in (storage, store, source, s3fs_options(storage)):
        said = repr(shown).encode() + str(shown).encode() + pickle.dumps(shown)
        assert SECRET.encode() not in said
        assert b"AKIAPLANTED" not in said
    assert SECRET not in caplog.text
    assert SECRET not in "".join(raised)
    again = pickle.loads(pickle.dumps(store))
    assert again == store
    assert again.get("a/vv.tif") == store.get("a/vv.tif")


@pytest.mark.server
def test_a_signature_is_neither_logged_nor_raised(upstream: str, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    with counting(upstream, refuse=lambda method, path, before: 403) as proxy:
        href = f"{proxy.url}/scenes/a/vv.tif?X-Amz-Signature={SECRET}&v=1"
        with pytest.raises(
            UnreadableRasterError, match=r"vv\.tif\?v=1.*403.*signature of the address"
        ) as caught:
            open_source(href)
        assert proxy.log
    assert SECRET not in str(caught.value)
    assert "403" in caplog.text  # GDAL says it, and says it without the signature
    assert SECRET not in caplog.text


@pytest.mark.server
@pytest.mark.usefixtures("keys")
def test_wrong_credentials_are_told_without_the_secret(upstream: str):
    with counting(upstream, refuse=lambda method, path, before: 403) as proxy:
        storage = S3Options(endpoint=proxy.url)
        with pytest.raises(
            StoreError, match=r"cannot write x in s3://scenes.*AWS_SECRET_ACCESS_KEY"
        ) as written:
            open_store("s3://scenes", storage).put("x", b"1")
        with pytest.raises(UnreadableRasterError, match=r"s3://scenes/a/vv.tif.*403.*credentials") as read:
            open_source("s3://scenes/a/vv.tif", storage=storage)
    for caught in (written, read):
        assert SECRET not in str(caught.value)
        assert "from-the-environment" not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.server
@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("read", [through_obstore, through_gdal])
def test_a_server_that_is_busy_for_a_moment_is_asked_again(read: Read, upstream: str):
    with counting(upstream, refuse=lambda method, path, before: 503 if before == 0 else None) as proxy:
        assert read(S3Options(endpoint=proxy.url))
        assert [passed.status for passed in proxy.log][:2] == [503, 200 if read is through_obstore else 206]


@pytest.mark.server
@pytest.mark.usefixtures("keys")
def test_a_store_that_has_just_started_is_given_the_time_that_is_allowed(upstream: str):
    """SeaweedFS answers 500 until there is a volume to write to."""
    with counting(upstream, refuse=lambda method, path, before: 500 if before < 12 else None) as proxy:
        assert through_obstore(S3Options(endpoint=proxy.url))
        assert len(proxy.log) == 13


@pytest.mark.server
@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("status", [403, 404])
def test_what_was_missing_is_found_once_it_is_there(upstream: str, status: int):
    """GDAL remembers that a file is not there; a worker lives for many pairs, and the file may come."""
    missing = [True]
    with counting(upstream, refuse=lambda *about: status if missing[0] else None) as proxy:
        storage = S3Options(endpoint=proxy.url)
        with pytest.raises(UnreadableRasterError, match=str(status)):
            through_gdal(storage)
        missing.clear()
        missing.append(False)
        assert through_gdal(storage)


@pytest.mark.server
@pytest.mark.usefixtures("keys")
def test_large_objects_go_up_in_parts_and_whole(proxy: CountingProxy):
    store = open_store("s3://scenes/large", S3Options(endpoint=proxy.url))
    body = np.random.default_rng(3).bytes(9 * 2**20)
    store.put("b.bin", body)
    assert [passed.method for passed in proxy.log].count("PUT") == 2
    assert store.get("b.bin") == body
    proxy.log.clear()
    store.put("small.bin", body[: 2**20])
    assert [passed.method for passed in proxy.log] == ["PUT"]


@pytest.mark.server
@pytest.mark.usefixtures("keys")
def test_threads_with_different_storage_do_not_mix(upstream: str):
    """GDAL's configuration belongs to a thread: a reader of two archives must not sign for the wrong one."""
    with counting(upstream) as one, counting(upstream) as other:
        storages = [
            S3Options(endpoint=one.url, region="eu-one-1"),
            S3Options(endpoint=other.url, region="eu-two-1"),
        ]
        threads = [
            threading.Thread(target=lambda s=storage: [through_gdal(s) for _ in range(5)])
            for storage in storages
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for proxy, region in ((one, "eu-one-1"), (other, "eu-two-1")):
            assert proxy.log
            assert all(f"/{region}/s3/" in passed.headers["authorization"] for passed in proxy.log)
