"""Mined tiles on disk as the scenes that training draws its samples from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crosstie.io.datasets.mined import MinedTiles, read_mined, tiles_path
from crosstie.matcher.training.samples import TrainingScene
from crosstie.matcher.training.unlabelled import UnlabelledScene

if TYPE_CHECKING:
    from crosstie.types import FloatArray

LABEL_NODE_PX = 32
"""Spacing of the constant truth of a labelled tile."""


def read_mined_scenes(
    folder: Path, keys: Sequence[str], *, with_labels: bool
) -> tuple[list[TrainingScene], list[UnlabelledScene]]:
    """Turn the tiles on disk into scenes to draw samples from: labelled by a matcher, and not labelled."""
    labelled: list[TrainingScene] = []
    unlabelled: list[UnlabelledScene] = []
    for key in keys:
        mined = read_mined(tiles_path(folder, key))
        for n in range(len(mined)):
            if with_labels and mined.labelled[n]:
                labelled.append(_labelled_scene(mined, n))
            else:
                unlabelled.append(
                    UnlabelledScene(
                        mined.optical[n],
                        mined.optical_valid[n],
                        mined.sar_db[n],
                        _middle(mined.sar_db[n].shape),
                    )
                )
    return labelled, unlabelled


def _labelled_scene(mined: MinedTiles, n: int) -> TrainingScene:
    """A tile as a scene whose offset is everywhere the one that was measured in its middle."""
    bands, side = mined.optical[n], mined.sar_db.shape[-1]
    if len(bands) != 3:
        bands = np.repeat(np.rint(bands.mean(axis=0, keepdims=True)).astype(np.uint8), 3, axis=0)
    nodes = -(-side // LABEL_NODE_PX) + 1
    return TrainingScene(
        optical_rgb=bands,
        optical_valid=mined.optical_valid[n],
        sar_db=mined.sar_db[n],
        truth_px=np.broadcast_to(mined.offset_px[n][:, None, None], (2, nodes, nodes)).copy(),
        truth_step_px=float(LABEL_NODE_PX),
        centres_px=_middle((side, side)),
    )


def _middle(shape: tuple[int, ...]) -> FloatArray:
    """Middle of a tile, x, y as (1, 2)."""
    return np.array([[shape[1] / 2, shape[0] / 2]])
