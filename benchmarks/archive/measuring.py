"""Scenes of one place against each other: one tile a pair, kept in a file."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosstie.estimation.adjustment import Adjustment, Datum, Edges
from crosstie.estimation.adjustment.noise import PairNoise, adjust_with_seen_noise
from crosstie.matcher.matching import Matcher
from crosstie.types import Kind

Plane = NDArray[np.float32]
Planes = Mapping[str, Plane]

PIXEL_M = 10.0
SIZE_PX, SEARCH_PX = 192, 32


def cached(path: Path | None, matcher: Matcher, measured: Callable[[Matcher], pd.DataFrame]) -> pd.DataFrame:
    """Measured pairs out of the file, or measured now and written there; other weights measure anew."""
    if path is not None and path.exists():
        table = pd.read_parquet(path)
        if (table["weights"] == matcher.weights_sha256).all():
            return table
    table = measured(matcher).assign(weights=matcher.weights_sha256)
    if path is not None:
        table.to_parquet(path)
    return table


def every_pair(matcher: Matcher, place: str, optical: Planes, sar: Planes) -> pd.DataFrame:
    """Match the middle tile of each optical image in each SAR image; all are planes of 256 x 256 px."""
    pairs = itertools.product(optical.items(), sar.items())
    return _measured(matcher, place, pairs, (Kind.OPTICAL, Kind.SAR))


def each_two(matcher: Matcher, place: str, images: Planes, kind: Kind) -> pd.DataFrame:
    """The same of every two images of one sensor."""
    return _measured(matcher, place, itertools.combinations(images.items(), 2), (kind, kind))


def _measured(
    matcher: Matcher,
    place: str,
    pairs: Iterable[tuple[tuple[str, Plane], tuple[str, Plane]]],
    kinds: tuple[Kind, Kind],
) -> pd.DataFrame:
    start = np.array([SEARCH_PX])
    rows = []
    for (reference, plane), (secondary, other) in pairs:
        found = matcher.match(
            plane,
            other,
            start,
            start,
            size_px=SIZE_PX,
            search_px=SEARCH_PX,
            reference_kind=kinds[0],
            secondary_kind=kinds[1],
        )
        x, y = found.offset_px[0]
        sure = float(found.sigma_px[0]), float(found.confidence[0])
        rows.append((place, reference, secondary, float(x), float(y), *sure))
    columns = ["place", "reference", "secondary", "dx_px", "dy_px", "sigma_px", "confidence"]
    return pd.DataFrame(rows, columns=columns)


def solved(pairs: pd.DataFrame, references: Sequence[str] = ()) -> tuple[Adjustment, PairNoise]:
    """Adjust one place; the mean of `references`, or of all optical scenes, is 0."""
    offset_m = pairs[["dx_px", "dy_px"]].to_numpy() * PIXEL_M
    sigma_m = pairs["sigma_px"].to_numpy() * PIXEL_M
    edges = Edges.of_shifts(
        pairs["reference"].to_list(), pairs["secondary"].to_list(), offset_m, covariance=sigma_m
    )
    return adjust_with_seen_noise(edges, datum=Datum(references=tuple(references)))


def positions_px(found: Adjustment) -> dict[str, NDArray[np.float64]]:
    """Position of each scene that has one, px."""
    here = np.isfinite(found.scenes.position_m).all(axis=1)
    return {
        str(name): position / PIXEL_M
        for name, position in zip(found.scenes.id[here], found.scenes.position_m[here], strict=True)
    }


def residuals_px(found: Adjustment) -> NDArray[np.float64]:
    """Lengths of what is left of the pairs kept, px."""
    lengths: NDArray[np.float64] = np.hypot(*found.adjusted.residual_m[found.adjusted.kept].T) / PIXEL_M
    return lengths


def spread(values: NDArray[np.float64]) -> str:
    return f"median {np.median(values):.3f} px, 95 % {np.quantile(values, 0.95):.3f} px ({len(values)})"
