"""How a document is damaged: byte by byte, and value by value where it is JSON or YAML."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import yaml
from hypothesis import strategies as st

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1e308, -1e308, float("nan"), float("inf"), 10**30, 2**63, -(2**63) - 1),
    *("", "\x00", "\x1b[2J", "a" * 5000, "\ud800", "é" * 40, "-0", "NaN", "true", "2025-13-45", "0000-00-00"),
    *("../../etc/passwd", "file:///etc/passwd", "http://127.0.0.1/", "/vsicurl/http://127.0.0.1/x"),
    *("9999-12-31T23:59:59Z", [], {}, [[]], [None], {"": None}, [1e308] * 4),
    *([[[0, 0], [1, 1], [0, 0]]], {"type": "Polygon", "coordinates": []}),
)
"""What stands in place of a value."""


@st.composite
def damaged(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """One of the seeds, damaged in one to three ways."""
    body = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 3))):
        document = _parsed(body)
        if document is not None and draw(st.booleans()):
            body = draw(_other_value(document, is_json=body.lstrip()[:1] in (b"{", b"[")))
        else:
            body = draw(_other_bytes(body))
    return body


def _parsed(body: bytes) -> object:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError):
            return None
    return found if isinstance(found, dict | list) and found else None


def _places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in entries:
        yield from _places(inner, (*path, key))


@st.composite
def _other_value(draw: st.DrawFn, document: Any, *, is_json: bool) -> bytes:
    found = copy.deepcopy(document)
    *way, last = draw(st.sampled_from(list(_places(found))))
    at = found
    for key in way:
        at = at[key]
    how = draw(st.sampled_from(("replace", "remove", "nest", "twice")))
    if how == "replace":
        at[last] = draw(st.sampled_from(HOSTILE))
    elif how == "remove":
        del at[last]
    elif how == "nest":
        at[last] = [[at[last]]]
    elif isinstance(at, list):
        at.append(copy.deepcopy(at[last]))
    if is_json:
        return json.dumps(found).encode()
    return yaml.safe_dump(found, allow_unicode=True).encode("utf-8", "surrogatepass")


@st.composite
def _other_bytes(draw: st.DrawFn, body: bytes) -> bytes:
    at = draw(st.integers(0, max(len(body) - 1, 0)))
    how = draw(st.sampled_from(("cut", "flip", "put", "drop", "repeat", "zero", "ones")))
    length = draw(st.sampled_from((1, 2, 4, 8, 64)))
    if how == "cut":
        return body[:at]
    if how == "flip" and body:
        return body[:at] + bytes([body[at] ^ (1 << draw(st.integers(0, 7)))]) + body[at + 1 :]
    if how == "put":
        return body[:at] + draw(st.binary(min_size=1, max_size=16)) + body[at:]
    if how == "drop":
        return body[:at] + body[at + length :]
    if how == "repeat":
        return body[: at + length] + body[at:]
    return body[:at] + (b"\0" if how == "zero" else b"\xff") * length + body[at + length :]
