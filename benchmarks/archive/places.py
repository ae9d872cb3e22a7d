"""Twelve places of the same scenes, each solved on its own: do they agree where each date sits?

    python benchmarks/archive/places.py ../shared/data/pairs/sebast144 --cache runs/sebast144.parquet

The places are parts of the same scenes, so each date must have the same position in all of them. At each
place every S1 date is matched against every S2 date, one tile of 192 px a pair, and solved as a network.
Positions of a place have a datum of their own: a constant a place is taken off, the mean over the dates.

What disagrees need not be noise: shadows that turn with the season move what an image shows, one way at a
place and the other way at another. The strongest pattern of that kind, one number a place times one a date
(the first singular vectors), is told beside it, and what is left without it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measuring import Plane, cached, every_pair, positions_px, residuals_px, solved, spread
from numpy.typing import NDArray

from crosstie.flows.registration.load_matcher import available_cores, keep_freed_memory
from crosstie.io.datasets.picture import read_picture
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
        dates, table = deviations(positions, sensor)
        for axis, name in enumerate("xy"):
            left = table[:, :, axis]
            whole, rest, of_date = without_pattern(left)
            swing = ", ".join(f"{date[3:]} {v:+.2f}" for date, v in zip(dates, of_date, strict=True))
            seen = np.isfinite(left).sum()
            print(f"{sensor} {name} between places: std {whole:.3f} px ({seen} of place and date),")
            print(f"  {rest:.3f} px without the strongest pattern, which is {swing}")


def deviations(
    positions: dict[str, dict[str, NDArray[np.float64]]], sensor: str
) -> tuple[list[str], NDArray[np.float64]]:
    """Dates, and (places, dates, 2) position at a place less the date's and the place's own constant, px."""
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
    return dates, table


def without_pattern(left: NDArray[np.float64]) -> tuple[float, float, NDArray[np.float64]]:
    """Standard deviation of deviations (places, dates), and the same without their strongest pattern, px.

    Both are divided by what is free. Third comes the pattern by date, at the place where it is strongest.
    """
    rows, cols = left.shape
    free = np.isfinite(left).sum() - rows - cols + 1
    u, s, v = np.linalg.svd(np.nan_to_num(left), full_matrices=False)
    whole, rest = (s**2).sum() / free, (s[1:] ** 2).sum() / (free - rows - cols + 3)
    return float(np.sqrt(whole)), float(np.sqrt(rest)), u[np.abs(u[:, 0]).argmax(), 0] * s[0] * v[0]


if __name__ == "__main__":
    main()
