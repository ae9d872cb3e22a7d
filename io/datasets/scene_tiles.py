"""Whole scenes as benchmarks: templates of several sizes, each with the true offset at its centre."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import map_coordinates

from crosstie.errors import BadInputError
from crosstie.grid import tiles
from crosstie.io.datasets.benchmark_pair import BenchmarkPair
from crosstie.io.datasets.truth import OPTICAL_NAME, SAR_NAME, TRUTH_NAME, opened_part, read_truth
from crosstie.types import Tile

STRIDE_PX = 128
"""Stride of the templates of every size, so that all sizes are measured at about the same places."""


def scenes(folder: Path, *, sizes_px: Sequence[int], search_px: int) -> list[BenchmarkPair]:
    """List the tiles of labelled scenes: `s1_vh.tif`, `s2_tci.tif`, `truth_offsets.tif`, all on one grid.

    The true offset is that of the field, bilinear at the tile's centre. A tile whose truth is unknown, or
    whose search would leave the scene, is left out.

    Parameters
    ----------
    folder : Path
        One scene, or a folder of scenes, each of which is a place.
    sizes_px : Sequence[int]
        Sides of the templates.

    Raises
    ------
    BadInputError
        No scene there, or none with room for a tile.
    UnreadableRasterError
        A file is broken, or the truth does not lie on the images' grid.
    """
    found = [folder] if (folder / TRUTH_NAME).is_file() else sorted(folder.glob("*/"))
    found = [scene for scene in found if (scene / TRUTH_NAME).is_file()]
    if not found:
        raise BadInputError(
            f"{folder}: no labelled scene there; one holds s1_vh.tif, s2_tci.tif and truth_offsets.tif"
        )
    pairs = [pair for scene in found for pair in _scene_pairs(scene, sizes_px, search_px)]
    return _refuse_none(pairs, folder, sizes_px, search_px)


def sih1733(folder: Path, *, sizes_px: Sequence[int], search_px: int) -> list[BenchmarkPair]:
    """List the tiles of `Pair-1/Optical-Image-1.jpg` and `Pair-1/SAR-Image-1.jpg`, each pair a place.

    The true offset is zero as published; a classical matcher finds less than half a pixel.

    Raises
    ------
    BadInputError
        No such files, or a picture without room for a tile.
    """
    pairs = []
    for sar in sorted(folder.glob("Pair-*/SAR-Image-*.jpg")):
        optical = sar.with_name(sar.name.replace("SAR", "Optical"))
        whole = BenchmarkPair(sar.parent.name, sar.parent.name, optical, sar)
        shape = whole.shape()
        pairs += [
            _tile_pair(whole, tile, (0.0, 0.0))
            for size in sizes_px
            for tile in _inner(shape, size, search_px)
        ]
    return _refuse_none(pairs, folder, sizes_px, search_px)


def _refuse_none(
    pairs: list[BenchmarkPair], folder: Path, sizes_px: Sequence[int], search_px: int
) -> list[BenchmarkPair]:
    if not pairs:
        sizes = ", ".join(str(size) for size in sizes_px)
        raise BadInputError(
            f"{folder}: no template of {sizes} px with {search_px} px of search round it and a known offset"
        )
    return pairs


def _scene_pairs(folder: Path, sizes_px: Sequence[int], search_px: int) -> list[BenchmarkPair]:
    whole = BenchmarkPair(folder.name, folder.name, folder / OPTICAL_NAME, folder / SAR_NAME)
    shape = whole.shape()
    with opened_part(folder, SAR_NAME) as raster:
        transform = raster.transform
    truth, step = read_truth(folder, transform)
    wanted = [tile for size in sizes_px for tile in _inner(shape, size, search_px)]
    centres = np.array([tile.centre_px for tile in wanted]).reshape(-1, 2)
    offsets = np.column_stack(
        [map_coordinates(band, centres.T[::-1] / step, order=1, cval=np.nan) for band in truth]
    )
    return [
        _tile_pair(whole, tile, (float(dx), float(dy)))
        for tile, (dx, dy) in zip(wanted, offsets, strict=True)
        if np.isfinite([dx, dy]).all()
    ]


def _inner(shape: tuple[int, int], size_px: int, search_px: int) -> list[Tile]:
    """Tiles whose search stays inside."""
    rows, cols = (length - 2 * search_px for length in shape)
    return [
        Tile(tile.row + search_px, tile.col + search_px, size_px)
        for tile in tiles((rows, cols), size_px=size_px, stride_px=STRIDE_PX)
    ]


def _tile_pair(whole: BenchmarkPair, tile: Tile, offset_px: tuple[float, float]) -> BenchmarkPair:
    return BenchmarkPair(
        name=f"{whole.name} {tile.size_px} r{tile.row} c{tile.col}",
        place=whole.place,
        reference=whole.reference,
        secondary=whole.secondary,
        dx_px=offset_px[0],
        dy_px=offset_px[1],
        tile=tile,
    )
