"""Two images of one place with the true offset between them: what a matcher is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crosstie.errors import BadInputError
from crosstie.io.datasets.picture import picture_header, read_picture
from crosstie.types import Kind, Tile

if TYPE_CHECKING:
    from crosstie.types import Plane


@dataclass(frozen=True, slots=True)
class BenchmarkPair:
    """Paths of two images and the true offset between them; pixels are read on request."""

    name: str
    """Unique within its set."""
    place: str
    """Ground that it shows: pairs of one place stay together in splits and in draws."""
    reference: Path
    secondary: Path
    reference_kind: Kind = Kind.OPTICAL
    secondary_kind: Kind = Kind.SAR
    dx_px: float = 0.0
    """True offset, position in the secondary minus position in the reference, px to the right."""
    dy_px: float = 0.0
    """The same, px down."""
    tile: Tile | None = None
    """The template, where the set cuts one out of a larger image; None leaves the choice to the caller."""

    def shape(self) -> tuple[int, int]:
        """(rows, cols) of both images, px, from their headers.

        Raises
        ------
        UnreadableRasterError
            One is missing, or no raster.
        BadInputError
            They differ in size.
        """
        first, second = (picture_header(path).shape for path in (self.reference, self.secondary))
        if first != second:
            raise BadInputError(
                f"{self.name}: {self.reference.name} has {first[0]} x {first[1]} px (rows x cols) and "
                f"{self.secondary.name} {second[0]} x {second[1]}; both must have one size"
            )
        return first

    def read(
        self, *, row: int, col: int, shape: tuple[int, int], shift_px: tuple[int, int] = (0, 0)
    ) -> tuple[Plane, Plane]:
        """Read one window of both images, NaN where invalid and outside them.

        Parameters
        ----------
        row, col : int
            First pixel of the window in the reference; it may stick out.
        shape : tuple[int, int]
            (rows, cols) of the window.
        shift_px : tuple[int, int], optional
            Whole px (x, y) that the secondary is moved by, right and down; it adds to the offset.
        """
        x, y = shift_px
        return (
            read_picture(self.reference, self.reference_kind, row=row, col=col, shape=shape),
            read_picture(self.secondary, self.secondary_kind, row=row - y, col=col - x, shape=shape),
        )
