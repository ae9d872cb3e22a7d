"""The page on products names every file, field and column that is written, and no other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from docs_blocks import ROOT

from crosstie.io.products.aligned import ALIGNED
from crosstie.io.products.correction import correction_dict
from crosstie.io.products.displacement import DISPLACEMENT
from crosstie.io.products.stac_item import ASSETS
from crosstie.io.products.tie_points import to_geodataframe
from crosstie.io.storage.root_layout import COMMIT
from crosstie.types import ControlPoints, Registration

PAGE = (ROOT / "docs" / "reference" / "products.md").read_text(encoding="utf-8")

WHOLE = {
    "pair.reference",
    "pair.secondary",
    "fitted",
    "field",
    "provenance.versions",
    "control_points.reference",
    "control_points.secondary",
}
"""Fields that the page describes together with what they hold."""


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def names(text: str) -> set[str]:
    """Names in the first column of a table; `a.b`, `.c` stands for a.b and a.c."""
    found = set()
    for row in re.findall(r"^\| (`[^|]*) \|", text, re.M):
        first, *others = re.findall(r"`([^`]+)`", row)
        parent = first.rpartition(".")[0]
        found |= {first, *(f"{parent}{other}" if other.startswith(".") else other for other in others)}
    return found


def fields(tree: dict[str, object], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict) and f"{prefix}{name}" not in WHOLE:
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_field_of_a_correction_is_named(make_registration: Callable[..., Registration]) -> None:
    control = ControlPoints(210, (), 0.4, irregular=False, height_m=(0.0, 835.0))
    registration = replace(make_registration(), reference_control=control, secondary_control=control)
    assert names(section("correction.json")) == set(fields(correction_dict(registration)))


def test_every_column_of_the_tie_points_is_named(make_registration: Callable[..., Registration]) -> None:
    assert names(section("tie_points.parquet")) == set(to_geodataframe(make_registration()).columns)


def test_every_file_is_named() -> None:
    assert names(section("Files of a run")) == {name for name, *_ in ASSETS.values()} | {
        "item.json",
        COMMIT,
        DISPLACEMENT,
        ALIGNED,
    }
