"""Numbers that no column can hold, in a product that somebody has committed: that product's own damage."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from committed_runs import recommit

import crosstie
from crosstie.config import Settings
from crosstie.errors import CrosstieError
from crosstie.flows.status import take_status
from crosstie.io.archive.index import update_index
from crosstie.io.storage.store import open_store

GOLDEN = Path(__file__).parents[2] / "golden" / "archive-0.1.0"


def numbers(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all numbers of a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from numbers(one, (*path, key))
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield path


@pytest.mark.parametrize("name", ["correction.json", "item.json"])
@pytest.mark.parametrize("value", [10**30, 1e308], ids=["10^30", "1e308"])
def test_a_number_too_large_stops_no_other_pair(tmp_path: Path, name: str, value: float) -> None:
    broken, other = sorted(GOLDEN.glob("SIM*/*"))[:2]
    whole = json.loads((broken / name).read_text())
    for n, path in enumerate(numbers(whole)):
        document = at = copy.deepcopy(whole)
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        root = tmp_path / str(n)
        for run in (broken, other):
            shutil.copytree(run, root / run.parent.name / run.name)
        (root / broken.parent.name / broken.name / name).write_text(json.dumps(document))
        store = open_store(str(root))
        recommit(store, (broken.parent.name, broken.name))
        update_index(store)
        take_status(store, Settings())
        assert other.parent.name in crosstie.read_index(store)["pair_key"].to_pylist(), path
        try:
            repr(crosstie.open(str(root / broken.parent.name / broken.name)))
        except CrosstieError as problem:
            assert str(problem)  # noqa: PT017
