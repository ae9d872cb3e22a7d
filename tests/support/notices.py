"""Notices of scenes as storage services, Amazon SNS and catalogs send them."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote_plus

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from hypothesis import strategies as st

from crosstie.io.events.sns import read_envelope, signed_text

S2 = "S2A_MSIL1C_20201104T183541_N0209_R027_T11SLT_20201104T203551"
S1 = "S1A_IW_GRDH_1SDV_20201107T135241_20201107T135306_035143_041A16_322B"


def s3_event(key: str, name: str = "ObjectCreated:Put") -> dict[str, Any]:
    """AWS's form; see "Event message structure" in the S3 user guide."""
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-west-2",
        "eventTime": "2020-11-04T23:00:00.000Z",
        "eventName": name,
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "scenes",
            "bucket": {"name": "scenes", "arn": "arn:aws:s3:::scenes"},
            "object": {
                "key": quote_plus(key, safe="/"),
                "size": 1024,
                "eTag": "d41d8",
                "sequencer": "0A1B2C",
            },
        },
    }
    return {"Records": [record]}


def minio_event(key: str, name: str = "s3:ObjectCreated:CompleteMultipartUpload") -> dict[str, Any]:
    event = s3_event(key, name)
    event["Records"][0]["eventSource"] = "minio:s3"
    event["Records"][0]["s3"]["object"]["key"] = quote_plus(key)
    return {"EventName": name, "Key": f"scenes/{key}", **event}


def event_bridge(key: str, kind: str = "Object Created") -> dict[str, Any]:
    return {
        "version": "0",
        "detail-type": kind,
        "source": "aws.s3",
        "resources": ["arn:aws:s3:::scenes"],
        "detail": {"bucket": {"name": "scenes"}, "object": {"key": key, "size": 5}, "reason": "PutObject"},
    }


def filer_event(key: str, kind: str = "create", *, is_directory: bool = False) -> dict[str, Any]:
    """As SeaweedFS 4.48 sends it."""
    folder, _, name = f"/buckets/scenes/{key}".rpartition("/")
    entry = {"name": name, "attributes": {"file_size": 100, "mtime": 1795614722, "mime": "image/tiff"}}
    if is_directory:
        entry["is_directory"] = True
    message: dict[str, Any] = {"new_parent_path": folder, "signatures": [2033974612]}
    message |= {"new_entry": entry} if kind != "delete" else {"old_entry": entry}
    return {"event_type": kind, "key": f"{folder}/{name}", "message": message}


def item(scene_id: object = S2, collection: object = "sentinel-2-l1c") -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": scene_id,
        "collection": collection,
        "geometry": None,
        "properties": {"datetime": "2020-11-04T18:35:41Z"},
        "assets": {"visual": {"href": "https://evil.example.org/x.tif"}},
        "links": [],
    }


NAMES = st.sampled_from(
    [
        *("Records", "eventName", "s3", "object", "key", "type", "id", "collection", "event_type", "message"),
        *("new_entry", "new_parent_path", "name", "source", "detail-type", "detail", "Event", "is_directory"),
    ]
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([S2, "aws.s3", "create", "Object Created", "Feature"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | NAMES, inner, max_size=5),
    max_leaves=25,
)
"""Any JSON, with the words of notices more often than chance has them."""


TOPIC = "arn:aws:sns:eu-central-1:123456789012:scenes"
CERTIFICATE_URL = "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123.pem"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(key: rsa.RSAPrivateKey = KEY, *, begin: datetime = NOW - timedelta(days=1)) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=10))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def sns(message: object, *, when: datetime = NOW, version: str = "2", **fields: str) -> dict[str, str]:
    """A message that is signed as Amazon's documentation says."""
    envelope = {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": TOPIC,
        "Subject": "Amazon S3 Notification",
        "Message": message if isinstance(message, str) else json.dumps(message),
        "Timestamp": when.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "SignatureVersion": version,
        "SigningCertURL": CERTIFICATE_URL,
        **fields,
    }
    return sign(envelope)


def sign(envelope: dict[str, str]) -> dict[str, str]:
    read = read_envelope(envelope)
    assert read is not None
    digest = hashes.SHA1() if envelope["SignatureVersion"] == "1" else hashes.SHA256()
    signature = KEY.sign(signed_text(read), padding.PKCS1v15(), digest)
    return {**envelope, "Signature": base64.b64encode(signature).decode()}


def subscription(url: str = "", **fields: str) -> dict[str, str]:
    confirm = f"https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=abc"
    return sns(
        "You have chosen to subscribe",
        Type="SubscriptionConfirmation",
        Token="abc",
        SubscribeURL=url or confirm,
        **fields,
    )
