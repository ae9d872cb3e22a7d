"""`crosstie register` as users run it: wall, CPU and memory of the whole process, by size of the scene.

    python benchmarks/register.py ../shared/data/scenes/T14RNT-2048 [--sizes 2048 10980] [--stride 128]

A larger scene is the real one mirrored at its edges; its secondary is the refined image, as a mirrored offset
points the other way. One JSON object a size, medians over the runs; then the exponent of time against pixels.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

REFERENCE, SECONDARY = "s2_tci.tif", "s1_vh_refined.tif"
BLOCK_PX = 512


def mirrored(source: Path, target: Path, size: int) -> None:
    """Write a raster of `size` x `size` px from the pixels of a smaller one, mirrored again and again."""
    with rasterio.open(source) as small:
        pixels = small.read()
        profile = {name: small.profile[name] for name in ("count", "dtype", "nodata", "crs", "transform")}
    rows, cols = (
        np.pad(np.arange(side), (0, max(size - side, 0)), mode="symmetric")[:size]
        for side in pixels.shape[1:]
    )
    with rasterio.open(
        target, "w", driver="GTiff", height=size, width=size, compress="deflate", zlevel=1,
        tiled=True, blockxsize=BLOCK_PX, blockysize=BLOCK_PX, **profile,
    ) as raster:  # fmt: skip
        for begin in range(0, size, BLOCK_PX):
            part = rows[begin : begin + BLOCK_PX]
            raster.write(pixels[:, part][:, :, cols], window=Window(0, begin, size, len(part)))


def run_once(folder: Path, settings: dict[str, str]) -> dict[str, float]:
    """Run `crosstie register` in a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        began = time.perf_counter()
        rasters = [folder / REFERENCE, folder / SECONDARY]
        process = subprocess.Popen(
            [sys.executable, "-m", "crosstie", "register", *rasters, "--out", out, "--json"],
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 3):
        raise SystemExit(f"crosstie register ended with exit code {code}")
    return {
        "wall_s": wall_s,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mib": used.ru_maxrss / 1024,
        "tiles": json.loads(said)["tie_points"]["planned"],
    }


def main() -> None:
    """Measure each size, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 5490, 10980])
    parser.add_argument("--stride", type=int, help="px between tiles; by default as the program chooses")
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    settings = {} if asked.stride is None else {"CROSSTIE_TILES__STRIDE_PX": str(asked.stride)}
    medians = []
    for size in asked.sizes:
        with tempfile.TemporaryDirectory() as name:
            for raster in (REFERENCE, SECONDARY):
                mirrored(asked.scene / raster, Path(name) / raster, size)
            runs = [run_once(Path(name), settings) for _ in range(asked.runs)]
        medians.append(
            {"size": size, **{key: statistics.median(run[key] for run in runs) for key in runs[0]}}
        )
        print(json.dumps({key: round(value, 2) for key, value in medians[-1].items()}), flush=True)
    for first, last in itertools.pairwise(medians):
        pixels = 2 * math.log(last["size"] / first["size"])
        exponents = {key: round(math.log(last[key] / first[key]) / pixels, 3) for key in ("wall_s", "cpu_s")}
        print(json.dumps({"sizes": [first["size"], last["size"]], "exponent": exponents}))


if __name__ == "__main__":
    main()
