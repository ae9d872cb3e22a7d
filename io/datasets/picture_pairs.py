"""Folders of aligned pictures without georeference: `s1/NAME.png` beside `s2/NAME.jpg`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from crosstie.errors import UnreadableRasterError
from crosstie.io.datasets.picture import BLACK_GREY
from crosstie.io.raster.values.plane import sar_plane

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif")


@dataclass(frozen=True, slots=True, eq=False)
class PicturePair:
    """Two pictures of one place, perhaps of two dates; their offset is not known."""

    place: str
    optical: NDArray[np.uint8]
    """(bands, rows, cols)"""
    sar_db: NDArray[np.float16]
    """(rows, cols), NaN where invalid"""


def read_picture_pairs(folder: Path) -> list[PicturePair]:
    """Read every pair of `folder`, each optical picture with the SAR pictures of all dates of its place.

    Names are `<date>_<place>`; a name without an underscore is a place of its own. The pictures of one place
    are taken to lie on one grid, so its dates are interchangeable: twelve dates make 144 pairs.

    Raises
    ------
    UnreadableRasterError
        No pair in the folder, a picture that cannot be read, or two sizes at one place.
    """
    sar = {path.stem: path for path in _pictures(folder / "s1")}
    optical = {path.stem: path for path in _pictures(folder / "s2")}
    stems = sorted(sar.keys() & optical.keys())
    if not stems:
        raise UnreadableRasterError(f"{folder}: no name is both in s1/ and in s2/; nothing to pair")
    # Decoded once, shared by all the pairs they are in.
    sar_of = {stem: _decibel(sar[stem]) for stem in stems}
    optical_of = {s: _read_bands(optical[s]) for s in stems}
    pairs = []
    for stem in stems:
        for other in stems:
            if _place(stem) != _place(other):
                continue
            if optical_of[stem].shape[1:] != sar_of[other].shape:
                raise UnreadableRasterError(
                    f"{folder}: {stem} has {optical_of[stem].shape[1:]} px and {other} has "
                    f"{sar_of[other].shape}; pictures of one place must have one size"
                )
            pairs.append(PicturePair(_place(stem), optical_of[stem], sar_of[other]))
    return pairs


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES)


def _place(stem: str) -> str:
    return stem.rpartition("_")[2]


def _decibel(path: Path) -> NDArray[np.float16]:
    """Of 8-bit pictures, whose black is the dark end of a stretch and not missing."""
    grey = np.maximum(_read_bands(path)[:1].astype(np.float32), BLACK_GREY)
    return sar_plane(grey, is_db=False).astype(np.float16)


def _read_bands(path: Path) -> NDArray[np.uint8]:
    """All bands of a picture, three at most: (bands, rows, cols)."""
    try:
        pixels = np.asarray(Image.open(path))
    except (OSError, UnidentifiedImageError) as error:
        raise UnreadableRasterError(f"{path}: not a readable picture ({error})") from error
    bands: NDArray[np.uint8] = np.atleast_3d(pixels).transpose(2, 0, 1)[:3].astype(np.uint8)
    return bands
