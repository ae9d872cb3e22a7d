"""A contact sheet of tiles that were not found, to be looked at and explained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from trials import Trial

COLOURS = ("red", "orange", "magenta", "cyan", "yellow")
"""Of the methods, in order; green is the truth."""

ACROSS = 4
"""Tiles side by side, each with its window."""


def draw_misses(trials: Sequence[Trial], path: Path, *, miss_px: float) -> int:
    """Draw every tile that the first method missed: tile, and window with true and found positions.

    Returns
    -------
    int
        How many there were; no file is written where there were none.
    """
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    missed = [
        (trial, n)
        for trial in trials
        for n in np.flatnonzero(trial.error_px(next(iter(trial.measured))) > miss_px)
    ]
    if not missed:
        return 0
    down = -(-len(missed) // ACROSS)
    figure, axes = plt.subplots(down, 2 * ACROSS, figsize=(4.4 * ACROSS, 2.6 * down), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for position, (trial, n) in enumerate(missed):
        row, pair = divmod(position, ACROSS)
        _draw_miss(trial, int(n), axes[row, 2 * pair], axes[row, 2 * pair + 1])
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return len(missed)


def _draw_miss(trial: Trial, n: int, left: Axes, right: Axes) -> None:
    owners = [(site, k) for site in trial.sites for k in range(len(site.rows))]
    site, k = owners[n]
    size, search = trial.size_px, trial.search_px
    for axis, pixels in ((left, site.tile(k, size)), (right, site.window_db(k, size, search))):
        axis.imshow(pixels, cmap="gray", vmin=np.nanpercentile(pixels, 1), vmax=np.nanpercentile(pixels, 99))
    left.set_title(f"{site.place} {site.name}, {size} px", fontsize=7)
    boxes = [("green", site.truth_px[k])]
    words = []
    for colour, (method, measured) in zip(COLOURS, trial.measured.items(), strict=False):
        boxes.append((colour, measured.offset_px[n]))
        sure = "" if measured.confidence is None else f" ({measured.confidence[n]:.2f})"
        words.append(f"{method} {trial.error_px(method)[n]:.1f}{sure}")
    for colour, (dx, dy) in reversed(boxes):
        if np.isfinite(dx):
            corner = (search + dx - 0.5, search + dy - 0.5)
            right.add_patch(
                mpl.patches.Rectangle(corner, size, size, fill=False, edgecolor=colour, linewidth=1)
            )
    right.set_title("px off: " + ", ".join(words), fontsize=6)
