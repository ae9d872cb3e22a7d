"""Tiles mined from the pairs of a catalog: one file per pair, so that a resumed run reads no raster twice."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crosstie.errors import BadInputError

MINING_INDEX = "index.json"
"""Name of the file that lists the pairs and says how they were mined."""


@dataclass(frozen=True, slots=True, eq=False)
class MinedTiles:
    """N tiles of one pair, all of one size, on the common grid."""

    optical: NDArray[np.uint8]
    """(N, bands, side, side)"""
    optical_valid: NDArray[np.bool_]
    """(N, side, side)"""
    sar_db: NDArray[np.float16]
    """(N, side, side), NaN where invalid"""
    offset_px: NDArray[np.float32]
    """(N, 2) x, y of tiles that a matcher labelled; NaN where nobody knows"""
    note: str = ""
    """Why the pair gave no tile, or that its coarse offset was taken off."""

    def __len__(self) -> int:
        return len(self.optical)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(N,) whether a matcher was sure of the offset."""
        return np.asarray(np.isfinite(self.offset_px).all(axis=1))

    @classmethod
    def none(cls, note: str) -> MinedTiles:
        """No tile, and why."""
        return cls(
            np.zeros((0, 1, 1, 1), np.uint8),
            np.zeros((0, 1, 1), np.bool_),
            np.zeros((0, 1, 1), np.float16),
            np.zeros((0, 2), np.float32),
            note,
        )


def tiles_path(folder: Path, pair_key: str) -> Path:
    """Path of the tiles of one pair."""
    return folder / f"{pair_key}.npz"


def write_mined(path: Path, tiles: MinedTiles) -> None:
    """Write the tiles of one pair; a file is complete once it has its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(
            file,
            optical=tiles.optical,
            optical_valid=tiles.optical_valid,
            sar_db=tiles.sar_db,
            offset_px=tiles.offset_px,
            note=np.array(tiles.note),
        )
    partial.replace(path)


def read_mined(path: Path) -> MinedTiles:
    """Read the tiles of one pair.

    Raises
    ------
    BadInputError
        No such file, or not written by `write_mined`.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return MinedTiles(
                file["optical"], file["optical_valid"], file["sar_db"], file["offset_px"], str(file["note"])
            )
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BadInputError(
            f"{path}: mined tiles cannot be read ({error}); remove it to mine again"
        ) from error


def write_mining_index(folder: Path, index: dict[str, Any]) -> None:
    """Write which pairs were mined, and how."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{MINING_INDEX}.partial"
    partial.write_text(json.dumps(index, indent=1))
    partial.replace(folder / MINING_INDEX)


def read_mining_index(folder: Path) -> dict[str, Any] | None:
    """Read what `write_mining_index` wrote; None where nothing was mined yet.

    Raises
    ------
    BadInputError
        The file is broken.
    """
    path = folder / MINING_INDEX
    if not path.exists():
        return None
    try:
        index: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise BadInputError(f"{path}: cannot be read ({error}); remove {folder} to mine again") from error
    return index
