"""Labelled scenes for training: two images on one grid with the true offsets between them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crosstie.errors import UnreadableRasterError
from crosstie.io.datasets.truth import OPTICAL_NAME, SAR_NAME, opened_part, read_truth
from crosstie.io.raster.values.plane import sar_plane


@dataclass(frozen=True, slots=True, eq=False)
class LabelledScene:
    """A folder with `s1_vh.tif`, `s2_tci.tif`, `truth_offsets.tif` and `tiles.csv`, as arrays."""

    optical_rgb: NDArray[np.uint8]
    """(3, rows, cols)"""
    optical_valid: NDArray[np.bool_]
    """(rows, cols)"""
    sar_db: NDArray[np.float16]
    """(rows, cols), NaN where invalid"""
    truth_px: NDArray[np.float32]
    """(2, nodes, nodes) dx, dy; NaN where unknown"""
    truth_step_px: float
    """Node k lies at pixel coordinate k * step."""
    centres_px: NDArray[np.float64]
    """(N, 2) x, y of the centres of the tiles whose truth is trusted."""
    centres_m: NDArray[np.float64]
    """(N, 2) the same in map coordinates."""


def read_labelled(folder: Path, *, tile_px: int = 256) -> LabelledScene:
    """Read one labelled scene whole: training draws from everywhere at once.

    Trusted tiles are those whose measured peak was distinct (`peak_ratio > 1.15`) and whose truth agrees with
    a second measurement to 2 px.

    Raises
    ------
    UnreadableRasterError
        A file is missing or broken, or the truth does not lie on the images' grid.
    """
    with opened_part(folder, SAR_NAME) as raster:
        amplitude, transform = raster.read(), raster.transform
    with opened_part(folder, OPTICAL_NAME) as raster:
        rgb, valid = raster.read(), raster.dataset_mask() > 0
    truth, step = read_truth(folder, transform)
    if rgb.shape[1:] != amplitude.shape[1:]:
        raise UnreadableRasterError(
            f"labelled scene {folder}: its images have {rgb.shape[1:]} and {amplitude.shape[1:]} px"
            " (rows, cols); they must lie on one grid"
        )
    centres = _trusted_centres(folder / "tiles.csv", tile_px)
    return LabelledScene(
        optical_rgb=rgb,
        optical_valid=valid,
        sar_db=sar_plane(amplitude.astype(np.float32), is_db=False).astype(np.float16),
        truth_px=truth.astype(np.float32),
        truth_step_px=step,
        centres_px=centres,
        centres_m=np.column_stack(transform @ tuple(centres.T)),
    )


def _trusted_centres(path: Path, tile_px: int) -> NDArray[np.float64]:
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
        residual = np.hypot(columns["residual_dx_px"], columns["residual_dy_px"])
        trusted = (columns["peak_ratio"] > 1.15) & (residual < 2)
        first = np.column_stack((columns["x_px"], columns["y_px"]))
    except (OSError, KeyError, IndexError, ValueError) as error:
        raise UnreadableRasterError(
            f"labelled scene {path.parent}: tiles.csv needs x_px, y_px, residual_dx_px, residual_dy_px and "
            f"peak_ratio ({error})"
        ) from error
    centres: NDArray[np.float64] = first[trusted] + tile_px / 2
    return centres
