"""A real S3 server behind HTTPS, whose certificate a certificate authority of its own has signed."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import boto3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from moto.server import DomainDispatcherApplication, create_backend_app
from s3_server import REGION
from werkzeug.serving import make_server


class TlsServer(NamedTuple):
    """A running server with one bucket, which anybody may read by https."""

    url: str
    ca_file: Path
    client: Any
    environment: dict[str, str]


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def make_certificates(folder: Path) -> tuple[Path, Path, Path]:
    """Write an authority, a certificate for 127.0.0.1 that it has signed, and its key; return the files."""
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]

    def signed(subject: str, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType) -> bytes:
        made = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name("an authority of a company"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .sign(keys[0], hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM)

    authority, certificate, key = (folder / name for name in ("authority.pem", "server.pem", "server.key"))
    own = x509.BasicConstraints(ca=True, path_length=None)
    authority.write_bytes(signed("an authority of a company", keys[0], own))
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate.write_bytes(signed("127.0.0.1", keys[1], here))
    key.write_bytes(
        keys[1].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return authority, certificate, key


@contextmanager
def tls_server(bucket: str, folder: Path) -> Iterator[TlsServer]:
    """Start a server with an empty bucket, with certificates in a folder, and stop it at the end."""
    authority, certificate, key = make_certificates(folder)
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True, ssl_context=(str(certificate), str(key)))
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"https://127.0.0.1:{server.server_port}"
    given = {"region_name": REGION, "aws_access_key_id": "me", "aws_secret_access_key": "mine"}
    client = boto3.client("s3", endpoint_url=url, verify=str(authority), **given)
    client.create_bucket(Bucket=bucket, ACL="public-read-write")
    environment = {
        "AWS_ENDPOINT_URL": url, "AWS_REGION": REGION, "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "mine",
    }  # fmt: skip
    try:
        yield TlsServer(url, authority, client, environment)
    finally:
        server.shutdown()
        server.server_close()
