"""Parse the JSON of a catalog, within limits of size and depth."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any

from crosstie.io.storage.budget import CatalogLimits, DocumentLimitError


def parse_document(text: str | bytes, limits: CatalogLimits) -> Any:
    """Parse JSON from an unknown sender.

    Raises
    ------
    DocumentLimitError
        It is too long, holds too many values, or is nested too deeply.
    ValueError
        Not JSON.
    """
    if len(text) > limits.document_bytes:
        raise DocumentLimitError(f"it is longer than {limits.document_bytes:,} bytes")
    # each value but the first follows one of these; the same characters in texts make the sum no smaller
    values = sum(
        text.count(mark.encode()) if isinstance(text, bytes) else text.count(mark) for mark in "[{,:"
    )
    if values > limits.document_values:
        raise DocumentLimitError(f"it holds more than {limits.document_values:,} values")
    deep = DocumentLimitError(f"it is nested more than {limits.depth} levels deep")
    try:
        tree = json.loads(text)
    except RecursionError:
        raise deep from None
    if _is_deeper(tree, limits.depth):
        raise deep
    return tree


def finite_number(value: object) -> float | None:
    """Read a number; None for anything else, and for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # whole numbers of JSON have no limit
        return None
    return number if isfinite(number) else None


def _is_deeper(tree: object, depth: int) -> bool:
    level = [tree]
    for _ in range(depth + 1):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
