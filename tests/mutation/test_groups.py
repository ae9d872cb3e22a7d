"""Every module whose mutants are to be noticed is in a group, and every test that a group names is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutation.groups import ESTIMATION, GROUPS, Group

ROOT = Path(__file__).resolve().parents[2]

LEFT_OUT = {"settings.py", "__init__.py"}
"""Tables of numbers and of names."""


def test_every_module_of_estimation_is_in_one_group() -> None:
    grouped = [path for group in GROUPS for path in group.files(ROOT)]
    assert len(grouped) == len(set(grouped))
    there = {path for path in (ROOT / ESTIMATION).rglob("*.py") if path.name not in LEFT_OUT}
    assert there <= set(grouped)


def test_the_tests_of_a_group_are_there() -> None:
    for group in GROUPS:
        assert all((ROOT / test).is_file() for test in group.tests), group.name


def test_a_module_that_has_moved_is_told() -> None:
    with pytest.raises(SystemExit, match=r"no file is io/gone\.py; mend tests/mutation/groups\.py"):
        Group("gone", ("io/gone.py",), ()).files(ROOT)
