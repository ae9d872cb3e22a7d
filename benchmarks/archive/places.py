"""Twelve places of the same scenes, each solved on its own: do they agree where each date sits?

    python benchmarks/archive/places.py ../shared/data/pairs/sebast144 --cache runs/sebast144.parquet

The places are parts of the same scenes, so each date must have the same position in all of them. At each
place every S1 date is matched against every S2 date, one tile of 192 px a pair, and solved as a network.
Positions of a place have a datum of their own: a constant a place is taken off, the mean over the dates.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measuring import Plane, cached, every_pair, positions_px, residuals_px, solved, spread
from numpy.typing import NDArray

from crosstie.flows.loading import available_cores, keep_freed_memory
from crosstie.io.plain_picture import read_picture
from crosstie.matcher.matching import Matcher
from crosstie.types import Kind

SURE = 0.5
SIDE_PX = 256


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", type=Path, help="the folder with s1/ and s2/")
    parser.add_argument("--weights", type=Path, help="the shipped ones by default")
    parser.add_argument("--cache", type=Path, help="parquet file that measured pairs are kept in")
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(available_cores())
    matcher = Matcher.load(given.weights, device="cpu")
    report(cached(given.cache, matcher, lambda m: measured(m, given.pairs)))


def measured(matcher: Matcher, folder: Path) -> pd.DataFrame:
    """Every pair of dates of each place."""
    planes: dict[str, tuple[dict[str, Plane], dict[str, Plane]]] = {}
    for path in sorted((folder / "s2").glob("*.jpg")):
        date, _, place = path.stem.partition("_")
        optical, sar = planes.setdefault(place, ({}, {}))
        whole = {"row": 0, "col": 0, "shape": (SIDE_PX, SIDE_PX)}
        optical[f"s2_{date}"] = read_picture(path, Kind.OPTICAL, **whole)
        sar[f"s1_{date}"] = read_picture(folder / "s1" / f"{path.stem}.png", Kind.SAR, **whole)
    return pd.concat([every_pair(matcher, place, *images) for place, images in planes.items()])


def report(pairs: pd.DataFrame) -> None:
    """Print what the twelve networks leave, and how far they agree."""
    used = pairs[pairs["confidence"] >= SURE]
    found = {str(place): solved(rows)[0] for place, rows in used.groupby("place")}
    residuals = np.concatenate([residuals_px(a) for a in found.values()])
    named = sum(len(a.rejected) for a in found.values())
    print(f"places {len(found)}, pairs {len(used)} of {len(pairs)}, called wrong: {named}")
    print(f"residuals of pairs kept: {spread(residuals)}")
    positions = {place: positions_px(a) for place, a in found.items()}
    for sensor in ("s1", "s2"):
        apart = agreement(positions, sensor)
        x, y = apart.std(axis=0)
        robust = 1.4826 * np.median(np.abs(apart), axis=0)
        print(
            f"{sensor} positions between places: std x {x:.3f}, y {y:.3f} px "
            f"(robust {robust[0]:.3f}, {robust[1]:.3f}; {len(apart)} of place and date)"
        )


def agreement(positions: dict[str, dict[str, NDArray[np.float64]]], sensor: str) -> NDArray[np.float64]:
    """(N, 2) position of a date at a place minus that of the date, the constant of the place taken off, px.

    Unbiased: scaled for the means taken off.
    """
    places = list(positions)
    dates = sorted({name for found in positions.values() for name in found if name.startswith(sensor)})
    table = np.full((len(places), len(dates), 2), np.nan)
    for row, place in enumerate(places):
        for col, date in enumerate(dates):
            if date in positions[place]:
                table[row, col] = positions[place][date]
    for _ in range(20):
        table = table - np.nanmean(table, axis=1, keepdims=True)
        table = table - np.nanmean(table, axis=0, keepdims=True)
    left = table[np.isfinite(table).all(axis=2)]
    free = len(left) - len(places) - len(dates) + 1
    return np.asarray(left * np.sqrt(len(left) / free), np.float64)


if __name__ == "__main__":
    main()
