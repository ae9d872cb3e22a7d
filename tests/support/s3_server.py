"""A real S3 server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import boto3
from moto.server import ThreadedMotoServer

REGION = "us-east-1"


class S3Server(NamedTuple):
    """A running server with one bucket."""

    url: str
    client: Any
    """Of boto3, to put objects."""
    environment: dict[str, str]
    """What a client's environment holds that reaches it."""


@contextmanager
def s3_server(bucket: str, *, secret: str = "mine") -> Iterator[S3Server]:
    """Start a server with an empty bucket, and stop it at the end."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=url, region_name=REGION, aws_access_key_id="me", aws_secret_access_key=secret
    )
    client.create_bucket(Bucket=bucket)
    environment = {
        "AWS_ENDPOINT_URL": url, "AWS_REGION": REGION, "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": secret,
    }  # fmt: skip
    try:
        yield S3Server(url, client, environment)
    finally:
        # moto's buckets outlive the server in this process: the next of that name would not be empty.
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for stored in page.get("Contents", ()):
                client.delete_object(Bucket=bucket, Key=stored["Key"])
        server.stop()
