"""Text that may be shown: what somebody else's message says, without the secrets that it repeats."""

from __future__ import annotations

import os
import re

from crosstie.io.storage.href import public_href

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>`]+")

_SECRET_NAME = re.compile(
    r"SECRET|TOKEN|PASSW|API_?KEY|ACCESS_KEY|AUTH_STRING|CREDENTIAL|SIGNATURE", re.IGNORECASE
)
"""Names of environment variables whose value is kept to oneself."""

_SHORTEST = 6
"""Characters of a value that is looked for: shorter ones are words like `true`."""


def redacted(text: str) -> str:
    """Text without the secrets of the environment, and with its addresses made public."""
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _SECRET_NAME.search(name):
            text = text.replace(value, "***")
    return _URL.sub(lambda found: _public(found.group()), text)


def _public(url: str) -> str:
    # Punctuation that ends a sentence is no part of the address.
    body = url.rstrip(".,;:!?)]}")
    return public_href(body) + url[len(body) :]
