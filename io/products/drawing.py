"""All pictures of a pair as one piece of work, for this process or for a worker.

Drawing is most of what a small pair costs once its tiles are matched. In the process that runs a flow it
would be done one pair after another, however many workers match.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crosstie.io.products.overview import overview_png
from crosstie.io.products.pictures import draw_pictures

if TYPE_CHECKING:
    from collections.abc import Callable

    from crosstie.io.products.overview import Thumbnails
    from crosstie.io.products.pictures import Pictures
    from crosstie.types import Registration

    Draw = Callable[["DrawTask"], "Drawn"]


@dataclass(frozen=True, slots=True)
class Drawn:
    """The pictures of a pair."""

    overview: bytes
    """PNG."""
    report: Pictures


@dataclass(frozen=True, slots=True, eq=False)
class DrawTask:
    """What is to be drawn: see `overview_png`."""

    registration: Registration
    thumbnails: Thumbnails | None
    detail: Thumbnails | None

    def draw(self) -> Drawn:
        """Draw it in this process; the same task gives the same bytes."""
        return Drawn(
            overview_png(self.thumbnails, self.registration, detail=self.detail),
            draw_pictures(self.thumbnails, self.registration, detail=self.detail),
        )
