"""Pictures of a training run: the losses, and the probabilities of offsets at held-out places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from crosstie.io.plots.overlay import stretched
from crosstie.io.plots.style import FAINT, INK, figure_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from crosstie.types import Plane

COLOURS = ("#0f766e", "#1d4ed8", "#b45309", "#7c3aed", "#be123c", "#4d7c0f")
TRUTH, FOUND = "#16a34a", "#f97316"
DPI = 100
SIDE_IN = 2.5
"""Side of one map, inches."""


class Shown(Protocol):
    """One template and how probable each offset is; `crosstie.matcher.training.examples.Example` is one."""

    @property
    def template(self) -> Plane: ...
    @property
    def search(self) -> Plane: ...
    @property
    def deep(self) -> Plane: ...
    @property
    def shallow(self) -> Plane: ...
    @property
    def combined(self) -> Plane: ...
    @property
    def truth_px(self) -> tuple[float, float]: ...
    @property
    def found_px(self) -> tuple[float, float]: ...


def curves_png(rows: Sequence[Mapping[str, str]]) -> bytes:
    """Draw the losses and the held-out figures of the rows of a `log.csv` over the steps, as PNG."""
    figure = Figure(figsize=(13, 4.2), dpi=DPI, facecolor="white")
    loss, share, median = figure.subplots(
        1, 3, gridspec_kw={"left": 0.05, "right": 0.985, "top": 0.88, "bottom": 0.13, "wspace": 0.2}
    )
    names = list(dict.fromkeys(name for row in rows for name in row))
    _draw(loss, rows, [n for n in names if n in ("loss", "unlabelled_loss")], "Loss (running mean)")
    _draw(
        share,
        rows,
        [n for n in names if n.startswith("cmr") or n == "pseudo_share"],
        "Held-out within 1, 2 px; pseudo-labels used",
    )
    share.set_ylim(-0.02, 1.02)
    _draw(median, rows, [n for n in names if n.startswith("median")], "Median error on held-out places, px")
    if any(line.get_xdata().size for line in median.lines):
        median.set_yscale("log")
        for axis in (median.yaxis.set_major_formatter, median.yaxis.set_minor_formatter):
            axis(FormatStrFormatter("%.2g"))
        median.tick_params(which="minor", labelsize=8.5, colors=FAINT)
    return figure_png(figure)


def heatmaps_png(title: str, examples: Sequence[Shown]) -> bytes:
    """Draw each example in a row: template, search with both answers, and the three probabilities, as PNG."""
    rows = len(examples)
    figure = Figure(figsize=(5 * SIDE_IN, rows * SIDE_IN + 1.0), dpi=DPI, facecolor="white")
    figure.text(0.01, 1 - 0.3 / figure.get_figheight(), title, size=12, weight="bold", color=INK, va="center")
    high = figure.get_figheight()
    axes: Any = figure.subplots(
        rows, 5, squeeze=False,
        gridspec_kw={"left": 0.01, "right": 0.99, "top": 1 - 0.85 / high, "bottom": 0.25 / high,
                     "wspace": 0.05, "hspace": 0.16},
    )  # fmt: skip
    heads = ("optical template", "SAR: true (green), found", "deep", "shallow", "both")
    for line, example in zip(axes, examples, strict=True):
        for ax in line:
            ax.set_xticks([])
            ax.set_yticks([])
        line[0].imshow(stretched(example.template), cmap="gray", vmin=0, vmax=1)
        _draw_search(line[1], example)
        for ax, surface in zip(line[2:], (example.deep, example.shallow, example.combined), strict=True):
            _draw_surface(ax, surface, example)
        error = float(np.hypot(*np.subtract(example.found_px, example.truth_px)))
        line[1].set_xlabel(f"{error:.2f} px off", size=8.5, color=FAINT, labelpad=2)
    for ax, head in zip(axes[0], heads, strict=True):
        ax.set_title(head, size=9.5, color=FAINT, loc="left", pad=4)
    return figure_png(figure)


def _draw(ax: Axes, rows: Sequence[Mapping[str, str]], names: Sequence[str], title: str) -> None:
    for n, name in enumerate(names):
        points = np.array([(float(row["step"]), float(row[name])) for row in rows if row.get(name)]).reshape(
            -1, 2
        )
        if len(points):
            marker = "o" if len(points) < 40 else ""
            ax.plot(
                *points.T,
                color=COLOURS[n % len(COLOURS)],
                label=name,
                marker=marker,
                markersize=3,
                linewidth=1.5,
            )
    ax.set_title(title, loc="left", size=10.5, weight="bold", color=INK)
    ax.set_xlabel("step", size=9, color=FAINT)
    if ax.lines:
        ax.legend(frameon=False, fontsize=8.5)
    ax.grid(color="#e2e8f0", linewidth=0.7)
    ax.tick_params(labelsize=8.5, colors=FAINT, length=2.5)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def _draw_search(ax: Axes, example: Shown) -> None:
    """The search area with the template's outline where it truly is and where it was found."""
    ax.imshow(stretched(example.search), cmap="gray", vmin=0, vmax=1)
    size = len(example.template)
    reach = (len(example.search) - size) / 2
    for (x, y), colour, style in ((example.truth_px, TRUTH, "-"), (example.found_px, FOUND, "--")):
        if np.isfinite([x, y]).all():
            corners = np.array([(0, 0), (size, 0), (size, size), (0, size), (0, 0)]) + reach - 0.5 + (x, y)
            ax.plot(*corners.T, color=colour, linestyle=style, linewidth=1.4)
    ax.set_xlim(-0.5, len(example.search) - 0.5)
    ax.set_ylim(len(example.search) - 0.5, -0.5)


def _draw_surface(ax: Axes, surface: Plane, example: Shown) -> None:
    reach = (len(surface) - 1) // 2
    extent = (-reach - 0.5, reach + 0.5, reach + 0.5, -reach - 0.5)
    # The logarithm: a sharp peak would leave all the rest black.
    ax.imshow(np.log10(np.maximum(surface, 1e-6)), cmap="magma", vmin=-6, vmax=0, extent=extent)
    for (x, y), colour, marker in ((example.truth_px, TRUTH, "+"), (example.found_px, FOUND, "x")):
        ax.plot([x], [y], marker=marker, color=colour, markersize=10, markeredgewidth=1.6)
    ax.set_xlim(extent[:2])
    ax.set_ylim(extent[2:])
