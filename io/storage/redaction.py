"""Text that may be shown: messages of other programs, without the secrets that they repeat.

The only place that removes secrets from text. `href.public_href` does the same for a single address.
"""

from __future__ import annotations

import os
import re

from crosstie.io.storage.href import SECRET_PARAMETER, public_href

HIDDEN = "***"
"""What stands in place of a secret."""

MAX_LINE = 300
"""Longest message that `first_line` gives, characters."""

_URL_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>`]+")

_PARAMETER_IN_TEXT = re.compile(r"(?<=[?&])([^\s=&?'\"]+)=[^\s&'\")]+")

_HOST_IN_TEXT = re.compile(r"(?:://(?:[^/\s@'\"]*@)?|\bhost: )(?P<host>[A-Za-z0-9._-]+)")

_SECRET_VARIABLE = re.compile(
    r"SECRET|TOKEN|PASSW|API_?KEY|ACCESS_KEY|AUTH_STRING|CREDENTIAL|SIGNATURE", re.IGNORECASE
)
"""Names of environment variables whose values are secret."""

_ACCESS_KEY_ID = "AWS_ACCESS_KEY_ID"
_STORAGE_VARIABLES = (_ACCESS_KEY_ID, "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""Variables whose values are secret however short they are."""

_SHORT = 6
"""Characters. Shorter values are words like `true`: only those of the storage count, and only whole words."""


_UNPRINTABLE = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
"""What moves a cursor, ends a line, turns the direction of writing, or is no character at all."""

_NOT_IN_LINE = re.compile(f"[{_UNPRINTABLE}]")
_NOT_IN_BLOCK = re.compile(f"(?![\n\t])[{_UNPRINTABLE}]")


def printable(text: str, *, block: bool = False) -> str:
    r"""Write the control characters of a text as `\u001b`, so that it can do no harm in a terminal or a log.

    Ids of scenes come from catalogs, names of files from whoever can write into a root.

    Parameters
    ----------
    text : str
        Of any length and from any source.
    block : bool, optional
        Whether the text may have several lines; then line ends and tabs stay.

    Returns
    -------
    str
        The same text where it has none; JSON stays JSON of the same value.
    """
    pattern = _NOT_IN_BLOCK if block else _NOT_IN_LINE
    return pattern.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def redacted(text: str) -> str:
    """Remove the secrets of the environment from a text, and what signs or identifies from its addresses.

    The name of a host stays, even where the access key has the same name.

    Parameters
    ----------
    text : str
        Of any length and from any source.

    Returns
    -------
    str
        The same text, which may be logged, stored and published.
    """
    for name, value in sorted(_secrets().items(), key=lambda item: -len(item[1])):
        # the longest first: a short secret that begins a longer one would leave the rest of it
        text = _without(value, text, hosts_stay=name == _ACCESS_KEY_ID)
    text = _URL_IN_TEXT.sub(lambda found: _public_url(found.group()), text)
    return _PARAMETER_IN_TEXT.sub(_public_parameter, text)


def first_line(problem: BaseException) -> str:
    """Say in one line what went wrong, without secrets and without a client's dump or a server's XML."""
    lines = str(problem).splitlines() or [""]
    line = lines[0].split("<?xml", 1)[0].strip(" :")
    return redacted(line or type(problem).__name__)[:MAX_LINE]


def without_queries(text: str) -> str:
    """Remove all that follows a question mark in addresses and parts of addresses: it may be a signature."""
    return re.sub(r"\?[^\s\"')]+", f"?{HIDDEN}", text)


def _secrets() -> dict[str, str]:
    """Names and values of the environment's secrets.

    Another thread may remove a variable meanwhile, and a line of the log must not be lost for it.
    """
    variables = ((name, os.environ.get(name)) for name in list(os.environ))
    return {
        name: value
        for name, value in variables
        if value and (name in _STORAGE_VARIABLES or (len(value) >= _SHORT and _SECRET_VARIABLE.search(name)))
    }


def _without(value: str, text: str, *, hosts_stay: bool) -> str:
    """Hide one secret; with `hosts_stay` not where it is the name of a host, or a part of it between dots."""
    pattern = re.escape(value)
    if len(value) < _SHORT:
        pattern = rf"(?<![A-Za-z0-9]){pattern}(?![A-Za-z0-9])"
    hosts = [
        found.span("host")
        for found in _HOST_IN_TEXT.finditer(text)
        if hosts_stay and value in found["host"].split(".")
    ]

    def shown(found: re.Match[str]) -> str:
        in_host = any(start <= found.start() and found.end() <= end for start, end in hosts)
        return found.group() if in_host else HIDDEN

    return re.sub(pattern, shown, text)


def _public_url(url: str) -> str:
    # Punctuation that ends a sentence is no part of the address.
    body = url.rstrip(".,;:!?)]}")
    try:
        return public_href(body) + url[len(body) :]
    except ValueError:  # no address that can be taken apart, such as http://[x
        return f"{body.partition('://')[0]}://{HIDDEN}"


def _public_parameter(found: re.Match[str]) -> str:
    """Hide a parameter that signs or identifies, where only a part of its address is in the text."""
    return f"{found[1]}={HIDDEN}" if SECRET_PARAMETER.match(found[1]) else found.group()
