"""Every threat of the threat model names its tests, and each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
TEST = re.compile(r"`(tests/[a-z_/]+\.py)::(test_[a-z0-9_]+)`")


def rows() -> list[str]:
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    return [line for line in lines if not line.startswith(("| threat |", "|---"))]


def functions_of(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


def test_every_threat_names_a_test():
    assert len(rows()) > 30
    assert [row for row in rows() if not TEST.search(row.rsplit("|", 2)[1])] == []


def test_every_test_that_is_named_exists():
    named = TEST.findall(PAGE)
    assert len(named) == PAGE.count("::")
    assert [f"{file}::{name}" for file, name in named if name not in functions_of(ROOT / file)] == []


def test_every_file_that_is_named_exists():
    for name in re.findall(r"`((?:io|flows)/[a-z_/]+\.py)`", PAGE):
        assert (ROOT / name).is_file(), name


def test_how_to_report_is_said():
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for title in ("## Report a weakness", "## Supported versions"):
        assert title in page
    assert "docs/threat-model.md" in page
