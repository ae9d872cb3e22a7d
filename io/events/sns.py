"""Messages of Amazon SNS: their content, and whether Amazon signed them.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import requests
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from crosstie.errors import BadInputError

FetchUrl = Callable[[str], bytes]
"""Reads a URL that has been checked; raises SnsError if it cannot."""

MAX_AGE = timedelta(hours=1)
"""Older messages are refused. SNS gives up on a delivery within an hour, so a later one is a replay."""

ANSWER_TIMEOUT_S = 5
"""Longest wait for an answer of Amazon, seconds."""

MAX_ANSWER_BYTES = 64 * 1024
"""Longest answer that is read. Certificates and confirmations have a few KB."""

_HOST = re.compile(r"sns\.[a-z0-9-]{3,40}\.amazonaws\.com(\.cn)?", re.ASCII)

_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": (
        "Message",
        "MessageId",
        "SubscribeURL",
        "Timestamp",
        "Token",
        "TopicArn",
        "Type",
    ),
}
_SIGNED["UnsubscribeConfirmation"] = _SIGNED["SubscriptionConfirmation"]

_HASHES: dict[str, type[hashes.SHA1 | hashes.SHA256]] = {"1": hashes.SHA1, "2": hashes.SHA256}


class SnsError(BadInputError):
    """An SNS message is incomplete, not signed by Amazon, too old, or points elsewhere."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """An SNS message. Do not trust its fields before `check_signature` has passed."""

    fields: dict[str, str]

    @property
    def kind(self) -> str:
        """Notification, SubscriptionConfirmation or UnsubscribeConfirmation."""
        return self.fields["Type"]

    @property
    def topic(self) -> str:
        return self.fields["TopicArn"]

    @property
    def message(self) -> str:
        return self.fields["Message"]


def read_envelope(message: object) -> Envelope | None:
    """Make the envelope of a parsed message; None if it is not an SNS message.

    Raises
    ------
    SnsError
        An SNS message without topic or text.
    """
    if not (isinstance(message, dict) and message.get("Type") in list(_SIGNED) and "TopicArn" in message):
        return None
    fields = {name: text for name, text in message.items() if isinstance(text, str)}
    if not {"Message", "TopicArn"} <= fields.keys():
        raise SnsError("the SNS message has no TopicArn or no Message")
    return Envelope(fields)


def check_signature(envelope: Envelope, fetch: FetchUrl, *, now_utc: datetime) -> None:
    """Check that Amazon sent this message within the last hour.

    Anyone can own a topic, and Amazon signs its messages: check the topic, too.

    Raises
    ------
    SnsError
        It is not signed, not signed by Amazon, or too old.
    """
    fields = envelope.fields
    try:
        age = now_utc - datetime.fromisoformat(fields["Timestamp"]).astimezone(UTC)
        signature = base64.b64decode(fields["Signature"], validate=True)
        digest = _HASHES[fields["SignatureVersion"]]()
        signed = signed_text(envelope)
        url = fields["SigningCertURL"]
    except (KeyError, ValueError, OverflowError, binascii.Error):
        raise SnsError("the SNS message is not signed as Amazon signs them") from None
    if not -MAX_AGE <= age <= MAX_AGE:
        raise SnsError("the SNS message is of another hour")
    key = _public_key(fetch(_amazon(url, path=r"/[A-Za-z0-9._-]+\.pem", query=False)), now_utc)
    try:
        key.verify(signature, signed, padding.PKCS1v15(), digest)
    except InvalidSignature:
        raise SnsError("the signature of the SNS message is wrong") from None


def signed_text(envelope: Envelope) -> bytes:
    """Make the text that Amazon signs: names and values of certain fields, one on each line.

    Raises
    ------
    KeyError
        A field is missing.
    """
    fields = envelope.fields
    names = [name for name in _SIGNED[envelope.kind] if name != "Subject" or name in fields]
    return "".join(f"{name}\n{fields[name]}\n" for name in names).encode("utf-8", "surrogatepass")


def confirmation_url(envelope: Envelope) -> str:
    """Address that confirms a subscription, if it is Amazon's and for the topic of the message.

    Raises
    ------
    SnsError
        Any other address.
    """
    url = _amazon(envelope.fields.get("SubscribeURL", ""), path="/", query=True)
    query = parse_qs(urlsplit(url).query)
    if query.get("Action") != ["ConfirmSubscription"] or query.get("TopicArn") != [envelope.topic]:
        raise SnsError("the SubscribeURL does not confirm the topic of the message")
    return url


def fetch_url(url: str) -> bytes:
    """Read a short answer. Redirects are not followed.

    Raises
    ------
    SnsError
        No answer, or an error status.
    """
    try:
        with requests.get(url, timeout=ANSWER_TIMEOUT_S, allow_redirects=False, stream=True) as answer:
            if answer.status_code != requests.codes.ok:
                raise SnsError(f"Amazon SNS answered {answer.status_code}")
            return next(answer.iter_content(MAX_ANSWER_BYTES), b"")
    except requests.RequestException as problem:
        raise SnsError(f"Amazon SNS does not answer ({type(problem).__name__})") from None


def _amazon(url: str, *, path: str, query: bool) -> str:
    """Return an address of SNS itself; refuse any other, which could be the sender's own."""
    try:
        parts = urlsplit(url)
        good = (
            parts.scheme == "https"
            and bool(_HOST.fullmatch(parts.netloc))  # no user, no port
            and bool(re.fullmatch(path, parts.path))
            and (query or not parts.query)
            and not parts.fragment
            and url.isascii()
            and url.isprintable()
        )
    except ValueError:
        good = False
    if not good:
        raise SnsError("an address in the SNS message is not Amazon's (https://sns.REGION.amazonaws.com/…)")
    return url


def _public_key(pem: bytes, now_utc: datetime) -> rsa.RSAPublicKey:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key()
    except ValueError:
        raise SnsError("the certificate of the SNS message cannot be read") from None
    if not certificate.not_valid_before_utc <= now_utc <= certificate.not_valid_after_utc:
        raise SnsError("the certificate of the SNS message is out of date")
    if not isinstance(key, rsa.RSAPublicKey):
        raise SnsError("the certificate of the SNS message has no RSA key")
    return key
