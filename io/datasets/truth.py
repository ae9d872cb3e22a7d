"""The measured offsets of a labelled scene, on nodes over the pixel grid of its images."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from crosstie.errors import UnreadableRasterError
from crosstie.io.raster.gdal import IMAGE_DRIVERS, check_href, opened, reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from affine import Affine
    from rasterio.io import DatasetReader

    from crosstie.types import FloatArray

TRUTH_NAME, SAR_NAME, OPTICAL_NAME = "truth_offsets.tif", "s1_vh.tif", "s2_tci.tif"
"""Files of a labelled scene."""


@contextmanager
def opened_part(folder: Path, name: str) -> Iterator[DatasetReader]:
    """Open one file of a labelled scene; pixels may be read inside.

    Raises
    ------
    UnreadableRasterError
        The file is missing, broken or refused.
    """
    with opened(check_href(folder / name), drivers=IMAGE_DRIVERS) as raster, reading(raster):
        yield raster


def read_truth(folder: Path, transform: Affine) -> tuple[FloatArray, float]:
    """Read the true offsets of a labelled scene.

    Parameters
    ----------
    folder : Path
        The scene.
    transform : Affine
        Of the scene's images: pixels to map coordinates.

    Returns
    -------
    truth_px : FloatArray
        (2, nodes, nodes) dx, dy, px; NaN where unknown.
    step_px : float
        Distance of neighbouring nodes: node k lies at pixel coordinate k * step.

    Raises
    ------
    UnreadableRasterError
        The file is missing or broken, or its first node does not lie at the images' first corner.
    """
    with opened_part(folder, TRUTH_NAME) as raster:
        truth, nodes = raster.read().astype(np.float64), raster.transform
    first = ~transform @ (nodes @ (0.5, 0.5))
    if np.abs(first).max() > 0.5:
        raise UnreadableRasterError(
            f"labelled scene {folder}: its first truth node lies at pixel {first}; it must lie at the first"
            " corner of the images"
        )
    return truth, nodes.a / transform.a
