"""Blocks of code in the pages, and what is to be done with them.

A comment above a block says what a test does with it:

    <!-- run -->                 it is run, and must end well
    <!-- run: exit 3 -->         ... and must end with this code
    <!-- output -->              what the block before it prints
    <!-- not run: REASON -->     it cannot be run; its commands are held against the program all the same
    <!-- continues: PAGE -->     anywhere in a page: it begins in the folder where another page ended
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "matcher" / "shipped" / "MODEL_CARD.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "deploy").rglob("*.md")),
)

FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>[a-z]*)[^\n]*\n(?P<text>.*?)^(?P=fence)[ ]*$", re.M | re.S)
MARK = re.compile(r"<!-- (?P<what>run|output|not run|continues)(?:: (?P<more>[^>]+?))? -->\s*\Z")
CONTINUES = re.compile(r"<!-- continues: (\S+) -->")
INDENTED = re.compile(r"(?:^(?: {4}[^\n]*)?\n)+", re.M)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    """Of its fence, from 1."""
    language: str
    text: str
    what: str | None
    """`run`, `output`, `not run`, or None where nothing is said."""
    more: str
    """What stands behind the colon."""

    @property
    def exit_code(self) -> int:
        """Code that it must end with."""
        return int(self.more.removeprefix("exit ")) if self.more else 0

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Fenced blocks of a page, from top to bottom."""
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in FENCE.finditer(text):
        mark = MARK.search(text[: fence.start()])
        found.append(
            Block(
                page=page,
                line=text.count("\n", 0, fence.start()) + 1,
                language=fence["language"],
                text=fence["text"],
                what=mark["what"] if mark else None,
                more=(mark["more"] or "") if mark else "",
            )
        )
    return found


def continued(page: Path) -> Path | None:
    """Page in whose folder this one goes on."""
    found = CONTINUES.search(page.read_text(encoding="utf-8"))
    return None if found is None else ROOT / "docs" / f"{found[1]}.md"


def code_of(page: Path) -> Iterator[tuple[str, bool]]:
    """All code of a page: text, and whether it is a block (or a word in a sentence)."""
    text = page.read_text(encoding="utf-8")
    for fence in FENCE.finditer(text):
        if fence["language"] not in {"text", "python"}:
            yield fence["text"], True
    rest = FENCE.sub("", text)
    for indented in INDENTED.finditer(rest):
        yield "\n".join(line[4:] for line in indented[0].splitlines()), True
    for inline in INLINE.finditer(INDENTED.sub("\n", rest)):
        yield inline[1], False
