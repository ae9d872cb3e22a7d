"""A small scene whose two images show the same texture at a known offset: what a matcher must learn first."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from crosstie.matcher.samples import TrainingScene


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
