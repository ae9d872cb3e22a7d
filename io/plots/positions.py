"""Positions of a series of scenes: what each pair alone says, and where the network puts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from crosstie.io.plots.style import FAINT, INK, figure_png, plain_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from crosstie.types import FloatArray

TRACK_COLOURS = ("#0f766e", "#b45309", "#4338ca", "#be123c")
"""Of tracks, in their order; dark enough for white paper."""


@dataclass(frozen=True, slots=True, eq=False)
class DrawnTrack:
    """Scenes of one track, N of them in order of time."""

    name: str
    label: tuple[str, ...]
    """Label of each scene below the axis."""
    pairs_px: tuple[FloatArray, ...]
    """Of each scene (k, 2): the offsets that its pairs measured, each alone."""
    position_px: FloatArray
    """(N, 2) adjusted."""
    sigma_px: FloatArray
    """(N, 2)"""


def positions_png(tracks: Sequence[DrawnTrack], *, title: str, caption: str) -> bytes:
    """Draw x above y: a dot for each pair alone, a mark with its 95 % bar for each adjusted scene.

    Parameters
    ----------
    tracks : Sequence[DrawnTrack]
        Tracks, each with a colour of its own.
    title, caption : str
        Texts above and below.
    """
    figure = Figure(figsize=(9.2, 5.6), dpi=110, facecolor="white")
    for row, (axis, name) in enumerate((("x", "columns, px"), ("y", "rows, px"))):
        ax = figure.add_subplot(2, 1, row + 1)
        for number, track in enumerate(tracks):
            _draw_track(ax, track, row, TRACK_COLOURS[number % len(TRACK_COLOURS)], number - 0.5)
        ax.set_ylabel(f"{axis}: {name}", fontsize=9, color=INK)
        ax.set_xticks(np.arange(len(tracks[0].label)), tracks[0].label)
        ax.grid(axis="y", linewidth=0.4, alpha=0.5)
        plain_ticks(ax)
        if row == 0:
            ax.set_title(title, fontsize=11, color=INK, loc="left")
            ax.legend(frameon=False, fontsize=8.5, ncols=4, loc="upper right")
    figure.text(0.01, 0.012, caption, fontsize=8, color=FAINT)
    figure.tight_layout(rect=(0, 0.035, 1, 1))
    return figure_png(figure)


def _draw_track(ax: Axes, track: DrawnTrack, axis: int, colour: str, side: float) -> None:
    at = np.arange(len(track.position_px)) + 0.16 * side
    for x, alone in zip(at, track.pairs_px, strict=True):
        ax.plot(np.full(len(alone), x), alone[:, axis], ".", color=colour, alpha=0.28, markersize=5)
    ax.errorbar(
        at, track.position_px[:, axis], 1.96 * track.sigma_px[:, axis], fmt="o", color=colour,
        markersize=4.5, linewidth=1.2, label=track.name,
    )  # fmt: skip
