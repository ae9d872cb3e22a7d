"""Clouds that a catalog tells of: a mask where the pixels do not contradict, and never a reason to fail."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from crosstie.errors import CrosstieError
from crosstie.io.raster.values.scene_classes import SceneClouds, read_clouds
from crosstie.io.storage.href import public_href
from crosstie.io.storage.redaction import first_line
from crosstie.matcher.ground_seen import shows_ground
from crosstie.matcher.screening import Screening
from crosstie.types import CloudsTold, Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

    from crosstie.io.raster import RasterSource
    from crosstie.types import Plane

LOG = logging.getLogger(__name__)

MUCH_HIDDEN = 0.5
"""Share of the valid pixels of the common ground beyond which what a mask hides is looked at, and doubted."""


@dataclass(frozen=True, slots=True, eq=False)
class ToldClouds:
    """What a catalog tells of the clouds of one image of a pair."""

    told: CloudsTold
    covered: NDArray[np.bool_] | None
    """(rows, cols) of the overview, True where cloud is; None where it is not used."""


def told_clouds(source: RasterSource, overview: Plane, grid: GeoBox) -> ToldClouds | None:
    """Read the clouds of an image over the common ground; None where its catalog gives none.

    What cannot be read is told, and the pair goes on without it.
    """
    if source.classes is None:
        return None
    try:
        covered = read_clouds(source.classes, grid, storage=source.storage)
    except CrosstieError as problem:
        why = f"it cannot be read: {first_line(problem)}"
        LOG.warning("%s: its cloud mask is not used: %s", public_href(source.hrefs[0]), why)
        return ToldClouds(CloudsTold(source.classes, None, why), None)
    seen = np.isfinite(overview)
    share = float((covered & seen).sum() / max(1, seen.sum()))
    return ToldClouds(CloudsTold(source.classes, share), covered)


def doubted(
    clouds: ToldClouds | None, source: RasterSource, overview: Plane, sar: Plane | None, *, factor: int
) -> ToldClouds | None:
    """Put a mask aside that hides most of an image while the pixels under it show ground.

    Parameters
    ----------
    overview : Plane
        (rows, cols) of the image, NaN where invalid.
    sar : Plane or None
        (rows, cols) of the other image; None where that is no SAR.
    factor : int
        Pixels of the common grid per pixel of the overviews, along one axis.
    """
    if clouds is None or clouds.covered is None or (clouds.told.hidden_share or 0.0) <= MUCH_HIDDEN:
        return clouds
    if not shows_ground(overview, clouds.covered, sar, white=source.white, factor=factor):
        return clouds
    why = f"it hides {clouds.told.hidden_share:.0%} of the ground, and the pixels show ground there"
    LOG.warning("%s: its cloud mask is not used: %s", public_href(source.hrefs[0]), why)
    return ToldClouds(replace(clouds.told, ignored=why), None)


def under_clouds(
    source: RasterSource, overview: Plane, clouds: ToldClouds | None, grid: GeoBox
) -> tuple[RasterSource, Plane]:
    """Lay the clouds on an image: its source, which every later read goes through, and its overview."""
    if clouds is None or clouds.covered is None or not clouds.covered.any():
        return source, overview
    masked = np.where(clouds.covered, np.float32(np.nan), overview)
    return replace(source, clouds=SceneClouds.of(clouds.covered, grid)), masked


def with_clouded(by_pixels: Screening, masked: Screening) -> Screening:
    """Call those tiles clouded that the masks alone leave no ground in common."""
    reasons = tuple(
        Reason.CLOUDED if after is Reason.NO_OVERLAP and before is not Reason.NO_OVERLAP else after
        for before, after in zip(by_pixels.reasons, masked.reasons, strict=True)
    )
    return Screening(reasons, masked.featured)
