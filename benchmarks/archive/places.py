"""Twelve places of the same scenes, each solved on its own: do they agree where each date sits?

    python benchmarks/archive/places.py ../shared/data/pairs/sebast144 --picture docs/places.png

The places are parts of the same scenes, so each date must have the same position in all of them. At each
place every two dates are matched, one tile of 192 px a pair, and solved as a network: once with the pairs
of S1 against S2 alone, and once with those of two dates of one sensor as well (`pairing.same_kind`).
Positions of a place have a datum of their own: a constant a place is taken off, the mean over the dates.

What disagrees need not be noise: shadows that turn with the season move what an image shows, one way at a
place and the other way at another. The strongest pattern of that kind, one number a place times one a date
(the first singular vectors), is told beside it, and what is left without it. Last comes the position of each
date, the mean of its places with the standard deviation of that mean.

With `--cache FILE` the measured pairs are kept, and read from there the next time.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measuring import Plane, cached, each_two, every_pair, positions_px, residuals_px, solved, spread
from numpy.typing import NDArray

from crosstie.flows.registration.load_matcher import available_cores, keep_freed_memory
from crosstie.io.datasets.picture import read_picture
from crosstie.io.plots.positions import DrawnTrack, positions_png
from crosstie.matcher.matching import Matcher
from crosstie.types import Kind

SURE = 0.5
SIDE_PX = 256
SENSORS = {"s1": "Sentinel-1", "s2": "Sentinel-2"}
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

Positions = dict[str, dict[str, NDArray[np.float64]]]
"""Place -> date -> (2,) position, px."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", type=Path, help="the folder with s1/ and s2/")
    parser.add_argument("--weights", type=Path, help="the shipped ones by default")
    parser.add_argument("--cache", type=Path, help="parquet file that measured pairs are kept in")
    parser.add_argument("--picture", type=Path, help="PNG of the dates: each place, and their mean")
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(available_cores())
    matcher = Matcher.load(given.weights, device="cpu")
    pairs = cached(given.cache, matcher, lambda m: measured(m, given.pairs))
    across = pairs["reference"].str[:2] != pairs["secondary"].str[:2]
    print("# S1 against S2 alone")
    report(pairs[across])
    print("# with pairs of one sensor")
    positions = report(pairs)
    for line in dates_of(positions):
        print(line)
    if given.picture is not None:
        given.picture.write_bytes(picture(positions))


def measured(matcher: Matcher, folder: Path) -> pd.DataFrame:
    """Every two dates of each place: of both sensors, then of one."""
    planes: dict[str, tuple[dict[str, Plane], dict[str, Plane]]] = {}
    for path in sorted((folder / "s2").glob("*.jpg")):
        date, _, place = path.stem.partition("_")
        optical, sar = planes.setdefault(place, ({}, {}))
        whole = {"row": 0, "col": 0, "shape": (SIDE_PX, SIDE_PX)}
        optical[f"s2_{date}"] = read_picture(path, Kind.OPTICAL, **whole)
        sar[f"s1_{date}"] = read_picture(folder / "s1" / f"{path.stem}.png", Kind.SAR, **whole)
    tables = []
    for place, (optical, sar) in planes.items():
        tables.append(every_pair(matcher, place, optical, sar))
        tables.append(each_two(matcher, place, optical, Kind.OPTICAL))
        tables.append(each_two(matcher, place, sar, Kind.SAR))
    return pd.concat(tables)


def report(pairs: pd.DataFrame) -> Positions:
    """Print what the twelve networks leave, and how far they agree."""
    used = pairs[pairs["confidence"] >= SURE]
    found = {str(place): solved(rows)[0] for place, rows in used.groupby("place")}
    residuals = np.concatenate([residuals_px(a) for a in found.values()])
    named = sum(len(a.rejected) for a in found.values())
    print(f"places {len(found)}, pairs {len(used)} of {len(pairs)}, called wrong: {named}")
    print(f"residuals of pairs kept: {spread(residuals)}")
    positions = {place: positions_px(a) for place, a in found.items()}
    for sensor in SENSORS:
        dates, table = deviations(positions, sensor)
        for axis, name in enumerate("xy"):
            left = table[:, :, axis]
            whole, rest, of_date = without_pattern(left)
            swing = ", ".join(f"{date[3:]} {v:+.2f}" for date, v in zip(dates, of_date, strict=True))
            seen = np.isfinite(left).sum()
            print(f"{sensor} {name} between places: std {whole:.3f} px ({seen} of place and date),")
            print(f"  {rest:.3f} px without the strongest pattern, which is {swing}")
    return positions


def dates_of(positions: Positions) -> Iterator[str]:
    """The position of each date, a line each."""
    for sensor in SENSORS:
        dates, table = of_places(positions, sensor)
        mean, sigma = np.nanmean(table, axis=0), sigma_of_mean(table)
        for date, at, off in zip(dates, mean, sigma, strict=True):
            yield f"  {date}  {at[0]:+.3f} {at[1]:+.3f} px, sigma {off[0]:.3f} {off[1]:.3f}"


def picture(positions: Positions) -> bytes:
    """Each date at each place, and the mean of the places."""
    drawn = []
    for sensor, name in SENSORS.items():
        dates, table = of_places(positions, sensor)
        drawn.append(
            DrawnTrack(
                name=name,
                label=tuple(date[3:] for date in dates),
                pairs_px=tuple(table[:, n][np.isfinite(table[:, n, 0])] for n in range(len(dates))),
                position_px=np.nanmean(table, axis=0),
                sigma_px=sigma_of_mean(table),
            )
        )
    return positions_png(
        drawn,
        title=f"Twelve dates of each sensor, as {len(positions)} places see them, each solved on its own",
        caption="Dots: a date at one place. Marks: mean of the places, with 95 % bars; "
        "0 is the mean of the dates of that sensor.",
    )


def of_places(positions: Positions, sensor: str) -> tuple[list[str], NDArray[np.float64]]:
    """Dates, and (places, dates, 2) position without the place's own constant; the mean of all dates is 0."""
    dates, table = in_one_table(positions, sensor)
    of_place, of_date = constants(table)
    return dates, table - of_place - of_date.mean(axis=1, keepdims=True)


def sigma_of_mean(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """(dates, 2) standard deviation of the mean over places, px."""
    return np.nanstd(table, axis=0, ddof=1) / np.sqrt(np.isfinite(table).sum(axis=0))


def deviations(positions: Positions, sensor: str) -> tuple[list[str], NDArray[np.float64]]:
    """Dates, and (places, dates, 2) position at a place less the date's and the place's own constant, px."""
    dates, table = in_one_table(positions, sensor)
    of_place, of_date = constants(table)
    return dates, table - of_place - of_date


def in_one_table(positions: Positions, sensor: str) -> tuple[list[str], NDArray[np.float64]]:
    """Dates of a sensor, January first, and (places, dates, 2) positions, px; NaN where there is none."""
    places = list(positions)
    names = {name for found in positions.values() for name in found if name.startswith(sensor)}
    dates = sorted(names, key=lambda name: MONTHS.index(name[3:]))
    table = np.full((len(places), len(dates), 2), np.nan)
    for row, place in enumerate(places):
        for col, date in enumerate(dates):
            if date in positions[place]:
                table[row, col] = positions[place][date]
    return dates, table


def constants(table: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(places, 1, 2) and (1, dates, 2): what fits a table with holes best as a sum of both."""
    of_place, of_date = np.zeros_like(table[:, :1]), np.zeros_like(table[:1])
    for _ in range(20):
        of_place = np.nanmean(table - of_date, axis=1, keepdims=True)
        of_date = np.nanmean(table - of_place, axis=0, keepdims=True)
    return of_place, of_date


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
