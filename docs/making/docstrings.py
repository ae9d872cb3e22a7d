"""Docstrings as numpydoc wants them: ours say `name : what it is`, and leave types to the signature."""

from __future__ import annotations

import re
from typing import Any

import griffe

SECTION = re.compile(
    r"(?P<head>^(?:Parameters|Raises|Attributes)\n-{3,}\n)(?P<body>.*?)(?=^[A-Z]\w+\n-{3,}\n|\Z)",
    re.MULTILINE | re.DOTALL,
)
ENTRY = re.compile(r"^(\S[^:\n]*?) : (.+)$", re.MULTILINE)


class OwnDialect(griffe.Extension):
    """Moves what stands behind the colon, where numpydoc has the type, to where it has the description."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of everything that is loaded."""
        if obj.docstring is not None:
            obj.docstring.value = SECTION.sub(
                lambda section: section["head"] + ENTRY.sub(r"\1\n    \2", section["body"]),
                obj.docstring.value,
            )
