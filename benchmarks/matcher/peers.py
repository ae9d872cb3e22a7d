"""Other programs as matchers of a whole scene; each runs where its command is installed.

pandora2d (CNES, Apache-2.0) installs with pip: `pip install pandora2d` in an environment of its own, then
`--pandora2d PATH_OF_ITS_COMMAND`. It correlates gradient images (ZNCC) at a lattice of points and refines the
peak by dichotomy.

AROSICS 1.x is not here: pip finds no wheel of its dependency GDAL and cannot build it without the native
library. Where it was tried with it, it found no valid tie point on the Texas pair (0 of 1,089 windows); its
maintainer says that it is not meant for SAR against optical.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import numpy as np
import rasterio
from classical import gradient
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from scenes import Site, amplitude

PANDORA2D = "pandora2d"


def find_pandora2d(command: Path | None) -> str | None:
    """Path of the command, or None where it is not installed."""
    return shutil.which(str(command or PANDORA2D))


def pandora2d(command: str, site: Site, *, size_px: int, search_px: int) -> tuple[NDArray[np.float64], float]:
    """Offsets (N, 2) of a site's lattice of tiles, NaN where it gives none, and the CPU seconds it took.

    Its windows have an odd side: one pixel less than the tile.
    """
    rows, cols = (np.unique(starts) for starts in (site.rows, site.cols))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side, plane in (("left", site.optical), ("right", amplitude(site.sar_db))):
            _write(folder / f"{side}.tif", gradient(plane))
        settings = _settings(folder, rows, cols, size_px=size_px, search_px=search_px)
        (folder / "settings.json").write_text(json.dumps(settings))
        before = _cpu_of_children()
        subprocess.run(
            [command, folder / "settings.json"],
            check=True,
            capture_output=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        seconds = _cpu_of_children() - before
        maps = [_read(folder / "out" / "disparity_map" / f"{axis}_map.tif") for axis in ("col", "row")]
    at = np.searchsorted(rows, site.rows), np.searchsorted(cols, site.cols)
    return np.column_stack([found[at] for found in maps]).astype(np.float64), seconds


def _settings(
    folder: Path, rows: NDArray[np.int64], cols: NDArray[np.int64], *, size_px: int, search_px: int
) -> dict[str, object]:
    """Settings of pandora2d for tiles that begin at the given rows and columns."""
    roi = {
        name: {"first": int(starts[0]) + size_px // 2, "last": int(starts[-1]) + size_px // 2}
        for name, starts in (("row", rows), ("col", cols))
    }
    search = {"init": 0, "range": search_px}
    return {
        "input": {
            "left": {"img": str(folder / "left.tif"), "nodata": -9999},
            "right": {"img": str(folder / "right.tif"), "nodata": -9999},
            "col_disparity": search,
            "row_disparity": search,
        },
        "ROI": roi,
        "pipeline": {
            "matching_cost": {
                "matching_cost_method": "zncc",
                "window_size": size_px - 1,
                "step": [int(starts[1] - starts[0]) for starts in (rows, cols)],
            },
            "disparity": {"disparity_method": "wta", "invalid_disparity": "NaN"},
            "refinement": {
                "refinement_method": "dichotomy",
                "iterations": 5,
                "filter": {"method": "bicubic"},
            },
        },
        "output": {"path": str(folder / "out")},
    }


def _write(path: Path, plane: NDArray[np.float32]) -> None:
    profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "transform": rasterio.Affine.scale(10, -10)}
    with rasterio.open(path, "w", height=plane.shape[0], width=plane.shape[1], **profile) as file:
        file.write(plane.astype(np.float32), 1)


def _read(path: Path) -> NDArray[np.float32]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a lattice of points has no place
        with rasterio.open(path) as file:
            band: NDArray[np.float32] = file.read(1)
    return band


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
