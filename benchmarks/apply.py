"""Aligned pixels: wall, CPU and memory of `write_aligned`, each size in a process of its own.

    python benchmarks/apply.py [--sizes 5490 10980 21960] [--resampling cubic] [--dtype uint16] [--holes]

The source is a deflated GeoTIFF, the mapping a displacement field; `--holes` makes a tenth of it nodata.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from crosstie.codes import Kernel
from crosstie.flows.heap import return_freed_memory
from crosstie.io.products.aligned import write_aligned
from crosstie.io.products.displacement import DISPLACEMENT, displacement_cog, read_displacement
from crosstie.io.products.mapping import Mapping
from crosstie.io.storage.store import open_store
from crosstie.types import DisplacementField

CRS = "EPSG:32633"
GROUND = Affine(10, 0, 300_000, 0, -10, 5_100_000)
NODE_PX = 32
"""Between nodes of a field, as `register` writes it for scenes over 4096 px: four to a tile stride of 128."""


def make_source(path: Path, size: int, dtype: str, *, holes: bool) -> None:
    """Write a raster of noise, smoothed a little, a row of tiles at a time."""
    rng = np.random.default_rng(0)
    profile = {"height": size, "width": size, "count": 1, "dtype": dtype, "crs": CRS, "transform": GROUND}
    with rasterio.open(
        path, "w", driver="GTiff", tiled=True, blockxsize=512, blockysize=512, nodata=0,
        compress="deflate", predictor=2, zlevel=1, **profile,
    ) as raster:  # fmt: skip
        for row in range(0, size, 512):
            height = min(512, size - row)
            band = rng.integers(200, 3000, (height, size)).astype(np.float32)
            band = (band + np.roll(band, 1, 1) + np.roll(band, 1, 0)) / 3
            if holes:
                band[:, rng.random(size) < 0.1] = 0
            raster.write(band.astype(dtype), 1, window=Window(0, row, size, height))


def field(size: int) -> DisplacementField:
    """Offsets of a few pixels that change over some kilometres, as over relief."""
    nodes = size // NODE_PX
    transform = GROUND @ Affine.scale(NODE_PX)
    y, x = np.mgrid[0:nodes, 0:nodes] + 0.5
    dx_m = 20 + 15 * np.sin(x / 36) * np.cos(y / 28)
    dy_m = -12 + 10 * np.cos(x / 32)
    return DisplacementField(GeoBox(dx_m.shape, transform, CRS), dx_m, dy_m, np.ones_like(dx_m))


def measure(size: int, resampling: str, dtype: str, *, holes: bool) -> dict[str, float | int | str]:
    """Run once in this process; memory is the peak of the whole process, Python and libraries included."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.tif"
        subprocess.run(  # in another process, so that its memory is not counted
            [sys.executable, __file__, "--make", str(source), "--sizes", str(size), "--dtype", dtype]
            + (["--holes"] if holes else []),
            check=True,
        )
        return_freed_memory()  # as `crosstie apply` does
        mapping = Mapping(CRS, field=read_displacement(source.with_name(DISPLACEMENT)))
        grid = GeoBox((size, size), GROUND, CRS)
        store = open_store(folder)
        began, cpu = time.perf_counter(), time.process_time()
        done = write_aligned(
            source, store, "aligned.tif", grid=grid, mapping=mapping, resampling=Kernel(resampling)
        )
        return {
            "size": size,
            "resampling": resampling,
            "dtype": dtype,
            "wall_s": round(time.perf_counter() - began, 1),
            "cpu_s": round(time.process_time() - cpu, 1),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "output_mib": done.size_bytes // 2**20,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5490, 10980, 21960])
    parser.add_argument("--resampling", default="cubic")
    parser.add_argument("--dtype", default="uint16")
    parser.add_argument("--holes", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.make:
        make_source(asked.make, asked.sizes[0], asked.dtype, holes=asked.holes)
        asked.make.with_name(DISPLACEMENT).write_bytes(displacement_cog(field(asked.sizes[0])))
        return
    if asked.one:
        print(json.dumps(measure(asked.sizes[0], asked.resampling, asked.dtype, holes=asked.holes)))
        return
    for size in asked.sizes:
        again = [*sys.argv[1:], "--one", "--sizes", str(size)]
        subprocess.run([sys.executable, __file__, *again], check=True)


if __name__ == "__main__":
    main()
