"""A picture of one experiment: a line a variant, a dot a mark, and how far the seeds are apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = {"cmr1": ("within 1 px", "#0f766e"), "cmr2": ("within 2 px", "#1d4ed8")}
FAINT = "#6b7480"
LINE_IN, MARGINS_IN, NAMES_IN, PANEL_IN = 0.28, 1.0, 2.6, 3.4


def draw_dots(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the shares of right tiles as PNG, a panel for each set of tiles; the first variant is on top.

    Parameters
    ----------
    rows : Sequence[dict[str, Any]]
        One a variant and seed: `variant`, and for each set of tiles `SET_cmr1` and `SET_cmr2`.
    """
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    sets = [name.removesuffix("_cmr1") for name in rows[0] if name.endswith("_cmr1")]
    size = (NAMES_IN + PANEL_IN * len(sets), MARGINS_IN + LINE_IN * len(variants))
    figure = Figure(figsize=size, dpi=110, facecolor="white", layout="constrained")
    panels = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, sets, strict=True):
        _draw(panel, rows, variants, name)
    panels[0].set_yticks(range(len(variants)), variants)
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    FigureCanvasAgg(figure).print_png(path)


def _draw(panel: Axes, rows: Sequence[dict[str, Any]], variants: Sequence[str], name: str) -> None:
    for mark, (label, colour) in MARKS.items():
        shares = [
            [100 * row[f"{name}_{mark}"] for row in rows if row["variant"] == variant] for variant in variants
        ]
        means = [float(np.mean(values)) for values in shares]
        places = range(len(variants))
        panel.axvline(means[0], color=colour, linewidth=0.8, linestyle=":")  # to compare the others with
        panel.hlines(places, [min(s) for s in shares], [max(s) for s in shares], color=colour, linewidth=2)
        panel.plot(means, places, "o", color=colour, label=label)
    place, size = name.rsplit("_", 1)
    panel.set_xlabel(f"{place}, tiles of {size} px: share, %", color=FAINT)
    panel.grid(axis="x", linewidth=0.4)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)
