"""A trial: the tiles of one set at one size, and what each method made of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from classical import Method
from numpy.typing import NDArray
from scenes import Site, amplitude

from crosstie.matcher.matching import Matcher
from crosstie.types import Kind

CROSSTIE = "crosstie"
"""Name of the shipped matcher among the methods."""

KINDS = {"reference_kind": Kind.OPTICAL, "secondary_kind": Kind.SAR}
"""Roles of the two images in every benchmark."""


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What one method made of the tiles of one set at one size."""

    offset_px: NDArray[np.float64]
    """(N, 2), NaN where it gave none."""
    cpu_ms: float
    """Per tile."""
    features_ms: float | None = None
    """Of `cpu_ms`, dense features."""
    confidence: NDArray[np.float64] | None = None
    """(N,)"""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A set of sites at one tile size, and what each method made of it."""

    name: str
    size_px: int
    search_px: int
    sites: list[Site]
    measured: dict[str, Measured]

    @property
    def truth_px(self) -> NDArray[np.float64]:
        return np.concatenate([site.truth_px for site in self.sites])

    @property
    def places(self) -> NDArray[np.str_]:
        return np.concatenate([np.full(len(site.rows), site.place) for site in self.sites])

    def error_px(self, method: str) -> NDArray[np.float64]:
        """(N,) distance to the truth; infinite where the method gave nothing."""
        distance = np.hypot(*(self.measured[method].offset_px - self.truth_px).T)
        return np.where(np.isfinite(distance), distance, np.inf)


def measure_crosstie(matcher: Matcher, sites: Sequence[Site], *, size_px: int, search_px: int) -> Measured:
    """Match each site's tiles at once; the features are then computed once more, to time them apart."""
    found, total, apart = [], 0.0, 0.0
    for site in sites:
        start = time.process_time()
        found.append(
            matcher.match(
                site.optical, site.sar_db, site.rows, site.cols, size_px=size_px, search_px=search_px, **KINDS
            )
        )
        total += time.process_time() - start
        start = time.process_time()
        matcher.features(site.optical, Kind.OPTICAL)
        matcher.features(site.sar_db, Kind.SAR)
        apart += time.process_time() - start
    count = sum(len(site.rows) for site in sites)
    return Measured(
        np.concatenate([matches.offset_px for matches in found]),
        1e3 * total / count,
        1e3 * apart / count,
        np.concatenate([matches.confidence for matches in found]),
    )


def measure_classical(method: Method, sites: Sequence[Site], *, size_px: int, search_px: int) -> Measured:
    """Match tile by tile."""
    found, total = [], 0.0
    for site in sites:
        for n in range(len(site.rows)):
            tile = site.tile(n, size_px)
            window = amplitude(site.window_db(n, size_px, search_px))
            start = time.process_time()
            found.append(method(tile, window).offset_px)
            total += time.process_time() - start
    return Measured(np.array(found, np.float64).reshape(-1, 2), 1e3 * total / len(found))
