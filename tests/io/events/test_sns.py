"""Amazon SNS: what Amazon signed lately is believed, and only Amazon's addresses are asked."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from notices import CERTIFICATE_URL, JSON, NOW, S2, TOPIC, certificate, item, sign, sns, subscription

from crosstie.io.events.sns import SnsError, check_signature, confirmation_url, read_envelope, signed_text


def check(message: dict[str, str], pem: bytes | None = None) -> list[str]:
    envelope = read_envelope(message)
    assert envelope is not None
    asked: list[str] = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        return certificate() if pem is None else pem

    check_signature(envelope, fetch, now_utc=NOW)
    return asked


def test_the_signed_text_is_amazons() -> None:
    """The example of "Verifying the signatures of Amazon SNS messages", line by line."""
    envelope = read_envelope(sns("Test message", Subject="My Test"))
    assert envelope is not None
    assert signed_text(envelope) == (
        b"Message\nTest message\nMessageId\n22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324\nSubject\nMy Test\n"
        b"Timestamp\n2026-01-02T03:04:05.000Z\nTopicArn\n" + TOPIC.encode() + b"\nType\nNotification\n"
    )


@pytest.mark.parametrize("message", [sns(item()), sns(item(), version="1"), subscription(), sns("é\ud800")])
def test_what_amazon_signed_is_believed(message: dict[str, str]) -> None:
    assert check(message) == [CERTIFICATE_URL]


@pytest.mark.parametrize(
    "change",
    [
        {"Message": "other"},
        {"TopicArn": "arn:aws:sns:eu-central-1:666:mine"},
        {"Signature": ""},
        {"Signature": "é"},
        {"Signature": base64.b64encode(b"x" * 256).decode()},
        {"SignatureVersion": "3"},
        {"SignatureVersion": "1"},
        {"Timestamp": "yesterday"},
        {"Timestamp": "0001-01-01T00:00:00+23:59"},
    ],
)
def test_a_changed_message_is_not_believed(change: dict[str, str]) -> None:
    with pytest.raises(SnsError):
        check({**sns(item()), **change})


@pytest.mark.parametrize(
    "missing", ["Signature", "SignatureVersion", "SigningCertURL", "Timestamp", "MessageId"]
)
def test_an_incomplete_message_is_not_believed(missing: str) -> None:
    with pytest.raises(SnsError, match="not signed"):
        check({name: text for name, text in sns(item()).items() if name != missing})


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_message_of_another_hour_is_not_believed(hours: int) -> None:
    with pytest.raises(SnsError, match="another hour"):
        check(sns(item(), when=NOW + timedelta(hours=hours)))


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.eu-central-1.amazonaws.com/a.pem",
        "https://sns.eu-central-1.amazonaws.com.evil.org/a.pem",
        "https://evil.org/sns.eu-central-1.amazonaws.com/a.pem",
        "https://sns.eu-central-1.amazonaws.com@evil.org/a.pem",
        "https://sns.eu-central-1.amazonaws.com:444/a.pem",
        "https://s3.eu-central-1.amazonaws.com/a.pem",
        "https://sns.eu-central-1.amazonaws.com/a.pem?x=y",
        "https://sns.eu-central-1.amazonaws.com/../a/b.pem",
        "https://sns.eu-central-1.amazonaws.com\\@evil.org/a.pem",
        "https://[::1/a.pem",
        "file:///etc/passwd",
        "",
    ],
)
def test_a_certificate_comes_from_amazon_or_is_not_asked_for(url: str) -> None:
    with pytest.raises(SnsError, match=r"Amazon's"):
        check(sns(item(), SigningCertURL=url))


def test_a_certificate_must_be_one_that_holds() -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for pem in (b"no certificate", certificate(other), certificate(begin=NOW - timedelta(days=30))):
        with pytest.raises(SnsError):
            check(sns(item()), pem)


def test_a_subscription_is_confirmed_where_amazon_is_and_nowhere_else() -> None:
    good = read_envelope(subscription())
    assert good is not None
    assert confirmation_url(good).startswith("https://sns.eu-central-1.amazonaws.com/?Action=")
    for url in (
        f"https://evil.org/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=abc",
        f"http://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}",
        f"https://sns.eu-central-1.amazonaws.com/?Action=DeleteTopic&TopicArn={TOPIC}",
        "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=arn:other",
        f"https://sns.eu-central-1.amazonaws.com/x?Action=ConfirmSubscription&TopicArn={TOPIC}",
    ):
        envelope = read_envelope(subscription(url))
        assert envelope is not None
        with pytest.raises(SnsError):
            confirmation_url(envelope)


@settings(deadline=None)  # a busy machine is no fault of the code
@given(st.dictionaries(st.sampled_from([*sns(""), "SubscribeURL", "Token"]), st.text() | JSON))
def test_any_envelope_is_read_or_refused(change: dict[str, Any]) -> None:
    try:
        envelope = read_envelope({**subscription(), **change})
        if envelope is not None:
            check_signature(envelope, lambda url: certificate(), now_utc=NOW)
            confirmation_url(envelope)
    except SnsError:
        pass


@pytest.mark.parametrize("message", [item(), [], {"Type": "Notification"}, {"Type": ["x"], "TopicArn": "a"}])
def test_other_messages_are_no_envelopes(message: object) -> None:
    assert read_envelope(message) is None


# --- At the door of `crosstie listen` -----------------------------------------------------------------------

DOOR_TOKEN = "t0ken-of-callers-0123456789"


def knock(message: dict[str, str], *, token: bool = False, **door: Any) -> tuple[int, list[str], list[str]]:
    """Status of the answer, addresses that were asked, scenes that were started."""
    from crosstie.config import ListenSettings
    from crosstie.flows.listen.app import Service, make_listen_app
    from crosstie.flows.listen.sns import SnsDoor
    from crosstie.flows.listen.start_run import RunStarter, Started
    from crosstie.flows.web.access import Access
    from crosstie.io.events.notices import NoticeRules

    asked: list[str] = []
    started: list[str] = []

    class Remembering(RunStarter):
        async def start(self, scene_id: str) -> Started:
            started.append(scene_id)
            return Started(scene_id, "1", "http://prefect/1", duplicate=False)

    def fetch(url: str) -> bytes:
        asked.append(url)
        return certificate(begin=datetime.now(UTC) - timedelta(days=1))

    starter = Remembering(None, "f/d", {}, 60.0, 1.0)  # type: ignore[arg-type]
    rules = NoticeRules(optical_collections=("sentinel-2-l1c",))
    access = Access(DOOR_TOKEN.encode())
    app = make_listen_app(Service(ListenSettings(), access, rules, starter, SnsDoor(fetch=fetch, **door)))

    async def post() -> int:
        headers = {"Authorization": f"Bearer {DOOR_TOKEN}"} if token else {}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            for _ in range(2):
                answer = await client.post("/scenes", json=message, headers=headers)
            return answer.status_code

    return asyncio.run(post()), asked, started


def lately(message: dict[str, str]) -> dict[str, str]:
    return sign({**message, "Timestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.000Z"})


def test_a_topic_that_is_known_needs_no_token() -> None:
    """The certificate is asked for once, whatever comes."""
    assert knock(lately(sns(item())), topics=(TOPIC,)) == (202, [CERTIFICATE_URL], [S2])


@pytest.mark.parametrize(
    ("message", "topics"),
    [
        (lately(sns(item())), ()),
        (lately(sns(item())), (f"{TOPIC}-other",)),
        ({**lately(sns(item())), "Message": "{}"}, (TOPIC,)),
        (sns(item()), (TOPIC,)),  # long ago
    ],
)
def test_other_topics_and_forged_messages_are_401(message: dict[str, str], topics: tuple[str, ...]) -> None:
    status, _, started = knock(message, topics=topics)
    assert (status, started) == (401, [])


def test_with_a_token_an_sns_message_is_a_wrapping() -> None:
    assert knock(sns(item()), token=True) == (202, [], [S2])


def test_a_subscription_is_confirmed_only_where_that_is_allowed() -> None:
    message = lately(subscription())
    status, asked, _ = knock(message, topics=(TOPIC,), confirm=True)
    assert (status, set(asked)) == (200, {CERTIFICATE_URL, message["SubscribeURL"]})
    assert knock(message, token=True, confirm=True)[:1] == (200,)
    assert knock(message, token=True)[:2] == (403, [])
    assert knock(message, token=True, topics=("arn:other",), confirm=True)[:2] == (403, [])
    forged = sign({**message, "SubscribeURL": "https://evil.org/?Action=ConfirmSubscription"})
    assert knock(forged, token=True, confirm=True)[:2] == (422, [])
