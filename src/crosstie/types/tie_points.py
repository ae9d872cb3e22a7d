"""Tiles of the common grid, and the offsets that are measured in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from crosstie.types import BoolArray, FloatArray


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """A square window of the common grid; its tie point lies at the centre."""

    row: int
    """First row in the grid, px."""
    col: int
    """First column in the grid, px."""
    size_px: int
    """Rows and columns, px."""

    def __post_init__(self) -> None:
        if self.size_px <= 0:
            raise ValueError(f"tile size must be positive, got {self.size_px}")

    @property
    def roi(self) -> tuple[slice, slice]:
        """(rows, cols), to index an array of the grid."""
        return slice(self.row, self.row + self.size_px), slice(self.col, self.col + self.size_px)

    @property
    def centre_px(self) -> tuple[float, float]:
        """(x, y) of the centre in pixels of the grid, outer corner of the first pixel = (0, 0)."""
        return self.col + self.size_px / 2, self.row + self.size_px / 2


@dataclass(frozen=True, slots=True, eq=False)
class TiePoints:
    """Tie points as columns of equal length N."""

    xy_m: FloatArray
    """(N, 2) positions in the reference, metres of the grid's CRS."""
    offset_m: FloatArray
    """(N, 2) position in the secondary minus position in the reference, metres."""
    sigma_m: FloatArray
    """(N,) standard deviation of the offset per axis, metres."""
    confidence: FloatArray
    """(N,) calibrated probability that the offset is within 1 px, 0..1."""
    row: NDArray[np.int64]
    """(N,) first row of the tile in the common grid, px."""
    col: NDArray[np.int64]
    """(N,) first column of the tile in the common grid, px."""

    def __post_init__(self) -> None:
        n = len(self.xy_m)
        shapes = {
            "xy_m": (n, 2),
            "offset_m": (n, 2),
            "sigma_m": (n,),
            "confidence": (n,),
            "row": (n,),
            "col": (n,),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {getattr(self, name).shape}")

    def __len__(self) -> int:
        return len(self.xy_m)

    def keep(self, mask: BoolArray) -> Self:
        """Select the points where `mask` (N,) is True."""
        return replace(
            self,
            xy_m=self.xy_m[mask],
            offset_m=self.offset_m[mask],
            sigma_m=self.sigma_m[mask],
            confidence=self.confidence[mask],
            row=self.row[mask],
            col=self.col[mask],
        )

    @classmethod
    def empty(cls) -> Self:
        """Make a table without points."""
        return cls(
            xy_m=np.zeros((0, 2)),
            offset_m=np.zeros((0, 2)),
            sigma_m=np.zeros(0),
            confidence=np.zeros(0),
            row=np.zeros(0, np.int64),
            col=np.zeros(0, np.int64),
        )

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """Join tables; the points are ordered by tile (row, then col), whatever the order of `parts`."""
        if not parts:
            return cls.empty()
        row = np.concatenate([p.row for p in parts])
        col = np.concatenate([p.col for p in parts])
        order = np.lexsort((col, row))
        return cls(
            xy_m=np.concatenate([p.xy_m for p in parts])[order],
            offset_m=np.concatenate([p.offset_m for p in parts])[order],
            sigma_m=np.concatenate([p.sigma_m for p in parts])[order],
            confidence=np.concatenate([p.confidence for p in parts])[order],
            row=row[order],
            col=col[order],
        )
