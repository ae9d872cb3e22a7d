"""A CSV table of pairs with their true offsets, as a benchmark of the user's own."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from crosstie.errors import BadInputError, UnreadableRasterError
from crosstie.io.datasets.benchmark_pair import BenchmarkPair
from crosstie.io.datasets.picture import picture_header
from crosstie.types import Kind

REQUIRED_COLUMNS = ("reference", "secondary", "dx_px", "dy_px")


def read_pair_table(table: Path) -> list[BenchmarkPair]:
    """Read a CSV table: `reference`, `secondary`, `dx_px`, `dy_px`, and `place` where it is known.

    Paths are relative to the table. The true offset is position in the secondary minus position in the
    reference. Where nothing tells what formed an image, the reference is optical and the secondary SAR, or
    what the other is not. Without `place`, each row is a place of its own.

    Raises
    ------
    BadInputError
        Not such a table, or a row that names no two images of one size; the message names it.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"{table}: cannot be read as a CSV table ({error})") from None
    missing = [name for name in REQUIRED_COLUMNS if name not in columns]
    if missing:
        raise BadInputError(
            f"{table}: no column {', '.join(missing)}; it needs {', '.join(REQUIRED_COLUMNS)} and has "
            f"{', '.join(columns) or 'none'}"
        )
    if not rows:
        raise BadInputError(f"{table}: no row below the header; give one a pair")
    return [_pair_of_row(table, number, row) for number, row in enumerate(rows, start=1)]


def _pair_of_row(table: Path, number: int, row: dict[str, str | None]) -> BenchmarkPair:
    where = f"{table}, row {number}"
    reference, secondary = (_file(table, where, name, row[name]) for name in ("reference", "secondary"))
    dx, dy = (_true_offset(where, name, row[name]) for name in ("dx_px", "dy_px"))
    try:
        first, second = picture_header(reference), picture_header(secondary)
    except UnreadableRasterError as error:
        raise BadInputError(f"{where}: {error}") from None
    if first.shape != second.shape:
        raise BadInputError(
            f"{where}: {reference.name} has {first.shape[0]} x {first.shape[1]} px (rows x cols) and "
            f"{secondary.name} {second.shape[0]} x {second.shape[1]}; both must have one size"
        )
    kind = first.kind or (second.kind.other if second.kind else Kind.OPTICAL)
    return BenchmarkPair(
        name=f"row {number}: {row['reference']}",
        place=(row.get("place") or "").strip() or f"row {number}",
        reference=reference,
        secondary=secondary,
        reference_kind=kind,
        secondary_kind=second.kind or kind.other,
        dx_px=dx,
        dy_px=dy,
    )


def _file(table: Path, where: str, column: str, text: str | None) -> Path:
    if not (text or "").strip():
        raise BadInputError(f"{where}: {column} is empty; give the path of an image")
    path = table.parent / str(text).strip()
    if not path.is_file():
        raise BadInputError(f"{where}: {column} {path}: no such file; paths are relative to the table")
    return path


def _true_offset(where: str, column: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadInputError(f"{where}: {column} = {text!r} is not a number; give the true offset in px")
    return value
