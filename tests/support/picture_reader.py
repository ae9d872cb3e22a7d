"""A matcher for the tests of the cluster: it reads its offsets off the pixels, and writes down what it did.

It can be slow, and it can die of a picture: what a cluster does then is what is tested.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from crosstie.config import Settings, load_settings
from crosstie.flows.registration.plan import TilePlan, plan_pair
from crosstie.io.raster import open_pair
from crosstie.types import Kind

Plane = NDArray[np.float32]

TILE_PX = 64
DEADLY = 0.9
"""A pixel as bright as this kills the worker that matches it. A plausible reflectance: others are invalid."""

SETTINGS = load_settings(
    options={
        "tiles.size_px": TILE_PX,
        "tiles.stride_px": TILE_PX,
        "tiles.search_px": 4,
        "tiles.coarse_max_offset_m": 0,
        "compute.chunk_px": 2 * TILE_PX,
        "compute.worker_timeout_s": 60,
    }
)


@dataclass(frozen=True, slots=True)
class Read:
    offset_px: NDArray[np.float64]
    sigma_px: NDArray[np.float64]
    confidence: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PictureReader:
    """The offset of a tile is told by the brightness of both pictures there: no two tiles have the same."""

    journal: Path
    seconds: float = 0.0
    weights_sha256: str = "be" * 32
    halo_px: int = 0

    def match(
        self,
        reference: Plane,
        secondary: Plane,
        rows: NDArray[np.int64],
        cols: NDArray[np.int64],
        *,
        size_px: int,
        search_px: int,
        reference_kind: Kind,
        secondary_kind: Kind,
    ) -> Read:
        del search_px, reference_kind, secondary_kind
        # A line is written whole: several processes write to one file.
        note(self.journal, window=float(np.nansum(reference[rows[0] :, cols[0] :], dtype=np.float64)))
        time.sleep(self.seconds)
        if np.nanmax(reference) >= DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        spots = [np.s_[row : row + size_px, col : col + size_px] for row, col in zip(rows, cols, strict=True)]
        offset = [(4 * reference[spot].mean(), -3 * secondary[spot].mean()) for spot in spots]
        count = len(rows)
        return Read(np.array(offset, np.float64), np.full(count, 0.1), np.full(count, 0.9))

    def offset_probability(
        self,
        reference: Plane,
        secondary: Plane,
        *,
        search_px: int,
        reference_kind: Kind,
        secondary_kind: Kind,
    ) -> Plane:
        raise NotImplementedError


def load(journal: Path, *, seconds: float = 0.0, broken: Path | None = None) -> PictureReader:
    """Load the matcher into a worker; where the file `broken` is, that fails."""
    note(journal, loaded=True)
    if broken is not None and broken.exists():
        raise RuntimeError("no CUDA-capable device is detected")
    return PictureReader(journal, seconds)


def loader(journal: Path, *, seconds: float = 0.0, broken: Path | None = None) -> Callable[[], PictureReader]:
    return partial(load, journal, seconds=seconds, broken=broken)


def note(journal: Path, **what: object) -> None:
    line = json.dumps({"pid": os.getpid(), **what}) + "\n"
    with journal.open("ab", buffering=0) as file:
        file.write(line.encode())


@dataclass(frozen=True, slots=True)
class Journal:
    """What the matchers of all workers did, in order."""

    path: Path

    @property
    def loads(self) -> int:
        return sum("loaded" in entry for entry in self._entries())

    @property
    def windows(self) -> list[tuple[float, int]]:
        """(window, process) of each window that was begun."""
        return [(entry["window"], entry["pid"]) for entry in self._entries() if "window" in entry]

    @property
    def processes(self) -> set[int]:
        return {pid for _, pid in self.windows}

    @property
    def repeated(self) -> set[float]:
        return {
            window for window, times in Counter(window for window, _ in self.windows).items() if times > 1
        }

    def _entries(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []


def write_picture(path: Path, *, size_px: int = 768, seed: int = 0, deadly: bool = False) -> Path:
    """Noise, 0.1..0.6; with a deadly pixel in its middle where that is wanted."""
    rng = np.random.default_rng(seed)
    plane = rng.uniform(0.1, 0.6, (size_px, size_px)).astype(np.float32)
    if deadly:
        plane[size_px // 2, size_px // 2] = DEADLY
    profile = {
        "driver": "GTiff", "dtype": "float32", "count": 1, "height": size_px, "width": size_px,
        "crs": "EPSG:32632", "transform": Affine(10, 0, 600_000, 0, -10, 5_300_000), "nodata": float("nan"),
        "tiled": True, "blockxsize": 256, "blockysize": 256,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(plane, 1)
    return path


def planned(folder: Path, *, seed: int = 0, size_px: int = 768, deadly: bool = False) -> TilePlan:
    """A pair of 36 windows with four tiles each."""
    reference = write_picture(folder / f"a{seed}.tif", size_px=size_px, seed=seed, deadly=deadly)
    secondary = write_picture(folder / f"b{seed}.tif", size_px=size_px, seed=seed + 1000)
    sources = open_pair(reference, secondary, reference_kind=Kind.OPTICAL, secondary_kind=Kind.OPTICAL)
    return plan_pair(*sources, SETTINGS)


def with_compute(settings: Settings = SETTINGS, **compute: object) -> Settings:
    return settings.model_copy(update={"compute": settings.compute.model_copy(update=compute)})
