"""Two scenes of a catalog as rasters: opened with all that their items say of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from crosstie.io.raster import open_pair

if TYPE_CHECKING:
    from crosstie.config import Settings
    from crosstie.io.raster import RasterSource
    from crosstie.types import SceneRef


def open_scenes(
    reference: SceneRef, secondary: SceneRef, settings: Settings
) -> tuple[RasterSource, RasterSource]:
    """Open both scenes of a pair; every flow that reads scenes of a catalog does it here.

    Raises
    ------
    BadInputError
        A raster is missing, is none, or does not say where it lies.
    """
    first, second = open_pair(
        reference.hrefs,
        secondary.hrefs,
        reference_kind=reference.kind,
        secondary_kind=secondary.kind,
        from_catalog=True,
        declared=(reference.declared, secondary.declared),
        storage=settings.storage,
    )
    return replace(first, classes=reference.classes), replace(second, classes=secondary.classes)
