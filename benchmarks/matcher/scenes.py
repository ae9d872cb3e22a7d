"""The real images of the matcher's benchmarks, as planes and tiles to be found in them.

What the planes are: optical luminance 0..1, SAR in dB, as `crosstie.io.raster.values.plane.sar_plane` does.
Classical matchers get the SAR as it is stored, an amplitude: gradients of dB are mostly gradients of speckle
(the same tiles: 76 against 70 % within 1 px at 256 px), and mutual information does not mind.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from crosstie.flows.registration.load_matcher import keep_freed_memory
from crosstie.io.raster.values.plane import optical_plane, sar_plane
from crosstie.matcher.matching import Matcher

sys.path.append(str(Path(__file__).resolve().parents[1]))
from accuracy import at_nodes, truth_at, truth_field

__all__ = [
    "HELD_OUT_PLACES",
    "Chip",
    "Site",
    "amplitude",
    "load_on_one_thread",
    "luminance",
    "ombria_chips",
    "ombria_site",
    "parser_of",
    "picture_db",
    "read_picture",
    "sealed",
    "texas_bands",
    "texas_site",
    "truth_detail",
]

Plane = NDArray[np.float32]

BYTE = np.float32(1 / 255)

HELD_OUT_PLACES = ("p11", "p12")
"""Places of `sebast144` that the shipped weights never learnt from."""


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """Two planes on one grid and the tiles whose offset is asked for."""

    name: str
    place: str
    optical: Plane
    """(rows, cols), 0..1; NaN where there is no image."""
    sar_db: Plane
    """(rows, cols), dB; NaN where there is no image."""
    rows: NDArray[np.int64]
    """(N,) first row of each tile, px."""
    cols: NDArray[np.int64]
    """(N,) first column of each tile, px."""
    truth_px: NDArray[np.float64]
    """(N, 2) true offset (dx, dy)."""

    def tile(self, n: int, size_px: int) -> Plane:
        """Optical pixels of tile n, (size, size)."""
        row, col = self.rows[n], self.cols[n]
        return self.optical[row : row + size_px, col : col + size_px]

    def window_db(self, n: int, size_px: int, search_px: int) -> Plane:
        """SAR pixels that tile n is searched in, (size + 2 search, size + 2 search), dB."""
        row, col = self.rows[n] - search_px, self.cols[n] - search_px
        side = size_px + 2 * search_px
        return self.sar_db[row : row + side, col : col + side]

    def every(self, step: int) -> Site:
        """Only every `step`-th tile."""
        return replace(self, rows=self.rows[::step], cols=self.cols[::step], truth_px=self.truth_px[::step])


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Command line of a benchmark: where the images lie, and which weights are measured."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the folder with scenes/, pairs/ and chips/")
    parser.add_argument("--weights", type=Path, help="the shipped ones by default")
    return parser


def load_on_one_thread(weights: Path | None) -> Matcher:
    """Load the matcher as the programs do, but for one thread of a CPU: every method gets the same."""
    torch.set_num_threads(1)
    keep_freed_memory()
    return Matcher.load(weights, device="cpu")


def amplitude(sar_db: Plane) -> Plane:
    """Undo the logarithm of `sar_plane`: what 8-bit products store, 0 included."""
    return np.nan_to_num(10 ** (sar_db / 10), nan=0.0)


def texas_bands(folder: Path) -> tuple[Plane, Plane]:
    """Red, green and blue (3, rows, cols), 0..1, and the SAR amplitude (rows, cols) as delivered."""
    with rasterio.open(folder / "s2_tci.tif") as file:
        rgb = file.read().astype(np.float32) * BYTE
    with rasterio.open(folder / "s1_vh.tif") as file:
        sar = file.read(1).astype(np.float32)
    return rgb, sar


def texas_site(folder: Path, *, size_px: int, search_px: int, stride_px: int) -> Site:
    """All tiles of a regular lattice that fit with the search round them; truth bilinear at their centres."""
    rgb, sar = texas_bands(folder)
    starts = [np.arange(search_px, n - size_px - search_px + 1, stride_px) for n in sar.shape]
    rows, cols = (axis.ravel() for axis in np.meshgrid(*starts, indexing="ij"))
    truth = truth_at(folder, np.column_stack((cols, rows)) + size_px / 2)
    known = np.isfinite(truth).all(1)
    return Site(
        folder.name,
        "Texas",
        optical_plane(rgb),
        sar_plane(sar[None], is_db=False),
        rows[known],
        cols[known],
        truth[known],
    )


def truth_detail(folder: Path, px: NDArray[np.float64], *, smoothing_nodes: float) -> NDArray[np.float64]:
    """What the truth (N, 2) px at pixel positions (N, 2) has over the same field smoothed by a Gaussian."""
    field, step_px = truth_field(folder)
    smooth = np.stack([gaussian_filter(band, smoothing_nodes, mode="nearest") for band in field])
    detail: NDArray[np.float64] = at_nodes(field - smooth, px / step_px)
    return detail


@dataclass(frozen=True, slots=True, eq=False)
class Chip:
    """One pair of `ombria` and its offset as a classical dense matcher measured it."""

    name: str
    place: str
    role: str
    optical: Plane
    """(256, 256), near infrared, 0..1."""
    sar_db: Plane
    """(256, 256)"""
    offset_px: NDArray[np.float64]
    """(2,) dx, dy."""


def ombria_chips(folder: Path, *, role: str) -> list[Chip]:
    """Read the chips of a role whose own offset is trusted (`good`)."""
    with (folder / "offsets.csv").open(newline="") as file:
        wanted = [row for row in csv.DictReader(file) if row["role"] == role and row["good"] == "1"]
    return [
        Chip(
            row["chip"],
            row["place"],
            row["role"],
            luminance(read_picture(folder / f"{row['chip']}_s2_b08.jpg")),
            picture_db(read_picture(folder / f"{row['chip']}_s1.png")),
            np.array([float(row["dx_px"]), float(row["dy_px"])]),
        )
        for row in wanted
    ]


def ombria_site(chip: Chip, *, size_px: int, search_px: int, rng: np.random.Generator) -> Site:
    """Cut one tile from a chip so that its true offset is anywhere in the search, its window in the chip.

    The secondary is moved by a drawn number of whole pixels on a larger canvas, NaN round the chip. At 256 px
    no tile has its search inside the chip: what is missing would show at its outline where the tile belongs,
    so that size is refused.

    Raises
    ------
    ValueError
        The window does not fit in the chip.
    """
    side = chip.optical.shape[0]
    room = side - size_px - 2 * search_px
    if room < 0:
        raise ValueError(f"{size_px} px and {search_px} px of search on each side do not fit in {side} px")
    reach = search_px - 1  # a peak needs a neighbour
    move_x, move_y = (
        int(np.clip(round(rng.uniform(-reach, reach) - known), -search_px, search_px))
        for known in chip.offset_px
    )
    row, col = (_draw_start(rng, move, room, search_px, side - size_px) for move in (move_y, move_x))
    canvas = np.full((2, side + 2 * search_px, side + 2 * search_px), np.nan, np.float32)
    inside = slice(search_px, search_px + side)
    canvas[0, inside, inside] = chip.optical
    top, left = search_px + move_y, search_px + move_x
    canvas[1, top : top + side, left : left + side] = chip.sar_db
    return Site(
        chip.name,
        chip.place,
        canvas[0],
        canvas[1],
        np.array([row + search_px]),
        np.array([col + search_px]),
        chip.offset_px[None] + (move_x, move_y),
    )


def _draw_start(rng: np.random.Generator, move: int, room: int, search_px: int, last: int) -> int:
    """First pixel of the tile in the chip, such that its window lies in the chip moved by `move`."""
    return int(rng.integers(max(0, move + search_px), min(last, move + search_px + room) + 1))


def sealed(site: Site, *, size_px: int, search_px: int) -> Iterator[Site]:
    """Each tile as a site of its own that shows nothing outside tile and window.

    Dense features see past the tile's edge, which is their right in use; sealed, all methods see the same.
    """
    side = size_px + 2 * search_px
    inside = slice(search_px, search_px + size_px)
    for n in range(len(site.rows)):
        optical = np.full((side, side), np.nan, np.float32)
        optical[inside, inside] = site.tile(n, size_px)
        yield Site(
            site.name,
            site.place,
            optical,
            site.window_db(n, size_px, search_px),
            np.array([search_px]),
            np.array([search_px]),
            site.truth_px[n : n + 1],
        )


def read_picture(path: Path) -> Plane:
    """Bands (B, rows, cols) of a PNG or JPEG, 0..255."""
    pixels = np.atleast_3d(np.asarray(Image.open(path))).astype(np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def luminance(bands: Plane) -> Plane:
    """Optical plane (rows, cols), 0..1, of bands 0..255."""
    return optical_plane(bands * BYTE)


def picture_db(bands: Plane) -> Plane:
    """SAR plane (rows, cols) in dB of 8-bit bands (B, rows, cols), of which the first counts; 0 is NaN."""
    return sar_plane(bands[:1], is_db=False)
