"""Measure a matcher where the true offset is known: read, match, compare with the truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from crosstie.matcher.calibration import expected_calibration_error
from crosstie.matcher.evaluation.metrics import error_metrics

if TYPE_CHECKING:
    from crosstie.flows.evaluation.placement import Placement
    from crosstie.flows.registration.measure import TileMatcher
    from crosstie.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What a matcher found at N placements."""

    placements: tuple[Placement, ...]
    offset_px: FloatArray
    """(N, 2) measured, the extra shift taken off."""
    sigma_px: FloatArray
    """(N,)"""
    confidence: FloatArray
    """(N,) 0..1"""
    ms: FloatArray
    """(N,) features and match, milliseconds; templates that share a pass share its time."""

    @property
    def error_px(self) -> FloatArray:
        """(N, 2) measured minus true offset."""
        true = np.array([(p.pair.dx_px, p.pair.dy_px) for p in self.placements]).reshape(-1, 2)
        return np.asarray(self.offset_px - true)

    @property
    def distance_px(self) -> FloatArray:
        """(N,) length of the error."""
        return np.asarray(np.hypot(*self.error_px.T))

    @property
    def places(self) -> list[str]:
        """Place of each placement."""
        return [p.pair.place for p in self.placements]

    @property
    def sizes_px(self) -> list[int]:
        """Side of each template, px."""
        return [p.tile.size_px for p in self.placements]

    def figures(self, mask: BoolArray | None = None) -> dict[str, float]:
        """All figures of the placements where `mask` (N,) is True."""
        keep = np.ones(len(self.placements), np.bool_) if mask is None else mask
        good = self.distance_px[keep] <= 1
        return {
            **asdict(error_metrics(self.error_px[keep])),
            "expected_calibration_error": expected_calibration_error(self.confidence[keep], good),
            "ms_per_pair": float(self.ms[keep].mean()),
            "ms_median": float(np.median(self.ms[keep])),
        }

    def sections(self, labels: Sequence[str] | Sequence[int]) -> dict[str, dict[str, float]]:
        """Figures of each group of equal labels (N,), in the labels' order."""
        column = np.asarray(labels)
        return {str(label): self.figures(column == label) for label in np.unique(column)}

    def rows(self) -> list[dict[str, str | float]]:
        """One row a placement, for a table."""
        return [
            {
                "name": p.pair.name,
                "place": p.pair.place,
                "size_px": p.tile.size_px,
                "row": p.tile.row,
                "col": p.tile.col,
                "shift_x_px": p.shift_px[0],
                "shift_y_px": p.shift_px[1],
                "true_dx_px": p.pair.dx_px,
                "true_dy_px": p.pair.dy_px,
                "dx_px": round(float(self.offset_px[n, 0]), 4),
                "dy_px": round(float(self.offset_px[n, 1]), 4),
                "error_px": round(float(self.distance_px[n]), 4),
                "sigma_px": round(float(self.sigma_px[n]), 4),
                "confidence": round(float(self.confidence[n]), 4),
                "ms": round(float(self.ms[n]), 2),
            }
            for n, p in enumerate(self.placements)
        ]


def evaluate(
    groups: Sequence[Sequence[Placement]],
    matcher: TileMatcher,
    *,
    search_px: int,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Match every placement and keep what was found, in the order of the groups.

    Parameters
    ----------
    progress : Callable[[int], None] | None
        Called with the number of placements done since the last call.

    Raises
    ------
    UnreadableRasterError
        An image is missing or cut short.
    """
    columns: list[tuple[FloatArray, ...]] = []
    for number, group in enumerate(groups):
        if number == 0:  # the first call also pays the set-up, which is not part of a pair's time
            _match(group[:1], matcher, search_px)
        columns.append(_match(group, matcher, search_px))
        if progress is not None:
            progress(len(group))
    offset, sigma, confidence, ms = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Evaluation(tuple(p for group in groups for p in group), offset, sigma, confidence, ms)


def _match(
    group: Sequence[Placement], matcher: TileMatcher, search_px: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Read the window that the templates of one group need, and match them."""
    first = group[0]
    size_px = first.tile.size_px
    rows, cols = (np.array([getattr(p.tile, axis) for p in group], np.int64) for axis in ("row", "col"))
    spans = [
        _span_to_read(starts, length, shift, size_px=size_px, search_px=search_px, halo_px=matcher.halo_px)
        for starts, length, shift in zip((rows, cols), first.shape, first.shift_px[::-1], strict=True)
    ]
    (row, row_end), (col, col_end) = spans
    reference, secondary = first.pair.read(
        row=row, col=col, shape=(row_end - row, col_end - col), shift_px=first.shift_px
    )
    begin = time.perf_counter()
    found = matcher.match(
        reference,
        secondary,
        rows - row,
        cols - col,
        size_px=size_px,
        search_px=search_px,
        reference_kind=first.pair.reference_kind,
        secondary_kind=first.pair.secondary_kind,
    )
    ms = (time.perf_counter() - begin) * 1000 / len(group)
    return (
        np.asarray(found.offset_px, np.float64) - np.array(first.shift_px, np.float64),
        np.asarray(found.sigma_px, np.float64),
        np.asarray(found.confidence, np.float64),
        np.full(len(group), ms),
    )


def _span_to_read(
    starts: IntArray,
    length: int,
    shift: int,
    *,
    size_px: int,
    search_px: int,
    halo_px: int,
) -> tuple[int, int]:
    """First and last row (or column) to read: the search and the halo, as far as either image reaches."""
    low, high = int(starts.min()) - search_px, int(starts.max()) + size_px + search_px
    return (
        min(low, max(low - halo_px, min(0, shift))),
        max(high, min(high + halo_px, length + max(0, shift))),
    )
