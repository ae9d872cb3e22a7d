"""The same correlation as `correlate`, for many overlapping tiles at once.

A template's correlation is the sum of those of the cells it is made of, and tiles that overlap share cells:
with 192-px tiles every 64 px, nine tiles share each. So every 64-px cell is transformed once, at a quarter of
the transform's size, and the window means come from one integral image.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from crosstie.matcher.correlate import box_sums

CELL_PX = 64
"""Side of a cell. A tile side that is a multiple of it can be assembled."""

CELLS_AT_ONCE = 4
"""Cells transformed at once: larger batches do not fit the cache and were slower."""


def shares_cells(rows: list[int], cols: list[int], size_px: int, search_px: int) -> bool:
    """Whether the tiles overlap so much that transforming their cells costs less than transforming them."""
    cells = {place for row, col in zip(rows, cols, strict=True) for place in _cells_of(row, col, size_px)}
    side, cell_side = size_px + 2 * search_px, CELL_PX + 2 * search_px
    return len(cells) * cell_side**2 < len(rows) * side**2


def _cells_of(row: int, col: int, size_px: int) -> list[tuple[int, int]]:
    """First pixels of the cells that a tile is made of."""
    steps = range(0, size_px, CELL_PX)
    return [(row + i, col + j) for i in steps for j in steps]


def correlate_tiles(
    reference: Tensor, secondary: Tensor, rows: list[int], cols: list[int], *, size_px: int, search_px: int
) -> Tensor:
    """Zero-mean normalised cross-correlation of each tile; all pixels valid.

    Parameters
    ----------
    reference, secondary : Tensor
        (C, H, W) features.
    rows, cols : list[int]
        First pixel of each of N tiles, at least `search_px` from every edge.
    size_px : int
        Side of the tiles, a multiple of `CELL_PX`.

    Returns
    -------
    Tensor
        (N, 2 search + 1, 2 search + 1), equal to `correlate.correlate` up to rounding.
    """
    if size_px % CELL_PX:
        raise ValueError(f"tiles of {size_px} px are not made of cells of {CELL_PX} px")
    # Constants drop out of the result; without them the sums stay small enough for float32.
    means = reference.mean(dim=(1, 2)), secondary.mean(dim=(1, 2))
    of_tile = [_cells_of(row, col, size_px) for row, col in zip(rows, cols, strict=True)]
    places = sorted({place for cells in of_tile for place in cells})
    index = {place: n for n, place in enumerate(places)}
    member = torch.tensor([[index[place] for place in cells] for cells in of_tile])

    products, sums, energies = _cells(reference, secondary, means, places, search_px)
    n = size_px**2
    mean = sums[member].sum(1) / n  # (N, C)
    template_energy = energies[member].sum(1) - n * mean.square().sum(1)
    top = products[member].sum(1)
    windows = _windows(secondary, means[1], rows, cols, size_px, search_px)
    search_energy = next(windows)
    for channel, window_sum in enumerate(windows):
        top.addcmul_(mean[:, channel, None, None], window_sum, value=-1)
        search_energy.addcmul_(window_sum, window_sum, value=-1 / n)
    floor = 1e-5 * reference.shape[0] * n  # as in `correlate`
    return top / torch.sqrt(template_energy.clamp_min(floor)[:, None, None] * search_energy.clamp_min(floor))


def _cells(
    reference: Tensor,
    secondary: Tensor,
    means: tuple[Tensor, Tensor],
    places: list[tuple[int, int]],
    search_px: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each cell: raw correlation (M, 2R + 1, 2R + 1), sum (M, C) and energy (M,) of its pixels."""
    side = CELL_PX + 2 * search_px
    shifts = 2 * search_px + 1
    whole = (next_fast_len(side, real=True),) * 2
    off = [mean[:, None, None] for mean in means]
    # Filled in place: small results kept among large temporary ones would leave holes of 100 MB in the heap.
    products = reference.new_empty(len(places), shifts, shifts)
    sums, energies = reference.new_empty(len(places), len(reference)), reference.new_empty(len(places))
    for start in range(0, len(places), CELLS_AT_ONCE):
        here = slice(start, start + CELLS_AT_ONCE)
        batch = places[here]
        cell = torch.stack([reference[:, r : r + CELL_PX, c : c + CELL_PX] for r, c in batch]).sub_(off[0])
        window = torch.stack(
            [secondary[:, r - search_px :, c - search_px :][:, :side, :side] for r, c in batch]
        ).sub_(off[1])
        spectrum = torch.fft.rfft2(cell, s=whole).conj() * torch.fft.rfft2(window, s=whole)
        products[here] = torch.fft.irfft2(spectrum.sum(1), s=whole)[:, :shifts, :shifts]
        sums[here] = cell.sum((2, 3))
        energies[here] = cell.square().sum((1, 2, 3))
    return products, sums, energies


def _windows(
    secondary: Tensor, means: Tensor, rows: list[int], cols: list[int], size_px: int, search_px: int
) -> Iterator[Tensor]:
    """Of each window of each tile (N, 2R + 1, 2R + 1): its energy, then its sum channel by channel.

    One channel at a time fits the cache, and never are all of them in memory twice. float32 is enough: with
    the means taken out, an integral image over a chunk stays below 1e8, and the last digit of that is a
    millionth of a window's energy.
    """
    first = torch.tensor(rows) - search_px, torch.tensor(cols) - search_px
    shifts = 2 * search_px + 1

    def of_tiles(plane: Tensor) -> Tensor:
        """Sums of the windows of all tiles."""
        every = box_sums(plane, size_px)
        windows: Tensor = every.unfold(0, shifts, 1).unfold(1, shifts, 1)[first]
        return windows

    energy = torch.zeros_like(secondary[0])
    for channel, mean in zip(secondary, means, strict=True):
        energy += (channel - mean).square_()
    yield of_tiles(energy)
    for channel, mean in zip(secondary, means, strict=True):
        yield of_tiles(channel - mean)
