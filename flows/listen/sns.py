"""Amazon SNS: which messages are accepted, and the answer to a subscription."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

from crosstie.flows.web.refusal import Refusal, unauthorized
from crosstie.io.events.sns import Envelope, FetchUrl, SnsError, check_signature, confirmation_url, fetch_url

MOST_CERTIFICATES = 16
"""Amazon has one a region at any time."""


@dataclass(frozen=True, slots=True)
class SnsDoor:
    """Which SNS messages are accepted."""

    topics: tuple[str, ...] = ()
    """ARNs whose messages need no token, because Amazon's signature is checked."""
    confirm: bool = False
    """Whether subscriptions are confirmed."""
    fetch: FetchUrl = fetch_url
    """Reads from Amazon."""
    _certificates: dict[str, bytes] = field(default_factory=dict, repr=False)

    async def admit(self, envelope: Envelope) -> None:
        """Admit a sender without token by Amazon's signature.

        Raises
        ------
        Refusal
            401 for another topic or a wrong signature.
        """
        if envelope.topic not in self.topics:
            raise unauthorized("no token, and the topic is none of listen.sns_topics")
        try:
            now_utc = datetime.now(UTC)
            await asyncio.to_thread(check_signature, envelope, self._certificate, now_utc=now_utc)
        except SnsError as problem:
            raise unauthorized(str(problem)) from None

    async def confirm_subscription(self, envelope: Envelope) -> None:
        """Tell Amazon that a subscription is wanted.

        Raises
        ------
        Refusal
            403 if subscriptions are not confirmed here, 422 for an address that is not Amazon's, 502 if
            Amazon does not answer.
        """
        if not self.confirm or (self.topics and envelope.topic not in self.topics):
            raise Refusal(
                403, "subscriptions are not confirmed; see listen.confirm_sns and listen.sns_topics"
            )
        try:
            url = confirmation_url(envelope)
        except SnsError as problem:
            raise Refusal(422, str(problem)) from None
        try:
            await asyncio.to_thread(self.fetch, url)
        except SnsError as problem:
            raise Refusal(502, str(problem)) from None

    def _certificate(self, url: str) -> bytes:
        if url not in self._certificates:
            if len(self._certificates) >= MOST_CERTIFICATES:
                self._certificates.clear()
            self._certificates[url] = self.fetch(url)
        return self._certificates[url]
