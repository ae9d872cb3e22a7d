"""The public sets of registered SAR and optical chips, in the folder layouts they are published in."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from crosstie.errors import BadInputError
from crosstie.io.datasets.benchmark_pair import BenchmarkPair

SEN12_NAME = re.compile(r"(?P<roi>ROIs\d+_[a-z]+)_s1_(?P<scene>\d+)_p(?P<patch>\d+)")

QXS_BLOCKS = 40
"""QXS-SAROPT names no place, only numbers from 1 to 20,000. Neighbours in number are neighbours on the ground
and overlap, so runs of numbers stand for places: 40 of them."""


def sen12(folder: Path) -> list[BenchmarkPair]:
    """List SEN1-2: `ROIs1158_spring/s1_1/ROIs1158_spring_s1_1_p30.png` and its partner in `s2_1`.

    The place is season and scene: patches of one scene overlap by half. The true offset is zero as
    published; nobody has measured it.

    Raises
    ------
    BadInputError
        No such files, or one without its partner.
    """
    pairs = []
    for sar in sorted(folder.glob("ROIs*/s1_*/*.png"), key=_by_numbers):
        named = SEN12_NAME.fullmatch(sar.stem)
        if named is None:
            raise BadInputError(f"{sar}: SEN1-2 names its files like ROIs1158_spring_s1_1_p30.png")
        roi, scene, patch = named.group("roi", "scene", "patch")
        optical = sar.parent.parent / f"s2_{scene}" / f"{roi}_s2_{scene}_p{patch}.png"
        pairs.append(BenchmarkPair(f"{roi}_{scene}_p{patch}", f"{roi}_{scene}", optical, sar))
    return _complete(pairs, folder, "SEN1-2", "ROIs1158_spring/s1_1/ROIs1158_spring_s1_1_p30.png and s2_1")


def qxs(folder: Path) -> list[BenchmarkPair]:
    """List QXS-SAROPT: `opt_256_oc_0.2/N.png` and `sar_256_oc_0.2/N.png`.

    No place is published: runs of consecutive numbers stand for places (`QXS_BLOCKS`). The true offset is
    zero as published; nobody has measured it.

    Raises
    ------
    BadInputError
        No such files, or one without its partner.
    """
    numbered = sorted((int(p.stem), p) for p in (folder / "sar_256_oc_0.2").glob("*.png") if p.stem.isdigit())
    width = max(1, -(-len(numbered) // QXS_BLOCKS))
    pairs = [
        BenchmarkPair(str(n), f"block_{i // width + 1:02d}", folder / "opt_256_oc_0.2" / sar.name, sar)
        for i, (n, sar) in enumerate(numbered)
    ]
    return _complete(pairs, folder, "QXS-SAROPT", "opt_256_oc_0.2/1.png and sar_256_oc_0.2/1.png")


def sebast144(folder: Path) -> list[BenchmarkPair]:
    """List sebast144: `s1/Apr_p00.png` and `s2/Apr_p00.jpg`, 12 places in 12 months.

    The true offset is zero as published; a classical matcher finds a median of 1 px.

    Raises
    ------
    BadInputError
        No such files, or one without its partner.
    """
    pairs = [
        BenchmarkPair(sar.stem, sar.stem.partition("_")[2], folder / "s2" / f"{sar.stem}.jpg", sar)
        for sar in sorted((folder / "s1").glob("*_p*.png"))
    ]
    return _complete(pairs, folder, "sebast144", "s1/Apr_p00.png and s2/Apr_p00.jpg")


def ombria(folder: Path, *, role: str | None = None) -> list[BenchmarkPair]:
    """List ombria: `0001_s1.png`, `0001_s2_b08.jpg` and `offsets.csv` with place and measured offset.

    Pairs whose offset could not be measured surely (`good` = 0) are left out.

    Parameters
    ----------
    role : str or None, optional
        `test` or `unlabelled`; None takes both.

    Raises
    ------
    BadInputError
        No such files, or a table without the columns.
    """
    table = folder / "offsets.csv"
    try:
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        pairs = [
            BenchmarkPair(
                row["chip"],
                row["place"],
                folder / f"{row['chip']}_s2_b08.jpg",
                folder / f"{row['chip']}_s1.png",
                dx_px=float(row["dx_px"]),
                dy_px=float(row["dy_px"]),
            )
            for row in rows
            if int(row["good"]) and role in (None, row["role"])
        ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BadInputError(
            f"{table}: needs chip, role, place, dx_px, dy_px and good in every row ({error!r}); give the "
            "folder of ombria"
        ) from error
    return _complete(pairs, folder, "ombria", "0001_s1.png, 0001_s2_b08.jpg and offsets.csv")


def _complete(pairs: list[BenchmarkPair], folder: Path, name: str, layout: str) -> list[BenchmarkPair]:
    """Refuse a folder that is not the set, or lacks a part of it."""
    if not pairs:
        raise BadInputError(f"{folder}: no {name} there; it is laid out as {layout}")
    for pair in pairs:
        for path in (pair.reference, pair.secondary):
            if not path.is_file():
                raise BadInputError(f"{path}: no such file, the partner of {pair.name}; {name} is incomplete")
    return pairs


def _by_numbers(path: Path) -> tuple[str | int, ...]:
    """Sort p2 before p10."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.as_posix()))
