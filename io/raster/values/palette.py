"""Bands with a colour table: numbers of colours, looked up before they are compared with anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from crosstie.types import Kind

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

    from crosstie.types import FloatArray

Palette = tuple[tuple[int, int, int, int], ...]
"""Red, green, blue and alpha, 0..255, of each number from 0."""

FEW_COLOURS = 32
"""A picture of an image shows more in a sample; legends of land cover, clouds or water have fewer."""

FINER = 4
"""Numbers of colours have no mean: so many along each axis, at most, are looked up for each pixel."""


def palette_of(raster: DatasetReader, bands: tuple[int, ...]) -> Palette | None:
    """Read the colour table of a file of one band; None where there is none, or there are more bands."""
    if len(bands) != 1 or raster.colorinterp[bands[0] - 1] is not ColorInterp.palette:
        return None
    if np.dtype(raster.dtypes[bands[0] - 1]).kind != "u":
        return None
    try:
        table = raster.colormap(bands[0])
    except ValueError:  # it says that it has one, and has none
        return None
    unknown = (0, 0, 0, 0)
    found = tuple(tuple(table.get(number, unknown)) for number in range(max(table, default=-1) + 1))
    return found or None


def is_grey(palette: Palette) -> bool:
    """Say whether all colours of a table are shades of grey."""
    return all(red == green == blue for red, green, blue, _ in palette)


def for_kind(palette: Palette | None, kind: Kind) -> Palette | None:
    """Keep the table where it is looked up: numbers of SAR that is drawn in colours are its values."""
    return None if palette is None or (kind is Kind.SAR and not is_grey(palette)) else palette


def count_colours(palette: Palette, numbers: FloatArray) -> int:
    """How many different colours some pixels (N,) show."""
    inside = numbers[(numbers >= 0) & (numbers < len(palette))].astype(np.int64)
    return len({palette[number] for number in np.unique(inside).tolist()})


def looked_up(numbers: NDArray[Any], palette: Palette) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Look colours up.

    Parameters
    ----------
    numbers : NDArray
        (rows, cols) whole numbers as stored.
    palette : Palette
        The table.

    Returns
    -------
    colours : NDArray[np.float32]
        (B, rows, cols), 0..255: grey where the whole table is, else red, green and blue.
    shown : NDArray[np.bool_]
        (rows, cols) False where the table has no such number, or its colour is transparent.
    """
    table = np.asarray(palette, np.float32)
    known = (numbers >= 0) & (numbers < len(table))
    found = table[np.where(known, numbers, 0).astype(np.int64)]
    count = 1 if is_grey(palette) else 3
    colours = np.moveaxis(found[..., :count], -1, 0)
    return np.ascontiguousarray(colours), known & (found[..., 3] > 0)


def averaged(values: NDArray[np.floating], by: int) -> NDArray[np.float32]:
    """Average squares of `by` x `by` pixels of (B, rows, cols)."""
    count, rows, cols = values.shape
    squares = values.reshape(count, rows // by, by, cols // by, by)
    mean: NDArray[np.float32] = squares.mean(axis=(2, 4), dtype=np.float32)
    return mean
