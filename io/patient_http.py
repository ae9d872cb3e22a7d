"""HTTP that waits and asks again where a catalogue is busy or broken for a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

TIMEOUT_S = 60
"""Longest wait for an answer to one request, seconds."""

TRIES = 5
"""How often a request is repeated."""

BACKOFF_S = 0.5
"""Of the waits between: 0, 1, 2, 4, 8 seconds."""

LONGEST_WAIT_S = 120
"""However long a server asks us to stay away."""

BUSY = (429, 500, 502, 503, 504)


class Patience(Retry):
    """Repeats every method, searches by POST too: they change nothing."""

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        """Seconds that the server asks for, within reason."""
        asked = super().get_retry_after(response)
        return None if asked is None else min(asked, LONGEST_WAIT_S)


def patience() -> Patience:
    """How a request is repeated: after no answer, 429 and 5xx, ever more slowly."""
    return Patience(
        total=TRIES,
        backoff_factor=BACKOFF_S,
        status_forcelist=BUSY,
        allowed_methods=None,
        raise_on_status=False,
    )


def get(url: str) -> bytes:
    """Fetch a small file.

    Raises
    ------
    OSError : no answer, or an error from the server
    """
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=patience()))
        answer = session.get(url, timeout=TIMEOUT_S)
        answer.raise_for_status()
        return answer.content
