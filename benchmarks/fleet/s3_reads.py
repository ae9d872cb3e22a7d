"""Requests and bytes that a real pair costs at an S3 server, by `crosstie register` and `crosstie nightly`.

    python benchmarks/fleet/s3_reads.py [--scene T14RNT-2048] [--data ../shared/data] [--endpoint URL]

Counted by a proxy before the server. Needed are the blocks under the tiles, of the secondary also as far as
is searched: at full resolution alone, and with the overviews from which the pair is planned. Without
--endpoint a server of the test suite is started; with it, credentials come from the environment.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))
from counting_proxy import CountingProxy, counting
from read_costs import Needed, needed_bytes
from s3_server import s3_server

from crosstie.config import load_settings
from crosstie.flows.registration.plan import plan_pair
from crosstie.io.raster import open_pair

BUCKET = "crosstie-s3-reads"
FILES = {"sentinel-2-l1c": "s2_tci.tif", "sentinel-1-grd": "s1_vh.tif"}


def main() -> None:
    """Upload a scene, register it both ways, print what each cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scene", default="T14RNT-2048", help="folder of the scene (default T14RNT-2048)")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the real data")
    parser.add_argument("--endpoint", help="a running S3 server, http://host:port")
    given = parser.parse_args()
    folder = given.data / "scenes" / given.scene
    reference, secondary = (folder / name for name in FILES.values())
    needed = needed_bytes(plan_pair(*open_pair(reference, secondary), load_settings()), reference, secondary)
    print(f"{given.scene}: {needed.full_resolution:,} bytes of blocks at full resolution under its tiles, "
          f"{needed.overviews:,} of overviews")  # fmt: skip
    with server(given.endpoint) as upstream, tempfile.TemporaryDirectory() as work:
        upload(upstream, folder)
        hrefs = [f"s3://{BUCKET}/{name}" for name in FILES.values()]
        report("register", upstream, needed, ["register", *hrefs, "--out", f"{work}/register"])
        catalog = write_catalog(Path(work), folder)
        report(
            "nightly", upstream, needed, ["nightly", "--catalog", str(catalog), "--out", f"{work}/nightly"]
        )


@contextmanager
def server(endpoint: str | None) -> Iterator[str]:
    """Give the address of the S3 server to measure at."""
    if endpoint is not None:
        yield endpoint
        return
    with s3_server(BUCKET) as server:
        os.environ |= {
            name: value for name, value in server.environment.items() if name != "AWS_ENDPOINT_URL"
        }
        yield server.url


def upload(endpoint: str, folder: Path) -> None:
    """Put both files into the bucket, which is made where it is not there."""
    client = boto3.client("s3", endpoint_url=endpoint, region_name=os.environ.get("AWS_REGION", "us-east-1"))
    if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)
    for name in FILES.values():
        client.upload_file(str(folder / name), BUCKET, name)


def write_catalog(work: Path, folder: Path) -> Path:
    """The scene's two items as results of a search, their rasters in the bucket."""
    items = []
    for collection, name in FILES.items():
        item = json.loads((folder / f"{collection}.json").read_text())
        item["collection"] = collection
        item["links"] = []
        item["assets"] = {
            key: asset | {"href": f"s3://{BUCKET}/{name}"}
            for key, asset in item["assets"].items()
            if asset["href"].endswith(name)
        }
        items.append(item)
    path = work / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return path


def report(name: str, upstream: str, needed: Needed, command: list[str]) -> None:
    """Run a command of crosstie and print what it cost."""
    with counting(upstream) as proxy:
        begin = time.monotonic()
        environment = os.environ | {"CROSSTIE_STORAGE__ENDPOINT": proxy.url}
        environment.pop("AWS_ENDPOINT_URL", None)
        done = subprocess.run(
            [sys.executable, "-m", "crosstie", *command], env=environment, capture_output=True, text=True
        )
        seconds = time.monotonic() - begin
        print(f"{name}: exit code {done.returncode}, {seconds:.0f} s; {cost(proxy, needed)}")
        if done.returncode:
            print(done.stdout[-2000:], done.stderr[-2000:])


def cost(proxy: CountingProxy, needed: Needed) -> str:
    """Say requests, bytes, and the two ratios."""
    fetched = proxy.received(BUCKET)
    return (
        f"{proxy.requests(BUCKET)} requests, {fetched:,} bytes = "
        f"{fetched / needed.full_resolution:.3f} x full resolution, "
        f"{fetched / needed.with_overviews:.3f} x with overviews"
    )


if __name__ == "__main__":
    main()
