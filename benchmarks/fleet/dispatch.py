"""What it costs to send tiles to the workers and have the tie points back, with a matcher that does nothing.

    python benchmarks/fleet/dispatch.py [--tiles 5000] [--runs 3] [--cluster tcp://host:8786]

On a small raster, so that reading costs little: what is timed is Dask and what crosstie does round it. One
reader and one matcher, as by default.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from crosstie.config import load_settings
from crosstie.flows.cluster.connect import OnCluster, connected
from crosstie.flows.registration.measure import MatchJob
from crosstie.grid import Chunk, chunks, tiles
from crosstie.io.raster import open_pair
from crosstie.types import Kind

Plane = NDArray[np.float32]

TILE_PX = STRIDE_PX = 8


@dataclass(frozen=True, slots=True)
class Found:
    offset_px: NDArray[np.float64]
    sigma_px: NDArray[np.float64]
    confidence: NDArray[np.float64]


class Instant:
    """A matcher that returns at once."""

    weights_sha256 = "00" * 32
    halo_px = 0

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
    ) -> Found:
        del reference, secondary, cols, size_px, search_px, reference_kind, secondary_kind
        return Found(np.zeros((len(rows), 2)), np.ones(len(rows)), np.ones(len(rows)))

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


def job_of(folder: Path, side_px: int) -> MatchJob:
    """A pair of one raster with itself."""
    path = folder / "picture.tif"
    profile = {
        "driver": "GTiff", "dtype": "float32", "count": 1, "height": side_px, "width": side_px,
        "crs": "EPSG:32632", "transform": Affine(10, 0, 600_000, 0, -10, 5_300_000),
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(np.random.default_rng(0).uniform(0.1, 0.6, (side_px, side_px)).astype(np.float32), 1)
    sources = open_pair(path, path, reference_kind=Kind.OPTICAL, secondary_kind=Kind.OPTICAL)
    return MatchJob(*sources, sources[0].geobox, search_px=4, coarse_search_px=0)


def seconds(engine: OnCluster, job: MatchJob, work: list[Chunk]) -> float:
    begin = time.perf_counter()
    found = sum(len(points) for _, points in engine.match(job, work))
    took = time.perf_counter() - begin
    wanted = sum(len(chunk.tiles) for chunk in work)
    if found != wanted:
        raise RuntimeError(f"{found} of {wanted} tiles came back")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=3, help="the least of so many is told")
    parser.add_argument("--cluster", default="local")
    arguments = parser.parse_args()
    per_side = math.ceil(math.sqrt(arguments.tiles))
    settings = load_settings(options={"compute.cluster": arguments.cluster})
    with tempfile.TemporaryDirectory() as folder, connected(settings.compute, Instant) as client:
        job = job_of(Path(folder), per_side * TILE_PX)
        every = list(tiles(job.grid.shape, size_px=TILE_PX, stride_px=STRIDE_PX))[: arguments.tiles]
        engine = OnCluster(client)
        print("tiles  windows  tiles/window  seconds  ms/tile  ms/window")
        for tiles_per_side in (12, 4, 1):  # 12: what a window of 768 px holds at the default stride of 64
            work = chunks(every, span_px=tiles_per_side * STRIDE_PX)
            took = min(seconds(engine, job, work) for _ in range(arguments.runs))
            print(
                f"{len(every):5}  {len(work):7}  {len(every) / len(work):12.1f}  {took:7.2f}  "
                f"{1000 * took / len(every):7.3f}  {1000 * took / len(work):9.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
