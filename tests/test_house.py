"""The order of the house: one home for each name, folders and functions that can be taken in at a glance."""

from __future__ import annotations

from pathlib import Path

import pytest
import top_level_names
from top_level_names import (
    crowded_folders,
    long_functions,
    names_with_several_homes,
    source_files,
)

MOST_SHARED_NAMES = 25
MOST_FILES = 20
MOST_LINES = 40


def test_few_names_have_several_homes() -> None:
    shared = names_with_several_homes(source_files())
    assert len(shared) <= MOST_SHARED_NAMES, shared


def test_no_folder_is_crowded() -> None:
    assert crowded_folders(source_files(), most=MOST_FILES) == {}


def test_no_function_is_long_without_a_comment_that_says_why() -> None:
    assert long_functions(source_files(), most=MOST_LINES) == {}


def test_the_checks_see_what_they_are_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_level_names, "ROOT", tmp_path)
    body = "\n".join(f"    x{n} = {n}" for n in range(5))
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text(f'LIMIT = 3\nLOG = 1\n\ndef long():\n    """Docstring."""\n{body}\n')
    second.write_text(f"LIMIT: int = 4\nLOG = 2\n\ndef told():\n    # One piece.\n{body}\n")
    files = [first, second]
    assert names_with_several_homes(files) == {"LIMIT": ["first.py", "second.py"]}
    assert crowded_folders(files, most=1) == {".": 2}
    assert crowded_folders(files, most=2) == {}
    assert long_functions(files, most=4) == {"first.py: long": 5}
    assert long_functions(files, most=5) == {}


def test_all_sources_are_read_once() -> None:
    files = source_files()
    assert len(files) == len({path.resolve() for path in files}) > 200
