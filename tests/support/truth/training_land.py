"""A small scene whose two images show the same texture at a known offset: what a matcher must learn first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from PIL import Image
from scipy.ndimage import gaussian_filter

from crosstie.matcher.training.samples import TrainingScene
from crosstie.matcher.training.unlabelled import UnlabelledScene


def shifted_scene(dx: int, dy: int, *, side: int = 640, seed: int = 0) -> TrainingScene:
    rng = np.random.default_rng(seed)
    land = gaussian_filter(rng.normal(size=(side + 100, side + 100)), 3)
    land = (land - land.mean()) / land.std()
    optical = np.clip(120 + 40 * land[50 : 50 + side, 50 : 50 + side], 0, 255).astype(np.uint8)
    # What the optical shows at (x, y), the SAR shows at (x + dx, y + dy).
    sar = land[50 - dy : 50 - dy + side, 50 - dx : 50 - dx + side] * 3 - 12
    nodes = side // 32 + 1
    truth = np.broadcast_to(np.array([dx, dy], np.float32)[:, None, None], (2, nodes, nodes)).copy()
    return TrainingScene(
        optical_rgb=np.stack([optical] * 3),
        optical_valid=np.ones((side, side), bool),
        sar_db=sar.astype(np.float16),
        truth_px=truth,
        truth_step_px=32.0,
        centres_px=np.array([[side / 2, side / 2]]),
    )


def unlabelled_scene(dx: int, dy: int, *, side: int = 256, seed: int = 1) -> UnlabelledScene:
    """The same kind of land, and nobody is told the offset."""
    scene = shifted_scene(dx, dy, side=side, seed=seed)
    return UnlabelledScene(scene.optical_rgb, scene.optical_valid, scene.sar_db, scene.centres_px)


HEADER = "x_px,y_px,residual_dx_px,residual_dy_px,peak,peak_ratio\n"


def write_scene(folder: Path, *, west_m: float, tiles: str = "192,192,0.1,-0.2,0.3,1.6\n") -> Path:
    """One scene of 640 x 640 px whose SAR is off by (5, -3) px."""
    folder.mkdir(parents=True)
    scene = shifted_scene(5, -3)
    grid = Affine(10, 0, west_m, 0, -10, 4_000_000)
    amplitude = 10 ** (scene.sar_db.astype(np.float32) / 10)
    amplitude = np.clip(np.rint(amplitude * 400), 1, 255).astype(np.uint8)
    nodes = grid @ Affine.scale(32) @ Affine.translation(-0.5, -0.5)
    for name, bands, transform in (
        ("s1_vh", amplitude[None], grid),
        ("s2_tci", scene.optical_rgb, grid),
        ("truth_offsets", scene.truth_px, nodes),
    ):
        profile = {"driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
        profile |= {"dtype": bands.dtype, "crs": "EPSG:3395", "transform": transform}
        with rasterio.open(folder / f"{name}.tif", "w", **profile) as file:
            file.write(bands)
    (folder / "tiles.csv").write_text(HEADER + tiles)
    return folder


def write_pictures(folder: Path, *, places: int = 2, side: int = 256) -> Path:
    """Pairs of 8-bit pictures, one a place."""
    for name in ("s1", "s2"):
        (folder / name).mkdir(parents=True)
    for place in range(places):
        scene = unlabelled_scene(3, -2, side=side, seed=place)
        amplitude = np.clip(400 * 10 ** (scene.sar_db.astype(np.float32) / 10), 1, 255).astype(np.uint8)
        Image.fromarray(amplitude).save(folder / "s1" / f"Jan_p{place}.png")
        Image.fromarray(scene.optical.transpose(1, 2, 0).copy()).save(folder / "s2" / f"Jan_p{place}.png")
    return folder
