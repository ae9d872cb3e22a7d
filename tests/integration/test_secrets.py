"""No secret in any log, artifact, product, message or database, whether runs went well or broke."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

from integration.fleet import INCOMING, PREFECT_USER, PRODUCTS, SCENES, SECRETS, Fleet
from servers.seaweed import client_of

OWN = {"seaweed", "notification.toml"}
"""Where the server of objects keeps the credentials that it asks for."""


def forms(secret: str) -> set[bytes]:
    """A secret as it may be written: plain, in an address, in JSON, in base64 at any offset."""
    texts = {secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]}
    texts |= {secret.replace("/", "\\/")}
    coded = {base64.b64encode(b"x" * n + secret.encode())[4 * (n > 0) :].rstrip(b"=")[:-2] for n in range(3)}
    return {text.encode() for text in texts} | coded


def written(fleet: Fleet) -> Iterator[tuple[str, bytes]]:
    """All that the servers, the workers, Prefect and the flows have written: where, and what."""
    for path in sorted(fleet.folder.rglob("*")):
        if path.is_file() and path.relative_to(fleet.folder).parts[0] not in OWN:
            yield str(path.relative_to(fleet.folder)), path.read_bytes()
    client = client_of(fleet.objects)
    for bucket in (SCENES, PRODUCTS, INCOMING):
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for entry in page.get("Contents", []):
                key = entry["Key"]
                if bucket == PRODUCTS or not key.endswith(".tif"):
                    yield (
                        f"s3://{bucket}/{key}",
                        key.encode() + client.get_object(Bucket=bucket, Key=key)["Body"].read(),
                    )
    for what in ("logs", "artifacts", "flow_runs", "deployments"):
        yield f"API {what}", json.dumps(fleet.prefect.ask(f"/{what}/filter", {"limit": 200})).encode()


def test_the_search_finds_a_secret_in_any_form():
    secret = SECRETS["secret key"]
    for before in ("", "a", "ab", "user:"):
        for text in (
            secret,
            quote(secret, safe=""),
            base64.b64encode((before + secret + "!").encode()).decode(),
        ):
            assert any(form in f"before {text} after".encode() for form in forms(secret))
    assert not any(form in b"a page of a book without any secret" for form in forms(secret))


def test_no_secret_is_written_anywhere(fleet: Fleet, tmp_path: Path):
    outputs = dict(broken_and_good_runs(fleet, tmp_path))
    places = {where for where, _ in written(fleet)}
    assert places > {"prefect-server/prefect.db", "prefect-worker.log", "dask-matcher-0.log", "API logs"}
    found = [
        f"{name} in {where}"
        for where, body in [*written(fleet), *outputs.items()]
        for name, secret in {
            **SECRETS,
            "Prefect's header": f"{PREFECT_USER}:{SECRETS['Prefect password']}",
        }.items()
        for form in forms(secret)
        if form in body
    ]
    assert found == []


def broken_and_good_runs(fleet: Fleet, folder: Path) -> Iterator[tuple[str, bytes]]:
    """What commands say, after deployments have run: one well, one without a bucket, one without a file."""
    scene = fleet.s2_items["T14RNT"]["id"]
    lame = folder / "lame.json"
    items = [
        item
        | {
            "assets": {
                name: asset | {"href": f"{asset['href']}.gone"} for name, asset in item["assets"].items()
            }
        }
        for item in fleet.items
    ]
    lame.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    quick = {"runs": {"retries": 0}}
    well, bucketless, fileless = (
        fleet.start("new-scene", {"scene_id": scene, "catalog": catalog, "out": out, "settings": quick})
        for catalog, out in (
            (fleet.catalog, "s3://products/secrets"),
            (fleet.catalog, "s3://no-such-bucket/secrets"),
            (str(lame), "s3://products/secrets-lame"),
        )
    )
    assert fleet.finished(well)["state_type"] == "COMPLETED", fleet.log(well)
    broken = [fleet.finished(run)["id"] for run in (bucketless, fileless)]
    fleet.until(lambda: any(line.startswith("ERROR") for run in broken for line in fleet.log(run)))
    (failure,) = [key for key in fleet.keys("secrets-lame") if key.endswith("/_FAILED.json")]
    assert json.loads(fleet.read("secrets-lame", failure))["code"] == "unreadable_raster"
    for name, options in {
        "pairs": ["--catalog", fleet.catalog, "--out", "s3://no-such-bucket/x"],
        "status": ["--catalog", fleet.catalog, "--out", "s3://products/secrets"],
    }.items():
        done = subprocess.run(
            [sys.executable, "-m", "crosstie", name, *options],
            env={"PATH": "/usr/bin:/bin", "HOME": str(folder), **fleet.environment},
            cwd=folder,
            capture_output=True,
            timeout=300,
            check=False,
        )
        yield f"crosstie {name}", done.stdout + done.stderr
