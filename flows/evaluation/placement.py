"""Where the templates of a pair are cut, and by which known extra shift its secondary is moved."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crosstie.errors import BadInputError
from crosstie.types import Tile

if TYPE_CHECKING:
    from crosstie.io.datasets.benchmark_pair import BenchmarkPair

CHIP_PX = 256
"""Up to this side a picture is a chip, which is cut at random; a larger one is cut at its centre."""

LARGEST_PX, SMALLEST_PX = 512, 32
"""Sides of a template that is chosen to fit."""

SPAN_PX = 768
"""Templates that begin in one cell of this side share one pass of the network, as in use."""

RIM_PX = 1
"""A true offset is kept this far from the end of the search: a peak needs neighbours on both sides."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """How templates are cut and searched."""

    search_px: int = 32
    """How far an offset may reach per axis, px."""
    sizes_px: tuple[int, ...] = ()
    """Sides of the templates; none: 192, 128 and 64 in scenes, and in pictures the largest that fits."""
    seed: int = 0
    """Of where templates are cut and how far the secondary is moved first."""


@dataclass(frozen=True, slots=True)
class Placement:
    """One template of one pair, and what is asked of the matcher there."""

    pair: BenchmarkPair
    tile: Tile
    shape: tuple[int, int]
    """(rows, cols) of the images."""
    shift_px: tuple[int, int]
    """Known extra shift (x, y) of the secondary: a matcher that always answers zero must not look good."""

    @property
    def true_px(self) -> tuple[float, float]:
        """Offset (x, y) that the matcher should find, px."""
        return self.pair.dx_px + self.shift_px[0], self.pair.dy_px + self.shift_px[1]


def place_templates(pairs: Sequence[BenchmarkPair], protocol: Protocol) -> list[list[Placement]]:
    """Choose the templates of every pair; those of one group are matched together.

    What is drawn depends on the seed and on the pair's name alone, not on which other pairs there are.

    Raises
    ------
    BadInputError
        A pair is too small, its images differ in size, or its offset is beyond the search.
    """
    cells: dict[tuple[Any, ...], list[BenchmarkPair]] = {}
    groups = []
    for pair in pairs:
        if pair.tile is None:
            shape = pair.shape()
            sizes = protocol.sizes_px or (_fitting_px(pair, shape, protocol.search_px),)
            groups += [[place_picture(pair, shape, size, protocol)] for size in sizes]
        else:
            cell = (pair.tile.size_px, pair.tile.row // SPAN_PX, pair.tile.col // SPAN_PX)
            cells.setdefault((pair.reference, pair.secondary, *cell), []).append(pair)
    shapes: dict[tuple[Path, Path], tuple[int, int]] = {}
    for members in cells.values():
        files = (members[0].reference, members[0].secondary)
        if files not in shapes:
            shapes[files] = members[0].shape()
        groups.append(place_tiles(members, shapes[files], protocol))
    return groups


def place_picture(pair: BenchmarkPair, shape: tuple[int, int], size_px: int, protocol: Protocol) -> Placement:
    """Choose where the template of one pair of pictures is cut.

    In a chip the template lies at random in the reference, and so does the search window in the secondary:
    their distance is the known shift, drawn evenly over the search. In a larger picture the template is cut
    at the centre and nothing is moved.

    Raises
    ------
    BadInputError
        The template does not fit, or the true offset cannot be reached.
    """
    search = protocol.search_px
    room = min(shape) - 2 * search
    if size_px > room:
        raise BadInputError(
            f"{pair.name}: a template of {size_px} px with {search} px of search on every side does not fit "
            f"its {shape[0]} x {shape[1]} px; at most {max(room, 0)} px do"
        )
    if min(shape) > CHIP_PX:
        furthest = max(abs(pair.dx_px), abs(pair.dy_px))
        if furthest > search:
            raise _beyond(pair, search)
        row, col = ((length - size_px) // 2 for length in shape)
        return Placement(pair, Tile(row, col, size_px), shape, (0, 0))
    rng = np.random.default_rng((protocol.seed, zlib.crc32(pair.name.encode()), size_px))
    starts, shifts = [], []
    for length, offset in zip(shape, (pair.dy_px, pair.dx_px), strict=True):
        least = max(-search, math.ceil(RIM_PX - search - offset))
        most = min(search, math.floor(search - RIM_PX - offset))
        if least > most:
            raise _beyond(pair, search)
        window = int(rng.integers(0, length - 2 * search - size_px + 1))
        shift = int(rng.integers(least, most + 1))
        starts.append(window + search + shift)
        shifts.append(shift)
    return Placement(pair, Tile(starts[0], starts[1], size_px), shape, (shifts[1], shifts[0]))


def place_tiles(
    pairs: Sequence[BenchmarkPair], shape: tuple[int, int], protocol: Protocol
) -> list[Placement]:
    """Move the secondary of neighbouring tiles of a scene by one known shift of up to half the search."""
    key = zlib.crc32(pairs[0].name.encode())
    rng = np.random.default_rng((protocol.seed, key))
    reach = protocol.search_px // 2
    shift = []
    for axis in ("dx_px", "dy_px"):
        offsets = [getattr(pair, axis) for pair in pairs]
        least = max(-reach, math.ceil(RIM_PX - protocol.search_px - min(offsets)))
        most = min(reach, math.floor(protocol.search_px - RIM_PX - max(offsets)))
        shift.append(int(rng.integers(least, most + 1)) if least <= most else 0)
    return [Placement(p, p.tile, shape, (shift[0], shift[1])) for p in pairs if p.tile is not None]


def _fitting_px(pair: BenchmarkPair, shape: tuple[int, int], search_px: int) -> int:
    """Side of the largest template that fits a picture with its search."""
    size = min(min(shape) - 2 * search_px, LARGEST_PX)
    if size < SMALLEST_PX:
        raise BadInputError(
            f"{pair.name}: {shape[0]} x {shape[1]} px leave no template of {SMALLEST_PX} px or more within "
            f"{search_px} px of search on every side; give larger images or a smaller --search-px"
        )
    return size


def _beyond(pair: BenchmarkPair, search_px: int) -> BadInputError:
    """The error for a true offset that the search cannot reach."""
    return BadInputError(
        f"{pair.name}: its true offset ({pair.dx_px:g}, {pair.dy_px:g}) px lies beyond the search of "
        f"{search_px} px; give a larger --search-px"
    )
