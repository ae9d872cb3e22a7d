"""Scenes that an adjustment holds where a table says: ground control, or positions of an earlier one."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import NamedTuple

from crosstie.errors import BadInputError

COLUMNS = ("scene", "dx_m", "dy_m")

MOST_BYTES = 32 * 2**20
"""Of a table: 200,000 scenes or so."""

FARTHEST_M = 10_000.0
"""A longer offset is none: a coordinate in the wrong column."""


class HeldScene(NamedTuple):
    """A scene, and where it is held."""

    scene: str
    place: str
    """Name of the place that it holds for; empty for all."""
    dx_m: float
    dy_m: float


def read_held(path: Path) -> tuple[HeldScene, ...]:
    """Read a CSV table: `scene`, `dx_m`, `dy_m`, and `place` where a scene is not the same at all places.

    Raises
    ------
    BadInputError
        Not such a table, too large, or a row without a position; the message names it.
    """
    if not path.is_file():
        raise BadInputError(f"{path}: no such file; the datum names a CSV table of {', '.join(COLUMNS)}")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadInputError(f"{path}: larger than {MOST_BYTES // 2**20} MiB, a table of offsets is not")
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise BadInputError(f"{path}: no column {missing[0]}; it needs {', '.join(COLUMNS)}")
            found = tuple(_held_of(f"{path}, row {n}", row) for n, row in enumerate(reader, 1))
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise BadInputError(f"{path}: cannot be read as a CSV table ({problem})") from None
    if not found:
        raise BadInputError(f"{path}: no row below the header; give one a scene")
    seen: set[tuple[str, str]] = set()
    for one in found:
        if one[:2] in seen:
            raise BadInputError(f"{path}: {one.scene[:100]!r} is there twice for one place; leave one row")
        seen.add(one[:2])
    return found


def _held_of(where: str, row: dict[str, str | None]) -> HeldScene:
    scene = (row["scene"] or "").strip()
    if not scene:
        raise BadInputError(f"{where}: scene is empty; give its id")
    return HeldScene(
        scene, (row.get("place") or "").strip(), _offset(where, "dx_m", row), _offset(where, "dy_m", row)
    )


def _offset(where: str, column: str, row: dict[str, str | None]) -> float:
    text = row[column] or ""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= FARTHEST_M:
        raise BadInputError(
            f"{where}: {column} = {text[:40]!r}; give the offset of the scene in metres, "
            f"{FARTHEST_M:.0f} at most"
        )
    return value
