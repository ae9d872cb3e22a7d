"""One place through a year, solved as a network: what pairs leave, and how well a date repeats.

    python benchmarks/archive/series.py ../shared/data/series/finland0060 --picture docs/series.png

Every S1 date is matched against every S2 date, one tile of 192 px a pair. An S2 date takes part where the
matcher is sure of it (0.9) in most of its pairs; no screen for clouds has a say, which takes snow for one.
Then:

- residuals of the pairs of the network, one offset a scene;
- repeatability: the S2 dates are parted into two disjoint halves, in every way or a hundred drawn ones, each
  half is solved on its own, and the S1 dates compared. The two halves differ by a constant, which S2 dates
  themselves cause and which is taken off. The spread of what is left is that of a difference; over the
  square root of 2 it is that of an offset out of half the dates. Both are printed;
- all loops S1 a -> S2 i -> S1 b -> S2 j -> S1 a, of the raw pairs;
- scatter of the S1 dates of a track, measured S1 against S1 by a classical matcher: as delivered, with each
  date moved onto the nearest S2 date, and adjusted; beside it, that matcher's own error;
- the mirror of ascending and descending, as metres of height.

With `--cache FILE` the measured pairs are kept, and read from there the next time.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measuring import PIXEL_M, Planes, cached, every_pair, positions_px, residuals_px, solved, spread
from numpy.typing import NDArray
from stack import TrackStack, measured_stack

from crosstie.estimation.adjustment import Adjustment
from crosstie.estimation.systematic import (
    SceneFacts,
    lean_of_sar,
    look_azimuth_of_sentinel1,
    tell_apart,
)
from crosstie.flows.registration.load_matcher import available_cores, keep_freed_memory
from crosstie.io.plots.positions import DrawnTrack, positions_png
from crosstie.io.raster import open_pair, read_plane
from crosstie.matcher.matching import Matcher
from crosstie.types import Kind

SURE = 0.9
HALVES = 100
TRACKS = ("asc", "desc")
LATITUDE_DEG = 62.2
INCIDENCE_DEG = 39.0
"""Of the middle of the swath; the items do not say it. A height goes with its tangent."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("series", type=Path, help="the folder with s1_asc_00.tif, s2_00.tif, ...")
    parser.add_argument("--weights", type=Path, help="the shipped ones by default")
    parser.add_argument("--cache", type=Path, help="parquet file that measured pairs are kept in")
    parser.add_argument("--picture", type=Path, help="PNG of the S1 dates: pairs alone and adjusted")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(available_cores())
    matcher = Matcher.load(given.weights, device="cpu")
    optical, sar = planes_of(given.series)
    pairs = cached(given.cache, matcher, lambda m: every_pair(m, given.series.name, optical, sar))
    report(pairs, np.random.default_rng(given.seed))
    report_stacks(pairs, sar)
    if given.picture is not None:
        given.picture.write_bytes(picture(pairs))


def planes_of(folder: Path) -> tuple[Planes, Planes]:
    """S2 and S1 images of the folder, read as the programs read them, on the grid of the first S2 date."""
    optical = sorted(folder.glob("s2_*.tif"))
    sar = sorted(folder.glob("s1_*.tif"))
    planes = {}
    for path in optical + sar:
        kind = Kind.OPTICAL if path in optical else Kind.SAR
        grid, source = open_pair(optical[0], path, reference_kind=Kind.OPTICAL, secondary_kind=kind)
        planes[path.stem] = read_plane(source, grid.geobox)
    first, second = ({p.stem: planes[p.stem] for p in side} for side in (optical, sar))
    return first, second


def sure_of(pairs: pd.DataFrame) -> list[str]:
    """S2 dates that the matcher is sure of."""
    by_date = pairs.groupby("reference")["confidence"].median()
    return [str(name) for name in by_date.index[by_date >= SURE]]


def picture(pairs: pd.DataFrame) -> bytes:
    """The S1 dates: what each pair alone says, and where the network puts them."""
    used = pairs[pairs["reference"].isin(sure_of(pairs))]
    found, _ = solved(used)
    position, sigma = (
        pd.DataFrame(values / PIXEL_M, index=found.scenes.id)
        for values in (found.scenes.position_m, found.scenes.sigma_m)
    )
    alone = {str(name): rows[["dx_px", "dy_px"]].to_numpy() for name, rows in used.groupby("secondary")}
    tracks = []
    for name in TRACKS:
        dates = sorted(scene for scene in alone if f"_{name}_" in scene)
        tracks.append(
            DrawnTrack(
                name=f"{name}ending",
                label=tuple(scene[-2:] for scene in dates),
                pairs_px=tuple(alone[scene] for scene in dates),
                position_px=position.loc[dates].to_numpy(),
                sigma_px=sigma.loc[dates].to_numpy(),
            )
        )
    return positions_png(
        tracks,
        title="Offsets of twelve months of Sentinel-1: pair by pair, and adjusted",
        caption="Dots: a pair with one Sentinel-2 date each. Marks: adjusted, with 95 % bars; "
        "0 is the mean of the Sentinel-2 dates.",
    )


def report(pairs: pd.DataFrame, rng: np.random.Generator) -> None:
    """Print what the network of the S2 dates that the matcher is sure of shows."""
    sure = sure_of(pairs)
    used = pairs[pairs["reference"].isin(sure)]
    print(
        f"S2 dates the matcher is sure of: {len(sure)} of {pairs['reference'].nunique()}: {', '.join(sure)}"
    )
    found, noise = solved(used)
    print(f"pairs {len(used)}, scenes {len(found.scenes)}, called wrong: {len(found.rejected)}")
    print(f"residuals of pairs kept: {spread(residuals_px(found))}")
    every = np.hypot(*np.nan_to_num(found.adjusted.residual_m, nan=np.inf).T) / PIXEL_M
    print(f"residuals of all pairs:  {spread(every)}")
    print(
        f"noise of a pair: {noise.factor:.1f} times its sigma, and {noise.common_m / PIXEL_M:.3f} px of all"
    )
    apart = halves(used, sure, rng)
    print(
        "S1 dates between disjoint halves of the S2 dates: "
        f"std x {apart[:, 0].std():.3f}, y {apart[:, 1].std():.3f} px "
        f"(their difference {np.sqrt(2) * apart[:, 0].std():.3f}, {np.sqrt(2) * apart[:, 1].std():.3f}); "
        f"95 % of lengths {np.quantile(np.hypot(*apart.T), 0.95):.3f} px"
    )
    print(f"loops of four pairs, all: {spread(loops(used))}")
    for part in height(found):
        print(part)
    for name, position in positions_px(found).items():
        print(f"  {name:<12} {position[0]:+.3f} {position[1]:+.3f} px")


def height(found: Adjustment) -> list[str]:
    """Sentences of what the S1 dates have in common."""
    rows = np.flatnonzero(
        np.char.startswith(found.scenes.id, "s1_") & np.isfinite(found.scenes.position_m[:, 0])
    )
    names = found.scenes.id[rows]
    passes = [f"{name.split('_')[1]}ending" for name in names]
    azimuth = np.array([look_azimuth_of_sentinel1(name, LATITUDE_DEG) for name in passes])
    incidence = np.full(len(rows), INCIDENCE_DEG)
    up = np.array([1.0, -1.0])
    told = tell_apart(
        SceneFacts(
            position_m=found.scenes.position_m[rows] * up,
            covariance=found.scenes.covariance[rows] * np.outer(up, up),
            days=np.array([30.4 * int(name[-2:]) for name in names]),
            platform=np.full(len(rows), "sentinel-1a"),
            track=np.array(passes),
            baseline=np.full(len(rows), "unknown"),
            lean=lean_of_sar(azimuth, incidence),
            incidence_deg=incidence,
        )
    )
    return [part.sentence for part in told.parts] + [
        *told.untold,
        f"Dates scatter by {told.scatter_m:.2f} m.",
    ]


def halves(pairs: pd.DataFrame, references: list[str], rng: np.random.Generator) -> NDArray[np.float64]:
    """(N, 2) deviation of an S1 date between halves, over sqrt 2, px; each parting without its mean."""
    half = len(references) // 2
    ways = list(itertools.combinations(references, half))
    drawn = [ways[n] for n in rng.permutation(len(ways))[:HALVES]]
    found = []
    for first in drawn:
        inside = pairs["reference"].isin(first)
        one, other = (positions_px(solved(half)[0]) for half in (pairs[inside], pairs[~inside]))
        both = [name for name in one if name in other and name not in references]
        apart = np.array([one[name] - other[name] for name in both])
        found.append((apart - apart.mean(axis=0)) / np.sqrt(2))
    return np.concatenate(found)


def loops(pairs: pd.DataFrame) -> NDArray[np.float64]:
    """Lengths of what the loops of four pairs miss, all that there are, px."""
    tables = [
        pairs.pivot(index="secondary", columns="reference", values=name).to_numpy()
        for name in ("dx_px", "dy_px")
    ]
    rows, cols = tables[0].shape
    a, b = (side[:, None] for side in np.triu_indices(rows, 1))
    i, j = (side[None] for side in np.triu_indices(cols, 1))
    missed = [t[a, i] - t[b, i] + t[b, j] - t[a, j] for t in tables]
    length: NDArray[np.float64] = np.hypot(*missed)
    return length[np.isfinite(length)]


def report_stacks(pairs: pd.DataFrame, sar: Planes) -> None:
    """Print how the dates of each track scatter, measured S1 against S1."""
    used = pairs[pairs["reference"].isin(sure_of(pairs))]
    corrections = {
        "as delivered": None,
        "each on the nearest S2 date": nearest(used),
        "adjusted": positions_px(solved(used)[0]),
    }
    for track in TRACKS:
        dates = [date for date in sar if f"_{track}_" in date]
        stack: TrackStack = measured_stack(sar, dates)
        print(f"scatter of {len(dates)} {track}ending dates, S1 against S1 (std x, y):")
        for what, correction in corrections.items():
            print(f"  {what:<28} {_pair(stack.scatter_px(correction))}")
        print(f"  {'that measure by itself:':<28} {_pair(stack.contradiction_px)} from its own loops,")
        print(f"  {'':<28} {_pair(stack.halves_px)} from the two halves of the image")


def nearest(pairs: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Offset of each S1 date, px, by its pair with the S2 date of the nearest month alone."""
    gap = (pairs["reference"].str[-2:].astype(int) - pairs["secondary"].str[-2:].astype(int)).abs()
    ordered = pairs.assign(gap=gap).sort_values(["secondary", "gap", "reference"])
    first = ordered.drop_duplicates("secondary").set_index("secondary")[["dx_px", "dy_px"]]
    return dict(zip(first.index, first.to_numpy(), strict=True))


def _pair(values: NDArray[np.float64]) -> str:
    return f"{values[0]:.3f}, {values[1]:.3f} px"


if __name__ == "__main__":
    main()
