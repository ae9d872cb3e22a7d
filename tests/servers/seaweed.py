"""SeaweedFS: an S3 server that keeps what it is given, checks keys and counts requests."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servers.process import LOOPBACK, Child, answers, free_ports, listens, program, running

PORT_FLAGS = (
    "s3.port", "s3.port.grpc", "s3.port.iceberg", "s3.port.lance", "master.port", "master.port.grpc",
    "filer.port", "filer.port.grpc", "volume.port", "volume.port.grpc", "admin.port", "admin.port.grpc",
    "metricsPort",
)  # fmt: skip

REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A running S3 server with empty buckets."""

    endpoint: str
    """http://127.0.0.1:port"""
    metrics: str
    """URL of the server's own counters."""
    key: str
    secret: str = field(repr=False)
    child: Child

    @property
    def environment(self) -> dict[str, str]:
        """What a client exports to reach it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
        }

    def counted(self, bucket: str) -> Traffic:
        """Requests for a bucket, and bytes that it sent, since the server started: as the server counts."""
        with urllib.request.urlopen(self.metrics, timeout=10) as reply:
            text = reply.read().decode()
        sent = 0
        requests: dict[str, int] = {}
        for name, labels, value in re.findall(r"^(SeaweedFS_s3_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
            about = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            if about.get("bucket") != bucket:
                continue
            if name == "SeaweedFS_s3_request_total":
                requests[about["type"]] = requests.get(about["type"], 0) + int(float(value))
            elif name == "SeaweedFS_s3_bucket_traffic_sent_bytes_total":
                sent += int(float(value))
        return Traffic(requests, sent)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a bucket has been asked for; take two and subtract."""

    requests: dict[str, int]
    """By action: GET, HEAD, PUT, LIST, ..."""
    sent_bytes: int
    """Bytes of bodies that left the server."""

    @property
    def total(self) -> int:
        return sum(self.requests.values())

    def __sub__(self, earlier: Traffic) -> Traffic:
        kinds = self.requests.keys() | earlier.requests.keys()
        more = {kind: self.requests.get(kind, 0) - earlier.requests.get(kind, 0) for kind in kinds}
        return Traffic(
            {kind: n for kind, n in sorted(more.items()) if n}, self.sent_bytes - earlier.sent_bytes
        )


@dataclass(frozen=True, slots=True)
class Notices:
    """A service that the server tells of every change in one bucket."""

    bucket: str
    endpoint: str
    token: str = field(repr=False)

    def toml(self) -> str:
        """As SeaweedFS reads it from the folder in which it is started."""
        return (
            "[notification.webhook]\nenabled = true\n"
            f'endpoint = "{self.endpoint}"\nbearer_token = "{self.token}"\n'
            f'path_prefixes = ["/buckets/{self.bucket}/"]\n'
            # where these are left out it does not try again, whatever its template says
            "max_retries = 10\nbackoff_seconds = 1\nmax_backoff_seconds = 5\ntimeout_seconds = 60\n"
        )


@contextmanager
def seaweed(
    folder: Path,
    *,
    buckets: tuple[str, ...] = (),
    key: str = "crosstie",
    secret: str = "only-on-loopback",
    notices: Notices | None = None,
) -> Iterator[ObjectStore]:
    """Run SeaweedFS over `folder` until the block ends.

    Parameters
    ----------
    buckets : made at once, empty
    key, secret : credentials that it asks for
    notices : whom to tell of new objects; None for nobody

    Raises
    ------
    ServerMissingError : it is not installed
    ServerError : it does not start
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "seaweed"
    data.mkdir(exist_ok=True)
    if notices is not None:
        (folder / "notification.toml").write_text(notices.toml(), encoding="utf-8")
    ports = dict(zip(PORT_FLAGS, free_ports(len(PORT_FLAGS)), strict=True))
    command: list[str | Path] = [
        program("weed"), "mini", f"-dir={data}", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}",
        f"-metricsIp={LOOPBACK}", "-master.telemetry=false", "-admin.ui=false", "-webdav=false",
        "-s3.autoCreateBucket=false",  # as on S3: who writes to a bucket that is missing is told so
        # a volume takes its size on the disk at once: small ones, and many
        "-master.volumeSizeLimitMB=64", "-volume.max=64",
        *(f"-{flag}={port}" for flag, port in ports.items()),
    ]  # fmt: skip
    environment = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
    with running("weed", command, folder, environment=environment) as child:
        store = ObjectStore(
            endpoint=f"http://{LOOPBACK}:{ports['s3.port']}",
            metrics=f"http://{LOOPBACK}:{ports['metricsPort']}/metrics",
            key=key,
            secret=secret,
            child=child,
        )
        child.until(
            lambda: answers(f"{store.endpoint}/healthz") and listens(ports["volume.port"]), timeout_s=240
        )
        for bucket in buckets:
            _make_bucket(store, bucket, child)
        yield store


def _make_bucket(store: ObjectStore, bucket: str, child: Child) -> None:
    client = client_of(store)

    def made() -> bool:
        from botocore.exceptions import ClientError, ConnectionError

        try:
            client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key=".probe", Body=b"writable")
            client.delete_object(Bucket=bucket, Key=".probe")
        except ClientError as problem:
            # the volumes register a moment after the front door opens
            return problem.response["Error"]["Code"] in {"BucketAlreadyExists", "BucketAlreadyOwnedByYou"}
        except ConnectionError:
            return False
        return True

    child.until(made, timeout_s=120)


def client_of(store: ObjectStore) -> Any:
    """A boto3 client of the server: independent of everything under test."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        region_name=REGION,
        aws_access_key_id=store.key,
        aws_secret_access_key=store.secret,
    )
