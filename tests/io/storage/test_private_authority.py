"""Catalog, rasters, products and Prefect's server behind a private authority: one setting, all clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tls_server import TlsServer, tls_server

from crosstie.errors import SettingsError
from crosstie.io.simulation.pairs import write_simulated_catalog
from crosstie.io.storage.trust import CLIENT_VARIABLES, trust

pytestmark = pytest.mark.server

BUCKET = "archive"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """Holds a simulated catalog, which anybody may read."""
    folder = write_simulated_catalog(tmp_path_factory.mktemp("archive"), scenes=1, size_px=256).parent
    with tls_server(BUCKET, tmp_path_factory.mktemp("certificates")) as running:
        for path in folder.rglob("*"):
            if path.is_file():
                running.client.put_object(
                    Bucket=BUCKET,
                    Key=str(path.relative_to(folder)),
                    Body=path.read_bytes(),
                    ACL="public-read",
                )
        yield running


def crosstie(
    server: TlsServer, *arguments: str, ca_file: Path | None, **more: str
) -> subprocess.CompletedProcess[str]:
    """A process of its own: what it trusts is of the process."""
    environment = {name: value for name, value in os.environ.items() if name not in CLIENT_VARIABLES}
    setting = {} if ca_file is None else {"CROSSTIE_STORAGE__CA_FILE": str(ca_file)}
    return subprocess.run(
        [sys.executable, "-m", "crosstie", *arguments],
        env=environment | server.environment | setting | {"AWS_MAX_ATTEMPTS": "1"} | more,
        capture_output=True,
        text=True,
        check=False,
    )


def scene_files(server: TlsServer) -> dict[str, str]:
    """Keys of the two rasters, by the sensor in their item's id."""
    keys = [entry["Key"] for entry in server.client.list_objects_v2(Bucket=BUCKET)["Contents"]]
    return {
        sensor: next(key for key in keys if key.endswith(".tif") and Path(key).stem.startswith(begin))
        for sensor, begin in (("S1", "s1"), ("S2", "s2"))
    }


@pytest.mark.parametrize("where", ["{url}/archive/catalog.json", "s3://archive/catalog.json"])
def test_a_catalog_is_read_if_its_authority_is_named_and_refused_if_not(
    server: TlsServer, where: str
) -> None:
    given = ("pairs", "--catalog", where.format(url=server.url), "--json")
    well = crosstie(server, *given, ca_file=server.ca_file)
    assert well.returncode == 0, well.stderr
    assert len(json.loads(well.stdout)["pairs"]) == 1
    ill = crosstie(server, *given, ca_file=None)
    assert ill.returncode == 2
    assert "not trusted here; give its file as storage.ca_file" in ill.stderr
    assert ill.stderr.count("\n") == 1, ill.stderr


@pytest.mark.slow
def test_rasters_and_products_are_reached_by_the_same_setting(server: TlsServer, tmp_path: Path) -> None:
    """Rasters by https (requests, GDAL) and s3 (GDAL); products and the index on S3 (obstore, botocore)."""
    files = scene_files(server)
    reference, secondary = f"{server.url}/{BUCKET}/{files['S2']}", f"s3://{BUCKET}/{files['S1']}"
    out = f"s3://{BUCKET}/products"
    done = crosstie(server, "register", reference, secondary, "--out", out, ca_file=server.ca_file)
    assert done.returncode == 0, done.stderr
    keys = [
        entry["Key"] for entry in server.client.list_objects_v2(Bucket=BUCKET, Prefix="products/")["Contents"]
    ]
    assert sum(key.endswith("_COMMIT") for key in keys) == 1
    for command in (("index",), ("status", "--json"), ("verify",)):
        told = crosstie(server, *command, "--out", out, ca_file=server.ca_file)
        assert told.returncode == 0, told.stderr
    ill = crosstie(server, "status", "--out", out, ca_file=None)
    assert (ill.returncode, ill.stderr.count("\n")) == (2, 1), ill.stderr
    assert "storage.ca_file" in ill.stderr
    ill = crosstie(server, "register", reference, reference, "--out", str(tmp_path), ca_file=None)
    assert (ill.returncode, ill.stderr.count("\n")) == (2, 1), ill.stderr
    assert "storage.ca_file" in ill.stderr


def test_prefects_server_is_asked_by_the_same_setting(server: TlsServer) -> None:
    """What answers here is no Prefect, which is told only once its certificate is trusted."""
    given = ("nightly", "--catalog", f"{server.url}/{BUCKET}/catalog.json", "--out", f"s3://{BUCKET}/nightly")
    ill = crosstie(server, *given, ca_file=server.ca_file, PREFECT_API_URL=f"{server.url}/api")
    assert ill.returncode == 2
    assert "is no Prefect server: 4" in ill.stderr


def test_the_usual_authorities_stay_trusted(
    server: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import certifi

    for name in CLIENT_VARIABLES:
        monkeypatch.setenv(name, "/nowhere")
    trust(str(server.ca_file))
    (bundle,) = {os.environ[name] for name in CLIENT_VARIABLES}
    text = Path(bundle).read_text()
    assert Path(certifi.where()).read_text() in text
    assert server.ca_file.read_text() in text
    trust(None)
    assert os.environ["SSL_CERT_FILE"] == bundle


@pytest.mark.parametrize(
    "content", [None, b"", b"no certificate\n", b"\xff\xfe\x00", b"-----BEGIN CERTIFICATE-----\n"]
)
def test_a_file_that_is_no_authority_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "company.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"storage\.ca_file .*company\.pem: "):
        trust(str(path))
